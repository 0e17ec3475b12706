// PROTOCOL.md, section 6.4, where the greeting offers AUTH: the sender's keys stand on a site card of the suite's own, so
// this needs PICKUP_PORT.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { expect, expectAlive, expectPlain } from "../lib/expect.mjs";
import { brief, faultsOfLimits } from "../lib/form.mjs";
import { check } from "../lib/tap.mjs";

async function prepare(t, options) {
	const origin = t.need(t.target.origin, "PICKUP_PORT"), session = await t.open(options);
	if (!(session.greeting.get("ext") ?? []).some((name) => name.toString() === "AUTH"))
		t.skip("AUTH is not offered");
	return { origin, session };
}

// The server may be fetching the card for another check just now: Z, and then it has it.
async function ask(session, args) {
	for (let i = 0; ; i++) {
		const reply = await session.ask("AUTH", args);
		if (brief(reply) !== "Z unverified-sender" || i === 50)
			return reply;
		await pause(200);
	}
}

// The arguments of a good AUTH, but for what is said otherwise.
function proof(t, origin, session, { key = "current", domain = origin.domain, server = t.target.domain, exporter, by = key } = {}) {
	const bound = exporter ?? session.socket.exportKeyingMaterial(32, "EXPORTER-dmtp");
	const said = Buffer.concat([Buffer.from("DMTP/1 auth\0"), bound, Buffer.from(domain), Buffer.from("\0"), Buffer.from(server)]);
	return { domain, key, signature: crypto.sign(null, said, origin.keys[by].privateKey) };
}

for (const [name, options] of Object.entries({ "TLS 1.3": { more: { minVersion: "TLSv1.3" } }, "TLS 1.2": { more: { maxVersion: "TLSv1.2" } }, STARTTLS: { mode: "starttls" } }))
	check("6.4", `a domain proves itself by its key (${name}): K with limits, and the session is verified`, async (t) => {
		const { origin, session } = await prepare(t, options);
		const reply = await ask(session, proof(t, origin, session));
		expect(reply, "K");
		assert.deepEqual(faultsOfLimits(reply[1]?.get("limits") ?? null), []);
		expectPlain(await session.ask("POST", await t.post()));
		expect(await session.ask("POST", await t.post({ from: t.target.other })), "E unverified-sender");
	});

const wrong = {
	"another session's exporter": { exporter: crypto.randomBytes(32) }, "another server's domain": { server: "elsewhere.example" }, "an unknown key": { key: "unknown", by: "current" },
	"another key's signature": { key: "current", by: "coming" }, "a retired key": { key: "retired" }, "a key that isn't valid yet": { key: "coming" },
};
for (const [name, change] of Object.entries(wrong))
	check("6.4", `AUTH with ${name}: E unverified-sender, the session goes on, unverified`, async (t) => {
		const { origin, session } = await prepare(t);
		expect(await ask(session, proof(t, origin, session, change)), "E unverified-sender");
		expect(await session.ask("POST", await t.post()), "E unverified-sender");
		await expectAlive(session);
	});

check("6.4", "two failures and a success: K", async (t) => {
	const { origin, session } = await prepare(t);
	for (let i = 0; i < 2; i++)
		expect(await ask(session, proof(t, origin, session, { exporter: Buffer.alloc(32) })), "E unverified-sender");
	expect(await ask(session, proof(t, origin, session)), "K");
});

check("6.4", "malformed by shape or by value is no failed proof: two failures beside three of each, and a success", async (t) => {
	const { origin, session } = await prepare(t);
	for (let i = 0; i < 3; i++) {
		expect(await session.ask("AUTH", { domain: origin.domain, key: "current" }), "E malformed");
		expect(await session.ask("AUTH", { ...proof(t, origin, session), signature: Buffer.alloc(63) }), "E malformed");
	}
	for (let i = 0; i < 2; i++)
		expect(await ask(session, proof(t, origin, session, { exporter: Buffer.alloc(32) })), "E unverified-sender");
	expect(await ask(session, proof(t, origin, session)), "K");
});

check("6.4", "the third failure is followed by X; a good one behind it fails too", async (t) => {
	const { origin, session } = await prepare(t);
	for (let i = 0; i < 3; i++)
		expect(await ask(session, proof(t, origin, session, { exporter: Buffer.alloc(32) })), "E unverified-sender");
	const next = await session.response();
	assert.equal(brief(next), "X");
	if (!session.closed) {
		session.send(["AUTH", proof(t, origin, session)], ["QUIT"]);
		const rest = await session.rest();
		assert.ok(!rest.slice(0, -1).includes("K"), rest.join(", "));
	}
});
