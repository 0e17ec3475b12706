// PROTOCOL.md, sections 6.2 and 5.4.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { encode } from "../lib/bencode.mjs";
import { expect, expectAll, expectAlive, expectFailed, expectPlain } from "../lib/expect.mjs";
import { show } from "../lib/bencode.mjs";
import { check } from "../lib/tap.mjs";
import { seconds } from "../lib/target.mjs";

const closed = "E channel-closed";
const unknown = () => crypto.randomBytes(20);

// A check that asks one POST. change: of its arguments, or a function of the session (and the check's helper).
function one(clause, name, change, wanted) {
	check(clause, name, async (t) => {
		const session = await t.verified();
		const more = typeof change === "function" ? await change(session, t) : change;
		const reply = await session.ask("POST", await t.post(more));
		if (wanted === "K")
			expectPlain(reply);
		else if (typeof wanted === "string")
			expect(reply, wanted);
		else
			expectFailed(reply, wanted);
		await expectAlive(session);
	});
}

// --- recipients -------------------------------------------------------------------------------------

one("6.2", "a grant: K", {}, "K");
one("6.2", "several grants of a channel: K", async (_, t) => ({ rcpts: [await t.grant(0), await t.grant(1)] }), "K");
one("6.2", "a grant with variables: K", async (_, t) => ({ rcpts: [[await t.grant(), { name: "Ann", order_17: "" }]] }), "K");
one("6.2", "a grant with an empty dictionary of variables: K", async (_, t) => ({ rcpts: [[await t.grant(), {}]] }), "K");
one("6.2", "grants with and without variables", async (_, t) => ({ rcpts: [await t.grant(0), [await t.grant(1), { name: "Ben" }]] }), "K");
one("6.2", "a recipient that stands twice counts once; both get the result (K)", async (_, t) => ({ rcpts: [await t.grant(), await t.grant()] }), "K");
one("6.2", "a recipient that stands twice: both fail", () => {
	const grant = unknown();
	return { rcpts: [grant, grant] };
}, [[0, closed], [1, closed]]);
one("6.2", "an unknown grant: K, failed names it", () => ({ rcpts: [unknown()] }), [[0, closed]]);
one("6.2", "failed counts from 0, in the order of rcpts", async (_, t) => ({ rcpts: [await t.grant(), unknown(), await t.grant(1), [unknown(), { name: "x" }]] }),
	[[1, closed], [3, closed]]);
one("6.2", "another sender's grant is closed", async (_, t) => ({ rcpts: [await t.otherGrant()] }), [[0, closed]]);
one("6.2", "a revoked grant is closed", (_, t) => ({ rcpts: [t.need(t.target.revoked, "REVOKED")] }), [[0, closed]]);
one("6.2", "a grant is useless to another sender of the same domain", (_, t) => ({ from: `somebody-else@${t.target.sender.split("@")[1]}` }), [[0, closed]]);
one("6.2", "an address whose inbox isn't open to the sender is closed", (_, t) => ({ rcpts: [[t.target.members[0] ?? `a@${t.target.domain}`, "inbox"]] }), [[0, closed]]);
one("6.2", "an unknown address is closed", (_, t) => ({ rcpts: [[`nobody-at-all@${t.target.domain}`, "inbox"]] }), [[0, closed]]);
one("6.2", "a foreign address is closed", { rcpts: [["ann@nowhere.example", "inbox"]] }, [[0, closed]]);
for (const address of ["", "ann", "@", "ann@", "@home.test", "a b@home.test", "ann@HOME.TEST", `${"a".repeat(65)}@home.test`, "ann\0@home.test"])
	one("6.2", `what is no address (${JSON.stringify(address.slice(0, 20))}) is closed`, { rcpts: [[address, "inbox"]] }, [[0, closed]]);
one("6.2", "octets that are no UTF-8, as an address, are closed", { rcpts: [[Buffer.from("\xff@home.test", "latin1"), "inbox"]] }, [[0, closed]]);
one("6.2", "an unknown channel is closed", (_, t) => ({ rcpts: [[t.target.members[0] ?? `a@${t.target.domain}`, "outbox"]] }), [[0, closed]]);
one("6.2", "the channel smtp, which isn't open, is closed", (_, t) => ({ rcpts: [[t.target.closed ?? `a@${t.target.domain}`, "smtp"]] }), [[0, closed]]);
one("6.2", "one address, two channels: both get their result", (_, t) => ({ rcpts: [[`nobody-at-all@${t.target.domain}`, "inbox"], [`Nobody-at-all@${t.target.domain}`, "smtp"]] }),
	[[0, closed], [1, closed]]);
const toInbox = (change) => (_, t) => ({ from: t.need(t.target.friend, "FRIEND"), rcpts: [[change(t.need(t.target.inbox, "INBOX")), "inbox"]] });
one("8", "an inbox that was opened to the sender by name takes its message: K", toInbox((address) => address), "K");
one("4", "the local part of a recipient's address is compared after lower-casing its ASCII letters", toInbox((address) => address.replace(/^./, (c) => c.toUpperCase())), "K");
one("4", "the local part of from is compared after lower-casing its ASCII letters", (_, t) => ({ from: t.target.sender.replace(/^./, (c) => c.toUpperCase()) }), "K");

check("6.2", "grants of several channels: those of one count, the others are closed", async (t) => {
	const session = await t.verified(), [member] = t.target.members;
	const held = (await session.ask("CHANNELS", { from: t.target.sender, users: [t.need(member, "MEMBERS")] }))[1].get("channels").get(member)
		.filter((channel) => channel.get("id").length === 20);
	if (held.length < 2)
		t.skip("the first member opened one channel only");
	const reply = await session.ask("POST", await t.post({ rcpts: held.map((channel) => channel.get("id")) }));
	expect(reply, "K");
	assert.deepEqual(reply[1].get("failed").map(([, letter, code]) => `${letter} ${code}`), Array(held.length - 1).fill(closed), show(reply));
});

check("6.2", "as many recipients as the limit, no two the same", async (t) => {
	const session = await t.verified(), { rcpts } = session.limits;
	const list = [await t.grant(), ...Array.from({ length: rcpts - 1 }, unknown)];
	expectFailed(await session.ask("POST", await t.post({ rcpts: list })), list.slice(1).map((_, i) => [i + 1, closed]));
});

// --- invite -------------------------------------------------------------------------------------------

const invitation = (address, more = {}) => ({ channel: "news", rcpts: [[address, "invite"]], ...more });
const invitable = (t) => t.target.invitations ? undefined : t.skip("invitations are off");

one("8", "an invitation: K", (_, t) => invitable(t) ?? invitation(t.target.closed ?? `somebody@${t.target.domain}`), "K");
one("8", "an invitation of nobody: K too", (_, t) => invitable(t) ?? invitation(`nobody-at-all@${t.target.domain}`), "K");
one("8", "an invitation to a channel that is held: K too", (_, t) => invitable(t) ?? invitation(t.target.members[0] ?? `a@${t.target.domain}`, { channel: t.target.channel }), "K");
check("8", "more invitations than anybody wants to see: K always", async (t) => {
	invitable(t);
	const session = await t.verified();
	for (let i = 0; i < 12; i++)
		expectPlain(await session.ask("POST", await t.post(invitation(t.target.closed ?? `somebody@${t.target.domain}`, { channel: `news-${i}` }))));
});
check("8", "while invitations are switched off: channel-closed for everybody", async (t) => {
	if (t.target.invitations && t.target.switchInvitations === null)
		t.skip("invitations are on");
	await t.target.switchInvitations?.(false);
	try {
		const session = await t.verified();
		for (const address of [t.target.members[0], `nobody-at-all@${t.target.domain}`])
			expectFailed(await session.ask("POST", await t.post(invitation(address))), [[0, closed]]);
	} finally {
		await t.target.switchInvitations?.(true);
	}
}, { last: true });
one("6.2", "an invitation without a channel: E malformed", { rcpts: [["ann@home.test", "invite"]] }, "E malformed");
for (const channel of ["", "News", "news letter", "n".repeat(31)])
	one("6.2", `an invitation to a channel that can't be one (${JSON.stringify(channel)}): E malformed`, invitation("ann@home.test", { channel }), "E malformed");

// --- values --------------------------------------------------------------------------------------------

for (const id of ["x", "~", " ", "a b", "x".repeat(64)])
	one("4", `an id of ${id.length} printable octets (${JSON.stringify(id.slice(0, 3))}): K`, () =>
		({ id: id.length < 64 ? undefined : crypto.randomBytes(32).toString("hex"), ...(id.length < 64 ? { id, digest: Buffer.alloc(32, id), size: 7 } : {}) }), "K");
for (const id of ["", "x".repeat(65), "a\n", "\x7f", "\x1f", "é", "a\0"])
	one("4", `an id that is none (${JSON.stringify(id.slice(0, 3))}, ${id.length}): E malformed`, { id }, "E malformed");

const month = 2_592_000, slack = 300;
one("6.2", "a date that is not quite 30 days old: K", () => ({ date: seconds() - month + slack }), "K");
one("6.2", "a date that is more than 30 days old: E malformed", () => ({ date: seconds() - month - slack }), "E malformed");
one("6.2", "a date that is not quite an hour ahead: K", () => ({ date: seconds() + 3600 - slack }), "K");
one("6.2", "a date that is more than an hour ahead: E malformed", () => ({ date: seconds() + 3600 + slack }), "E malformed");
for (const date of [0, -1, -(2n ** 63n), 2n ** 63n - 1n])
	one("6.2", `the date ${date}: E malformed`, { date }, "E malformed");

one("6.2", "a message of one octet: K", { size: 1 }, "K");
one("6.2", "a message of the limit: K", (session) => ({ size: session.limits.message }), "K");
one("6.2", "a longer message: E too-large", (session) => ({ size: session.limits.message + 1 }), "E too-large");
one("6.2", "a message of 2^63-1 octets: E too-large", { size: 2n ** 63n - 1n }, "E too-large");
for (const size of [0, -1, -(2n ** 63n)])
	one("6.2", `the size ${size}: E malformed`, { size }, "E malformed");
for (const length of [0, 31, 33])
	one("6.2", `a digest of ${length} octets: E malformed`, { digest: Buffer.alloc(length) }, "E malformed");

const uris = (count) => Array.from({ length: count }, (_, i) => `https://shop.test/m/${i}`);
one("6.2", "as many URIs as the limit: K", (session) => ({ uris: uris(session.limits.uris) }), "K");
one("6.2", "one more: E limit", (session) => ({ uris: uris(session.limits.uris + 1) }), "E limit");
one("6.2", "no URIs: E malformed", { uris: [] }, "E malformed");
one("6.2", "uris absent: E malformed", { uris: undefined }, "E malformed");
one("11", "a URI that can't be used is passed over when picking up, it isn't refused: K", { uris: ["ftp://shop.test/", "nonsense", "https://[/"] }, "K");
for (const uri of ["", "https://shop.test/ a", "https://shop.test/\na", "https://shop.test/\0", "https://shop.test/\x7f", "https://shop.test/\xff", "https://shop.test/\xc3\xa9"])
	one("6.2", `what can't be a URI (${JSON.stringify(uri)}): E malformed`, { uris: ["https://shop.test/m/x", Buffer.from(uri, "latin1")] }, "E malformed");

one("6.2", "no recipients: E malformed", { rcpts: [] }, "E malformed");
one("6.2", "one recipient more than the limit: E limit", (session) => ({ rcpts: Array.from({ length: session.limits.rcpts + 1 }, unknown) }), "E limit");
for (const length of [0, 19, 21, 32])
	one("6.2", `a grant of ${length} octets: E malformed`, { rcpts: [Buffer.alloc(length, 1)] }, "E malformed");
one("6.2", "two addresses: E malformed", (_, t) => ({ rcpts: [[`a@${t.target.domain}`, "inbox"], [`b@${t.target.domain}`, "inbox"]] }), "E malformed");

const recipients = {
	"an integer": 1, "a dictionary": { a: 1 }, "an empty list": [], "a grant alone in a list": [Buffer.alloc(20)], "an integer and a channel": [1, "inbox"],
	"an address and an integer": ["ann@home.test", 1], "an address and a list": ["ann@home.test", []], "a list in a list": [[Buffer.alloc(20)], {}],
	"an address and variables": ["ann@home.test", { name: "Ann" }], "a short grant and variables": [Buffer.alloc(19), {}],
};
for (const [name, rcpt] of Object.entries(recipients))
	one("6.2", `${name} as a recipient: E malformed`, async (_, t) => ({ rcpts: [await t.grant(), rcpt] }), "E malformed");

// --- variables ------------------------------------------------------------------------------------------

// A dictionary of one variable that is `length` octets long as encoded.
function variables(length) {
	const empty = encode({ v: "" }).length + 2;
	const found = { v: "x".repeat(length - empty) };
	return encode(found).length === length ? found : { v: "x".repeat(length - empty - 1) };
}
const withVariables = (dictionary) => async (_, t) => ({ rcpts: [[await t.grant(), dictionary]] });

one("6.2", "variables of 1024 octets: K", withVariables(variables(1024)), "K");
one("6.2", "variables of 1025 octets: E malformed", withVariables(variables(1025)), "E malformed");
one("6.2", "a variable's name of 30 octets: K", withVariables({ [`a_${"0".repeat(28)}`]: "x" }), "K");
for (const name of ["", "A", "a-b", "a b", "é", "a".repeat(31)])
	one("6.2", `a variable of the name ${JSON.stringify(name)}: E malformed`, withVariables({ [name]: "x" }), "E malformed");
for (const [name, value] of [["an integer", 1], ["a list", []], ["a dictionary", {}], ["no UTF-8", Buffer.from([0xff])]])
	one("6.2", `a variable that is ${name}: E malformed`, withVariables({ a: value }), "E malformed");
one("6.2", "a variable of any UTF-8: K", withVariables({ a: "<b>{{a}}</b> \u{1f600} \u0000" }), "K");

// --- optional keys ----------------------------------------------------------------------------------------

one("6.2", "key and signature: K, judged only at pickup", { key: "k1", signature: Buffer.alloc(64, 1) }, "K");
one("6.2", "key without signature: E malformed", { key: "k1" }, "E malformed");
one("6.2", "signature without key: E malformed", { signature: Buffer.alloc(64) }, "E malformed");
for (const length of [0, 63, 65])
	one("6.2", `a signature of ${length} octets: E malformed`, { key: "k1", signature: Buffer.alloc(length) }, "E malformed");
one("6.2", "expires ahead: K", () => ({ expires: seconds() + 1000 }), "K");
one("6.2", "replaces: K, also of what isn't known", { replaces: "not-known" }, "K");
one("6.2", "replaces something that is no id: E malformed", { replaces: "" }, "E malformed");
one("6.2", "recall: K, also of what isn't known", { recall: "not-known", uris: undefined }, "K");
one("6.2", "recall with an empty list of URIs: K", { recall: "not-known", uris: [] }, "K");
one("6.2", "recall with URIs: E malformed", { recall: "not-known" }, "E malformed");
one("6.2", "recall of something that is no id: E malformed", { recall: "x".repeat(65), uris: undefined }, "E malformed");
one("6.2", "recall and replaces: E malformed", { recall: "a", replaces: "b", uris: undefined }, "E malformed");
one("3", "unknown keys are ignored", { aaa: 1, zzz: [{ a: [] }], "": "" }, "K");

// --- shapes ------------------------------------------------------------------------------------------------

for (const key of ["from", "id", "date", "size", "digest", "rcpts"])
	check("5.3", `POST without ${key}: E malformed`, async (t) => {
		const session = await t.verified(), post = await t.post();
		delete post[key];
		expect(await session.ask("POST", post), "E malformed");
		await expectAlive(session);
	});

const types = { from: "s", id: "s", date: "i", size: "i", digest: "s", uris: "l", rcpts: "l", key: "s", signature: "s", channel: "s", expires: "i", replaces: "s", recall: "s" };
const samples = { s: "x", i: 1, l: ["x"], d: { a: 1 } };
for (const [key, type] of Object.entries(types))
	for (const [wrong, value] of Object.entries(samples).filter(([letter]) => letter !== type))
		check("5.3", `POST whose ${key} is ${{ s: "a string", i: "an integer", l: "a list", d: "a dictionary" }[wrong]}: E malformed`, async (t) => {
			const session = await t.verified();
			const post = await t.post({ ...(["key", "signature"].includes(key) ? { key: "k1", signature: Buffer.alloc(64) } : {}) });
			expect(await session.ask("POST", { ...post, [key]: value }), "E malformed");
			await expectAlive(session);
		});
for (const [name, value] of [["an integer", 1], ["a list", []], ["a dictionary", {}]])
	one("5.3", `${name} among the URIs: E malformed`, { uris: ["https://shop.test/m/x", value] }, "E malformed");

// --- repetition ---------------------------------------------------------------------------------------------

check("6.2", "the same again: K, in one pipeline and on another session", async (t) => {
	const post = await t.post(), session = await t.verified();
	session.send(["POST", post], ["POST", post], ["POST", post]);
	(await session.replies(3)).forEach(expectPlain);
	expectPlain(await (await t.verified()).ask("POST", post));
});

check("6.2", "the same on several sessions at once: K each", async (t) => {
	const post = await t.post(), sessions = await Promise.all(Array.from({ length: 4 }, () => t.verified()));
	for (const session of sessions)
		session.send(["POST", post]);
	for (const session of sessions)
		expectPlain(await session.reply());
});

check("6.2", "an id with another digest or size: E duplicate-conflict", async (t) => {
	const post = await t.post(), session = await t.verified();
	session.send(["POST", post], ["POST", { ...post, digest: crypto.randomBytes(32) }], ["POST", { ...post, size: 101 }], ["POST", post]);
	expectAll(await session.replies(4), ["K", "E duplicate-conflict", "E duplicate-conflict", "K"]);
	await expectAlive(session);
});

check("6.2", "an id with another from of the same domain, to whom somebody opened a channel: E duplicate-conflict", async (t) => {
	const post = await t.post(), session = await t.verified();
	session.send(["POST", post], ["POST", { ...post, from: t.need(t.target.friend, "FRIEND") }], ["POST", post]);
	expectAll(await session.replies(3), ["K", "E duplicate-conflict", "K"]);
});

check("6.2", "on another session too", async (t) => {
	const post = await t.post();
	expectPlain(await (await t.verified()).ask("POST", post));
	expect(await (await t.verified()).ask("POST", { ...post, size: 101 }), "E duplicate-conflict");
});

check("6.2", "signatures and variables aren't compared", async (t) => {
	const grant = await t.grant(), post = await t.post({ rcpts: [[grant, { a: "1" }]], key: "k1", signature: Buffer.alloc(64, 1) }), session = await t.verified();
	session.send(["POST", post], ["POST", { ...post, rcpts: [[grant, { a: "2" }]] }], ["POST", { ...post, key: "k2", signature: Buffer.alloc(64, 2) }],
		["POST", { ...post, rcpts: [grant], key: undefined, signature: undefined }]);
	(await session.replies(4)).forEach(expectPlain);
});

check("6.2", "an id is known for each recipient: the same notification for another one is K", async (t) => {
	const post = await t.post(), session = await t.verified();
	expectPlain(await session.ask("POST", post));
	expectPlain(await session.ask("POST", { ...post, rcpts: [await t.grant(0), await t.grant(1)] }));
});

check("6.2", "ids are kept with an accepted recipient: when all failed, the id is free", async (t) => {
	const post = await t.post({ rcpts: [unknown()] }), session = await t.verified();
	expectFailed(await session.ask("POST", post), [[0, closed]]);
	expectPlain(await session.ask("POST", { ...post, digest: crypto.randomBytes(32), rcpts: [await t.grant()] }));
});

check("6.2", "an id belongs to a domain: another domain's is another one", async (t) => {
	const post = await t.post(), theirs = await t.otherGrant();
	expectPlain(await (await t.verified()).ask("POST", post));
	const session = await t.open({ as: "other" });
	expectPlain(await session.ask("POST", { ...post, from: t.target.other, digest: crypto.randomBytes(32), rcpts: [theirs] }));
});

check("6.2", "expires in the past: K, and dropped: its id stays free", async (t) => {
	const post = await t.post(), session = await t.verified();
	session.send(["POST", { ...post, expires: seconds() - 1000 }], ["POST", { ...post, digest: crypto.randomBytes(32) }]);
	(await session.replies(2)).forEach(expectPlain);
});

check("6.2", "expires in the past with unknown recipients: K alike", async (t) => {
	const session = await t.verified();
	expectPlain(await session.ask("POST", await t.post({ rcpts: [unknown()], expires: 1 })));
});

// --- which code wins -------------------------------------------------------------------------------------------

check("5.4", "shape before TLS", async (t) => {
	const session = await t.open({ mode: "plain" });
	expect(await session.ask("POST", { ...await t.post(), id: 1 }), "E malformed");
});

check("5.4", "TLS before verification, counts and values", async (t) => {
	const session = await t.open({ mode: "plain" });
	expect(await session.ask("POST", await t.post({ size: 0, rcpts: Array.from({ length: session.limits.rcpts + 1 }, unknown) })), "E tls-required");
});

check("5.4", "shape before verification", async (t) => {
	const session = await t.open();
	expect(await session.ask("POST", { ...await t.post(), id: 1 }), "E malformed");
});

check("5.4", "verification before counts and values", async (t) => {
	const session = await t.open();
	session.send(["POST", await t.post({ rcpts: Array.from({ length: session.limits.rcpts + 1 }, unknown) })], ["POST", await t.post({ size: 0 })],
		["POST", await t.post({ digest: Buffer.alloc(1) })], ["POST", await t.post({ size: session.limits.message + 1 })]);
	expectAll(await session.replies(4), Array(4).fill("E unverified-sender"));
});

check("5.4", "counts before values", async (t) => {
	const session = await t.verified();
	session.send(["POST", await t.post({ uris: uris(session.limits.uris + 1), date: 0 })],
		["POST", await t.post({ size: 0, rcpts: Array.from({ length: session.limits.rcpts + 1 }, unknown) })]);
	expectAll(await session.replies(2), ["E limit", "E limit"]);
});

one("5.4", "values before too-large", (session) => ({ size: session.limits.message + 1, date: 0 }), "E malformed");
one("5.4", "too-large before expires", (session) => ({ size: session.limits.message + 1, expires: 1 }), "E too-large");
one("5.4", "values before expires", { id: "", expires: 1 }, "E malformed");

check("5.4", "expires before duplicate-conflict", async (t) => {
	const post = await t.post(), session = await t.verified();
	session.send(["POST", post], ["POST", { ...post, size: 101, expires: 1 }], ["POST", { ...post, size: 101 }]);
	expectAll(await session.replies(3), ["K", "K", "E duplicate-conflict"]);
});

check("5.4", "duplicate-conflict before the recipients", async (t) => {
	const post = await t.post(), session = await t.verified();
	session.send(["POST", post], ["POST", { ...post, size: 101, rcpts: [unknown()] }]);
	const replies = await session.replies(2);
	assert.deepEqual(replies.map((reply) => reply[1]?.get("code")?.toString()), [undefined, "duplicate-conflict"], show(replies));
});

// --- who ----------------------------------------------------------------------------------------------------------

for (const from of ["shop@elsewhere.example", "shop@www.shop.test", "shop@test", "shop@SHOP.TEST", "shop.test", "", "@", "shop@"])
	one("9", `from ${JSON.stringify(from)}, for which the session isn't verified: E unverified-sender`, { from }, "E unverified-sender");
for (const local of ["", "a b", "\0", "a".repeat(65)])
	one("4", `from ${JSON.stringify(local.slice(0, 5))} at the verified domain is no address: E malformed`, (_, t) => ({ from: `${local}@${t.target.sender.split("@")[1]}` }), "E malformed");
