// Large attachments, by digest and URI: from a website's upload to a member's download, and what may go wrong on the way.
// Real processes, databases, and DMTP over TLS between two appliances.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import https from "node:https";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { base32, Crowd } from "./lib/crowd.mjs";
import { Fork } from "./lib/fork.mjs";
import { metric } from "./lib/http.mjs";
import { Proxy } from "./lib/proxy.mjs";
import { until } from "./lib/wait.mjs";

const PART = 262144, MIB = 1 << 20;

const sha256 = (octets) => crypto.createHash("sha256").update(octets).digest();
const hex = (octets) => sha256(octets).toString("hex");

// Octets that no two files share, cheaply: a keystream.
function octets(length, seed = crypto.randomBytes(16)) {
	return crypto.createCipheriv("aes-128-ctr", seed, Buffer.alloc(16)).update(Buffer.alloc(length));
}

// One request to an appliance's listener, octets in, octets out.
function send(origin, method, target, { bearer, headers = {}, body, agent = false } = {}) {
	return new Promise((resolve, reject) => {
		const req = https.request({ host: "127.0.0.1", port: origin.port, servername: origin.domain, ca: origin.ca, agent, method, path: target,
			headers: { Host: `${origin.domain}:${origin.port}`, ...(bearer ? { Authorization: `Bearer ${bearer}` } : {}), ...headers } }, (res) => {
			const parts = [];
			res.on("data", (part) => parts.push(part));
			res.on("error", reject);
			res.on("end", () => {
				const all = Buffer.concat(parts);
				resolve({ status: res.statusCode, headers: res.headers, body: all,
					json: /json/.test(res.headers["content-type"] ?? "") ? JSON.parse(all) : undefined });
			});
		});
		req.on("error", reject);
		req.end(body);
	});
}

const upload = (site, body, headers = {}) => send(site.appliance.site, "POST", "/v1/attachments",
	{ bearer: site.token, headers: { "Content-Type": "application/pdf", "Content-Length": body.length, ...headers }, body });

// Uploads and is told 201; resolves to the digest.
async function uploaded(site, body) {
	const { status, json } = await upload(site, body);
	assert.equal(status, 201, JSON.stringify(json));
	return json.digest;
}

async function uriOf(shop, site, digest) {
	const number = Buffer.alloc(8);
	number.writeBigInt64BE(BigInt(site.id));
	const id = await shop.sql(`SELECT attachment_id FROM tmtp.attachment WHERE site_id = ${site.id} AND digest = '\\x${digest}'`);
	return `/m/a/${base32(number)}/${id}/${base32(Buffer.from(digest, "hex"))}`;
}

let subjects = 0;

// Pushes a message with an upload; resolves to what the member sees once its attachment is in that state.
async function pushed(member, site, digest, channel = "news") {
	const subject = `Message ${++subjects}`, id = await site.push(channel, "*", subject, { attachments: [{ digest }] });
	return { id, subject, entry: (await member.has(subject)).id };
}

const seen = (member, entry) => member.get(`/v1/inbox/${entry}`);
const attachment = async (member, entry) => (await seen(member, entry)).fields.attachments[0];

function untilState(member, entry, state) {
	return until(async () => `${state}: ${JSON.stringify(await attachment(member, entry))}`, async () => {
		const a = await attachment(member, entry);
		return a.state === state && a;
	});
}

async function fetchedBy(member, site, body, channel) {
	const digest = await uploaded(site, body), { id, entry } = await pushed(member, site, digest, channel);
	await untilState(member, entry, "here");
	return { id, digest, entry: await seen(member, entry) };
}

// The most memory that a process has had, in octets.
const peak = (pid) => 1024 * Number(/^VmHWM:\s*(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]);

// An upload of which only the beginning has been sent so far. answered: resolves to {status, json}, or to the error.
function begun(site, length, first) {
	const { site: origin } = site.appliance;
	const req = https.request({ host: "127.0.0.1", port: origin.port, servername: origin.domain, ca: origin.ca, agent: false, method: "POST",
		path: "/v1/attachments", headers: { Host: origin.domain, Authorization: `Bearer ${site.token}`, ...(length ? { "Content-Length": length } : {}) } });
	const answered = new Promise((resolve) => {
		req.on("response", (res) => {
			let text = "";
			res.on("data", (part) => { text += part; });
			res.on("end", () => resolve({ status: res.statusCode, json: JSON.parse(text) }));
			res.on("error", resolve);
		});
		req.on("error", resolve);
	});
	req.write(first);
	return { req, answered };
}

// The pickup's proxy: does something once so many octets have come from the shop.
class Counting extends Proxy {
	at(count, act) {
		this.octets.down = 0;
		return new Promise((resolve) => {
			this.reached = { count, act: () => { act(this); resolve(); } };
		});
	}

	join(from, to, way) {
		super.join(from, to, way);
		from.on("data", () => {
			if (way === "down" && this.reached && this.octets.down >= this.reached.count) {
				const { act } = this.reached;
				this.reached = undefined;
				act();
			}
		});
	}
}

// Beside each other: they mostly wait.
describe("large attachments", { concurrency: 3 }, () => {
describe("a site's attachments", { concurrency: 1 }, () => {
	const its = new Pair();
	let shop, site, other, ann;

	before(async () => {
		await its.start({ prepare: async () => ({ shop: { site: "attachment_max_bytes = 8388608 attachment_quota_bytes = 33554432" } }) });
		shop = its.shop;
		site = await shop.makeSite("shop", ["news"]);
		other = await shop.makeSite("other", ["news"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "news");
		await ann.hold(other, "news");
	});
	after(() => its.stop());

	const parts = () => shop.number("SELECT count(*) FROM tmtp.attachment_part JOIN tmtp.attachment USING (site_id, attachment_id) WHERE state = 0");
	const used = (of = site) => shop.number(`SELECT coalesce(sum(octets), 0) FROM tmtp.attachment_usage WHERE site_id = ${of.id}`);
	const kept = (of = site) => shop.number(`SELECT coalesce(sum(size), 0) FROM tmtp.attachment WHERE site_id = ${of.id} AND state = 1`);
	const untilParts = (n) => until(async () => `${n} parts, not ${await parts()}`, async () => (await parts()) >= n);
	async function nothingLeft() {
		await until(async () => `nothing of an upload: ${await parts()} parts`, async () =>
			(await shop.number("SELECT count(*) FROM tmtp.attachment WHERE state = 0")) === 0, { ms: 60000 });
		assert.equal(await parts(), 0);
		assert.equal(await used(), await kept());
	}

	test("an upload is answered when all of it is stored, and its octets are in parts", async () => {
		const body = octets(3 * PART + 17), { status, json } = await upload(site, body);
		assert.equal(status, 201);
		assert.deepEqual({ ...json, kept_until: undefined }, { digest: hex(body), size: body.length, type: "application/pdf", kept_until: undefined });
		assert.equal(await shop.sql(`SELECT string_agg(octet_length(data)::text, ',' ORDER BY part_no) FROM tmtp.attachment_part p
			JOIN tmtp.attachment a USING (site_id, attachment_id) WHERE a.digest = '\\x${hex(body)}'`), `${PART},${PART},${PART},17`);
		const again = await upload(site, body);
		assert.equal(again.status, 200);
		assert.equal(again.json.digest, json.digest);
		assert.equal(await shop.number(`SELECT count(*) FROM tmtp.attachment WHERE digest = '\\x${hex(body)}'`), 1);
		await nothingLeft();
	});

	test("ranges of what a message names; before, and after all are recalled, there is nothing", async () => {
		const body = octets(2 * PART + 1000), digest = await uploaded(site, body), target = await uriOf(shop, site, digest);
		assert.equal((await send(shop.site, "GET", target)).status, 404);
		const first = await site.push("news", "*", "Ranges", { attachments: [{ digest }] });
		const all = await send(shop.site, "GET", target);
		assert.equal(all.status, 200);
		assert.equal(Number(all.headers["content-length"]), body.length);
		assert.match(all.headers["cache-control"], /^public, max-age=3600/);
		assert.ok(all.body.equals(body));
		const etag = all.headers.etag, end = body.length;
		for (const [range, from, to] of [["bytes=0-0", 0, 1], [`bytes=${PART - 3}-${PART + 4}`, PART - 3, PART + 5], ["bytes=-10", end - 10, end],
			[`bytes=${PART}-`, PART, end], [`bytes=${end - 1}-${end + 100}`, end - 1, end]]) {
			const { status, headers, body: part } = await send(shop.site, "GET", target, { headers: { Range: range, "If-Range": etag } });
			assert.equal(status, 206, range);
			assert.equal(headers["content-range"], `bytes ${from}-${to - 1}/${end}`);
			assert.ok(part.equals(body.subarray(from, to)), range);
		}
		const beyond = await send(shop.site, "GET", target, { headers: { Range: `bytes=${end}-` } });
		assert.equal(beyond.status, 416);
		assert.equal(beyond.headers["content-range"], `bytes */${end}`);
		assert.equal((await send(shop.site, "GET", target, { headers: { Range: "bytes=0-0", "If-Range": '"other"' } })).body.length, end);
		assert.equal((await send(shop.site, "GET", target, { headers: { "If-None-Match": etag } })).status, 304);
		const head = await send(shop.site, "HEAD", target);
		assert.deepEqual([head.status, Number(head.headers["content-length"]), head.body.length], [200, end, 0]);
		assert.equal((await send(shop.site, "GET", target.slice(0, -1) + (target.endsWith("a") ? "b" : "a"))).status, 404);
		const second = await site.push("news", ann.address, "Ranges again", { attachments: [{ digest }] });
		await site.call("DELETE", `/v1/messages/${first}`);
		assert.equal((await send(shop.site, "GET", target, { headers: { Range: "bytes=0-0" } })).status, 206);
		await site.call("DELETE", `/v1/messages/${second}`);
		assert.equal((await send(shop.site, "GET", target)).status, 410);
	});

	test("what isn't taken is told so, and nothing of it stays", async () => {
		const body = octets(PART + 1), claim = (octets) => ({ "Content-Digest": `sha-256=:${sha256(octets).toString("base64")}:` });
		assert.equal((await upload(site, body, claim(body))).status, 201);
		const wrong = await upload(site, octets(PART), claim(body));
		assert.deepEqual([wrong.status, wrong.json.type], [422, "urn:tmtp:problem:digest-mismatch"]);
		assert.equal((await upload(site, body, { "Content-Digest": "sha-256=:AAAA:" })).status, 400);
		assert.equal((await upload(site, body, { "Content-Type": "nonsense" })).status, 400);
		assert.equal((await upload(site, Buffer.alloc(0))).status, 400);
		assert.equal((await send(shop.site, "POST", "/v1/attachments", { headers: { "Content-Length": 10 }, body: octets(10) })).status, 401);
		assert.equal((await begun(site, 8388609, "x").answered).status, 413);
		const chunked = begun(site, 0, octets(8388609));
		chunked.req.end();
		assert.equal((await chunked.answered).status, 413);
		await nothingLeft();
	});

	test("a push names what its own site has uploaded, by pointer what it hasn't", async () => {
		const digest = await uploaded(site, octets(1000)), unknown = hex("nothing");
		const push = (of, attachments) => of.call("POST", "/v1/channels/news/messages", { to: "*", subject: "Hello", attachments });
		const strange = await push(other, [{ digest }]);
		assert.deepEqual([strange.status, strange.json.type], [422, "urn:tmtp:problem:unknown-attachment"]);
		const some = await push(site, [{ digest }, { digest: unknown }]);
		assert.deepEqual([some.status, some.json.errors.map((e) => e.pointer)], [422, ["/attachments/1/digest"]]);
		for (const [attachments, pointer] of [["x", "/attachments"], [["x"], "/attachments/0"], [[{ digest: "zz" }], "/attachments/0/digest"],
			[[{}], "/attachments/0/digest"], [[{ digest }, { digest }], "/attachments/1"], [[{ digest, more: 1 }], "/attachments/0/more"]]) {
			const { status, json } = await push(site, attachments);
			assert.deepEqual([status, json.errors[0].pointer], [400, pointer]);
		}
	});

	test("what is being uploaded counts against the quota, until it is given up", async () => {
		const free = 33554432 - await used();
		const under = Array.from({ length: Math.floor(free / 8388608) }, () => begun(site, 8388608, octets(10)));
		await until("the uploads to begin", async () => (await used()) > free - 8388608);
		const { status, json } = await upload(site, octets(8388608));
		assert.deepEqual([status, json.type], [507, "urn:tmtp:problem:attachment-quota"]);
		for (const { req } of under)
			req.destroy();
		await nothingLeft();
		await uploaded(site, octets(1000));
	});

	test("a site uploads so many at once, and no more", async () => {
		const under = Array.from({ length: 32 }, () => begun(site, 100, octets(10)));
		await until("all to begin", async () => (await shop.number("SELECT count(*) FROM tmtp.attachment WHERE state = 0")) === 32);
		assert.equal((await upload(site, octets(10))).status, 429);
		await uploaded(other, octets(10));
		for (const { req } of under)
			req.destroy();
		await nothingLeft();
	});

	test("a client that leaves, or sends no more, leaves nothing behind", async () => {
		const leaves = begun(site, 8 * PART, octets(2 * PART + 5)), stops = begun(site, 8 * PART, octets(PART + 5));
		await untilParts(3);
		leaves.req.destroy();
		const start = Date.now();
		assert.ok(await stops.answered instanceof Error);
		assert.ok(Date.now() - start < 50000);
		await nothingLeft();
	});

	test("the database goes away in the middle: 503, and nothing is left when it is back", async () => {
		const { req, answered } = begun(site, 8 * PART, octets(2 * PART));
		await untilParts(2);
		const back = await shop.loseDatabase();
		req.end(octets(6 * PART));
		assert.equal((await answered).status, 503);
		back();
		await until("the database", () => parts().then(() => true, () => false));
		await nothingLeft();
	});

	test("the role dies in the middle: what it leaves is forgotten, as is what nobody named in time", async () => {
		const { answered } = begun(site, 8 * PART, octets(2 * PART)), unused = await uploaded(site, octets(500)), digest = await uploaded(site, octets(600));
		await site.push("news", "*", "Kept", { attachments: [{ digest }] });
		await untilParts(2);
		await shop.killRole("site");
		assert.ok(await answered instanceof Error);
		assert.equal(await parts(), 2);
		await shop.sql(`UPDATE tmtp.attachment SET keep_until = keep_until - interval '25 hours' WHERE state = 0 OR digest IN ('\\x${unused}', '\\x${digest}')`);
		await shop.killRole("site");
		await nothingLeft();
		assert.equal(await shop.number(`SELECT count(*) FROM tmtp.attachment WHERE digest = '\\x${unused}'`), 0);
		assert.equal(await shop.number(`SELECT count(*) FROM tmtp.attachment WHERE digest = '\\x${digest}'`), 1);
	});
});

describe("from upload to download", { concurrency: 1 }, () => {
	const its = new Pair();
	let shop, home, site;

	before(async () => {
		await its.start({ proxy: Counting, home: "attachment_max_bytes = 44040192 attachment_member_bytes = 52428800" });
		({ shop, home } = its);
		site = await shop.makeSite("shop", ["memory", "cut", "kill", "recall", "drop", "crowd", "room", "receipts", "lies"]);
	});
	after(() => its.stop());

	async function holder(name, channel) {
		const member = await home.makeAccount(name);
		await member.hold(site, channel);
		return member;
	}
	const download = (member, a, headers) => send(home.members, "GET", a.url, { bearer: member.token, headers });
	const copies = (digest) => home.number(`SELECT count(*) FROM tmtp.copy WHERE digest = '\\x${digest}'`);

	test("40 MB arrive as they were sent, and no role's memory grows with them", async () => {
		const ann = await holder("ann", "memory"), body = octets(40 * MIB + 12345);
		await fetchedBy(ann, site, octets(3 * MIB), "memory"); // what a role needs once
		const processes = [shop, home].flatMap((one) => ["site", "relay", "home"].map((role) => one.role(role))), before = processes.map(peak);
		const { entry, digest } = await fetchedBy(ann, site, body, "memory"), a = entry.fields.attachments[0];
		assert.deepEqual({ ...a, url: "" }, { type: "application/pdf", size: body.length, url: "", state: "here" });
		const all = await download(ann, a);
		assert.equal(all.status, 200);
		assert.equal(hex(all.body), digest);
		assert.equal(all.headers["content-disposition"], "attachment");
		assert.equal(all.headers["x-content-type-options"], "nosniff");
		assert.match(all.headers["content-security-policy"], /^sandbox/);
		const part = await download(ann, a, { Range: `bytes=${30 * MIB}-${30 * MIB + 99}` });
		assert.equal(part.status, 206);
		assert.ok(part.body.equals(body.subarray(30 * MIB, 30 * MIB + 100)));
		const grown = processes.map((pid, i) => (peak(pid) - before[i]) / MIB);
		assert.ok(process.env.ASAN_OPTIONS || Math.max(...grown) < 8, `grown by ${grown} MiB`); // sanitizers keep what was freed
		const bob = await home.makeAccount("bob");
		assert.equal((await download(bob, a)).status, 404);
	});

	test("a connection that is cut in the middle costs a piece; the message doesn't wait", async () => {
		const bob = await holder("bea", "cut"), body = octets(12 * MIB), cut = its.pickup.at(6 * MIB, (proxy) => proxy.refuse());
		const digest = await uploaded(site, body), { entry } = await pushed(bob, site, digest, "cut");
		await cut;
		const waiting = await untilState(bob, entry, "waiting");
		assert.ok(waiting.fetched >= 3 * MIB);
		const answer = await download(bob, waiting);
		assert.deepEqual([answer.status, answer.json.type, answer.headers["retry-after"]], [503, "urn:tmtp:problem:attachment-not-here", "2"]);
		its.pickup.restore();
		assert.equal(hex((await download(bob, await untilState(bob, entry, "here"))).body), digest);
		assert.ok(its.pickup.octets.down < 15 * MIB, `${its.pickup.octets.down} octets for 12 MiB`);
	});

	test("the role dies in the middle: another goes on from there", async () => {
		const cay = await holder("cay", "kill"), body = octets(12 * MIB), held = its.pickup.at(6 * MIB, (proxy) => proxy.hold("down"));
		const digest = await uploaded(site, body), { entry } = await pushed(cay, site, digest, "kill");
		await held;
		await home.killRole("home");
		its.pickup.cut();
		its.pickup.release();
		assert.equal(hex((await download(cay, await untilState(cay, entry, "here"))).body), digest);
		assert.ok(its.pickup.octets.down < 15 * MIB, `${its.pickup.octets.down} octets for 12 MiB`);
	});

	test("what the sender recalls meanwhile isn't fetched, nor kept", async () => {
		const dan = await holder("dan", "recall"), held = its.pickup.at(3 * MIB, (proxy) => proxy.refuse());
		const digest = await uploaded(site, octets(8 * MIB)), { id, entry } = await pushed(dan, site, digest, "recall");
		await held;
		await site.call("DELETE", `/v1/messages/${id}`);
		await until("the entry to be withdrawn", async () => (await seen(dan, entry)).withdrawn);
		its.pickup.restore();
		assert.equal((await send(home.members, "GET", `/v1/inbox/${entry}/attachments/0`, { bearer: dan.token })).status, 404);
		await until("the copy to be forgotten", async () => (await copies(digest)) === 0, { ms: 60000 });
	});

	test("a copy stays until the last of its members dropped the message", async () => {
		const eve = await holder("eve", "drop"), fay = await holder("fay", "drop"), { digest, entry } = await fetchedBy(eve, site, octets(MIB), "drop");
		assert.equal(await copies(digest), 1);
		await home.sql("UPDATE tmtp.copy SET created_at = created_at - interval '1 hour'");
		await eve.do("DELETE", `/v1/inbox/${entry.id}`);
		await until("eve to hold it no more", async () => (await home.number(`SELECT count(*) FROM tmtp.copy_holder h JOIN tmtp.copy c USING (copy_id)
			WHERE c.digest = '\\x${digest}'`)) === 1);
		const hers = await fay.has(entry.subject), a = await untilState(fay, hers.id, "here");
		assert.equal((await download(fay, a)).body.length, MIB);
		await fay.do("DELETE", `/v1/inbox/${hers.id}`);
		await until("the copy to be forgotten", async () => (await copies(digest)) === 0);
		assert.equal(await home.number("SELECT count(*) FROM tmtp.copy_part p WHERE NOT EXISTS (SELECT FROM tmtp.copy c WHERE c.copy_id = p.copy_id)"), 0);
	});

	test("of a crowd nobody is told of: fetched when the first opens it; a hundred are no crowd", async () => {
		const crowd = await Crowd.make(site, "crowd", home, "c", 101), one = await crowd.logIn(1), body = octets(2 * MIB);
		const digest = await uploaded(site, body), { entry } = await pushed(one, site, digest, "crowd");
		const a = await attachment(one, entry);
		assert.equal(a.state, "on-opening");
		const delayed = () => metric(home.ports.homeMetrics, "tmtp_pickups_delayed_total");
		assert.equal(await delayed(), 1, "the message itself waited a random moment");
		assert.equal((await download(one, a)).status, 503);
		assert.equal(hex((await download(one, await untilState(one, entry, "here"))).body), digest);
		await home.sql(`DELETE FROM tmtp.open_grant WHERE account_id = ${crowd.first + 2n}`);
		const next = await uploaded(site, octets(MIB)), { entry: eager } = await pushed(one, site, next, "crowd");
		await untilState(one, eager, "here");
		assert.equal(await delayed(), 1);
	});

	test("whoever lets the sender know what was read doesn't mind; who doesn't is waited for by nobody", async () => {
		const gus = await home.makeAccount("gus");
		await gus.do("PUT", `/v1/channels/${site.address}/receipts`, { receipts: true });
		await site.untilState("receipts", gus.address, "granted");
		const { entry } = await pushed(gus, site, await uploaded(site, octets(MIB)), "receipts");
		assert.equal((await attachment(gus, entry)).state, "on-opening");
		const hal = await holder("hal", "receipts"), { entry: both } = await pushed(gus, site, await uploaded(site, octets(MIB)), "receipts");
		await untilState(gus, both, "here");
		await hal.has(`Message ${subjects}`);
	});

	test("there is no room for more than a member may have, and for what is too large; room that is made is used", async () => {
		const ida = await holder("ida", "room"), first = await fetchedBy(ida, site, octets(30 * MIB), "room");
		const second = await pushed(ida, site, await uploaded(site, octets(30 * MIB)), "room"), failed = await untilState(ida, second.entry, "failed");
		assert.equal(failed.reason, "member-room");
		assert.equal((await download(ida, failed)).status, 410);
		await ida.do("DELETE", `/v1/inbox/${first.entry.id}`);
		await until("room", async () => (await download(ida, failed)).status === 503, { ms: 60000, every: 1000 });
		await untilState(ida, second.entry, "here");
		const third = await pushed(ida, site, await uploaded(site, octets(43 * MIB)), "room");
		assert.equal((await untilState(ida, third.entry, "failed")).reason, "too-large");
	});

	test("what isn't what the message says, in size or digest, is never shown", async () => {
		const jan = await holder("jan", "lies"), other = await uploaded(site, octets(2 * MIB)), short = await uploaded(site, octets(2 * MIB));
		await shop.sql(`UPDATE tmtp.attachment_part p SET data = set_byte(data, 9, 255 - get_byte(data, 9)) FROM tmtp.attachment a
			WHERE a.attachment_id = p.attachment_id AND a.digest = '\\x${other}' AND p.part_no = 1;
			UPDATE tmtp.attachment SET size = size - 10 WHERE digest = '\\x${short}'`);
		for (const digest of [other, short]) {
			const { entry } = await pushed(jan, site, digest, "lies"), a = await untilState(jan, entry, "failed");
			assert.match(a.reason, /not what the message names/);
			assert.equal((await download(jan, a)).status, 410);
			assert.equal(await home.number(`SELECT count(*) FROM tmtp.copy_part JOIN tmtp.copy USING (copy_id) WHERE digest = '\\x${digest}'`), 0);
		}
	});
});

// Has what the origin has, or fails at its attachments in some way.
class Host {
	static async listen(authority, name, origin) {
		const host = new Host();
		Object.assign(host, { way: "well", asked: 0 });
		host.server = https.createServer(authority.issue(name, "host"), async (req, res) => {
			const { status, headers, body } = await send({ domain: "shop.test", port: origin, ca: authority.pem }, "GET", req.url, { headers: req.headers.range ? { Range: req.headers.range } : {} });
			const copied = Object.fromEntries(["content-range", "content-length", "etag"].filter((name) => headers[name]).map((name) => [name, headers[name]]));
			if (!req.url.startsWith("/m/a/"))
				return res.writeHead(status, copied).end(body);
			host.asked++;
			if (host.way === "other octets")
				res.writeHead(status, copied).end(Buffer.alloc(body.length));
			else if (host.way === "another size")
				res.writeHead(status, { ...copied, "content-range": copied["content-range"].replace(/\d+$/, "77777777") }).end(body);
			else if (host.way === "too few")
				res.writeHead(status, { ...copied, "content-length": body.length - 1 }).end(body.subarray(1));
			else if (host.way === "no ranges")
				res.writeHead(200).end(Buffer.concat([body, body, body]));
			else if (host.way === "redirect")
				res.writeHead(302, { Location: `https://shop.test${req.url}` }).end();
			else
				res.writeHead(Number(host.way)).end();
			return undefined;
		});
		await new Promise((resolve) => host.server.listen(0, "127.0.0.1", resolve));
		return host;
	}

	close() {
		this.server.closeAllConnections();
		return new Promise((resolve) => this.server.close(resolve));
	}
}

test("of several hosts the next is asked when one fails or lies", async () => {
	const its = new Pair();
	let host, fork;
	await its.start({ prepare: async ({ authority, shop, toShop }) => {
		host = await Host.listen(authority, "a.shop.test", shop.ports.site);
		fork = await Fork.listen({ "a.shop.test": host.server.address().port, "shop.test": shop.ports.site });
		its.also(() => host.close());
		its.also(() => fork.close());
		return { shop: { site: 'message_hosts = {"https://a.shop.test"}' }, home: { routes: { "shop.test": { dmtp: toShop.port, pickup: fork.port } } } };
	} });
	try {
		const site = await its.shop.makeSite("shop", ["news"]), ann = await its.home.makeAccount("ann");
		await ann.hold(site, "news");
		for (const way of ["other octets", "another size", "too few", "no ranges", "redirect", "404", "410"]) {
			host.way = way;
			host.asked = 0;
			const body = octets(2 * MIB + 5), { entry } = await fetchedBy(ann, site, body);
			assert.ok(host.asked > 0, way);
			assert.equal(hex((await send(its.home.members, "GET", entry.fields.attachments[0].url, { bearer: ann.token })).body), hex(body), way);
		}
	} finally {
		await its.stop();
	}
});
});
