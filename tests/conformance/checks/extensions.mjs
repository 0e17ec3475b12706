// PROTOCOL.md, sections 6.4 to 6.7: AUTH, GRANT, RECEIPT and PRESENCE, where the greeting offers them. The sender's domain plays the
// member's home server here.
import crypto from "node:crypto";
import { expect, expectAlive, expectAll, expectRest } from "../lib/expect.mjs";
import { brief } from "../lib/form.mjs";
import { check } from "../lib/tap.mjs";
import { seconds } from "../lib/target.mjs";

async function offering(t, verb, options) {
	const session = await t.open(options);
	if (!(session.greeting.get("ext") ?? []).some((name) => name.toString() === verb))
		t.skip(`${verb} is not offered`);
	return session;
}

for (const verb of ["AUTH", "GRANT", "RECEIPT", "PRESENCE"])
	check("5.1", `${verb} is known when ext says so, and unknown otherwise`, async (t) => {
		const session = await t.open();
		const offered = (session.greeting.get("ext") ?? []).some((name) => name.toString() === verb);
		expect(await session.ask(verb), offered ? "E malformed" : "E unknown-command");
		await expectAlive(session);
	});

// Shapes: each key absent, and each key of another type.
function shapes(clause, verb, make, types, optional = []) {
	check(clause, `${verb}: each argument must be there, and of its type`, async (t) => {
		const session = await offering(t, verb, { as: "sender" });
		let bad = 0, current = session;
		const ask = async (more, name) => {
			if (++bad % 15 === 0) {
				current.close();
				current = await t.verified();
			}
			const reply = await current.ask(verb, more);
			if (brief(reply) !== "E malformed")
				throw new Error(`${verb} with ${name}: ${brief(reply)} instead of E malformed`);
		};
		for (const [key, type] of Object.entries(types)) {
			if (!optional.includes(key))
				await ask({ ...make(t), [key]: undefined }, `${key} absent`);
			for (const [letter, value] of Object.entries({ s: "x", i: 1, l: ["x"], d: { a: 1 } }))
				if (letter !== type)
					await ask({ ...make(t), [key]: value }, `${key} of type ${letter}`);
		}
		await expectAlive(current);
	});
}

// --- GRANT ------------------------------------------------------------------------------------------------

const home = (t) => t.target.sender.split("@")[1];
const grant = (t, change = {}) => ({
	from: `member@${home(t)}`, to: t.target.site, channel: "daily", grant: crypto.randomBytes(20), state: "granted", receipts: 0, date: seconds(), ...change,
});

const accepted = {
	"granted": {}, "revoked": { state: "revoked" }, "refused, without a grant": { state: "refused", grant: undefined }, "granted, with receipts": { receipts: 1 },
	"granted, without the key receipts": { receipts: undefined }, "a channel that doesn't exist": { channel: "no-such" },
	"unknown keys": { aaa: [], zzz: 1 }, "a date that is not quite 30 days old": () => ({ date: seconds() - 2_592_000 + 300 }),
	"a date that is not quite an hour ahead": () => ({ date: seconds() + 3300 }),
};
for (const [name, change] of Object.entries(accepted))
	check("6.5", `GRANT: ${name}: K`, async (t) => {
		const session = await offering(t, "GRANT", { as: "sender" });
		expect(await session.ask("GRANT", grant(t, typeof change === "function" ? change() : change)), "K");
	});

check("6.5", "GRANT for a site that doesn't exist, or is foreign: K", async (t) => {
	const session = await offering(t, "GRANT", { as: "sender" });
	session.send(["GRANT", grant(t, { to: `no-such-site@${t.target.domain}` })], ["GRANT", grant(t, { to: "shop@nowhere.example" })]);
	expectAll(await session.replies(2), ["K", "K"]);
});

check("6.5", "GRANT twice, and an earlier date after a later one: K", async (t) => {
	const session = await offering(t, "GRANT", { as: "sender" }), one = grant(t);
	session.send(["GRANT", one], ["GRANT", one], ["GRANT", { ...one, state: "revoked", date: one.date + 1 }], ["GRANT", one]);
	expectAll(await session.replies(4), Array(4).fill("K"));
});

const refused = {
	"an unknown state": { state: "maybe" }, "a state in upper case": { state: "Granted" }, "refused with a grant": { state: "refused" },
	"granted without a grant": { grant: undefined }, "revoked without a grant": { state: "revoked", grant: undefined },
	"a grant of 19 octets": { grant: Buffer.alloc(19) }, "an empty grant": { grant: "" }, "receipts 2": { receipts: 2 }, "receipts -1": { receipts: -1 },
	"a channel in upper case": { channel: "Daily" }, "an empty channel": { channel: "" }, "a site that is no address": { to: "news" },
	"a date more than 30 days old": () => ({ date: seconds() - 2_592_000 - 300 }), "a date more than an hour ahead": () => ({ date: seconds() + 3900 }),
};
for (const [name, change] of Object.entries(refused))
	check("6.5", `GRANT with ${name}: E malformed`, async (t) => {
		const session = await offering(t, "GRANT", { as: "sender" });
		expect(await session.ask("GRANT", grant(t, typeof change === "function" ? change() : change)), "E malformed");
		await expectAlive(session);
	});

shapes("6.5", "GRANT", grant, { from: "s", to: "s", channel: "s", grant: "s", state: "s", receipts: "i", date: "i" }, ["receipts"]);

check("6.5", "GRANT for another domain's member: E unverified-sender", async (t) => {
	const session = await offering(t, "GRANT", { as: "sender" });
	session.send(["GRANT", grant(t, { from: "member@elsewhere.example" })], ["GRANT", grant(t, { from: t.target.members[0] ?? `a@${t.target.domain}` })]);
	expectAll(await session.replies(2), ["E unverified-sender", "E unverified-sender"]);
});

// --- RECEIPT ------------------------------------------------------------------------------------------------

const row = (change = {}) => {
	const { id, grant: number, kind, date } = { id: "id-1", grant: crypto.randomBytes(20), kind: "read", date: seconds(), ...change };
	return [id, number, kind, date];
};
const receipt = (t, events = [row()]) => ({ from: t.target.sender, to: t.target.site, events });

check("6.6", "RECEIPT: rows of unknown grants are ignored: K", async (t) => {
	const session = await offering(t, "RECEIPT", { as: "sender" });
	session.send(["RECEIPT", receipt(t)], ["RECEIPT", receipt(t, [row(), row({ kind: "withdrawn" })])], ["RECEIPT", receipt(t, [[...row(), "surplus"]])]);
	expectAll(await session.replies(3), ["K", "K", "K"]);
});

check("6.6", "RECEIPT for a site that doesn't exist: K", async (t) => {
	const session = await offering(t, "RECEIPT", { as: "sender" });
	expect(await session.ask("RECEIPT", { ...receipt(t), to: `no-such-site@${t.target.domain}` }), "K");
});

check("6.6", "RECEIPT: as many rows as rcpts: K; one more: E limit", async (t) => {
	const session = await offering(t, "RECEIPT", { as: "sender" }), rows = Array.from({ length: session.limits.rcpts + 1 }, () => row());
	session.send(["RECEIPT", receipt(t, rows.slice(1))], ["RECEIPT", receipt(t, rows)]);
	expectAll(await session.replies(2), ["K", "E limit"]);
});

const badRows = {
	"an unknown kind": row({ kind: "opened" }), "an id that is none": row({ id: "" }), "a grant of 19 octets": row({ grant: Buffer.alloc(19) }),
	"a date that is a string": row({ date: "now" }), "too few elements": row().slice(0, 3), "nothing": [], "a dictionary": { a: 1 }, "a string": "x",
};
for (const [name, bad] of Object.entries(badRows))
	check("6.6", `RECEIPT with a row of ${name}: E malformed`, async (t) => {
		const session = await offering(t, "RECEIPT", { as: "sender" });
		expect(await session.ask("RECEIPT", receipt(t, [row(), bad])), "E malformed");
		await expectAlive(session);
	});

shapes("6.6", "RECEIPT", receipt, { from: "s", to: "s", events: "l" });

check("6.6", "RECEIPT for another domain: E unverified-sender", async (t) => {
	const session = await offering(t, "RECEIPT", { as: "sender" });
	expect(await session.ask("RECEIPT", { ...receipt(t), from: "member@elsewhere.example" }), "E unverified-sender");
});

// --- PRESENCE -----------------------------------------------------------------------------------------------

const presence = (t, change = {}) => ({
	from: `member@${home(t)}`, rcpts: [crypto.randomBytes(20)], since: seconds(), state: "online", until: seconds() + 600, ...change,
});

const told = {
	"online, to a grant that there isn't": {}, "away": { state: "away" }, "offline, without until": { state: "offline", until: undefined },
	"since long ago": { state: "offline", since: 1, until: undefined }, "until what is past": () => ({ until: seconds() - 60 }),
	"a grant twice": () => ({ rcpts: Array(2).fill(crypto.randomBytes(20)) }), "unknown keys": { aaa: [], zzz: 1 },
	"a since that is not quite an hour ahead": () => ({ since: seconds() + 3300, until: seconds() + 3400 }),
	"an until that is not quite an hour ahead": () => ({ until: seconds() + 3300 }),
};
for (const [name, change] of Object.entries(told))
	check("6.7", `PRESENCE: ${name}: K`, async (t) => {
		const session = await offering(t, "PRESENCE", { as: "sender" });
		expect(await session.ask("PRESENCE", presence(t, typeof change === "function" ? change() : change)), "K");
	});

check("6.7", "PRESENCE to the grant of a site's channel, of another's, of one that was revoked: K, and nothing else is said", async (t) => {
	const session = await offering(t, "PRESENCE", { as: "sender" }), own = await t.grant(), { others } = await t.target.grants(t);
	const replies = [];
	for (const rcpts of [[own], [others[0] ?? own], [t.target.revoked ?? own]])
		replies.push(await session.ask("PRESENCE", presence(t, { rcpts })));
	expectAll(replies, Array(3).fill("K"));
	if (replies.some((reply) => reply.length > 1 && reply[1].size > 0))
		throw new Error("more than K was said");
});

const untold = {
	"an unknown state": { state: "busy" }, "a state in upper case": { state: "Online" }, "no recipients": { rcpts: [] },
	"a grant of 19 octets": { rcpts: [Buffer.alloc(19)] }, "an address instead of a grant": (t) => ({ rcpts: [t.target.members[0] ?? "a@b.example"] }),
	"a recipient that is a list": { rcpts: [[Buffer.alloc(20)]] },
	"online without until": { until: undefined }, "away without until": { state: "away", until: undefined }, "offline with until": { state: "offline" },
	"a since more than an hour ahead": () => ({ since: seconds() + 3900, until: seconds() + 3950 }),
	"an until more than an hour ahead": () => ({ until: seconds() + 3900 }), "a negative since": { since: -1 },
};
for (const [name, change] of Object.entries(untold))
	check("6.7", `PRESENCE with ${name}: E malformed`, async (t) => {
		const session = await offering(t, "PRESENCE", { as: "sender" });
		expect(await session.ask("PRESENCE", presence(t, typeof change === "function" ? change(t) : change)), "E malformed");
		await expectAlive(session);
	});

check("6.7", "PRESENCE: as many recipients as rcpts: K; one more: E limit", async (t) => {
	const session = await offering(t, "PRESENCE", { as: "sender" }), rcpts = Array.from({ length: session.limits.rcpts + 1 }, () => crypto.randomBytes(20));
	session.send(["PRESENCE", presence(t, { rcpts: rcpts.slice(1) })], ["PRESENCE", presence(t, { rcpts })]);
	expectAll(await session.replies(2), ["K", "E limit"]);
});

shapes("6.7", "PRESENCE", presence, { from: "s", rcpts: "l", since: "i", state: "s", until: "i" });

check("6.7", "PRESENCE for another domain's person: E unverified-sender", async (t) => {
	const session = await offering(t, "PRESENCE", { as: "sender" });
	expect(await session.ask("PRESENCE", presence(t, { from: "member@elsewhere.example" })), "E unverified-sender");
});

// --- AUTH -----------------------------------------------------------------------------------------------------

const nowhere = (t) => ({ domain: `nowhere.${home(t)}`, key: "k1", signature: crypto.randomBytes(64) });

shapes("6.4", "AUTH", nowhere, { domain: "s", key: "s", signature: "s" });

check("6.4", "AUTH for a domain without keys: E or Z unverified-sender; the session stays unverified, and goes on", async (t) => {
	const session = await offering(t, "AUTH");
	const reply = brief(await session.ask("AUTH", nowhere(t)));
	if (!["E unverified-sender", "Z unverified-sender"].includes(reply))
		throw new Error(reply);
	expect(await session.ask("POST", await t.post()), "E unverified-sender");
	await expectAlive(session);
});

check("6.4", "AUTH with a signature of 63 octets: E malformed", async (t) => {
	const session = await offering(t, "AUTH");
	expect(await session.ask("AUTH", { ...nowhere(t), signature: Buffer.alloc(63) }), "E malformed");
});
