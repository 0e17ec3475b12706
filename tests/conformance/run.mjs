// Holds a DMTP server against PROTOCOL.md and prints TAP; README.md tells what it needs to know. Without HOST: our own.
import { Authority } from "./lib/authority.mjs";
import { Own } from "./lib/own.mjs";
import { run } from "./lib/tap.mjs";
import { Target } from "./lib/target.mjs";
import "./checks/time.mjs";
import "./checks/greeting.mjs";
import "./checks/encoding.mjs";
import "./checks/tls.mjs";
import "./checks/commands.mjs";
import "./checks/post.mjs";
import "./checks/channels.mjs";
import "./checks/extensions.mjs";
import "./checks/identity.mjs";
import "./checks/crowd.mjs";
import "./checks/responses.mjs";

const { env } = process;

async function foreign() {
	if (!env.PORT || !env.CERTS)
		throw new Error("HOST needs PORT (TLS from the first octet) and CERTS (a directory with ca.pem): see tests/conformance/README.md");
	const domains = [env.SENDER ?? "shop@shop.test", env.OTHER ?? "shop@rival.test"].map((address) => address.split("@")[1]);
	return new Target(env, new Authority(env.CERTS, ...domains));
}

const own = env.HOST ? null : await Own.start();
let failed = 1;
try {
	const target = own ? await own.target(env) : await foreign();
	try {
		({ failed } = await run(target, { only: env.ONLY ? new RegExp(env.ONLY) : null }));
	} finally {
		target.authority.remove();
	}
} finally {
	const log = own?.log;
	const code = await own?.stop();
	if (own && (code !== 0 || /runtime error:|Sanitizer|reply-twice|level=fatal|event=drain-timeout/.test(log))) {
		console.log(`# tmtpd ended with ${code}; its last lines:\n${log.split("\n").slice(-40).map((line) => `# ${line}`).join("\n")}`);
		failed++;
	}
}
process.exitCode = failed === 0 ? 0 : 1;
