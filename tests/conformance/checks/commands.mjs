// PROTOCOL.md, sections 5.3 and 6.1: shapes, verbs, order, NOOP, QUIT.
import assert from "node:assert/strict";
import { Raw } from "../lib/bencode.mjs";
import { expect, expectAll, expectAlive, expectRest } from "../lib/expect.mjs";
import { brief } from "../lib/form.mjs";
import { check } from "../lib/tap.mjs";

// --- shapes that no command has ---------------------------------------------------------------

const shapeless = {
	"an integer": "i1e", "a string": "4:NOOP", "a dictionary": "de", "a dictionary with a verb as key": "d4:NOOPdee", "an empty list": "le",
	"an integer as verb": "li1ee", "a list as verb": "ll4:NOOPee", "a dictionary as verb": "ldee",
};

for (const [name, octets] of Object.entries(shapeless))
	check("5.3", `${name} is no command: E malformed, and the session goes on`, async (t) => {
		const session = await t.open();
		session.send(octets, ["NOOP"]);
		expectAll(await session.replies(2), ["E malformed", "K"]);
	});

for (const verb of ["HELLO", "noop", "Noop", "NOOP ", "", "NOO", "NOOPS", "NOOP\0", "P\xd6ST", "X".repeat(1000)])
	check("5.3", `the verb ${JSON.stringify(verb.slice(0, 20))} is unknown: E unknown-command, and the session goes on`, async (t) => {
		const session = await t.open();
		session.send([Buffer.from(verb, "latin1")], [Buffer.from(verb, "latin1"), 1], ["NOOP"]);
		expectAll(await session.replies(3), ["E unknown-command", "E unknown-command", "K"]);
	});

for (const verb of ["POST", "CHANNELS"])
	for (const [name, more] of [["no arguments", []], ["a string as arguments", ["x"]], ["a list as arguments", [[]]], ["an integer as arguments", [1]]])
		check("5.3", `${verb} with ${name}: E malformed`, async (t) => {
			const session = await t.verified();
			expect(await session.ask(verb, ...more), "E malformed");
			await expectAlive(session);
		});

check("3", "surplus elements behind those of a command are ignored", async (t) => {
	const session = await t.verified();
	session.send(["POST", await t.post(), 1, ["x"], { y: 1 }], ["NOOP", {}, "x"], ["CHANNELS", { from: t.target.sender, users: [] }, []]);
	expectAll(await session.replies(3), ["K", "K", "K"]);
});

// --- twenty bad commands ----------------------------------------------------------------------

const bad = [new Raw("le"), ["HELLO"]];
const isBad = ["E malformed", "E unknown-command"];

check("5.3", "19 bad commands are answered, and the session goes on", async (t) => {
	const session = await t.open();
	for (let i = 0; i < 19; i++) {
		session.send(bad[i % 2]);
		expect(await session.reply(), isBad[i % 2]);
	}
	await expectAlive(session);
	assert.deepEqual(session.notes, []);
});

check("5.3", "the 20th is answered, X, the end; nothing behind it is read", async (t) => {
	const session = await t.open();
	for (let i = 0; i < 19; i++)
		session.send(bad[i % 2]);
	await session.replies(19);
	session.send(bad[1], ["NOOP"], bad[0], ["QUIT"]);
	await expectRest(session, [isBad[1], "X"]);
});

check("5.3", "good commands between them don't begin the count again", async (t) => {
	const session = await t.open();
	for (let i = 0; i < 19; i++)
		session.send(bad[i % 2], ["NOOP"]);
	assert.equal((await session.replies(38)).filter((reply) => brief(reply) === "K").length, 19);
	session.send(bad[0]);
	await expectRest(session, [isBad[0], "X"]);
});

check("5.3", "other refusals aren't bad commands, malformed values not either", async (t) => {
	const session = await t.open(), verified = await t.verified();
	for (let i = 0; i < 25; i++) {
		expect(await session.ask("POST", await t.post()), "E unverified-sender");
		expect(await verified.ask("POST", await t.post({ size: 0 })), "E malformed");
	}
	await expectAlive(session);
	await expectAlive(verified);
});

// --- order, and more commands than may be unanswered -------------------------------------------

check("5.3", "replies stand in the order of the commands, stored or not", async (t) => {
	const session = await t.verified(), commands = [], wanted = [];
	for (let i = 0; i < 6; i++) {
		commands.push(["POST", await t.post()], ["NOOP"], ["POST", await t.post({ size: 0 })], ["CHANNELS", { from: t.target.sender, users: [] }], ["HELLO"]);
		wanted.push("K", "K", "E malformed", "K", "E unknown-command");
	}
	session.send(...commands);
	expectAll(await session.replies(wanted.length), wanted);
});

check("5.3", "more commands than `pipeline` at once: the server reads on when it has answered; none fails", async (t) => {
	const session = await t.verified(), count = Math.min(20 * session.limits.pipeline, 2000), posts = [];
	for (let i = 0; i < count; i++)
		posts.push(["POST", await t.post()]);
	session.send(...posts);
	expectAll(await session.replies(count), Array(count).fill("K"));
	assert.deepEqual(session.notes, []);
});

check("5.3", "one command a segment, without waiting for replies", async (t) => {
	const session = await t.verified();
	for (let i = 0; i < 30; i++)
		session.send(i % 2 ? ["NOOP"] : ["POST", await t.post()]);
	expectAll(await session.replies(30), Array(30).fill("K"));
});

// --- NOOP and QUIT --------------------------------------------------------------------------------

check("6.1", "NOOPs in a row up to the limit: K; the next ones: E limit; another command ends the row", async (t) => {
	const session = await t.open(), { noops } = session.limits;
	session.send(...Array.from({ length: noops + 2 }, () => ["NOOP"]), ["HELLO"], ["NOOP"]);
	expectAll(await session.replies(noops + 4), [...Array(noops).fill("K"), "E limit", "E limit", "E unknown-command", noops > 0 ? "K" : "E limit"]);
});

check("6.1", "a command that is refused for its shape ends a row of NOOPs too", async (t) => {
	const session = await t.open(), { noops } = session.limits;
	session.send(...Array.from({ length: noops }, () => ["NOOP"]), new Raw("le"), ...Array.from({ length: noops }, () => ["NOOP"]));
	expectAll(await session.replies(2 * noops + 1), [...Array(noops).fill("K"), "E malformed", ...Array(noops).fill("K")]);
});

check("6.1", "QUIT: K, the end; nothing behind it is read", async (t) => {
	for (const mode of ["tls", "starttls", "plain"]) {
		const session = await t.open({ mode });
		session.send(["NOOP"], ["QUIT"], ["NOOP"], "i-0e");
		await expectRest(session, ["K", "K"]);
	}
});

check("6.1", "QUIT behind commands that are being stored: all are answered before it", async (t) => {
	const session = await t.verified(), { pipeline } = session.limits, posts = [];
	for (let i = 0; i < 2 * pipeline; i++)
		posts.push(["POST", await t.post()]);
	session.send(...posts, ["QUIT"]);
	await expectRest(session, Array(2 * pipeline + 1).fill("K"));
});

check("6.1", "QUIT under TLS 1.2", async (t) => {
	const session = await t.verified({ more: { maxVersion: "TLSv1.2" } });
	session.send(["POST", await t.post()], ["QUIT"]);
	await expectRest(session, ["K", "K"]);
});

// --- the end of the stream ------------------------------------------------------------------------

const atTheEnd = async (session, wanted) => {
	session.halfClose();
	await expectRest(session, wanted);
};

check("5.6", "at the end of the stream every complete command is answered (plaintext)", async (t) => {
	const session = await t.open({ mode: "plain" });
	session.send(["NOOP"], ["HELLO"]);
	await atTheEnd(session, ["K", "E unknown-command"]);
});

check("5.6", "also those that are being stored, and more than `pipeline` of them (TLS 1.3)", async (t) => {
	const session = await t.verified({ more: { minVersion: "TLSv1.3" } }), { pipeline } = session.limits, posts = [];
	for (let i = 0; i < 3 * pipeline; i++)
		posts.push(["POST", await t.post()]);
	session.send(...posts);
	await atTheEnd(session, Array(3 * pipeline).fill("K"));
});

check("5.6", "a command that isn't complete then is not answered", async (t) => {
	const session = await t.verified({ more: { minVersion: "TLSv1.3" } });
	session.send(["POST", await t.post()], "l4:NOOP");
	await atTheEnd(session, ["K"]);
});

check("5.6", "the end of the stream at once: closed", async (t) => {
	await atTheEnd(await t.open({ mode: "plain" }), []);
	await atTheEnd(await t.open({ more: { minVersion: "TLSv1.3" } }), []);
});

check("5.6", "a connection that is cut in a command leaves the server well", async (t) => {
	for (let i = 0; i < 5; i++) {
		const session = await t.verified();
		session.send(["POST", await t.post()], "l4:POSTd4:date");
		session.socket.destroy();
	}
	await expectAlive(await t.open());
});
