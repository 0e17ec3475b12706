// Holds a DMTP server against PROTOCOL.md and prints TAP; README.md tells what it needs to know. Without HOST: our own.
import { Own } from "./lib/own.mjs";
import { Origin } from "./lib/origin.mjs";
import { run } from "./lib/tap.mjs";
import { Target } from "./lib/target.mjs";
import "./checks/vectors.mjs";
import "./checks/time.mjs";
import "./checks/greeting.mjs";
import "./checks/encoding.mjs";
import "./checks/tls.mjs";
import "./checks/commands.mjs";
import "./checks/post.mjs";
import "./checks/channels.mjs";
import "./checks/extensions.mjs";
import "./checks/auth.mjs";
import "./checks/identity.mjs";
import "./checks/pickup.mjs";
import "./checks/crowd.mjs";
import "./checks/responses.mjs";

const { env } = process;

if (env.HOST && !(env.PORT && env.CERTS)) {
	console.error("HOST needs PORT (TLS from the first octet) and CERTS (a directory with ca.pem): see tests/conformance/README.md");
	process.exit(2);
}
const own = env.HOST ? null : await Own.start();
let failed = 1;
try {
	const target = new Target(own ? { ...own.tell(), LONG: env.LONG } : env);
	target.partial = Boolean(env.ONLY);
	if (own)
		target.switchInvitations = (on) => own.restart("invitations", String(on));
	try {
		if (target.pickupPort !== null && target.authority.get("both") !== null)
			target.origin = await Origin.listen(target.pickupPort, target);
		({ failed } = await run(target, { only: env.ONLY ? new RegExp(env.ONLY) : null }));
	} finally {
		await target.origin?.close();
		target.authority.remove();
	}
} finally {
	const code = await own?.stop();
	if (own && (code !== 0 || /runtime error:|Sanitizer|reply-twice|level=fatal|event=drain-timeout/.test((own.earlier ?? "") + own.log))) {
		console.log(`# tmtpd ended with ${code}; its last lines:\n${own.log.split("\n").slice(-40).map((line) => `# ${line}`).join("\n")}`);
		failed++;
	}
}
process.exitCode = failed === 0 ? 0 : 1;
