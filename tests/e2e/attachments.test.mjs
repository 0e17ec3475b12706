// Large attachments, by digest and URI: from a website's upload to a member's download, and what may go wrong on the way.
// Real processes, databases, and DMTP over TLS between two appliances.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import https from "node:https";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { base32 } from "./lib/crowd.mjs";
import { gone, until } from "./lib/wait.mjs";

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
async function pushed(member, site, digest, to = "*", channel = "news") {
	const subject = `Message ${++subjects}`, id = await site.push(channel, to, subject, { attachments: [{ digest }] });
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

async function fetchedBy(member, site, body) {
	const digest = await uploaded(site, body), { id, entry } = await pushed(member, site, digest);
	await untilState(member, entry, "here");
	return { id, digest, entry: await seen(member, entry) };
}

// The most memory that a process has had, in octets.
const peak = (pid) => 1024 * Number(/^VmHWM:\s*(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]);

describe("a site's attachments", () => {
	const its = new Pair();
	let shop, site, ann;

	before(async () => {
		await its.start({ prepare: async () => ({ shop: { site: "attachment_max_bytes = 8388608 attachment_quota_bytes = 33554432" } }) });
		shop = its.shop;
		site = await shop.makeSite("shop", ["news"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "news");
	});
	after(() => its.stop());

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
	});

	test("ranges of what a message names; before, and after all are recalled, there is nothing", async () => {
		const body = octets(2 * PART + 1000), digest = await uploaded(site, body), target = await uriOf(shop, site, digest);
		assert.equal((await send(shop.site, "GET", target)).status, 404);
		const first = await site.push("news", "*", "Ranges", { attachments: [{ digest }] });
		const all = await send(shop.site, "GET", target);
		assert.equal(all.status, 200);
		assert.equal(Number(all.headers["content-length"]), body.length);
		assert.ok(all.body.equals(body));
		const etag = all.headers.etag;
		for (const [range, from, to] of [["bytes=0-0", 0, 1], [`bytes=${PART - 3}-${PART + 4}`, PART - 3, PART + 5], ["bytes=-10", body.length - 10, body.length],
			[`bytes=${PART}-`, PART, body.length]]) {
			const { status, headers, body: part } = await send(shop.site, "GET", target, { headers: { Range: range, "If-Range": etag } });
			assert.equal(status, 206, range);
			assert.equal(headers["content-range"], `bytes ${from}-${to - 1}/${body.length}`);
			assert.ok(part.equals(body.subarray(from, to)), range);
		}
		const second = await site.push("news", ann.address, "Ranges again", { attachments: [{ digest }] });
		await site.call("DELETE", `/v1/messages/${first}`);
		assert.equal((await send(shop.site, "GET", target, { headers: { Range: "bytes=0-0" } })).status, 206);
		await site.call("DELETE", `/v1/messages/${second}`);
		assert.equal((await send(shop.site, "GET", target)).status, 410);
	});
});

describe("from upload to download", () => {
	const its = new Pair();
	let shop, home, site, ann;

	before(async () => {
		await its.start();
		({ shop, home } = its);
		site = await shop.makeSite("shop", ["news"]);
		ann = await home.makeAccount("ann");
		await ann.hold(site, "news");
	});
	after(() => its.stop());

	test("40 MB arrive as they were sent, and no role's memory grows with them", async () => {
		const body = octets(40 * MIB + 12345), processes = [shop.role("site"), home.role("home")];
		await fetchedBy(ann, site, octets(3 * MIB)); // what a role needs once
		const before = processes.map(peak);
		const { entry } = await fetchedBy(ann, site, body);
		const target = entry.fields.attachments[0].url, all = await send(home.members, "GET", target, { bearer: ann.token });
		assert.equal(all.status, 200);
		assert.equal(hex(all.body), hex(body));
		assert.equal(all.headers["content-disposition"], "attachment");
		assert.equal(all.headers["x-content-type-options"], "nosniff");
		assert.match(all.headers["content-security-policy"], /^sandbox/);
		const part = await send(home.members, "GET", target, { bearer: ann.token, headers: { Range: `bytes=${30 * MIB}-${30 * MIB + 99}` } });
		assert.equal(part.status, 206);
		assert.ok(part.body.equals(body.subarray(30 * MIB, 30 * MIB + 100)));
		const grown = processes.map((pid, i) => (peak(pid) - before[i]) / MIB);
		assert.ok(Math.max(...grown) < 8, `grown by ${grown} MiB`);
	});
});
