// PROTOCOL.md, section 3, and the first two rows of "Bad input" in 5.3.
import { encode, Raw } from "../lib/bencode.mjs";
import { expect, expectAlive, expectAll, expectRest } from "../lib/expect.mjs";
import { check } from "../lib/tap.mjs";

// --- what is not canonical: E malformed in its place, X, the end ------------------------

const nested = (depth) => "l".repeat(depth) + "e".repeat(depth);

const wrong = {
	"an integer with a leading zero": "l4:NOOPi01ee",
	"minus zero": "l4:NOOPi-0ee",
	"minus and a leading zero": "l4:NOOPi-01ee",
	"an integer without digits": "l4:NOOPiee",
	"a minus without digits": "l4:NOOPi-ee",
	"two minuses": "l4:NOOPi--1ee",
	"a plus": "l4:NOOPi+1ee",
	"a space in an integer": "l4:NOOPi 1ee",
	"a fraction": "l4:NOOPi1.5ee",
	"an integer of 2^63": "l4:NOOPi9223372036854775808ee",
	"an integer of -2^63-1": "l4:NOOPi-9223372036854775809ee",
	"an integer of 2^64+1": "l4:NOOPi18446744073709551617ee",
	"an integer of a thousand digits": `l4:NOOPi${"1".repeat(1000)}ee`,
	"a length with a leading zero": "l04:NOOPe",
	"a length of two zeros": "l4:NOOP00:e",
	"a negative length": "l4:NOOP-1:e",
	"a length with a plus": "l+4:NOOPe",
	"a length without its colon": "l4NOOPe",
	"keys out of order": "l4:NOOPd1:b0:1:a0:ee",
	"keys out of order as octets": "l4:NOOPd1:\xff0:1:a0:ee",
	"a key behind one that it begins": "l4:NOOPd2:aa0:1:a0:ee",
	"a key twice": "l4:NOOPd1:a0:1:a0:ee",
	"the empty key twice": "l4:NOOPd0:0:0:0:ee",
	"a key that is an integer": "l4:NOOPdi1e0:ee",
	"a key that is a list": "l4:NOOPdle0:ee",
	"a key without a value": "l4:NOOPd1:aee",
	"nine containers": `l4:NOOP${nested(8)}e`,
	"nine containers, dictionaries among them": `l4:NOOP${"d0:".repeat(8)}${"e".repeat(8)}e`,
	"a thousand containers": nested(1000),
	"the end of nothing": "e",
	"an octet that begins nothing": "x",
	"NUL": "\0",
	"a line end between two elements": "\nl4:NOOPe",
	"a line of SMTP": "EHLO shop.test\r\n",
	"a request of HTTP": "GET / HTTP/1.1\r\n\r\n",
	"the letters in upper case": "L4:NOOPE",
};

for (const [name, octets] of Object.entries(wrong))
	check("3", `${name}: E malformed, X, the end; nothing behind it is read`, async (t) => {
		const session = await t.open();
		session.send(["NOOP"], octets, ["NOOP"]);
		await expectRest(session, ["K", "E malformed", "X"]);
	});

check("3", "octets that are not canonical are answered in their place, behind what is still being stored", async (t) => {
	const post = await t.post(), session = await t.verified();
	session.send(["POST", post], ["NOOP"], "l4:NOOPi-0ee", ["POST", await t.post()]);
	await expectRest(session, ["K", "K", "E malformed", "X"]);
});

check("3", "in plaintext too", async (t) => {
	const session = await t.open({ mode: "plain" });
	session.send("EHLO shop.test\r\n");
	await expectRest(session, ["E malformed", "X"]);
});

// --- what is canonical -------------------------------------------------------------------

const right = {
	"the least integer": "i-9223372036854775808e",
	"the greatest integer": "i9223372036854775807e",
	"zero": "i0e",
	"the empty string": "0:",
	"octets of any kind": "8:\x00\x0a\xff\x80e:1d",
	"eight containers": nested(7),
	"an empty dictionary": "de",
	"keys sorted as octets": "d0:i1e1:ai2e2:aai3e1:bi4e1:\x7fi5e1:\xffi6ee",
	"a long list": "l".padEnd(30001, "0:") + "e",
};

for (const [name, octets] of Object.entries(right))
	check("3", `${name}: read, and ignored where it says nothing`, async (t) => {
		const session = await t.open();
		expect(await session.ask("NOOP", new Raw(octets)), "K");
		await expectAlive(session);
	});

check("3", "an element may come octet by octet", async (t) => {
	const session = await t.open();
	for (const octet of encode(["NOOP", { key: [1, "two", {}] }])) {
		session.send(Buffer.from([octet]));
		await new Promise((resolve) => setImmediate(resolve));
	}
	expect(await session.reply(), "K");
});

check("3", "elements may come cut anywhere", async (t) => {
	const all = Buffer.concat([["NOOP"], ["HELLO", new Map([["a", -1]])], ["NOOP", [[]]]].map(encode));
	for (let cut = 1; cut < all.length; cut += 3) {
		const session = await t.open();
		session.send(all.subarray(0, cut));
		await new Promise((resolve) => setTimeout(resolve, 1));
		session.send(all.subarray(cut));
		expectAll(await session.replies(3), ["K", "E unknown-command", "K"]);
		session.close();
	}
});

// --- the limit ---------------------------------------------------------------------------

const filled = (length) => {
	const digits = String(length).length;
	const payload = length - "l4:NOOP".length - digits - ":e".length;
	const element = encode(["NOOP", Buffer.alloc(payload)]);
	return element.length === length ? element : encode(["NOOP", Buffer.alloc(payload + 1)]);
};

check("3", "an element of exactly the limit is read", async (t) => {
	const session = await t.open();
	session.send(filled(session.limits.command));
	expect(await session.reply(), "K");
});

check("3", "an element of one octet more: E too-large, X, the end", async (t) => {
	const session = await t.open();
	session.send(filled(session.limits.command + 1));
	await expectRest(session, ["E too-large", "X"]);
});

const early = {
	"a length": (limit) => `l4:NOOP${limit}:`,
	"a length and what must follow": (limit) => `l4:NOOP${limit - 7 - 6}:`,
	"digits of a length": (limit) => `l4:NOOP${limit}0`,
	"a length of twenty digits": () => "l4:NOOP99999999999999999999:",
	"a length in a dictionary": (limit) => `l4:POSTd4:from${limit}:`,
	"a key's length": (limit) => `l4:POSTd${limit}:`,
	"many small elements": (limit) => `l${"i1e".repeat(Math.ceil(limit / 3))}`,
};

for (const [name, octets] of Object.entries(early))
	check("3", `too long by ${name}: told as soon as it is sure`, async (t) => {
		const session = await t.open();
		session.send(octets(session.limits.command));
		await expectRest(session, ["E too-large", "X"]);
	});

check("3", "an element that is too long is answered in its place", async (t) => {
	const session = await t.verified();
	session.send(["POST", await t.post()], "l99999999:");
	await expectRest(session, ["K", "E too-large", "X"]);
});
