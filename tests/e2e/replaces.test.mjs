// Messages that take an earlier one's place (an order's status), and shared messages with each recipient's own values.
// Real processes, databases and DMTP over TLS between two appliances.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { until } from "./lib/wait.mjs";

const its = new Pair();
let site, ann, bob, cat;

before(async () => {
	await its.start();
	site = await its.shop.makeSite("shop", ["orders", "news", "crowd"]);
	[ann, bob, cat] = await Promise.all(["ann", "bob", "cat"].map((name) => its.home.makeAccount(name)));
	await Promise.all([ann, bob, cat].map((m) => m.hold(site, "orders")));
	await Promise.all([ann, bob].map((m) => m.hold(site, "news")));
});

after(() => its.stop());

const push = (body, headers) => site.call("POST", "/v1/channels/orders/messages", body, headers);
const pointers = (answer) => answer.json.errors.map((e) => e.pointer);

describe("replacements", () => {
	const status = (to, subject, replaces, channel = "orders") => site.push(channel, to, subject, replaces ? { replaces } : {});

	test("an order's status stands in one place, unread again each time, by one id", async () => {
		const watch = await ann.watch();
		// What has been replaced once more is not told: each is waited for.
		const live = (subject) => until(`${subject}, live`, () => watch.entries.includes(subject));
		const before_ = (await ann.entries()).length;
		const first = await status(ann.address, "Order 1: taken");
		await live("Order 1: taken");
		const { id } = await ann.has("Order 1: taken");
		await ann.do("POST", `/v1/inbox/${id}/read`);
		const second = await status(ann.address, "Order 1: packed", first);
		const packed = await ann.has("Order 1: packed");
		assert.deepEqual([packed.id, packed.read, packed.replaced], [id, null, true]);
		await live("Order 1: packed");
		await status(ann.address, "Order 1: sent", second); // names the newest
		await live("Order 1: sent");
		await status(ann.address, "Order 1: there", first); // names the first
		const there = await ann.has("Order 1: there");
		assert.equal(there.id, id);
		assert.equal((await ann.entries()).length, before_ + 1);
		const one = await ann.get(`/v1/inbox/${id}`);
		assert.equal(one.fields.subject, "Order 1: there");
		await live("Order 1: there");
		assert.deepEqual(watch.events.filter((e) => e.data.id === id).map((e) => [e.data.subject, e.data.replaced]),
			[["Order 1: taken", undefined], ["Order 1: packed", true], ["Order 1: sent", true], ["Order 1: there", true]]);
		watch.close();
		const unread = (await ann.get("/v1/inbox/count")).unread;
		await ann.do("POST", `/v1/inbox/${id}/read`);
		assert.equal((await ann.get("/v1/inbox/count")).unread, unread - 1);
		await ann.do("DELETE", `/v1/inbox/${id}`);
		assert.equal((await ann.call("GET", `/v1/inbox/${id}`)).status, 404);
		assert.equal((await ann.entries()).length, before_);
	});

	test("many at once end with one entry, that of the last accepted", async () => {
		const first = await status(bob.address, "Race 0");
		const { id } = await bob.has("Race 0");
		const ids = await Promise.all(Array.from({ length: 12 }, (_, i) => status(bob.address, `Race ${i + 1}`, first)));
		await Promise.all(ids.map((m) => site.settled(m)));
		const newest = await its.shop.sql(`SELECT message_id FROM tmtp.message WHERE replaces = '${first}' ORDER BY date_s DESC LIMIT 1`);
		const subject = `Race ${ids.indexOf(newest) + 1}`;
		await bob.has(subject);
		assert.deepEqual((await bob.entries()).filter((e) => e.subject.startsWith("Race")).map((e) => [e.id, e.subject]), [[id, subject]]);
		assert.equal(await its.shop.number(`SELECT count(DISTINCT date_s) FROM tmtp.message WHERE replaces = '${first}'`), 12);
	});

	test("whoever never got the earlier gets a new one; whoever joined the channel since, too", async () => {
		const first = await status("*", "News 1", undefined, "news");
		await Promise.all([ann.has("News 1"), bob.has("News 1")]);
		await cat.hold(site, "news");
		await status("*", "News 2", first, "news");
		await Promise.all([ann, bob, cat].map((m) => m.has("News 2")));
		for (const m of [ann, bob])
			assert.equal((await m.subjects()).includes("News 1"), false);
		assert.equal((await cat.entries()).find((e) => e.subject === "News 2").replaced, true);
	});

	test("the newer one first: the earlier comes late and is never seen", async () => {
		its.toHome.refuse();
		const first = await status(cat.address, "Late 1");
		await until("the peer to be down", () => its.shop.number("SELECT coalesce(max(failures), 0) FROM tmtp.peer"));
		await its.shop.ctl(["queue", "hold", "--message", first]);
		const second = await status(cat.address, "Late 2", first);
		its.toHome.restore();
		await its.shop.ctl(["queue", "retry", "--message", second]);
		await cat.has("Late 2");
		await its.shop.ctl(["queue", "retry", "--message", first]);
		await site.settled(first);
		await until("the pickup of the first", async () => await its.home.number(`SELECT count(*) FROM tmtp.notification WHERE id = '${first}' AND state = 1`) === 1);
		assert.deepEqual((await cat.subjects()).filter((s) => s?.startsWith("Late")), ["Late 2"]);
	});

	test("a recall of the newest shows it withdrawn, and a further replacement takes its place", async () => {
		const first = await status(ann.address, "Again 1");
		const { id } = await ann.has("Again 1");
		const second = await status(ann.address, "Again 2", first);
		await ann.has("Again 2");
		assert.equal((await site.call("DELETE", `/v1/messages/${second}`)).status, 204);
		await until("the withdrawal", async () => (await ann.get(`/v1/inbox/${id}`)).withdrawn);
		assert.equal((await ann.subjects()).includes("Again 1"), false);
		await status(ann.address, "Again 3", second);
		await ann.has("Again 3");
		assert.equal((await ann.get(`/v1/inbox/${id}`)).withdrawn, undefined);
	});

	test("what can't be replaced is told: another channel's, other recipients', another site's, no message", async () => {
		const one = await status(ann.address, "One"), list = await status([ann.address, bob.address], "List"), news = await status("*", "All", undefined, "news");
		const other = await its.shop.makeSite("other", ["orders"]);
		const wrong = async (body, at) => {
			const answer = await push({ subject: "Wrong", ...body });
			assert.deepEqual([answer.status, answer.json.type], [422, "urn:tmtp:problem:not-replaceable"], JSON.stringify(body));
			assert.deepEqual(pointers(answer), at);
		};
		await wrong({ to: ann.address, replaces: crypto.randomUUID() }, ["/replaces"]);
		await wrong({ to: "*", replaces: news }, ["/replaces"]);
		await wrong({ to: bob.address, replaces: one }, ["/replaces", "/to"]);
		await wrong({ to: [ann.address, bob.address, cat.address], replaces: list }, ["/replaces", "/to"]);
		await wrong({ to: "*", replaces: list }, ["/replaces"]);
		assert.equal((await push({ to: ann.address, subject: "Wrong", replaces: "nonsense" })).status, 400);
		assert.equal((await other.call("POST", "/v1/channels/orders/messages", { to: ann.address, subject: "Wrong", replaces: one })).status, 422);
		assert.equal((await push({ to: [bob.address], subject: "Part of the list", replaces: list })).status, 202);
		await bob.has("Part of the list");
		assert.equal((await bob.subjects()).includes("List"), false);
		await ann.has("List");
	});

	test("with an idempotency key it happens once, and is answered the same again", async () => {
		const first = await status(ann.address, "Key 1"), headers = { "Idempotency-Key": "replace-once" };
		const body = { to: ann.address, subject: "Key 2", replaces: first };
		const answers = [await push(body, headers), await push(body, headers)];
		assert.deepEqual(answers.map((a) => [a.status, a.json.id]), [[202, answers[0].json.id], [202, answers[0].json.id]]);
		assert.equal(answers[1].headers["idempotency-replayed"], "true");
	});
});

describe("a recipient's own values", () => {
	const member = (m, values) => ({ address: m.address, values });

	test("one message, and each reads her own, escaped for the field's type, once", async () => {
		const hostile = "<img src=x onerror=alert(1)> & {{order}} *bold* [x](javascript:1)";
		const answer = await push({
			to: [member(ann, { name: "Ann", order: "4711" }), member(bob, { name: hostile, order: "4712" }), member(cat, { order: "4713" })],
			subject: "For {{name}}: {{order}}",
			message: { "text/plain": "Dear {{name}}, {{order}}.", "text/html": "<p title='{{name}}'>Dear {{name}}</p>", "text/markdown": "Dear {{name}}, [your order](https://shop.test/{{order}})" },
		});
		assert.equal(answer.status, 202, answer.text);
		const [anns, bobs, cats] = [await ann.has("For Ann: 4711"), await bob.has(`For ${hostile}: 4712`), await cat.has("For : 4713")];
		const texts = async (m, e) => Object.fromEntries((await m.get(`/v1/inbox/${e.id}`)).fields.message.map((f) => [f.type, f.text]));
		assert.deepEqual(await texts(ann, anns), { "text/plain": "Dear Ann, 4711.", "text/html": "<p title='{{name}}'>Dear Ann</p>",
			"text/markdown": "Dear Ann, [your order](https://shop.test/{{order}})" });
		const bobsTexts = await texts(bob, bobs);
		assert.equal(bobsTexts["text/plain"], `Dear ${hostile}, 4712.`);
		assert.equal(bobsTexts["text/html"], "<p title='{{name}}'>Dear &lt;img src=x onerror=alert(1)&gt; &amp; {{order}} *bold* [x](javascript:1)</p>");
		assert.equal(bobsTexts["text/markdown"].split(", [your")[0],
			"Dear &lt;img src\\=x onerror\\=alert\\(1\\)&gt; &amp; \\{\\{order\\}\\} \\*bold\\* \\[x\\]\\(javascript\\:1\\)");
		assert.equal((await texts(cat, cats))["text/plain"], "Dear , 4713.");
		assert.equal(await its.home.number(`SELECT count(*) FROM tmtp.notification WHERE id = '${answer.json.id}'`), 1);
		// no member's values stand in another's entry, nor in the message
		assert.equal(await its.shop.number(`SELECT count(*) FROM tmtp.message WHERE message_id = '${answer.json.id}' AND position('4711'::bytea in body) > 0`), 0);
	});

	test("watchers are told each her own", async () => {
		const watches = await Promise.all([ann.watch(), bob.watch()]);
		await push({ to: [member(ann, { n: "one" }), member(bob, { n: "two" })], subject: "Live {{n}}" });
		await watches[0].has("Live one");
		await watches[1].has("Live two");
		assert.equal(watches[0].entries.includes("Live two"), false);
		watches.forEach((w) => w.close());
	});

	test("those put off get theirs with the next try", async () => {
		its.toHome.refuse();
		const answer = await push({ to: [member(ann, { n: "1" }), member(bob, { n: "2" })], subject: "Later {{n}}" });
		await until("the peer to be down", () => its.shop.number("SELECT coalesce(max(failures), 0) FROM tmtp.peer"));
		its.toHome.restore();
		await its.shop.ctl(["queue", "retry", "--message", answer.json.id]);
		await Promise.all([ann.has("Later 1"), bob.has("Later 2")]);
	});

	test("values of a kilobyte each for hundreds are cut into commands that the peer takes, and reach each her own", async () => {
		const crowd = await Crowd.make(site, "crowd", its.home, "c", 700);
		const value = (i) => `${i} ${"x".repeat(990)}`;
		const to = Array.from({ length: 700 }, (_, i) => ({ address: `${crowd.member(i + 1)}@home.test`, values: { n: value(i + 1) } }));
		const answer = await site.call("POST", "/v1/channels/crowd/messages", { to, subject: "Long", message: "{{n}}" });
		assert.equal(answer.status, 202, answer.text);
		assert.deepEqual(await site.settled(answer.json.id), { waiting: 0, delivered: 700, failed: 0, dead: 0, rejected: 0 });
		assert.equal(await its.home.number(`SELECT count(*) FROM tmtp.inbox i JOIN tmtp.account a USING (account_id) JOIN tmtp.notification n USING (notification_id)
			WHERE n.id = '${answer.json.id}' AND convert_from(i.variables, 'UTF8') LIKE '%:' || ltrim(substr(a.name, 2), '0') || ' xxx%'`), 700);
		const member = await crowd.logIn(321);
		assert.equal((await member.get(`/v1/inbox/${(await member.has("Long")).id}`)).fields.message[0].text, value(321));
	});

	test("unknown variables are named: in the text without a value, and values without a place", async () => {
		const unknown = async (body, at, names) => {
			const answer = await push(body);
			assert.deepEqual([answer.status, answer.json.type], [422, "urn:tmtp:problem:unknown-variable"], answer.text);
			assert.deepEqual(pointers(answer).sort(), at);
			for (const name of names)
				assert.match(answer.text, new RegExp(`\\{\\{${name}\\}\\}`));
		};
		await unknown({ to: ann.address, subject: "{{name}}", message: "{{nmae}}" }, ["/message", "/subject"], ["name", "nmae"]);
		await unknown({ to: "*", subject: "Dear {{name}}" }, ["/subject"], ["name"]);
		await unknown({ to: [member(ann, { name: "Ann", order: "1" })], subject: "{{name}}" }, ["/to/0/values/order"], ["order"]);
		await unknown({ to: [member(ann, { id: "1" })], subject: "x", message: { "text/html": "<a href='https://x/{{id}}'>x</a>" } }, ["/to/0/values/id"], ["id"]);
		assert.equal((await push({ to: ann.address, subject: "Not a variable: {{ name }} {{Name}} {name}" })).status, 202);
	});

	test("bad values are refused, whatever they are", async () => {
		for (const [values, status_] of [[{ "Name": "x" }, 400], [{ "": "x" }, 400], [{ "a b": "x" }, 400], [{ ["n".repeat(31)]: "x" }, 400], [{ n: 7 }, 400],
			[{ n: null }, 400], [{ n: ["x"] }, 400], [{ n: "a\u0007b" }, 400], [{ n: "x".repeat(1100) }, 400], ["text", 400], [["x"], 400],
			[Object.fromEntries(Array.from({ length: 400 }, (_, i) => [`v${i}`, ""])), 400]]) {
			const answer = await push({ to: [{ address: ann.address, values }], subject: "{{n}}" });
			assert.equal(answer.status, status_, `${JSON.stringify(values).slice(0, 60)}: ${answer.text}`);
			assert.match(answer.json.errors[0].pointer, /^\/to\/0\/values/);
		}
		const raw = (text) => site.call("POST", "/v1/channels/orders/messages", text);
		assert.equal((await raw(`{"to": [{"address": "${ann.address}", "values": {"n": "a\\u0000b"}}], "subject": "{{n}}"}`)).status, 400);
		assert.equal((await raw(Buffer.concat([Buffer.from(`{"to": [{"address": "${ann.address}", "values": {"n": "`), Buffer.from([0xff, 0xfe]), Buffer.from(`"}}], "subject": "{{n}}"}`)]))).status, 400);
		assert.deepEqual(pointers(await push({ to: [{ values: { n: "x" } }], subject: "{{n}}" })), ["/to/0/address"]);
		assert.deepEqual(pointers(await push({ to: [{ address: ann.address, valeus: {} }], subject: "x" })), ["/to/0/valeus"]);
		assert.equal((await push({ to: 7, subject: "x" })).status, 400);
		assert.equal((await push({ to: [], subject: "x" })).status, 400);
		assert.equal((await push({ to: { address: ann.address, values: { n: "alone" } }, subject: "Just {{n}}" })).status, 202);
		await ann.has("Just alone");
	});
});
