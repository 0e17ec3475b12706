// The message storage network: several URIs a message, and a real nginx in front as one of them.
// Real processes, databases, and DMTP over TLS between two appliances.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import https from "node:https";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { base32 } from "./lib/crowd.mjs";
import { Fork } from "./lib/fork.mjs";
import { metric } from "./lib/http.mjs";
import { Nginx } from "./lib/nginx.mjs";
import { Proxy } from "./lib/proxy.mjs";
import { freePorts, until } from "./lib/wait.mjs";

// GET of octets. port: of this machine; host: whom its certificate names.
function fetched(ca, port, host, target, { method = "GET", headers = {}, agent = false } = {}) {
	return new Promise((resolve, reject) => {
		const req = https.request({ host: "127.0.0.1", port, servername: host, ca, agent, method, path: target, headers: { Host: host, ...headers } }, (res) => {
			const parts = [];
			res.on("data", (part) => parts.push(part));
			res.on("error", reject);
			res.on("end", () => resolve({ status: res.statusCode, headers: res.headers, body: Buffer.concat(parts) }));
		});
		req.on("error", reject);
		req.end();
	});
}

// Where a message is picked up, without the host.
async function pathOf(shop, site, id) {
	const number = Buffer.alloc(8);
	number.writeBigInt64BE(BigInt(site.id));
	const digest = Buffer.from((await shop.sql(`SELECT encode(digest, 'hex') FROM tmtp.message WHERE message_id = '${id}'`)), "hex");
	return { pathname: `/m/${base32(number)}/${id}/${base32(digest)}`, digest };
}

const sha256 = (octets) => crypto.createHash("sha256").update(octets).digest();

// --- other hosts, well and ill -----------------------------------------------------------

// Serves what the origin has, as message_hosts may, or fails at it as `ways` says of each host.
class Hosts {
	static async listen(authority, names, origin) {
		const hosts = new Hosts();
		Object.assign(hosts, { names, origin, ca: authority.pem, asked: [] });
		hosts.server = https.createServer(authority.issue(names.join(",DNS:"), "hosts"), (req, res) => hosts.answer(req, res));
		await new Promise((resolve) => hosts.server.listen(0, "127.0.0.1", resolve));
		hosts.port = hosts.server.address().port;
		hosts.reset();
		return hosts;
	}

	reset() {
		this.asked.length = 0;
		this.ways = Object.fromEntries(this.names.map((name) => [name, "well"]));
	}

	async answer(req, res) {
		const way = this.ways[req.headers.host];
		this.asked.push(`${req.headers.host}${req.url.replace(/\/m\/.*/, "/m/")}`);
		const { status, body } = await fetched(this.ca, this.origin, "shop.test", req.url.slice(req.url.indexOf("/m/")));
		if (way === "well")
			res.writeHead(status).end(body);
		else if (way === "other octets")
			res.writeHead(200).end(Buffer.concat([body.subarray(0, body.length - 1), Buffer.from([body.at(-1) ^ 1])]));
		else if (way === "too many")
			res.writeHead(200).end(Buffer.concat([body, Buffer.from("x")]));
		else if (way === "too few")
			res.writeHead(200).end(body.subarray(1));
		else if (way === "cut")
			res.writeHead(200, { "Content-Length": body.length }).write(body.subarray(0, 10), () => res.destroy());
		else if (way === "slow") // the rest never comes
			res.writeHead(200, { "Content-Length": body.length }).write(body.subarray(0, 10));
		else if (way === "redirect")
			res.writeHead(302, { Location: `https://shop.test${req.url}` }).end();
		else
			res.writeHead(way).end();
	}

	close() {
		this.server.closeAllConnections();
		return new Promise((resolve) => this.server.close(resolve));
	}
}

describe("several URIs a message", () => {
	const its = new Pair(), [first, second] = ["a.shop.test", "b.shop.test"];
	let hosts, fork, site, ann;

	before(async () => {
		await its.start({ prepare: async ({ authority, shop, toShop, also, pickup }) => {
			hosts = await Hosts.listen(authority, [first, second], shop.ports.site);
			fork = await Fork.listen({});
			its.also(() => hosts.close());
			its.also(() => fork.close());
			return { shop: { site: `message_hosts = {"https://${first}", "https://${second}/deep"}` },
				home: { routes: { "shop.test": { dmtp: toShop.port, pickup: fork.port } } } };
		} });
		mend();
		site = await its.shop.makeSite("shop", ["news"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "news");
	});
	after(() => its.stop());

	// The ports that lead somewhere, but for those of the hosts that are dead.
	function lead(...dead) {
		const ports = { [first]: hosts.port, [second]: hosts.port, "shop.test": its.pickup.port };
		fork.lead(Object.fromEntries(Object.entries(ports).map(([name, port]) => [name, dead.includes(name) ? 0 : port])));
	}
	function mend() {
		hosts.reset();
		lead();
	}
	let since = 0;
	// home remembers for a while which hosts were down; the next test begins with one that doesn't.
	afterEach(async () => {
		mend();
		const down = its.home.lines.slice(since).some((line) => line.includes("event=pickup-host-down"));
		since = its.home.now;
		if (down)
			await its.home.killRole("home");
	});

	let n = 0;
	// Pushes; resolves to how many milliseconds later it is readable, with the text that was sent.
	async function arrives() {
		const subject = `Message ${++n}`, start = Date.now();
		const id = await site.push("news", "*", subject, { message: `The text of ${subject}` });
		const { id: entry } = await ann.has(subject);
		assert.equal((await ann.get(`/v1/inbox/${entry}`)).fields.message[0].text, `The text of ${subject}`);
		return { id, took: Date.now() - start };
	}

	const failures = (since) => its.home.lines.slice(since).filter((line) => line.includes("event=pickup-failed"));

	test("a notification names each of message_hosts in order, then our own; the first that answers is enough", async () => {
		const { id } = await arrives(), { pathname, digest } = await pathOf(its.shop, site, id);
		const uris = await its.home.sql(`SELECT uris FROM tmtp.notification WHERE digest = '\\x${digest.toString("hex")}'`);
		assert.deepEqual(uris.split("\n"), [`https://${first}${pathname}`, `https://${second}/deep${pathname}`, `https://shop.test:${its.shop.ports.site}${pathname}`]);
		assert.deepEqual(hosts.asked, [`${first}/m/`]);
	});

	for (const way of ["other octets", "too many", "too few", "cut", "redirect", 404, 410, 500])
		test(`the first answers with ${way}: the second is asked at once, and its octets are what is shown`, async () => {
			hosts.ways[first] = way;
			const since = its.home.now;
			await arrives();
			assert.deepEqual(hosts.asked, [`${first}/m/`, `${second}/deep/m/`]);
			assert.deepEqual(failures(since), []);
		});

	test("a lie is counted", async () => {
		const refused = () => metric(its.home.ports.homeMetrics, 'tmtp_notifications_refused_total{reason="mismatch"}');
		const earlier = await refused();
		hosts.ways[first] = hosts.ways[second] = "other octets";
		await arrives();
		assert.equal(await refused(), earlier + 2);
	});

	test("the first is dead, then both: the next one serves", async () => {
		lead(first);
		await arrives();
		assert.deepEqual(hosts.asked, [`${second}/deep/m/`]);
		lead(first, second);
		await arrives();
		assert.equal(hosts.asked.length, 1);
	});

	test("a host that is down is asked after the others for a while, so that it costs one message its time, not all", async () => {
		const from = its.home.now;
		lead(first);
		await arrives();
		mend();
		await arrives();
		await arrives();
		assert.deepEqual(hosts.asked, [`${second}/deep/m/`, `${second}/deep/m/`]);
		const down = its.home.lines.slice(from).filter((line) => line.includes("event=pickup-host-down"));
		assert.equal(down.length, 1);
		assert.match(down[0], new RegExp(` host=${first} reason=`));
		// when the others fail it is asked, and is as good as ever from then on
		mend();
		lead(second, "shop.test");
		await arrives();
		lead();
		await arrives();
		assert.deepEqual(hosts.asked, [`${first}/m/`, `${first}/m/`]);
	});

	test("the first is slow: it is given up within seconds", async () => {
		hosts.ways[first] = "slow";
		const { took } = await arrives();
		assert.deepEqual(hosts.asked, [`${first}/m/`, `${second}/deep/m/`]);
		assert.ok(took < 15_000, `${took} ms`); // a fetch without another URI waits for 20 s at least
	});

	test("all fail: the message is not lost, and comes with the next attempt", async () => {
		lead(first, second, "shop.test");
		const subject = `Message ${++n}`, since = its.home.now;
		await site.push("news", "*", subject);
		await its.home.line(/event=pickup-failed/, since);
		assert.equal((await ann.subjects()).includes(subject), false);
		mend();
		await ann.has(subject);
	});
});

// --- nginx ---------------------------------------------------------------------------------

describe("nginx in front, as deploy/nginx.conf.sample has it", () => {
	const its = new Pair(), store = "store.shop.test";
	let nginx, way, site, ann, pem;

	before(async () => {
		const [port, wayPort] = await freePorts(2);
		await its.start({ prepare: async ({ dir, authority, shop, toShop, pickup }) => {
			authority.issue(`shop.test,DNS:${store},DNS:inbox.shop.test`, "web");
			pem = authority.pem;
			const certificates = ["example.org", "store.example.org", "inbox.example.org"].flatMap((name) => [
				[`/etc/letsencrypt/live/${name}/fullchain.pem`, authority.file("web.pem")], [`/etc/letsencrypt/live/${name}/privkey.pem`, authority.file("web.key")]]);
			way = await Proxy.listen(wayPort, shop.ports.site);
			nginx = await new Nginx(path.join(dir, "nginx"), port, [...certificates, ["127.0.0.1:8080", `127.0.0.1:${way.port}`],
				["127.0.0.1:8081", `127.0.0.1:${shop.ports.members}`], ["example.org", "shop.test"]]).start();
			its.also(() => nginx.stop());
			its.also(() => way.close());
			pickup.target = port;
			shop.site.port = port; // websites call through it, too
			return { shop: { tls: false, site: `message_hosts = {"https://${store}"}` } };
		} });
		site = await its.shop.makeSite("shop", ["news"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "news");
		await site.push("news", "*", "The first"); // home knows the site card from now on
		await ann.has("The first");
	});
	after(() => its.stop());
	afterEach(() => {
		way.restore();
		its.pickup.restore();
	});

	const sources = ["memory", "store", "unchanged", "none"];
	const counted = async () => Object.fromEntries(await Promise.all(sources.map(async (source) =>
		[source, await metric(its.shop.ports.siteMetrics, `tmtp_pickups_total{source="${source}"}`)])));
	// What the origin did meanwhile: bodies that were read, from memory or the database, and questions that were answered without.
	async function cost(work) {
		const before = await counted();
		await work();
		const now = await counted();
		return { bodies: now.memory + now.store - before.memory - before.store, unchanged: now.unchanged - before.unchanged };
	}

	const get = (pathname, more) => fetched(pem, nginx.port, store, pathname, more);

	// A message to all of the channel, with the home server kept from it until its.pickup is released.
	async function held(subject, more) {
		its.pickup.hold("up");
		const id = await site.push("news", "*", subject, more);
		return { id, ...await pathOf(its.shop, site, id) };
	}

	let n = 0;
	// A message that the cache has.
	async function cached(more) {
		const subject = `Cached ${++n}`, id = await site.push("news", "*", subject, more);
		const where = { id, ...await pathOf(its.shop, site, id) };
		await ann.has(subject);
		return { ...where, whole: (await get(where.pathname)).body };
	}

	for (const [size, text] of [["a short message", "Read me."], ["a message of 400 KB", "Read me. ".repeat(45_000)]])
		test(`the herd: 200 home sessions and a home server want ${size} at once, and the origin is read once`, { timeout: 120_000 }, async () => {
			const subject = `Herd: ${size}`;
			const { pathname, digest } = await held(subject, { message: text });
			let answers;
			const { bodies, unchanged } = await cost(async () => {
				way.hold("down"); // so that all of them come while the first is still waiting
				way.octets.up = 0;
				let sent = 0;
				const all = Array.from({ length: 200 }, () => new Promise((resolve, reject) => {
					const req = https.request({ host: "127.0.0.1", port: nginx.port, servername: store, ca: pem, agent: false, path: pathname, headers: { Host: store } }, (res) => {
						const hash = crypto.createHash("sha256");
						res.on("data", (part) => hash.update(part));
						res.on("error", reject);
						res.on("end", () => resolve({ status: res.statusCode, digest: hash.digest("hex") }));
					});
					req.on("error", reject);
					req.on("socket", (socket) => socket.on("secureConnect", () => { sent++; }));
					req.end();
				}));
				its.pickup.octets.up = 0;
				its.pickup.release();
				await until(() => `all to have asked: ${sent}`, () => sent === 200 && way.octets.up > 0 && its.pickup.octets.up > 0);
				way.release();
				answers = await Promise.all(all);
				await ann.has(subject);
			});
			for (const answer of answers)
				assert.deepEqual(answer, { status: 200, digest: digest.toString("hex") });
			assert.deepEqual({ bodies, unchanged }, { bodies: 1, unchanged: 0 });
		});

	test("what a copy says: whole, in parts, by HEAD, and unchanged, all without the origin", async () => {
		const { pathname, digest, whole } = await cached({ message: "0123456789".repeat(100) });
		assert.deepEqual(sha256(whole), digest);
		const used = await cost(async () => {
			const { headers } = await get(pathname);
			const etag = `"${base32(digest)}"`;
			assert.deepEqual([headers["cache-control"], headers.etag, headers["content-type"], headers["set-cookie"], headers.vary],
				["public, max-age=3600, s-maxage=60", etag, "application/octet-stream", undefined, undefined]);
			const part = async (range, more = {}) => {
				const { status, headers: h, body } = await get(pathname, { headers: { Range: range, ...more } });
				return [status, h["content-range"], body.toString("latin1")];
			};
			const text = whole.toString("latin1"), size = whole.length;
			assert.deepEqual(await part("bytes=0-9"), [206, `bytes 0-9/${size}`, text.slice(0, 10)]);
			assert.deepEqual(await part("bytes=100-"), [206, `bytes 100-${size - 1}/${size}`, text.slice(100)]);
			assert.deepEqual(await part("bytes=-5"), [206, `bytes ${size - 5}-${size - 1}/${size}`, text.slice(-5)]);
			assert.equal((await part(`bytes=${size}-`))[0], 416);
			assert.deepEqual((await part("bytes=0-9", { "If-Range": etag }))[0], 206);
			assert.deepEqual((await part("bytes=0-9", { "If-Range": '"another"' })), [200, undefined, text]);
			const head = await get(pathname, { method: "HEAD" });
			assert.deepEqual([head.status, head.headers["content-length"], head.headers.etag, head.body.length], [200, String(size), etag, 0]);
			assert.equal((await get(pathname, { headers: { "If-None-Match": etag } })).status, 304);
			assert.deepEqual((await get(`${pathname}?another=1`)).body, whole);
		});
		assert.deepEqual(used, { bodies: 0, unchanged: 0 });
	});

	test("a part of what the cache doesn't have yet is a part, and makes it have the whole", async () => {
		const { pathname } = await held("In parts", { message: "In parts" });
		const used = await cost(async () => {
			const { status, body } = await get(pathname, { headers: { Range: "bytes=0-3" } });
			assert.deepEqual([status, body.length], [206, 4]);
			assert.equal((await get(pathname)).status, 200);
		});
		assert.deepEqual(used, { bodies: 1, unchanged: 0 });
	});

	test("past the cache, at the origin's own name: the same by Range and HEAD", async () => {
		const { pathname, digest, whole } = await cached();
		const own = (more) => fetched(pem, nginx.port, "shop.test", pathname, more);
		const etag = `"${base32(digest)}"`;
		const part = await own({ headers: { Range: "bytes=3-5", "If-Range": etag } });
		assert.deepEqual([part.status, part.body], [206, whole.subarray(3, 6)]);
		const head = await own({ method: "HEAD" });
		assert.deepEqual([head.status, head.headers["content-length"]], [200, String(whole.length)]);
		const used = await cost(async () => assert.equal((await own({ headers: { "If-None-Match": etag } })).status, 304));
		assert.deepEqual(used, { bodies: 0, unchanged: 1 });
	});

	test("after its minute a copy is asked for again, without its octets; while the origin is away it serves", async () => {
		const { pathname, whole } = await cached();
		nginx.expire(pathname);
		assert.deepEqual(await cost(async () => assert.deepEqual((await get(pathname)).body, whole)), { bodies: 0, unchanged: 1 });
		assert.deepEqual(await cost(async () => assert.deepEqual((await get(pathname)).body, whole)), { bodies: 0, unchanged: 0 });
		nginx.expire(pathname);
		way.refuse();
		assert.deepEqual((await get(pathname)).body, whole);
	});

	test("a herd that comes when a copy has outlived its minute costs questions, and no body; after a recall nobody gets it", async () => {
		const { id, pathname, whole } = await cached();
		const herd = () => Promise.all(Array.from({ length: 200 }, () => get(pathname)));
		nginx.expire(pathname);
		const used = await cost(async () => {
			for (const { status, body } of await herd())
				assert.deepEqual([status, body], [200, whole]);
		});
		assert.equal(used.bodies, 0);
		assert.ok(used.unchanged >= 1 && used.unchanged <= 200, `${used.unchanged} questions`);
		assert.equal((await site.call("DELETE", `/v1/messages/${id}`)).status, 204);
		nginx.expire(pathname);
		for (const { status } of await herd())
			assert.equal(status, 410);
	});

	test("a recalled message is gone at the origin's own name at once, at the cache after the copy's minute, or as soon as it is purged", async () => {
		const recall = async (id) => assert.equal((await site.call("DELETE", `/v1/messages/${id}`)).status, 204);
		const own = (pathname) => fetched(pem, nginx.port, "shop.test", pathname);
		const [waits, purged] = [await cached(), await cached()];
		await recall(waits.id);
		await recall(purged.id);
		for (const { pathname } of [waits, purged]) {
			assert.equal((await own(pathname)).status, 410);
			assert.equal((await get(pathname)).status, 200);
		}
		nginx.expire(waits.pathname);
		nginx.purge(purged.id);
		for (const { pathname } of [waits, purged]) {
			const { status, headers, body } = await get(pathname);
			assert.deepEqual([status, headers["cache-control"], body.includes("Cached")], [410, "public, max-age=60", false]);
		}
		way.refuse(); // the 410 took the copy's place: nothing brings it back
		for (const { pathname } of [waits, purged])
			assert.equal((await get(pathname)).status, 410);
	});

	test("a message to one recipient is never kept by the cache, nor is what isn't there; nothing but messages is served there", async () => {
		const id = await site.push("news", ann.address, "For ann");
		await ann.has("For ann");
		const { pathname } = await pathOf(its.shop, site, id);
		const used = await cost(async () => {
			for (let i = 0; i < 2; i++)
				assert.equal((await get(pathname)).headers["cache-control"], "private, max-age=3600");
		});
		assert.equal(used.bodies, 2);
		assert.equal(fs.existsSync(nginx.copy(pathname)), false);
		const wrong = pathname.replace(/.$/, (c) => c === "a" ? "q" : "a");
		const missing = await get(wrong);
		assert.deepEqual([missing.status, missing.headers["cache-control"]], [404, "no-store"]);
		assert.equal(fs.existsSync(nginx.copy(wrong)), false);
		assert.equal((await get("/v1/messages")).status, 404);
		assert.equal((await get(pathname, { method: "POST" })).status, 403);
	});

	test("large attachments come in slices, through it as well: a reading of each, whoever may keep it", async () => {
		const size = (5 << 20) + 77, bob = await its.home.makeAccount("bob");
		await bob.hold(site, "news");
		for (const [to, readers] of [["*", [ann, bob]], [ann.address, [ann]]]) {
			const body = crypto.randomBytes(size), subject = `Attached for ${to}`;
			const { status, json } = await site.call("POST", "/v1/attachments", body, { "Content-Type": "video/mp4" });
			assert.equal(status, 201);
			way.octets.down = 0;
			await site.push("news", to, subject, { attachments: [{ digest: json.digest }] });
			for (const member of readers) {
				const { id } = await member.has(subject);
				await until("the attachment", async () => (await member.get(`/v1/inbox/${id}`)).fields.attachments[0].state === "here");
			}
			assert.ok(way.octets.down < 1.1 * size, `${way.octets.down} octets from the origin`);
			const uri = (await its.home.sql(`SELECT s.uris FROM tmtp.copy_source s JOIN tmtp.copy c USING (copy_id) WHERE c.digest = '\\x${json.digest}'`)).split("\n")[0];
			assert.match(uri, new RegExp(`^https://${store}/m/a/`));
			way.octets.down = 0;
			const all = await fetched(pem, nginx.port, store, new URL(uri).pathname);
			assert.ok(all.body.equals(body));
			if (to === "*")
				assert.ok(way.octets.down < 100000, `${way.octets.down} octets from the origin, though the cache has it`);
		}
	});
});
