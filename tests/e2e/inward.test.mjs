// The address rule for a message's own URI: its sender's site card comes from a public address and names a host that leads
// into our network. There is a public address only in a network namespace of the test's own, on its loopback device: so this
// file runs itself again there, and is skipped where nobody may make one. BUILD names the programs (build).
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Pair, root } from "./lib/appliance.mjs";
import { compose, Session } from "./lib/dmtp.mjs";
import { metric } from "./lib/http.mjs";
import { NameServer } from "./lib/nameserver.mjs";
import { Origin } from "./lib/origin.mjs";
import { freePorts, until } from "./lib/wait.mjs";

const PUBLIC = "198.51.101.10", INSIDE = "INWARD_INSIDE";
const within = ["--net", "sh", "-ec", `ip link set lo up; ip addr add ${PUBLIC}/32 dev lo; exec "$0" "$@"`];

// Why there is no such namespace; false when there is.
function refusal() {
	if (!root)
		return "it needs root";
	try {
		execFileSync("unshare", [...within, "true"], { stdio: "pipe", encoding: "utf8" });
		return false;
	} catch (error) {
		return String(error.stderr ?? "").trim() || error.message;
	}
}

function outside() {
	test("the address rule holds for a message's own URI too, when its sender's card is public and names the host", { skip: refusal() }, async () => {
		const { NODE_TEST_CONTEXT: _, ...env } = process.env;
		const child = spawn("unshare", [...within, process.execPath, fileURLToPath(import.meta.url)], { env: { ...env, [INSIDE]: "1" }, stdio: ["ignore", "pipe", "inherit"] });
		let told = "";
		child.stdout.setEncoding("utf8").on("data", (text) => { told += text; });
		const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
		assert.equal(code, 0, told);
		assert.match(told, /^# pass [1-9]/m, told);
	});
}

function inside() {
	describe("a message whose URI leads inward, of a sender whose card doesn't", () => {
		const its = new Pair(), from = "shop@card.test";
		let dns, origin, ann, identity, grant;

		before(async () => {
			const [port] = await freePorts(1);
			await its.start({ prepare: async (pair) => {
				dns = await NameServer.start(path.join(pair.dir, "dns"), port);
				pair.also(() => dns.stop());
				await dns.set(`card A ${PUBLIC}`, "inward A 127.0.0.1");
				// It would answer there, too.
				origin = await Origin.listen(pair.authority, ["card.test", "inward.test"], { host: "0.0.0.0", port: 443 });
				pair.also(() => origin.close());
				origin.cards["card.test"] = { hosts: ["inward.test"] };
				return { home: { relay: `nameservers = {"127.0.0.1:${port}"}`, routes: { "card.test": { public: true } } } };
			} });
			ann = await its.home.makeAccount("ann");
			await ann.do("PUT", `/v1/channels/${from}/orders`, {});
			grant = Buffer.from(await its.home.sql("SELECT encode(grant_id, 'hex') FROM tmtp.open_grant"), "hex");
			identity = its.authority.issue("card.test");
		});
		after(() => its.stop());

		async function announce(host, subject) {
			const session = new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, ...identity });
			const { octets, post } = compose({ from, to: `orders.${from}`, subject, uris: [], rcpts: [grant] });
			const uri = origin.put(host, octets);
			assert.deepEqual(await session.ask("POST", { ...post, uris: [uri] }), ["K"]);
			await session.close();
			return new URL(uri).pathname;
		}

		test("the card is fetched and the message is not: no connection is made for its URI, and the line says the host", async () => {
			await announce("card.test", "From a public address");
			await ann.has("From a public address");
			assert.equal(origin.count("card.test"), 1);
			const asked = origin.asked.length, line = its.home.now;
			await announce("inward.test", "From within");
			await its.home.line(/^event=pickup-failed .*sender=shop@card\.test .*host=inward\.test .*reason="blocked: no address of the host is public"/, line);
			await until("the count", async () => await metric(its.home.ports.homeMetrics, 'tmtp_notifications_refused_total{reason="address"}') === 1);
			assert.deepEqual(origin.asked.slice(asked), []);
			assert.equal((await ann.subjects()).includes("From within"), false);
		});
	});
}

if (process.env[INSIDE])
	inside();
else
	outside();
