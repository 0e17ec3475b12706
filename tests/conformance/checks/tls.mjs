// PROTOCOL.md, section 5.2.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import crypto from "node:crypto";
import { encode } from "../lib/bencode.mjs";
import { expect, expectAlive, expectAll, expectPlain, expectRest } from "../lib/expect.mjs";
import { check } from "../lib/tap.mjs";

// --- TLS from the first octet ---------------------------------------------------------------

check("5.2", "TLS from the first octet with the ALPN name dmtp/1, which the server selects", async (t) => {
	assert.equal((await t.open()).socket.alpnProtocol, "dmtp/1");
	assert.equal((await t.open({ alpn: ["h2", "dmtp/1"] })).socket.alpnProtocol, "dmtp/1");
});

for (const [name, alpn] of [["no ALPN", null], ["another ALPN", ["h2"]], ["a longer ALPN name", ["dmtp/1.1"]], ["an upper-case ALPN name", ["DMTP/1"]]])
	check("5.2", `a handshake with ${name} is refused`, async (t) => {
		const session = t.connect({ alpn });
		await assert.rejects(session.handshake.then(() => session.greet()));
	});

for (const version of ["TLSv1.2", "TLSv1.3"])
	check("5.2", `${version} is spoken`, async (t) => {
		const session = await t.open({ more: { minVersion: version, maxVersion: version } });
		assert.equal(session.socket.getProtocol(), version);
		await expectAlive(session);
	});

check("5.2", "TLS 1.1 is refused", async (t) => {
	const session = t.connect({ more: { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" } });
	await assert.rejects(session.handshake);
});

check("5.2", "under TLS 1.2 a renegotiation is refused", async (t) => {
	const session = await t.open({ more: { maxVersion: "TLSv1.2" } });
	const error = await new Promise((resolve) => {
		session.ended.then(() => resolve("closed"));
		session.socket.renegotiate({}, resolve);
	});
	assert.ok(error, "a renegotiation was accepted");
});

// A session as OpenSSL writes it, without what newer versions of Node put before it.
function plainSession(ticket) {
	const at = ticket.findIndex((octet, i) => octet === 0x30 && ticket[i + 1] === 0x82 && i + 4 + ticket.readUInt16BE(i + 2) === ticket.length);
	assert.ok(at >= 0, "Node's session holds none of OpenSSL's");
	return ticket.subarray(at);
}

check("5.2", "no early data: tickets don't allow it", async (t) => {
	const session = t.connect({ more: { minVersion: "TLSv1.3" } });
	const tickets = [];
	session.socket.on("session", (ticket) => tickets.push(ticket));
	await session.greet();
	await expectAlive(session);
	for (const ticket of tickets) {
		const text = execFileSync("openssl", ["sess_id", "-inform", "DER", "-noout", "-text"], { input: plainSession(ticket), stdio: ["pipe", "pipe", "ignore"] }).toString();
		assert.match(text, /Max Early Data: 0\b/);
	}
});

for (const mode of ["tls", "starttls"])
	check("5.2", `the server's certificate is the recipient domain's: dNSName or SRV-ID, no wildcard, by a known authority (${mode})`, async (t) => {
		const session = await t.open({ mode });
		const pem = new crypto.X509Certificate(session.socket.getPeerCertificate().raw);
		const names = pem.subjectAltName ?? "";
		assert.ok(session.socket.authorized, String(session.socket.authorizationError));
		assert.ok(names.split(", ").includes(`DNS:${t.target.domain}`) || /_dmtps?\./.test(names), names);
	});

check("5.2", "octets that are no TLS end the connection on the port for TLS", async (t) => {
	const net = await import("node:net");
	const socket = net.connect(t.target.port, t.target.host);
	const got = [];
	socket.on("data", (octets) => got.push(octets)).on("error", () => {});
	socket.write("l4:NOOPe");
	await new Promise((resolve) => socket.on("close", resolve));
	const text = Buffer.concat(got).toString("latin1");
	assert.ok(!text.includes("4:dmtp") && !text.includes("l1:"), text);
});

// --- STARTTLS -----------------------------------------------------------------------------------

check("5.2", "STARTTLS: K, the handshake, a greeting once more", async (t) => {
	const session = await t.open({ mode: "starttls" });
	assert.ok(session.socket.encrypted);
	await expectAlive(session);
});

for (const [name, behind] of [["a command", encode(["NOOP"])], ["another STARTTLS", encode(["STARTTLS"])], ["one octet", Buffer.from("l")], ["the beginning of a handshake", Buffer.from([22, 3, 1])]])
	check("5.2", `STARTTLS with ${name} behind it: closed, without a reply`, async (t) => {
		const session = await t.open({ mode: "plain" });
		session.send(["STARTTLS"], behind);
		await expectRest(session, []);
	});

check("5.2", "what was asked before STARTTLS isn't answered either when octets stand behind it", async (t) => {
	const session = await t.open({ mode: "plain" });
	session.send(["STARTTLS"], ["POST", {}], ["QUIT"]);
	await expectRest(session, []);
});

check("5.2", "STARTTLS within TLS: E not-now, and the session goes on", async (t) => {
	for (const mode of ["tls", "starttls"]) {
		const session = await t.open({ mode });
		expect(await session.ask("STARTTLS"), "E not-now");
		await expectAlive(session);
	}
});

check("5.2", "a handshake that fails behind STARTTLS ends the connection", async (t) => {
	const session = await t.open({ mode: "plain" });
	expect(await session.ask("STARTTLS"), "K");
	session.send("this is no ClientHello, by no means");
	await session.ended;
	session.elements.length = 0;
});

for (const [name, options] of [["no ALPN", { alpn: null }], ["dmtp/1 among others", { alpn: ["h2", "dmtp/1"] }]])
	check("5.2", `after STARTTLS a handshake with ${name} will do`, async (t) => {
		await expectAlive(await t.open({ mode: "starttls", ...options }));
	});

check("5.2", "after STARTTLS a handshake with other ALPN names only is refused", async (t) => {
	const session = await t.open({ mode: "plain", alpn: ["h2"] });
	expect(await session.ask("STARTTLS"), "K");
	session.wrap();
	await assert.rejects(session.handshake);
});

check("5.2", "a name in SNI that is not the server's, or none, is answered: the client's check decides", async (t) => {
	await expectAlive(await t.open({ sni: "elsewhere.example" }));
	await expectAlive(await t.open({ sni: "" }));
});

// --- without TLS ----------------------------------------------------------------------------------

check("5.2", "in plaintext NOOP and QUIT are answered", async (t) => {
	const session = await t.open({ mode: "plain" });
	session.send(["NOOP"], ["QUIT"]);
	await expectRest(session, ["K", "K"]);
});

const grantArguments = (t) => ({
	from: `member@${t.target.sender.split("@")[1]}`, to: t.target.site, channel: "daily", grant: Buffer.alloc(20, 1), state: "granted",
	date: Math.floor(Date.now() / 1000),
});

check("5.2", "in plaintext POST and CHANNELS: E tls-required, and the session goes on", async (t) => {
	const session = await t.open({ mode: "plain" });
	session.send(["POST", await t.post()], ["CHANNELS", { from: t.target.sender, users: [] }], ["CHANNELS", { from: t.target.sender, since: "" }]);
	expectAll(await session.replies(3), ["E tls-required", "E tls-required", "E tls-required"]);
	await expectAlive(session);
});

check("5.2", "in plaintext the extension verbs: E tls-required (or unknown, when not offered)", async (t) => {
	const session = await t.open({ mode: "plain" });
	const commands = {
		AUTH: { domain: "shop.test", key: "k1", signature: Buffer.alloc(64) },
		GRANT: grantArguments(t),
		RECEIPT: { from: t.target.sender, to: t.target.site, events: [] },
		PRESENCE: { from: t.target.sender, rcpts: [Buffer.alloc(20)], since: 1, state: "offline" },
	};
	for (const [verb, more] of Object.entries(commands)) {
		const offered = (session.greeting.get("ext") ?? []).some((name) => name.toString() === verb);
		expect(await session.ask(verb, more), offered ? "E tls-required" : "E unknown-command");
	}
});

check("5.2", "after STARTTLS the client's certificate counts", async (t) => {
	const session = await t.verified({ mode: "starttls" });
	expectPlain(await session.ask("POST", await t.post()));
});
