// PROTOCOL.md, section 5.1.
import assert from "node:assert/strict";
import { expectAll, expectAlive, expectRest } from "../lib/expect.mjs";
import { faultsOfGreeting } from "../lib/form.mjs";
import { check } from "../lib/tap.mjs";

for (const mode of ["tls", "plain", "starttls"])
	check("5.1", `the server speaks first: a greeting of the right form (${mode})`, async (t) => {
		const { greeting } = await t.open({ mode });
		assert.deepEqual(faultsOfGreeting(greeting), []);
	});

check("5.1", "the extension verbs in ext are those that the specification knows, or others, each once", async (t) => {
	const ext = ((await t.open()).greeting.get("ext") ?? []).map(String);
	assert.equal(new Set(ext).size, ext.length);
	assert.ok(ext.every((verb) => !["STARTTLS", "POST", "CHANNELS", "NOOP", "QUIT"].includes(verb)), String(ext));
});

check("5.1", "STARTTLS is offered in plaintext, and not within TLS", async (t) => {
	assert.equal((await t.open({ mode: "plain" })).greeting.get("tls"), 1);
	assert.notEqual((await t.open({ mode: "starttls" })).greeting.get("tls"), 1);
	assert.notEqual((await t.open()).greeting.get("tls"), 1);
});

check("5.1", "on TLS commands may come before the greeting was read: 8 of them", async (t) => {
	const session = t.connect();
	await session.handshake;
	session.send(...Array.from({ length: 8 }, (_, i) => i % 2 ? ["NOOP"] : ["HELLO"]));
	await session.greet();
	expectAll(await session.replies(8), Array.from({ length: 8 }, (_, i) => i % 2 ? "K" : "E unknown-command"));
});

check("5.1", "as early: a command of 65536 octets, with 100 recipients and 4 URIs", async (t) => {
	const grant = await t.grant();
	const post = await t.post({ rcpts: Array.from({ length: 100 }, () => grant), uris: Array.from({ length: 4 }, (_, i) => `https://shop.test/m/${i}`) });
	const session = t.connect({ as: "sender" });
	await session.handshake;
	session.send(["POST", post], ["NOOP", Buffer.alloc(65536 - "l4:NOOP65522:e".length)]);
	await session.greet();
	expectAll(await session.replies(2), ["K", "K"]);
});

check("5.1", "STARTTLS may be sent in plaintext before the greeting was read", async (t) => {
	const session = t.connect({ mode: "plain" });
	session.send(["STARTTLS"]);
	await session.greet();
	expectAll(await session.replies(1), ["K"]);
	session.wrap();
	await session.handshake;
	await session.greet();
	await expectAlive(session);
});

check("5.1", "QUIT at once is answered behind the greeting, and the end follows", async (t) => {
	const session = t.connect();
	await session.handshake;
	session.send(["QUIT"]);
	await session.greet();
	await expectRest(session, ["K"]);
});
