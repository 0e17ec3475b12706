// What members let a site know: read, and withdrawn before it was read; of those who allow it and of nobody else.
// Real processes, databases and DMTP over TLS between two appliances.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import { after, before, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { seconds, Session } from "./lib/dmtp.mjs";
import { until } from "./lib/wait.mjs";

const its = new Pair();
let site, ann, bob;

const allow = async (member, receipts, channel = "orders") => {
	await member.do("PUT", `/v1/channels/${site.address}/${channel}`, { receipts });
	await until(`the site to know that receipts are ${receipts}`, async () => (await site.member(channel, member.address)).receipts === receipts);
};

before(async () => {
	await its.start({ routes: ["else.test"] });
	site = await its.shop.makeSite("shop", ["orders", "news"]);
	[ann, bob] = await Promise.all([its.home.makeAccount("ann"), its.home.makeAccount("bob")]);
	await Promise.all([ann.hold(site, "orders"), bob.hold(site, "orders"), ann.hold(site, "news")]);
	await allow(ann, true);
});

after(() => its.stop());

const receipts = async (id) => (await site.get(`/v1/messages/${id}`)).receipts;
const recipient = async (id, member) => (await site.get(`/v1/messages/${id}/recipients`)).recipients.find((r) => r.address === member.address);
const read = async (member, subject) => member.do("POST", `/v1/inbox/${(await member.has(subject)).id}/read`);
const untilRead = (id, n) => until(async () => `${n} to have read, not ${JSON.stringify(await receipts(id))}`, async () => (await receipts(id)).read === n);

test("who allows it is told to have read, with the time; who doesn't is not", async () => {
	const id = await site.push("orders", [ann.address, bob.address], "To be read");
	await read(bob, "To be read");
	assert.deepEqual(await receipts(id), { read: 0, withdrawn: 0 });
	const from = Math.floor(Date.now() / 1000) * 1000;
	await read(ann, "To be read");
	await untilRead(id, 1);
	const row = await recipient(id, ann);
	assert.equal(row.state, "delivered");
	assert.ok(Date.parse(row.read) >= from && Date.parse(row.read) <= Date.now());
	assert.equal((await recipient(id, bob)).read, undefined);
	assert.equal(await its.home.number("SELECT count(*) FROM tmtp.receipt_outbox"), 0);
	// unread and read again: the first time stays
	const entry = await ann.has("To be read");
	await ann.do("PATCH", `/v1/inbox/${entry.id}`, { read: false });
	await ann.do("PATCH", `/v1/inbox/${entry.id}`, { read: true });
	await until("the outbox to be empty", async () => await its.home.number("SELECT count(*) FROM tmtp.receipt_outbox") === 0);
	assert.equal((await recipient(id, ann)).read, row.read);
	assert.equal((await its.shop.ctl(["message", "show", site.address, id])).read, 1);
});

test("a recall before it was read is told as withdrawn, after it is not", async () => {
	const first = await site.push("orders", ann.address, "Recalled unread"), second = await site.push("orders", ann.address, "Recalled read");
	await Promise.all([ann.has("Recalled unread"), read(ann, "Recalled read")]);
	await untilRead(second, 1);
	for (const id of [first, second])
		assert.equal((await site.call("DELETE", `/v1/messages/${id}`)).status, 204);
	await until("the receipt of the withdrawal", async () => (await receipts(first)).withdrawn === 1);
	assert.ok((await recipient(first, ann)).withdrawn);
	await until("the recall of the other", async () => (await site.get(`/v1/messages/${second}`)).recall.waiting === 0);
	assert.deepEqual(await receipts(second), { read: 1, withdrawn: 0 });
});

test("only channels that it was allowed for, and only while it is", async () => {
	const news = await site.push("news", "*", "No receipts here");
	await read(ann, "No receipts here");
	await allow(ann, false);
	const id = await site.push("orders", ann.address, "Not any more");
	await read(ann, "Not any more");
	await allow(ann, true);
	const last = await site.push("orders", ann.address, "Now again");
	await read(ann, "Now again");
	await untilRead(last, 1);
	for (const none of [news, id])
		assert.deepEqual(await receipts(none), { read: 0, withdrawn: 0 });
});

test("a site's server that is away hears of it when it is back", async () => {
	const id = await site.push("orders", ann.address, "Away");
	await ann.has("Away");
	await site.settled(id);
	its.toShop.refuse();
	await read(ann, "Away");
	await until("the peer to be down", () => its.home.number("SELECT coalesce(max(failures), 0) FROM tmtp.peer"));
	assert.equal(await its.home.number("SELECT count(*) FROM tmtp.receipt_outbox"), 1);
	its.toShop.restore();
	await its.home.ctl(["peer", "release", "shop.test"]);
	await untilRead(id, 1);
});

test("rows whose grant isn't the domain's, or isn't for the message, are acknowledged and ignored", async () => {
	const id = await site.push("orders", [ann.address, bob.address], "For both"), forBob = await site.push("orders", bob.address, "For Bob");
	await Promise.all([ann.has("For both"), bob.has("For Bob")]);
	const { authority } = its, file = (name) => fs.readFileSync(authority.file(name));
	authority.issue("else.test");
	const grant = Buffer.from(await its.home.sql(`SELECT encode(g.grant_id, 'hex') FROM tmtp.open_grant g JOIN tmtp.account a USING (account_id)
		WHERE a.name = 'ann' AND g.channel = 'orders'`), "hex");
	const bobs = Buffer.from(await its.home.sql(`SELECT encode(g.grant_id, 'hex') FROM tmtp.open_grant g JOIN tmtp.account a USING (account_id)
		WHERE a.name = 'bob' AND g.channel = 'orders'`), "hex");
	const session = (domain) => new Session({ port: its.shop.ports.dmtps, domain: "shop.test", ca: file("ca.pem"), cert: file(`${domain}.pem`), key: file(`${domain}.key`) });
	const [home, other] = [session("home.test"), session("else.test")];
	const tell = (s, from, events, to = site.address) => s.ask("RECEIPT", { from, to, events });
	assert.ok((await home.greeting).ext.includes("RECEIPT"));
	const now = seconds();
	assert.deepEqual(await tell(other, "x@else.test", [[id, grant, "read", now]]), ["K"]);
	assert.equal((await tell(other, "ann@home.test", [[id, grant, "read", now]]))[1].code, "unverified-sender");
	assert.deepEqual(await tell(home, "any@home.test", [[id, crypto.randomBytes(20), "read", now], [id, bobs, "read", now], [forBob, grant, "read", now],
		["no-id-of-ours", grant, "read", now], [crypto.randomUUID(), grant, "read", now]]), ["K"]);
	assert.deepEqual(await tell(home, "any@home.test", [[id, grant, "read", now]], "nobody@shop.test"), ["K"]);
	assert.deepEqual(await tell(home, "any@home.test", []), ["K"]);
	assert.equal((await tell(home, "any@home.test", [[id, grant, "opened", now]]))[1].code, "malformed");
	assert.equal((await tell(home, "any@home.test", [[id, grant.subarray(1), "read", now]]))[1].code, "malformed");
	assert.equal((await tell(home, "any@home.test", Array.from({ length: 1001 }, () => [id, grant, "read", now])))[1].code, "limit");
	assert.deepEqual([await receipts(id), await receipts(forBob)], [{ read: 0, withdrawn: 0 }, { read: 0, withdrawn: 0 }]);
	// a time that can't be is brought to one that can
	assert.deepEqual(await tell(home, "any@home.test", [[id, grant, "read", Number.MAX_SAFE_INTEGER], [id, grant, "read", 1]]), ["K"]);
	assert.deepEqual(await receipts(id), { read: 1, withdrawn: 0 });
	const message = await site.get(`/v1/messages/${id}`);
	assert.equal((await recipient(id, ann)).read, message.accepted);
	await Promise.all([home.close(), other.close()]);
});
