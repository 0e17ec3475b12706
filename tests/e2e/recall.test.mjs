// Messages taken back: at the origin, in the inboxes of strangers, on the way, and when the recall is faster than the message.
// Real processes, databases and DMTP over TLS between two appliances.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { base32, Crowd } from "./lib/crowd.mjs";
import { seconds, Session } from "./lib/dmtp.mjs";
import { request } from "./lib/http.mjs";
import { until } from "./lib/wait.mjs";

const its = new Pair();
let site, ann, bob;

before(async () => {
	await its.start();
	site = await its.shop.makeSite("shop", ["orders", "news"]);
	[ann, bob] = await Promise.all([its.home.makeAccount("ann"), its.home.makeAccount("bob")]);
	await Promise.all([ann.hold(site, "orders"), bob.hold(site, "orders")]);
});

after(() => its.stop());

const digestOf = (id) => its.shop.sql(`SELECT digest FROM tmtp.message WHERE message_id = '${id}'`);

async function uriOf(id) {
	const digest = await digestOf(id);
	return new URL(await until("the notification", () => its.home.sql(`SELECT uris FROM tmtp.notification WHERE digest = '${digest}'`))).pathname;
}

const recall = async (id, by = site) => assert.equal((await by.call("DELETE", `/v1/messages/${id}`)).status, 204);
const status = (id) => site.get(`/v1/messages/${id}`);
const entry = (member, id) => member.get(`/v1/inbox/${id}`);

// The recall has reached all who were to be told.
const told = (id) => until(async () => `the recall to be delivered: ${JSON.stringify(await status(id))}`, async () => {
	const { recall } = await status(id);
	return recall.waiting === 0 && recall;
});

describe("a message that was delivered", () => {
	test("is withdrawn where it lies: unread it loses its content, read it keeps it; the origin answers 410", async () => {
		const watch = await ann.watch();
		const id = await site.push("orders", [ann.address, bob.address], "To be recalled", { message: "A wrong price." });
		const [anns, bobs] = [await ann.has("To be recalled"), await bob.has("To be recalled")];
		await bob.do("POST", `/v1/inbox/${bobs.id}/read`);
		const uri = await uriOf(id);
		assert.equal((await request(its.shop.site, "GET", uri)).status, 200);
		const unread = (await ann.get("/v1/inbox/count")).unread;

		await recall(id);
		const gone = await request(its.shop.site, "GET", uri);
		assert.deepEqual([gone.status, gone.json.type], [410, "urn:tmtp:problem:gone"]);
		assert.deepEqual(await told(id), { waiting: 0, delivered: 2, failed: 0, dead: 0 });

		const [forAnn, forBob] = await Promise.all([entry(ann, anns.id), entry(bob, bobs.id)]);
		assert.deepEqual([forAnn.withdrawn, forAnn.subject, forAnn.fields], [true, null, null]);
		assert.deepEqual([forBob.withdrawn, forBob.subject, forBob.fields.message[0].text], [true, "To be recalled", "A wrong price."]);
		const listed = (await ann.entries()).find((e) => e.id === anns.id);
		assert.deepEqual([listed.withdrawn, listed.subject], [true, null]);
		assert.equal((await ann.get("/v1/inbox/count")).unread, unread - 1);
		assert.equal((await ann.get("/v1/inbox?unread=true")).entries.some((e) => e.id === anns.id), false);
		await until("the live event", () => watch.events.some((e) => e.data.id === anns.id && e.data.withdrawn === true));
		watch.close();
		// reading it now brings nothing back
		await ann.do("POST", `/v1/inbox/${anns.id}/read`);
		assert.equal((await entry(ann, anns.id)).fields, null);
		await bob.do("PATCH", `/v1/inbox/${bobs.id}`, { read: false });
		assert.equal((await entry(bob, bobs.id)).fields, null);
		const { recipients, recalled } = await status(id);
		assert.equal(recipients.delivered, 2);
		assert.match(recalled, /^\d{4}-.*Z$/);
		assert.ok((await site.get("/v1/messages")).messages.find((m) => m.id === id).recalled);
	});

	test("one who was away is told on coming back", async () => {
		const watch = await ann.watch();
		const id = await site.push("orders", ann.address, "While away");
		await watch.has("While away");
		const last = watch.lastId;
		watch.close();
		await recall(id);
		await told(id);
		const back = await ann.watch(last);
		await until("the event", () => back.events.some((e) => e.data.withdrawn && e.id > last));
		back.close();
	});

	test("recalling twice is the same; another site's message, no message and no id are 404; reading alone may not", async () => {
		const other = await its.shop.makeSite("other", ["orders"]);
		const id = await site.push("orders", ann.address, "Twice");
		await ann.has("Twice");
		for (const wrong of [id, crypto.randomUUID(), "nonsense"])
			assert.equal((await other.call("DELETE", `/v1/messages/${wrong}`)).status, 404, wrong);
		assert.equal((await status(id)).recalled, undefined);
		await recall(id);
		const first = (await status(id)).recalled;
		await recall(id);
		await told(id);
		assert.equal((await status(id)).recalled, first);
		assert.equal(await its.shop.number(`SELECT count(*) FROM tmtp.message WHERE recalls = '${id}'`), 1);
		// the recall itself is no message that could be read, listed, recalled or picked up
		const itself = await its.shop.sql(`SELECT message_id FROM tmtp.message WHERE recalls = '${id}'`);
		for (const [method, target] of [["GET", `/v1/messages/${itself}`], ["GET", `/v1/messages/${itself}/recipients`],
			["GET", `/v1/messages/${itself}/recipients?state=failed`], ["DELETE", `/v1/messages/${itself}`], ["GET", (await uriOf(id)).replace(id, itself)]])
			assert.equal((await site.call(method, target)).status, 404, `${method} ${target}`);
		assert.equal((await site.get("/v1/messages?limit=1000")).messages.some((m) => m.id === itself), false);
	});

	test("to everybody: all have it withdrawn, whoever joined since knows nothing of it", async () => {
		const members = await Promise.all(["eva", "fin", "gus"].map((name) => its.home.makeAccount(name)));
		await Promise.all(members.slice(0, 2).map((m) => m.hold(site, "news")));
		const id = await site.push("news", "*", "Everybody");
		await Promise.all(members.slice(0, 2).map((m) => m.has("Everybody")));
		await members[2].hold(site, "news");
		await recall(id);
		assert.equal((await told(id)).delivered, 2);
		for (const m of members.slice(0, 2))
			assert.deepEqual((await m.entries()).map((e) => [e.subject, e.withdrawn]), [[null, true]]);
		assert.deepEqual(await members[2].entries(), []);
	});

	test("tmtpctl recalls too, and writes it down", async () => {
		const id = await site.push("orders", ann.address, "By the operator");
		const { id: number } = await ann.has("By the operator");
		const uri = await uriOf(id);
		assert.equal((await its.shop.ctl(["message", "recall", site.address, id])).changed, true);
		assert.equal((await its.shop.ctl(["message", "recall", site.address, id])).changed, false);
		await told(id);
		await until("the origin's 410", async () => (await request(its.shop.site, "GET", uri)).status === 410);
		assert.equal((await entry(ann, number)).withdrawn, true);
		assert.equal(await its.shop.number(`SELECT count(*) FROM tmtp.audit WHERE action = 'message-recall' AND subject = '${id}'`), 1);
	});
});

describe("a message on its way", () => {
	test("what has not left is never sent, and nobody is told of it", async () => {
		its.toHome.refuse();
		const first = await site.push("orders", ann.address, "Knocks in vain");
		await until("the peer to be down", () => its.shop.number("SELECT coalesce(max(failures), 0) FROM tmtp.peer"));
		const id = await site.push("orders", [ann.address, bob.address], "Never left");
		await recall(id);
		const { recipients, recall: how } = await status(id);
		assert.deepEqual([recipients.waiting, recipients.recalled, how], [0, 2, { waiting: 0, delivered: 0, failed: 0, dead: 0 }]);
		assert.deepEqual((await site.get(`/v1/messages/${id}/recipients?state=recalled`)).recipients.map((r) => r.address), [ann.address, bob.address]);
		its.toHome.restore();
		await its.shop.ctl(["queue", "retry", "--all"]);
		await site.settled(first);
		await ann.has("Knocks in vain");
		assert.equal(await its.home.number(`SELECT count(*) FROM tmtp.posted WHERE id = '${id}'`), 0);
	});

	test("a recall waits for a peer that is down, and reaches it when it is back, once", async () => {
		const id = await site.push("orders", [ann.address, bob.address], "Down meanwhile");
		const { id: number } = await ann.has("Down meanwhile");
		its.toHome.refuse();
		await recall(id);
		await until("the peer to be down", () => its.shop.number("SELECT coalesce(max(failures), 0) FROM tmtp.peer"));
		assert.equal((await status(id)).recall.waiting, 2);
		assert.equal((await entry(ann, number)).withdrawn, undefined);
		its.toHome.restore();
		await its.shop.ctl(["queue", "retry", "--all"]);
		assert.equal((await told(id)).delivered, 2);
		assert.equal((await entry(ann, number)).withdrawn, true);
	});

	test("the relay killed between a recall and its answer tells it again, and nothing changes twice", async () => {
		const id = await site.push("orders", ann.address, "Relay dies");
		const { id: number } = await ann.has("Relay dies");
		its.toHome.hold("down");
		await recall(id);
		await until("the recall at the other side", () => its.home.number(`SELECT count(*) FROM tmtp.posted p
			JOIN tmtp.inbox i USING (notification_id) WHERE i.withdrawn_at IS NOT NULL AND i.notification_id = '${number}'`));
		const at = await its.home.sql(`SELECT withdrawn_at FROM tmtp.inbox WHERE notification_id = '${number}'`);
		await its.shop.killRole("relay");
		its.toHome.release();
		await its.shop.sql("UPDATE tmtp.batch SET leased_until = now() - interval '1 s' WHERE state = 0 AND leased_until IS NOT NULL");
		await told(id);
		assert.equal(await its.home.sql(`SELECT withdrawn_at FROM tmtp.inbox WHERE notification_id = '${number}'`), at);
		assert.equal(await its.home.number(`SELECT count(*) FROM tmtp.inbox WHERE notification_id = '${number}'`), 1);
	});

	test("a pickup that meets 410 at the sender's own domain ends, and nothing is ever shown", async () => {
		its.pickup.refuse();
		const id = await site.push("orders", ann.address, "Not picked up yet");
		await site.settled(id);
		const digest = await digestOf(id);
		await recall(id);
		await told(id);
		its.pickup.restore();
		const state = () => its.home.sql(`UPDATE tmtp.notification SET not_before = now() WHERE digest = '${digest}' AND state = 0 AND not_before > now();
			SELECT state FROM tmtp.notification WHERE digest = '${digest}'`);
		await until(async () => `the pickup to end, not ${await state()}`, async () => await state() === "3", { every: 100 });
		assert.equal((await ann.subjects()).includes("Not picked up yet"), false);
		assert.equal((await ann.entries()).filter((e) => e.withdrawn).length, await its.home.number(`SELECT count(*) FROM tmtp.inbox i
			JOIN tmtp.account a USING (account_id) JOIN tmtp.notification n USING (notification_id)
			WHERE a.name = 'ann' AND i.withdrawn_at IS NOT NULL AND n.state = 1`));
	});
});

// By hand, as a stranger's server would: what our own relay never does, or not in this order.
describe("recalls by another implementation", () => {
	let session, grants, nowhere;

	before(async () => {
		const { authority } = its;
		session = new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: fs.readFileSync(authority.file("ca.pem")),
			cert: fs.readFileSync(authority.file("shop.test.pem")), key: fs.readFileSync(authority.file("shop.test.key")) });
		await session.greeting;
		nowhere = await Crowd.make(site, "orders", "nowhere.test", "n", 2);
		const grantOf = async (member) => Buffer.from((await its.home.sql(`SELECT encode(g.grant_id, 'hex') FROM tmtp.open_grant g
			JOIN tmtp.account a USING (account_id) WHERE a.name = '${member}' AND g.channel = 'orders'`)), "hex");
		grants = { ann: await grantOf("ann"), bob: await grantOf("bob") };
	});

	after(() => session?.close());

	// A message whose octets are at the origin and whose POST is ours to send: pushed to members of a domain that isn't there.
	async function prepared(subject) {
		const id = await site.push("orders", [1, 2].map((n) => `${nowhere.member(n)}@nowhere.test`), subject);
		const row = await its.shop.sql(`SELECT encode(digest, 'hex'), size, date_s, lpad(to_hex(site_id), 16, '0') FROM tmtp.message WHERE message_id = '${id}'`);
		const [digest, size, date, number] = row.split("|");
		return { from: site.address, id: crypto.randomUUID(), date: Number(date), size: Number(size), digest: Buffer.from(digest, "hex"),
			uris: [`https://shop.test:${its.shop.ports.site}/m/${base32(Buffer.from(number, "hex"))}/${id}/${base32(Buffer.from(digest, "hex"))}`] };
	}

	const recallOf = (post, ...rcpts) => ({ from: post.from, id: crypto.randomUUID(), date: seconds(), size: post.size, digest: post.digest, recall: post.id, rcpts });

	test("a recall that overtakes its message wins, for the recipients it names", async () => {
		const post = await prepared("Overtaken");
		assert.deepEqual(await session.ask("POST", recallOf(post, grants.ann)), ["K"]);
		assert.deepEqual(await session.ask("POST", { ...post, rcpts: [grants.ann] }), ["K"]);
		assert.deepEqual(await session.ask("POST", { ...post, rcpts: [grants.ann, grants.bob] }), ["K"]);
		await bob.has("Overtaken");
		const entries = await ann.entries();
		assert.equal(entries.some((e) => e.subject === "Overtaken"), false);
		const nid = (await bob.entries()).find((e) => e.subject === "Overtaken").id;
		assert.equal(entries.some((e) => e.id === nid), false);
		assert.equal((await ann.call("GET", `/v1/inbox/${nid}`)).status, 404);
	});

	test("only the named recipients' entries are withdrawn; again is K and nothing", async () => {
		const post = await prepared("For one alone");
		assert.deepEqual(await session.ask("POST", { ...post, rcpts: [grants.ann, grants.bob] }), ["K"]);
		await Promise.all([ann.has("For one alone"), bob.has("For one alone")]);
		const withdrawal = recallOf(post, grants.ann);
		for (let i = 0; i < 2; i++)
			assert.deepEqual(await session.ask("POST", withdrawal), ["K"]);
		assert.equal((await ann.subjects()).includes("For one alone"), false);
		assert.equal((await bob.subjects()).includes("For one alone"), true);
	});

	test("a grant that isn't the sender's is closed; another digest is a conflict; with URIs it is malformed", async () => {
		const post = await prepared("Told wrong");
		assert.deepEqual(await session.ask("POST", { ...post, rcpts: [grants.ann] }), ["K"]);
		await ann.has("Told wrong");
		assert.deepEqual(await session.ask("POST", recallOf(post, crypto.randomBytes(20))), ["K", { failed: [[0, "E", "channel-closed"]] }]);
		const other = { ...recallOf(post, grants.ann), digest: crypto.randomBytes(32) };
		assert.equal((await session.ask("POST", other))[1].code, "duplicate-conflict");
		assert.equal((await session.ask("POST", { ...recallOf(post, grants.ann), from: "else@shop.test" }))[1]?.failed?.[0]?.[2], "channel-closed");
		assert.equal((await session.ask("POST", { ...recallOf(post, grants.ann), uris: post.uris }))[1].code, "malformed");
		assert.equal((await session.ask("POST", { ...recallOf(post, grants.ann), replaces: "x" }))[1].code, "malformed");
		assert.equal((await session.ask("POST", { ...recallOf(post, grants.ann), recall: "" }))[1].code, "malformed");
		assert.equal((await ann.subjects()).includes("Told wrong"), true);
		assert.deepEqual(await session.ask("POST", recallOf(post, ["ann@home.test", "invite"])).then((r) => r[0]), "E"); // no channel
		assert.deepEqual(await session.ask("POST", { ...recallOf(post, ["ann@home.test", "invite"]), channel: "orders" }), ["K"]);
		assert.equal((await ann.subjects()).includes("Told wrong"), true);
	});
});
