// PROTOCOL.md, section 6.3.
import { setTimeout as pause } from "node:timers/promises";
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { show } from "../lib/bencode.mjs";
import { expect, expectAlive, expectAll } from "../lib/expect.mjs";
import { faultsOfLimits } from "../lib/form.mjs";
import { check } from "../lib/tap.mjs";

// The users of an answer, and for each the [name, id] of its channels.
async function ask(session, from, users) {
	const reply = await session.ask("CHANNELS", { from, users });
	expect(reply, "K");
	assert.ok(reply[1]?.get("channels") instanceof Map, show(reply));
	return reply[1].get("channels");
}

// Keys as the codec gives them: one character an octet.
const key = (user) => Buffer.from(user).toString("latin1");

check("6.3", "users: what they hold open, each by its name, with the grant as id", async (t) => {
	const grant = await t.grant(), [member] = t.target.members;
	const channels = await ask(await t.verified(), t.target.sender, [t.need(member, "MEMBERS")]);
	const found = channels.get(member).find((channel) => channel.get("name").toString() === t.target.channel);
	assert.ok(found?.get("id").equals(grant), show(channels));
});

check("6.3", "a grant that CHANNELS named takes a POST", async (t) => {
	const session = await t.verified(), [member] = t.target.members;
	const [channel] = (await ask(session, t.target.sender, [t.need(member, "MEMBERS")])).get(member).filter((one) => one.get("id").length === 20);
	expect(await session.ask("POST", await t.post({ rcpts: [channel.get("id")] })), "K");
});

check("6.3", "every asked user is a key, as it was written; whoever is unknown looks like one who holds nothing open", async (t) => {
	const users = [`nobody-at-all@${t.target.domain}`, "ann@nowhere.example", t.target.closed ?? `somebody@${t.target.domain}`];
	const channels = await ask(await t.verified(), t.target.sender, users);
	assert.deepEqual([...channels.keys()].sort(), [...users].sort());
	assert.deepEqual([...channels.values()], [[], [], []]);
});

check("6.3", "in whatever letters it was written, each once", async (t) => {
	const [member] = t.target.members, upper = t.need(member, "MEMBERS").replace(/^[^@]*/, (local) => local.toUpperCase());
	const channels = await ask(await t.verified(), t.target.sender, [upper, member, upper]);
	assert.deepEqual([...channels.keys()].sort(), [upper, member].sort());
	assert.equal(show(channels.get(upper)), show(channels.get(member)));
});

check("6.3", "what is no address is a user who holds nothing open", async (t) => {
	const users = ["", "ann", "ann@HOME.TEST", "a b@home.test", "@"];
	const channels = await ask(await t.verified(), t.target.sender, users);
	assert.deepEqual([...channels.keys()].sort(), users.map(key).sort());
	assert.ok([...channels.values()].every((list) => list.length === 0), show(channels));
});

check("6.3", "octets of any kind as a user", async (t) => {
	const user = Buffer.from([0, 255, 64, 10]);
	const channels = await ask(await t.verified(), t.target.sender, [user]);
	assert.deepEqual([...channels.keys()], [user.toString("latin1")]);
});

check("6.3", "nobody asked: K with no channels", async (t) => {
	assert.equal((await ask(await t.verified(), t.target.sender, [])).size, 0);
});

check("6.3", "a revoked grant isn't named any more", async (t) => {
	const revoked = t.need(t.target.revoked, "REVOKED"), session = await t.verified();
	for (const list of (await ask(session, t.target.sender, t.target.members)).values())
		assert.ok(list.every((channel) => !channel.get("id").equals(revoked)));
});

check("6.3", "another sender is told its own grants, and nobody else's", async (t) => {
	const mine = await t.grant(), theirs = await t.otherGrant(), [member] = t.target.members;
	const session = await t.open({ as: "other" });
	const list = (await ask(session, t.target.other, [member])).get(member).map((channel) => channel.get("id").toString("hex"));
	assert.ok(list.includes(theirs.toString("hex")) && !list.includes(mine.toString("hex")));
	const stranger = (await ask(session, `somebody-else@${t.target.other.split("@")[1]}`, [member])).get(member);
	assert.deepEqual(stranger, []);
});

check("6.3", "as many users as rcpts: K; one more: E limit", async (t) => {
	const session = await t.verified(), users = Array.from({ length: session.limits.rcpts + 1 }, (_, i) => `nobody-${i}@${t.target.domain}`);
	assert.equal((await ask(session, t.target.sender, users.slice(1))).size, session.limits.rcpts);
	expect(await session.ask("CHANNELS", { from: t.target.sender, users }), "E limit");
	await expectAlive(session);
});

// --- since ------------------------------------------------------------------------------------------

check("6.3", "since: GRANT's dictionaries for this sender, in order, until there are none; next goes on from there", async (t) => {
	const grant = await t.grant(), session = await t.verified(), all = [];
	const wanted = () => all.some((event) => event.get("grant")?.equals(grant) && event.get("state").toString() === "granted");
	const end = Date.now() + 15_000; // what has just changed may come a little later, behind the same cursor
	for (let since = Buffer.alloc(0), round = 0; ; round++) {
		const reply = await session.ask("CHANNELS", { from: t.target.sender, since });
		expect(reply, "K");
		const events = reply[1].get("events");
		since = reply[1].get("next");
		assert.ok(Array.isArray(events) && events.length <= 1000 && since.length <= 64 && round < 1000, show(reply));
		if (events.length === 0 && (wanted() || Date.now() > end))
			break;
		if (events.length === 0)
			await pause(200);
		all.push(...events);
	}
	for (const event of all) {
		const state = event.get("state").toString();
		assert.ok(event instanceof Map && ["granted", "refused", "revoked"].includes(state), show(event));
		assert.equal(event.get("to").toString(), t.target.sender);
		assert.ok(["from", "channel"].every((name) => Buffer.isBuffer(event.get(name))) && typeof event.get("date") === "number", show(event));
		assert.equal(event.get("grant")?.length, state === "refused" ? undefined : 20, show(event));
		assert.ok([undefined, 0, 1].includes(event.get("receipts")), show(event));
	}
	assert.ok(wanted(), "the grant isn't among them");
	if (t.target.revoked)
		assert.ok(all.some((event) => event.get("grant")?.equals(t.target.revoked) && event.get("state").toString() === "revoked"), "the revoked one isn't");
});

check("6.3", "since: a sender of whom nobody knows has no events", async (t) => {
	const reply = await (await t.verified()).ask("CHANNELS", { from: `somebody-else@${t.target.sender.split("@")[1]}`, since: "" });
	expect(reply, "K");
	assert.deepEqual(reply[1].get("events"), []);
});

check("6.3", "since: a cursor of 65 octets, and one that the server never gave: E malformed", async (t) => {
	const session = await t.verified();
	session.send(["CHANNELS", { from: t.target.sender, since: "x".repeat(65) }], ["CHANNELS", { from: t.target.sender, since: crypto.randomBytes(9) }], ["NOOP"]);
	expectAll(await session.replies(3), ["E malformed", "E malformed", "K"]);
});

// --- what is wrong ------------------------------------------------------------------------------------

const wrong = {
	"both forms": { users: [], since: "" }, "neither form": {}, "users that is a string": { users: "x" }, "users that is a dictionary": { users: {} },
	"an integer among the users": { users: [1] }, "a list among the users": { users: [[]] }, "since that is an integer": { since: 1 }, "since that is a list": { since: [] },
};

for (const [name, more] of Object.entries(wrong))
	check("6.3", `CHANNELS with ${name}: E malformed`, async (t) => {
		const session = await t.verified();
		expect(await session.ask("CHANNELS", { from: t.target.sender, ...more }), "E malformed");
		await expectAlive(session);
	});

check("6.3", "CHANNELS without from, or with another type: E malformed", async (t) => {
	const session = await t.verified();
	session.send(["CHANNELS", { users: [] }], ["CHANNELS", { from: 1, users: [] }], ["CHANNELS", { from: [], since: "" }]);
	expectAll(await session.replies(3), Array(3).fill("E malformed"));
});

check("5.4", "CHANNELS: shape, verification, counts, values, in this order", async (t) => {
	const session = await t.verified(), stranger = await t.open(), users = Array(session.limits.rcpts + 1).fill("x");
	stranger.send(["CHANNELS", { from: t.target.sender }], ["CHANNELS", { from: t.target.sender, users }], ["CHANNELS", { from: t.target.sender, since: "x".repeat(65) }]);
	expectAll(await stranger.replies(3), ["E malformed", "E unverified-sender", "E unverified-sender"]);
	session.send(["CHANNELS", { from: `a b@${t.target.sender.split("@")[1]}`, users }], ["CHANNELS", { from: `a b@${t.target.sender.split("@")[1]}`, users: [] }]);
	expectAll(await session.replies(2), ["E limit", "E malformed"]);
});

check("5.1", "the limits of a verified session have the right form too", async (t) => {
	const session = await t.verified();
	assert.deepEqual(faultsOfLimits(session.greeting.get("limits") ?? new Map()), []);
});
