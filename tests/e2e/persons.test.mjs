// Person to person (the seed IMTP): invited, accepted, written to, read live and after absence; between two
// appliances and within one. Neither runs a website: `relay` and `home` are all that persons need.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Homes } from "./lib/persons.mjs";
import { compose, Session } from "./lib/dmtp.mjs";
import { metric, request } from "./lib/http.mjs";
import { until } from "./lib/wait.mjs";

const problem = (answer, status, type) => {
	assert.equal(answer.status, status, answer.text);
	assert.equal(answer.json.type, `urn:tmtp:problem:${type}`);
	return answer.json;
};

describe("persons of two homes", () => {
	let homes, number = 0;
	before(async () => { homes = await new Homes().start(); });
	after(() => homes?.stop());

	// Fresh ones for each test, so that none depends on another. Invitations of strangers are bounded by their domain
	// (one unanswered a member), so each test has its own bob.
	const ann = () => homes.person("a", `ann${++number}`), bob = () => homes.person("b", `bob${++number}`);
	const pair = async () => {
		const a = await ann(), b = await bob();
		await homes.pair(a, b);
		return [a, b];
	};

	it("ann invites bob, he accepts, both write and read it live", async () => {
		const a = await ann(), b = await bob();
		const invited = await a.invite(b, "We met at the fair");
		assert.equal(invited.state, "invited");
		assert.equal(invited.can_write, false);
		await b.asked(a);
		// The words come only with the single invitation.
		assert.deepEqual(Object.keys((await b.get("/v1/invitations"))[0]).sort(), ["asked", "channel", "from"]);
		await until("the words", async () => (await b.get(`/v1/invitations/${a.address}/inbox`)).words === "We met at the fair");
		const watchA = await a.watch();
		await b.say(a, "accept");
		await a.state(b, "contact");
		await b.state(a, "contact");
		await until("the event that bob is a contact", () => watchA.events.find((e) => e.event === "contact" && e.data.address === b.address));

		const watch = await b.watch();
		const id = await a.write(b, "Hello {{bob}}, are you there?");
		const event = await until("the entry", () => watch.events.find((e) => e.event === "entry"));
		assert.equal(event.data.from, a.address);
		assert.equal(event.data.channel, "inbox");
		assert.equal(event.data.text, "Hello {{bob}}, are you there?");
		await a.becomes(b, id, "delivered");
		await until("the event of her other devices", () => watchA.events.find((e) => e.event === "sent" && e.data.id === id));
		await b.write(a, "Yes.", { subject: "Here" });
		assert.equal((await a.has(b, "Yes.")).subject, "Here");
		for (const [who, other] of [[a, b], [b, a]])
			assert.deepEqual(await who.texts(other), ["Hello {{bob}}, are you there?", "Yes."]);
		// It is in the inbox as any entry is, and its text is as it was written.
		const entry = (await b.get("/v1/inbox")).entries[0];
		assert.equal((await b.get(`/v1/inbox/${entry.id}`)).fields.message[0].text, "Hello {{bob}}, are you there?");
		watch.close();
		watchA.close();
	});

	it("nobody is written to before both said yes", async () => {
		const a = await ann(), b = await bob();
		const write = (who, other) => who.call("POST", who.path(other, "/messages"), { message: "x" });
		assert.match(problem(await write(a, b), 409, "not-a-contact").detail, /Invite this person first/);
		await a.invite(b);
		assert.match(problem(await write(a, b), 409, "not-a-contact").detail, /not accepted your invitation yet/);
		await b.asked(a);
		assert.match(problem(await write(b, a), 409, "not-a-contact").detail, /asks to be your contact/);
		assert.equal(await homes.a.number(`SELECT count(*) FROM tmtp.message WHERE recipient = '${b.address}'`), 0);
		// Opening one's own inbox is no permission to write to theirs.
		await a.say("nobody@b.test", "accept");
		assert.match(problem(await write(a, "nobody@b.test"), 409, "not-a-contact").detail, /not said yet that you may write/);
	});

	it("a refusal is final", async () => {
		const a = await ann(), b = await bob();
		await a.invite(b);
		await b.asked(a);
		await b.say(a, "refuse");
		await a.state(b, "refused");
		const again = await a.call("POST", "/v1/contacts", { address: b.address });
		problem(again, 409, "contact-refused");
		problem(await a.call("POST", a.path(b, "/messages"), { message: "x" }), 409, "not-a-contact");
		assert.deepEqual((await b.get("/v1/contacts")).contacts, []);
		// He may still begin it himself; she had asked, and need not say yes again.
		await b.invite(a);
		await b.state(a, "contact");
		await a.state(b, "contact");
		await b.write(a, "Changed my mind");
		await a.has(b, "Changed my mind");
	});

	it("both invite each other: one yes is enough", async () => {
		const a = await ann(), b = await bob();
		homes.dmtp.a.hold("up");
		homes.dmtp.b.hold("up");
		await Promise.all([a.invite(b), b.invite(a)]);
		homes.dmtp.a.release();
		homes.dmtp.b.release();
		await a.asked(b);
		await b.asked(a);
		// Inviting who asks is accepting.
		const { status, json } = await a.call("POST", "/v1/contacts", { address: b.address });
		assert.equal(status, 200, JSON.stringify(json));
		await a.state(b, "contact");
		await b.state(a, "contact");
	});

	it("waits while bob is away, and shows what he missed when he returns", async () => {
		const [a, b] = await pair();
		const first = await b.watch();
		await a.write(b, "one");
		const seen = await until("the first", () => first.events.find((e) => e.event === "entry"));
		first.close();
		const ids = [await a.write(b, "two"), await a.write(b, "three")];
		for (const id of ids)
			await a.becomes(b, id, "delivered");
		await b.has(a, "three");
		const back = await b.watch(seen.id);
		await until("what he missed", () => back.events.filter((e) => e.event === "entry").length === 2);
		assert.deepEqual(back.events.filter((e) => e.event === "entry").map((e) => e.data.text), ["two", "three"]);
		back.close();
	});

	it("a home that is gone gets everything, in order and once, when it is back", async () => {
		const [a, b] = await pair();
		homes.dmtp.b.refuse();
		const texts = Array.from({ length: 20 }, (_, i) => `message ${i}`), ids = [];
		for (const text of texts)
			ids.push(await a.write(b, text));
		assert.equal((await a.status(b, ids[0])).state, "waiting");
		await homes.a.killRole("home"); // what was accepted is in the database
		homes.dmtp.b.restore();
		for (const id of ids)
			await a.becomes(b, id, "delivered");
		await until(async () => `all of them: ${await b.texts(a)}`, async () => (await b.texts(a)).length === texts.length);
		assert.deepEqual(await b.texts(a), texts);
		assert.deepEqual(await a.texts(b), texts);
	});

	it("a lost session and a repeated request make no double", async () => {
		const [a, b] = await pair();
		const send = (message, key) => a.call("POST", a.path(b, "/messages"), { message }, { "Idempotency-Key": key });
		homes.dmtp.b.hold("down"); // b commits, and its answers are lost
		const first = await send("only once", "k-1");
		assert.equal(first.status, 202);
		await b.has(a, "only once");
		homes.dmtp.b.cut();
		homes.dmtp.b.release();
		await a.becomes(b, first.json.id, "delivered");
		const again = await send("only once", "k-1");
		assert.equal(again.status, 202);
		assert.equal(again.headers["idempotency-replayed"], "true");
		assert.equal(again.json.id, first.json.id);
		problem(await send("something else", "k-1"), 422, "idempotency-mismatch");
		assert.deepEqual(await b.texts(a), ["only once"]);
		assert.deepEqual(await a.texts(b), ["only once"]);
		// The same answer even when she may write no longer.
		await a.say(b, "block");
		assert.equal((await send("only once", "k-1")).json.id, first.json.id);
		problem(await send("another", "k-2"), 409, "not-a-contact");
	});

	it("blocking and letting go end it at once, on both sides; inviting brings it back", async () => {
		const [a, b] = await pair();
		await b.say(a, "block");
		assert.equal((await b.now(a)).state, "blocked");
		problem(await b.call("POST", b.path(a, "/messages"), { message: "x" }), 409, "not-a-contact");
		await a.state(b, "refused");
		problem(await a.call("POST", a.path(b, "/messages"), { message: "x" }), 409, "not-a-contact");
		problem(await a.call("POST", "/v1/contacts", { address: b.address }), 409, "contact-refused");
		// Hers still stands: he wants her back, and it is as before.
		const back = await b.call("POST", "/v1/contacts", { address: a.address });
		assert.equal(back.status, 200, back.text);
		await b.state(a, "contact");
		await a.state(b, "contact");
		await a.write(b, "again");
		await b.has(a, "again");
		// Let go: not listed any more, and nothing comes through.
		assert.equal((await b.call("DELETE", b.path(a))).status, 204);
		assert.equal((await b.call("GET", b.path(a))).status, 404);
		assert.equal((await b.call("DELETE", b.path(a))).status, 404);
		assert.deepEqual((await b.get("/v1/contacts")).contacts, []);
		await a.state(b, "refused");
		assert.deepEqual(await b.texts(a), ["again"]); // what was said stays
	});

	it("an invitation that was taken back opens nothing", async () => {
		const a = await ann(), b = await bob();
		await a.invite(b);
		await b.asked(a);
		assert.equal((await a.call("DELETE", a.path(b))).status, 204);
		await homes.a.sqlUntil(`NOT EXISTS (SELECT FROM tmtp.grant_outbox)`);
		await b.say(a, "accept");
		await homes.b.sqlUntil(`NOT EXISTS (SELECT FROM tmtp.grant_outbox)`);
		assert.equal((await a.now(b)).state, "none");
		problem(await b.call("POST", b.path(a, "/messages"), { message: "x" }), 409, "not-a-contact");
		problem(await a.call("POST", a.path(b, "/messages"), { message: "x" }), 409, "not-a-contact");
		// Asking again is a yes of hers, and his still stands.
		assert.equal((await a.call("POST", "/v1/contacts", { address: b.address })).status, 200);
		await a.state(b, "contact");
		await b.state(a, "contact");
	});

	it("pages a conversation of both directions, each with nobody else", async () => {
		const [a, b] = await pair(), other = await bob();
		await homes.pair(a, other);
		for (let i = 0; i < 7; i++) {
			const id = i % 2 === 0 ? await a.write(b, `m${i}`) : await b.write(a, `m${i}`);
			await (i % 2 === 0 ? a.becomes(b, id, "delivered") : b.becomes(a, id, "delivered"));
			await (i % 2 === 0 ? b.has(a, `m${i}`) : a.has(b, `m${i}`));
		}
		const foreign = await a.write(other, "for another");
		await other.has(a, "for another");
		for (const who of [a, b]) {
			const all = await who.conversation(who === a ? b : a, 3);
			assert.deepEqual(all.map((m) => m.text), ["m6", "m5", "m4", "m3", "m2", "m1", "m0"]);
			assert.deepEqual(all.map((m) => m.from === who.address), all.map((_, i) => (who === a) === (i % 2 === 0)));
			assert.ok(all.every((m) => m.from === who.address ? m.sent && m.state === "delivered" : m.arrived));
		}
		assert.equal((await a.call("GET", a.path(b, `/messages/${foreign}`))).status, 404);
		assert.equal((await other.call("GET", other.path(a, `/messages/${foreign}`))).status, 404);
		const entry = (await b.get("/v1/inbox")).entries[0];
		assert.equal((await b.call("POST", `/v1/inbox/${entry.id}/read`)).status, 204);
		assert.notEqual((await b.conversation(a))[0].read, null);
		assert.equal((await b.call("DELETE", `/v1/inbox/${entry.id}`)).status, 204);
		assert.equal((await b.conversation(a)).length, 6);
		assert.equal((await a.conversation(b)).length, 7);
	});

	it("is picked up from the writer's own domain, by who knows the digest", async () => {
		const [a, b] = await pair();
		const id = await a.write(b, "picked up");
		await b.has(a, "picked up");
		const uri = await homes.b.sql(`SELECT uris FROM tmtp.notification WHERE only_account = (SELECT account_id FROM tmtp.account WHERE name = '${b.address.split("@")[0]}')`);
		const url = new URL(uri);
		assert.equal(url.host, `a.test:${homes.a.ports.members}`);
		const fetch = (target) => request(homes.a.members, "GET", target, { agent: homes.a.agent });
		const found = await fetch(url.pathname);
		assert.equal(found.status, 200);
		assert.match(found.text, /picked up/);
		assert.match(found.headers["cache-control"], /^private/);
		const last = url.pathname.at(-1);
		assert.equal((await fetch(url.pathname.replace(/.$/, last === "a" ? "i" : "a"))).status, 404);
		assert.equal((await fetch(url.pathname.replace(id, crypto.randomUUID()))).status, 404);
		assert.equal((await fetch(`${url.pathname}/x`)).status, 404);
		await homes.a.sql(`UPDATE tmtp.message SET recalled_at = now() WHERE message_id = '${id}'`);
		assert.equal((await fetch(url.pathname)).status, 410);
	});

	it("within one home it goes the same way", async () => {
		const a = await ann(), z = await ann();
		await homes.pair(a, z);
		const watch = await z.watch();
		await a.write(z, "neighbour");
		await until("it", () => watch.events.find((e) => e.event === "entry" && e.data.text === "neighbour"));
		watch.close();
		// Of one's own home several may ask at once.
		const x = await ann(), y = await ann();
		await x.invite(z);
		await y.invite(z);
		await z.asked(x);
		await z.asked(y);
	});

	it("of another home one question waits at a time", async () => {
		const b = await bob(), first = await ann(), second = await ann();
		await first.invite(b);
		await b.asked(first);
		await second.invite(b);
		await homes.a.sqlUntil(`NOT EXISTS (SELECT FROM tmtp.batch WHERE state = 0)`);
		assert.deepEqual((await b.get("/v1/contacts")).contacts.map((c) => c.address), [first.address]);
	});

	it("refuses what isn't right, and says what", async () => {
		const [a, b] = await pair();
		const send = (body, headers) => a.call("POST", a.path(b, "/messages"), body, headers);
		for (const [body, type] of [[{}, "missing-field"], [{ message: "" }, "invalid-value"], [{ message: 1 }, "invalid-value"],
			[{ message: "x", to: "y" }, "unknown-field"], [{ message: "x\u0000" }, "malformed-json"], [{ message: "x\u001b" }, "invalid-value"],
			[{ message: "x".repeat(65537) }, "invalid-value"], [{ message: "x", subject: "a\nb" }, "invalid-value"],
			[{ message: "x", lang: "-" }, "invalid-value"], [{ message: "x", expires: 59 }, "invalid-value"], ["{", "malformed-json"]])
			problem(await send(body), 400, type);
		problem(await send({ message: "x" }, { "Idempotency-Key": "x".repeat(129) }), 400, "invalid-value");
		assert.equal((await send({ message: "x".repeat(65536) })).status, 202);
		await until("the long one", async () => (await b.texts(a))[0]?.length === 65536);
		for (const [body, type] of [[{}, "missing-field"], [{ address: "x" }, "invalid-value"], [{ address: a.address }, "invalid-value"],
			[{ address: "x@b.test", text: "see www.spam.test" }, "invalid-value"], [{ address: "x@b.test", text: "x".repeat(141) }, "invalid-value"],
			[{ address: "x@b.test", text: "mail me@b.test" }, "invalid-value"]])
			problem(await a.call("POST", "/v1/contacts", body), 400, type);
		problem(await a.call("GET", "/v1/contacts/nonsense"), 400, "invalid-value");
		problem(await a.call("GET", "/v1/contacts?limit=0"), 400, "invalid-value");
		problem(await a.call("GET", a.path(b, "/messages?before=x")), 400, "invalid-value");
		problem(await a.call("PATCH", a.path(b), {}), 400, "missing-field");
		problem(await a.call("PATCH", a.path(b), { muted: 1 }), 400, "invalid-value");
		problem(await a.call("PATCH", a.path("x@b.test"), { muted: true }), 404, "not-found");
		problem(await a.call("PUT", "/v1/presence", { state: "offline" }), 400, "invalid-value");
		assert.equal((await request(homes.a.members, "GET", "/v1/contacts", { agent: homes.a.agent })).status, 401);
	});

	it("mutes a contact for all of her devices", async () => {
		const [a, b] = await pair();
		const watch = await a.watch();
		assert.equal((await a.now(b)).muted, false);
		const { status, json } = await a.call("PATCH", a.path(b), { muted: true });
		assert.equal(status, 200);
		assert.equal(json.muted, true);
		await until("the event", () => watch.events.find((e) => e.event === "contact" && e.data.address === b.address));
		assert.equal((await a.get("/v1/contacts")).contacts[0].muted, true);
		watch.close();
	});

	it("lists contacts by pages, and for an administrator without contents", async () => {
		const a = await ann();
		for (const name of ["z", "m", "b"])
			await a.say(`${name}@b.test`, "accept");
		await a.say("c@b.test", "block");
		const names = [];
		for (let target = "/v1/contacts?limit=1"; target;) {
			const page = await a.get(target);
			names.push(...page.contacts.map((c) => `${c.address} ${c.state}`));
			target = page.next?.replace(/^https:\/\/[^/]*/, "");
		}
		assert.deepEqual(names, ["b@b.test open", "c@b.test blocked", "m@b.test open", "z@b.test open"]);
		const shown = await homes.a.ctl(["contact", "list", a.address, "--limit", "3"]);
		assert.deepEqual(shown.contacts.map((c) => `${c.address} ${c.state}`), names.slice(0, 3));
		assert.deepEqual(Object.keys(shown.contacts[0]).sort(), ["address", "invited", "muted", "presence", "since", "state"]);
		await assert.rejects(homes.a.ctl(["contact", "list", "nobody@a.test"]), /no account nobody@a.test/);
	});

	it("is no website, and no website takes its name", async () => {
		const a = await ann();
		await assert.rejects(homes.a.ctl(["site", "create", a.address, "--title", "X"]), /taken/);
		const key = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ type: "spki", format: "pem" });
		await assert.rejects(homes.a.ctl(["key", "add", a.address, "--kid", "k", "--algorithm", "ES256", "--public-key", "-"], key), /no site/);
		await assert.rejects(homes.a.ctl(["site", "suspend", a.address]), /no site/);
		assert.deepEqual((await homes.a.ctl(["site", "list"])).sites, []);
	});

	// --- presence ---
	const shown = async (who, other) => (await who.now(other)).presence;
	const sees = (who, other, state) => until(async () => `${other.address} to be ${state} to ${who.address}: ${JSON.stringify(await shown(who, other))}`,
		async () => (await shown(who, other)).state === state, { ms: 90_000 }); // who vanished is noticed by a heartbeat
	const show = async (who, other, presence) => {
		const { status, text } = await who.call("PATCH", who.path(other), { presence });
		assert.equal(status, 200, text);
	};

	it("presence is shown only when both agreed, and no longer when either takes it back", async () => {
		const [a, b] = await pair();
		const watch = await b.watch(), watchA = await a.watch();
		assert.deepEqual(await shown(a, b), { shown: false, agreed: false, state: null, since: null });
		await show(a, b, true);
		assert.deepEqual(await shown(a, b), { shown: true, agreed: false, state: null, since: null });
		await homes.a.sqlUntil("NOT EXISTS (SELECT FROM tmtp.grant_outbox)");
		assert.deepEqual(await shown(b, a), { shown: false, agreed: false, state: null, since: null });
		// Nothing is known at the other home before he agrees, too.
		assert.equal(await homes.b.number(`SELECT count(*) FROM tmtp.contact_presence`), 0);
		await show(b, a, true);
		await sees(a, b, "online");
		await sees(b, a, "online");
		await until("the event", () => watch.events.find((e) => e.event === "presence" && e.data.address === a.address && e.data.state === "online"));
		const { json } = await a.call("PUT", "/v1/presence", { state: "away" });
		assert.equal(json.state, "away");
		await sees(b, a, "away");
		await a.call("PUT", "/v1/presence", { state: "online" });
		await sees(b, a, "online");
		watchA.close();
		await sees(b, a, "offline");
		assert.ok(Math.abs(Date.parse((await shown(b, a)).since) - Date.now()) < 60_000, "last seen just now");
		assert.equal((await a.get("/v1/presence")).state, "offline");

		await show(a, b, false); // hers: neither sees the other any more
		assert.deepEqual(await shown(a, b), { shown: false, agreed: false, state: null, since: null });
		await until("bob to see nothing", async () => (await shown(b, a)).agreed === false);
		assert.equal((await shown(b, a)).state, null);
		const told = watch.events.length, back = await a.watch();
		await until("that she is noticed", () => true);
		await a.write(b, "still a contact");
		await b.has(a, "still a contact");
		assert.deepEqual(watch.events.slice(told).filter((e) => e.event === "presence"), []);
		await homes.a.sqlUntil("NOT EXISTS (SELECT FROM tmtp.presence_outbox)");
		back.close();
		watch.close();
	});

	it("presence ends with the contact", async () => {
		const [a, b] = await pair();
		const watch = await a.watch();
		await show(a, b, true);
		await show(b, a, true);
		await sees(b, a, "online");
		await a.say(b, "block");
		await until("that bob sees nothing", async () => (await shown(b, a)).state === null);
		await a.call("POST", "/v1/contacts", { address: b.address });
		await a.state(b, "contact");
		assert.equal((await shown(a, b)).shown, false); // to be agreed anew
		problem(await a.call("PATCH", a.path("x@b.test"), { presence: true }), 404, "not-found");
		watch.close();
	});

	it("presence lapses when a home dies, and is told when it is back", async () => {
		const [a, b] = await pair();
		const watch = await a.watch();
		await show(a, b, true);
		await show(b, a, true);
		await sees(b, a, "online");
		// As if ten minutes had gone by without a word.
		await homes.b.sql("UPDATE tmtp.contact_presence SET until = now() - interval '1 s'");
		assert.equal((await shown(b, a)).state, null);
		await homes.a.killRole("home");
		await homes.a.sql("UPDATE tmtp.presence_process SET until = now() - interval '1 s'; UPDATE tmtp.presence SET told_at = now() - interval '1 h'");
		const back = await a.watch();
		await sees(b, a, "online");
		back.close();
		await sees(b, a, "offline");
		watch.close();
	});

	// --- strangers ---
	const session = (name) => new Session({ port: homes[name].ports.dmtps, domain: `${name}.test`, ca: homes.authority.pem,
		...homes.authority.issue("c.test") });
	const grantOf = async (member, sender) => Buffer.from(await homes.b.sql(`SELECT encode(c.grant_id, 'hex') FROM tmtp.consent c
		JOIN tmtp.sender s USING (sender_id) JOIN tmtp.account a USING (account_id)
		WHERE a.name = '${member.address.split("@")[0]}' AND s.address = '${sender.address}'`), "hex");

	it("who was accepted may name the inbox instead of showing the grant", async () => {
		const [a, b] = await pair(), s = new Session({ port: homes.b.ports.dmtps, domain: "b.test", ca: homes.authority.pem, ...homes.authority.issue("a.test") });
		const { post } = compose({ from: a.address, to: b.address, uris: ["https://a.test/m/x"], rcpts: [[b.address, "inbox"]] });
		const entries = () => homes.b.number(`SELECT count(*) FROM tmtp.inbox i JOIN tmtp.notification n USING (notification_id) WHERE n.id = '${post.id}'`);
		assert.deepEqual(await s.ask("POST", post), ["K"]);
		assert.equal(await entries(), 1);
		// Twice, in letters of another case: it is one recipient. Another channel of the same address is closed.
		const rcpts = [[b.address, "smtp"], [b.address.toUpperCase().replace("B.TEST", "b.test"), "inbox"], [b.address, "inbox"]];
		assert.deepEqual(await s.ask("POST", { ...post, rcpts }), ["K", { failed: [[0, "E", "channel-closed"]] }]);
		assert.equal(await entries(), 1);
		await b.call("DELETE", b.path(a));
		assert.deepEqual(await s.ask("POST", { ...post, id: `${post.id}-2` }), ["K", { failed: [[0, "E", "channel-closed"]] }]);
		await s.close();
	});

	it("strangers change nothing: not by name, nor with somebody else's grant, nor as somebody else", async () => {
		const [a, b] = await pair(), grant = await grantOf(b, a), s = session("b"), mallory = "mallory@c.test";
		const before = (await b.get("/v1/inbox")).entries.length;
		const { post } = compose({ from: mallory, to: b.address, uris: ["https://c.test/m/x"], rcpts: [grant] });
		assert.deepEqual(await s.ask("POST", post), ["K", { failed: [[0, "E", "channel-closed"]] }]);
		assert.deepEqual(await s.ask("POST", { ...post, id: "n2", rcpts: [[b.address, "inbox"]] }), ["K", { failed: [[0, "E", "channel-closed"]] }]);
		const forged = await s.ask("POST", { ...post, id: "n3", from: a.address });
		assert.equal(forged[1].code, "unverified-sender");
		// A yes that nobody asked for: taken with K, and nowhere.
		assert.deepEqual(await s.ask("GRANT", { from: mallory, to: b.address, channel: "inbox", grant: crypto.randomBytes(20), state: "granted", date: post.date }), ["K"]);
		assert.deepEqual((await b.get("/v1/contacts")).contacts.map((c) => c.address), [a.address]);
		assert.equal(await homes.b.number("SELECT count(*) FROM tmtp.subscription WHERE member = 'mallory'"), 0);
		// Presence with a grant that isn't theirs, or is none at all: the same answer.
		for (const rcpt of [grant, crypto.randomBytes(20)])
			assert.deepEqual(await s.ask("PRESENCE", { from: mallory, rcpts: [rcpt], state: "offline", since: post.date }), ["K"]);
		const other = await s.ask("PRESENCE", { from: a.address, rcpts: [grant], state: "offline", since: post.date });
		assert.equal(other[1].code, "unverified-sender");
		assert.equal((await b.now(a)).presence.state, null);
		// An invitation is all that a stranger has; and nobody learns whether the address is somebody's.
		for (const to of [b.address, "nobody-at-all@b.test"])
			assert.deepEqual(await s.ask("POST", { ...compose({ from: mallory, to, uris: ["https://c.test/m/x"], rcpts: [[to, "invite"]] }).post, channel: "inbox" }), ["K"]);
		assert.equal((await b.get("/v1/inbox")).entries.length, before);
		await s.close();
	});
});

describe("how much a person may send", () => {
	let homes;
	before(async () => { homes = await new Homes().start({ home: "messages_per_minute = 6 contact_messages_per_minute = 1 contact_invitations_per_day = 2" }); });
	after(() => homes?.stop());

	it("is bounded where she writes, and where she is read", async () => {
		const ann = await homes.person("a", "ann"), bob = await homes.person("b", "bob");
		await homes.pair(ann, bob);
		await ann.becomes(bob, await ann.write(bob, "m0"), "delivered");
		for (let i = 1; i < 6; i++)
			await ann.write(bob, `m${i}`);
		const over = await ann.call("POST", ann.path(bob, "/messages"), { message: "too much" });
		problem(over, 429, "too-many-requests");
		assert.ok(Number(over.headers["retry-after"]) >= 1);
		// Bob's home takes some and puts the others off; none is lost or refused.
		await until("the throttled", async () => (await metric(homes.b.ports.homeMetrics, 'tmtp_dmtp_recipients_total{state="throttled"}')) > 0);
		const states = (await ann.conversation(bob)).map((m) => m.state);
		assert.ok(states.includes("waiting") && states.every((s) => s === "waiting" || s === "delivered"), states.join());
		assert.ok((await bob.texts(ann)).includes("m0"));
	});

	it("so are invitations", async () => {
		const carl = await homes.person("a", "carl");
		await carl.invite("x@b.test");
		await carl.invite("y@b.test");
		problem(await carl.call("POST", "/v1/contacts", { address: "z@b.test" }), 429, "too-many-requests");
	});
});
