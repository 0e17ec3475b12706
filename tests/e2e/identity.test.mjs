// Who is who between two appliances: site cards and their keys, signatures, AUTH. Real processes, DMTP over TLS; senders that
// are made up have a web server of the test's own. BUILD names the programs (build).
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { after, before, describe, test } from "node:test";
import { Authority, Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { compose, Session } from "./lib/dmtp.mjs";
import { metric, request } from "./lib/http.mjs";
import { DomainKey, Origin } from "./lib/origin.mjs";
import { until } from "./lib/wait.mjs";

function pairOfItsOwn(options) {
	const its = new Pair();
	before(() => its.start(options));
	after(() => its.stop());
	return its;
}

const seconds = () => Math.floor(Date.now() / 1000);
const cardOf = async (appliance, headers) => request(appliance.site, "GET", "/.well-known/dmtp", { headers, agent: appliance.agent });
const key = (appliance, verb, ...args) => appliance.ctl(["domain-key", verb, appliance.domain, ...args]);
// The key is old enough for every cache: without this a relay waits ten minutes before it signs with it.
const publish = (appliance) => appliance.sql(`UPDATE tmtp.domain_key SET created_at = created_at - interval '1 hour';
	UPDATE tmtp.revision SET number = number + 1`);

describe("a domain's keys and its site card", () => {
	const its = pairOfItsOwn({ prepare: async () => ({ shop: { own: 'title = "The Shop" icon = "https://shop.test/icon.png" signed = true',
		site: 'message_hosts = {"https://cdn.shop.test/cache", "https://shop.test/own"}' } }) });
	const cardUntil = (what, holds) => until(what, async () => {
		const { json } = await cardOf(its.shop);
		return holds(json) && json;
	});

	test("without a key the card says so, and doesn't demand what nobody can give", async () => {
		const { status, headers, json } = await cardOf(its.shop);
		assert.equal(status, 200);
		assert.deepEqual(json, { dmtp: 1, name: "The Shop", icon: "https://shop.test/icon.png", hosts: ["cdn.shop.test"], signed: 0, keys: [] });
		assert.equal(headers["content-type"], "application/json");
		assert.equal(headers["cache-control"], "public, max-age=300");
		assert.ok(its.shop.lines.some((line) => /^event=card-unsigned .*domain=shop\.test/.test(line)));
	});

	test("a key that tmtpctl made stands in it at once, its private part nowhere", async () => {
		const made = await key(its.shop, "make", "--id", "k1");
		assert.deepEqual([made.id, made.state, made.ed25519.length], ["k1", "valid", 43]);
		const { keys, signed } = await cardUntil("the key", (card) => card.keys.length === 1);
		assert.equal(signed, 1);
		assert.equal(keys[0].id, "k1");
		assert.equal(keys[0].ed25519, made.ed25519);
		assert.ok(keys[0].from < seconds() - 30 * 86400, "it signs what waits");
		assert.ok(keys[0].until > seconds() + 9 * 365 * 86400);
		const readers = await its.shop.sql(`SELECT string_agg(r, ',' ORDER BY r) FROM unnest(ARRAY['tmtp_site', 'tmtp_home', 'tmtp_panel', 'tmtp_ctl', 'tmtp_relay']) AS r
			WHERE has_column_privilege(r, 'tmtp.domain_key_secret', 'seed', 'SELECT')`);
		assert.equal(readers, "tmtp_relay");
		assert.doesNotMatch(JSON.stringify(made), /seed|secret|private/i);
	});

	test("clients and caches: ETag, HEAD, other names of the server", async () => {
		const { headers } = await cardOf(its.shop);
		assert.equal((await cardOf(its.shop, { "If-None-Match": headers.etag })).status, 304);
		const head = await request(its.shop.site, "HEAD", "/.well-known/dmtp", { agent: its.shop.agent });
		assert.deepEqual([head.status, head.text, head.headers.etag], [200, "", headers.etag]);
		assert.equal((await cardOf(its.shop, { Host: "SHOP.test" })).status, 200);
		for (const host of ["other.test", "", "127.0.0.1", "a".repeat(300)])
			assert.ok([404, 400].includes((await cardOf(its.shop, { Host: host })).status), host);
		assert.equal((await request(its.shop.site, "POST", "/.well-known/dmtp", { agent: its.shop.agent })).status, 405);
	});

	test("rotation: a second key beside the first, which ends after its overlap and stays listed", async () => {
		await key(its.shop, "make", "--id", "k2");
		await key(its.shop, "retire", "--id", "k1", "--overlap", "1h");
		const card = await cardUntil("both keys", (c) => c.keys.length === 2 && c.keys[1].until < seconds() + 3601);
		assert.deepEqual(card.keys.map((k) => k.id), ["k2", "k1"]);
		assert.ok(card.keys[1].until > seconds() + 3500);
		assert.deepEqual((await key(its.shop, "list")).keys.map((k) => [k.id, k.state]), [["k2", "valid"], ["k1", "retiring"]]);
		// ended long ago: in the card for 400 days, no longer
		await its.shop.sql(`UPDATE tmtp.domain_key SET valid_until = now() - interval '399 days' WHERE key_id = 'k1'; UPDATE tmtp.revision SET number = number + 1`);
		await cardUntil("the ended one", (c) => c.keys.length === 2 && c.keys[1].until < seconds());
		await its.shop.sql(`UPDATE tmtp.domain_key SET valid_until = now() - interval '401 days' WHERE key_id = 'k1'; UPDATE tmtp.revision SET number = number + 1`);
		await cardUntil("the end of the ended one", (c) => c.keys.length === 1);
	});

	test("a leaked key leaves the card at once and its private part is gone; all of it is in the audit log", async () => {
		await key(its.shop, "make", "--id", "k3");
		await key(its.shop, "revoke", "--id", "k2");
		await cardUntil("the revoked one to go", (c) => c.keys.length === 1 && c.keys[0].id === "k3");
		assert.equal(await its.shop.number("SELECT count(*) FROM tmtp.domain_key_secret WHERE key_id = 'k2'"), 0);
		assert.deepEqual((await key(its.shop, "list")).keys.map((k) => [k.id, k.state]), [["k3", "valid"], ["k2", "revoked"], ["k1", "ended"]]);
		const { audit } = await its.shop.ctl(["audit", "list"]);
		const actions = audit.filter((a) => a.subject === "shop.test").map((a) => [a.action, a.detail.split(" ")[0]]).reverse();
		assert.deepEqual(actions, [["domain-key-make", "k1"], ["domain-key-make", "k2"], ["domain-key-retire", "k1"], ["domain-key-make", "k3"], ["domain-key-revoke", "k2"]]);
	});

	test("who sends, and what is demanded, change with SIGHUP", async () => {
		const conf = fs.readFileSync(its.shop.conf, "utf8");
		fs.writeFileSync(its.shop.conf, conf.replace("The Shop", "The New Shop").replace("signed = true", "signed = false"));
		its.shop.child.kill("SIGHUP");
		const card = await cardUntil("the new name", (c) => c.name === "The New Shop");
		assert.equal(card.signed, 0);
	});

	test("what can't be done is said", async () => {
		for (const [args, says] of [[["make", "--id", "k3"], /already/], [["make", "--id", "k2"], /already/], [["make", "--id", "k 4"], /blanks/],
			[["make", "--valid-for", "soon"], /90d/], [["make", "--valid-for", "0s"], /valid-for/], [["retire", "--id", "k9"], /no key/],
			[["retire", "--id", "k2"], /revoked/], [["revoke", "--id", "k9"], /no key/]])
			await assert.rejects(key(its.shop, ...args), says, args.join(" "));
		await assert.rejects(its.shop.ctl(["domain-key", "make", "other.test"]), /not a domain of this appliance/);
		assert.deepEqual(await key(its.shop, "revoke", "--id", "k2"), { domain: "shop.test", id: "k2", state: "revoked" });
	});
});

describe("signed messages", () => {
	const its = pairOfItsOwn({ prepare: async () => ({ shop: { own: "signed = true" } }) });
	let site, ann, crowd;
	const signedBy = (subject) => its.home.sql(`SELECT signing_key || ' ' || octet_length(signature) || ' ' || state FROM tmtp.notification
		WHERE state > 0 ORDER BY notification_id DESC LIMIT 1`).then((text) => ({ subject, text }));
	// A home server asks for a card at most once a minute.
	const forgetCards = () => its.home.killRole("home");
	const signatures = () => metric(its.shop.ports.relayMetrics, "tmtp_relay_signatures_total");

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders", "crowd"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
		crowd = await Crowd.make(site, "crowd", its.home, "c", 2500);
	});

	test("before there is a key nothing is signed, and arrives", async () => {
		await site.push("orders", ann.address, "Unsigned");
		await ann.has("Unsigned");
		assert.equal(await its.home.number("SELECT count(*) FROM tmtp.notification WHERE signing_key IS NOT NULL"), 0);
	});

	test("with one every message is signed and verified at pickup, also what was accepted before it", async () => {
		its.toHome.refuse();
		const id = await site.push("orders", ann.address, "Waits for the key");
		await key(its.shop, "make", "--id", "k1");
		await until("the key in the card", async () => (await cardOf(its.shop)).json.keys.length === 1);
		await forgetCards();
		its.toHome.restore();
		await site.settled(id);
		await ann.has("Waits for the key");
		assert.equal((await signedBy()).text, "k1 64 1");
		await site.push("orders", ann.address, "Signed");
		await ann.has("Signed");
		assert.equal((await signedBy()).text, "k1 64 1");
	});

	test("an invitation's words are signed too", async () => {
		const bob = await its.home.makeAccount("bob");
		await site.invite("orders", bob.address, "How your orders are doing");
		await bob.invitation(site.address, "orders");
		await until("the invitation's words", async () => (await bob.get(`/v1/invitations/${site.address}/orders`)).words === "How your orders are doing");
		assert.equal((await signedBy()).text, "k1 64 1");
	});

	test("a message to thousands is signed once", async () => {
		const before_ = await signatures();
		const id = await site.push("crowd", "*", "Once");
		await site.settled(id);
		await crowd.untilSeen(id);
		assert.equal(await its.shop.number(`SELECT count(*) FROM tmtp.batch WHERE message_id = '${id}'`), 4);
		assert.equal(await signatures(), before_ + 1);
	});

	test("the successor signs once it has been published for a while; both verify", async () => {
		await publish(its.shop);
		await key(its.shop, "make", "--id", "k2");
		await until("both keys", async () => (await cardOf(its.shop)).json.keys.length === 2);
		await site.push("orders", ann.address, "By the first still");
		await ann.has("By the first still");
		assert.equal((await signedBy()).text, "k1 64 1");
		await publish(its.shop);
		await forgetCards();
		const by = await until("the successor", async () => {
			const subject = crypto.randomUUID();
			await site.push("orders", ann.address, subject);
			await ann.has(subject);
			const { text } = await signedBy();
			return text !== "k1 64 1" && text;
		});
		assert.equal(by, "k2 64 1");
	});

	test("what a leaked key had signed and waits is signed anew", async () => {
		its.toHome.refuse();
		const id = await site.push("orders", ann.address, "Signed twice");
		await until("a try that failed", () => its.shop.number(`SELECT count(*) FROM tmtp.batch WHERE message_id = '${id}' AND attempts + (reason IS NOT NULL)::int > 0`));
		await key(its.shop, "revoke", "--id", "k2");
		await until("the card without it", async () => (await cardOf(its.shop)).json.keys.length === 1);
		its.toHome.restore();
		await site.settled(id);
		await ann.has("Signed twice");
		assert.equal((await signedBy()).text, "k1 64 1");
	});

	test("whoever has the domain's certificate but not its key says nothing to members", async () => {
		const cert = fs.readFileSync(its.authority.file("shop.test.pem")), private_ = fs.readFileSync(its.authority.file("shop.test.key"));
		const grant = Buffer.from(await its.home.sql(`SELECT encode(g.grant_id, 'hex') FROM tmtp.open_grant g JOIN tmtp.account a USING (account_id) WHERE a.name = 'ann'`), "hex");
		const session = new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, cert, key: private_ });
		const { post } = compose({ from: site.address, to: `orders.${site.address}`, uris: ["https://shop.test/m/x"], rcpts: [grant] });
		const stranger = new DomainKey("k1"), from = its.home.now;
		assert.deepEqual(await session.ask("POST", stranger.signed(post)), ["K"]);
		await its.home.line(/^event=pickup-failed .*sender=shop@shop\.test .*signature is not of that key/, from);
		await until("its end", () => its.home.number("SELECT count(*) FROM tmtp.notification WHERE state = 2"));
		assert.equal(await metric(its.home.ports.homeMetrics, 'tmtp_notifications_refused_total{reason="forged"}'), 1);
		assert.equal((await ann.entries()).some((e) => e.subject === "Hello"), false);
		await session.close();
	});
});

const wild = ["plain", "signs", "unsigned", "nocard", "broken", "silent", "redirects", "large", "hosts", "cdn.hosts", "rotates", "ended", "future", "proves", "late",
	"slow1", "slow2", "quick"].map((name) => `${name}.test`);

// A home server and many senders that are made up; ann holds "orders" of shop@ each.
async function prepareWild(pair) {
	pair.origin = await Origin.listen(pair.authority, wild);
	pair.also(() => pair.origin.close());
	const routes = Object.fromEntries(wild.map((domain) => [domain, { pickup: pair.origin.port }]));
	routes["proves.test"].more = "rcpts = 2000 pipeline = 128";
	return { home: { routes } };
}

describe("a home server and senders' cards", () => {
	const its = pairOfItsOwn({ prepare: prepareWild });
	const keys = {};
	let ann;

	before(async () => {
		ann = await its.home.makeAccount("ann");
	});

	// Announces a message of shop@domain in a session with that domain's certificate; sign makes the POST's arguments what they should be.
	async function announce(domain, subject, { sign = (post) => post, host = domain, ...more } = {}) {
		const from = `shop@${domain}`;
		if (!keys[domain]) {
			keys[domain] = its.authority.issue(domain);
			await ann.do("PUT", `/v1/channels/${from}/orders`, {});
		}
		const grant = Buffer.from(await its.home.sql(`SELECT encode(g.grant_id, 'hex') FROM tmtp.open_grant g JOIN tmtp.sender s USING (sender_id) WHERE s.address = '${from}'`), "hex");
		const { octets, post } = compose({ from, to: `orders.${from}`, subject, rcpts: [grant], ...more });
		post.uris = [its.origin.put(host, octets)];
		const session = new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, ...keys[domain] });
		assert.deepEqual(await session.ask("POST", sign(post)), ["K"]);
		await session.close();
		return post;
	}
	const failed = async (domain, says, count = 1) => {
		await its.home.line(new RegExp(`^event=pickup-failed .*sender=shop@${domain.replace(".", "\\.")} .*${says}`));
		assert.equal(await its.home.number(`SELECT count(*) FROM tmtp.notification n JOIN tmtp.sender s USING (sender_id) WHERE s.address = 'shop@${domain}' AND state = 1`), 0);
		assert.equal(its.home.lines.filter((line) => line.startsWith("event=pickup-failed ") && line.includes(`shop@${domain}`)).length, count);
	};
	const refused = (reason) => metric(its.home.ports.homeMetrics, `tmtp_notifications_refused_total{reason="${reason}"}`);

	test("a card without keys, and one fetch for many messages", async () => {
		its.origin.cards["plain.test"] = { name: "Plain", signed: 0, keys: [] };
		for (const subject of ["Plain 1", "Plain 2", "Plain 3"]) {
			await announce("plain.test", subject);
			await ann.has(subject);
		}
		assert.equal(its.origin.count("plain.test"), 1);
	});

	test("no card at all: what isn't signed is shown", async () => {
		await announce("nocard.test", "No card");
		await ann.has("No card");
	});

	test("a signature by a published key", async () => {
		const k = new DomainKey("k");
		its.origin.cards["signs.test"] = { signed: 1, keys: [k.entry] };
		await announce("signs.test", "Signed by a stranger", { sign: (post) => k.signed(post) });
		await ann.has("Signed by a stranger");
	});

	test("signed 1 and no signature: refused for good, one line, nothing fetched", async () => {
		its.origin.cards["unsigned.test"] = { signed: 1, keys: [] };
		const { uris } = await announce("unsigned.test", "Not signed");
		await failed("unsigned.test", "not signed, and the domain signs everything");
		assert.equal(await refused("unsigned"), 1);
		assert.equal(its.origin.count("unsigned.test", new URL(uris[0]).pathname), 0);
		assert.equal(await its.home.number("SELECT count(*) FROM tmtp.notification n JOIN tmtp.sender s USING (sender_id) WHERE s.address = 'shop@unsigned.test' AND state = 2"), 1);
	});

	test("a key that isn't valid at the message's date, on either side", async () => {
		for (const [domain, times] of [["ended.test", { until: seconds() - 100 }], ["future.test", { from: seconds() + 100 }]]) {
			const k = new DomainKey("k", times);
			its.origin.cards[domain] = { signed: 0, keys: [k.entry] };
			await announce(domain, "Out of time", { sign: (post) => k.signed(post) });
			await failed(domain, "not valid at that time");
		}
		assert.equal(await refused("key-ended"), 2);
		// the same key, at a date when it was valid
		const k = new DomainKey("k", { until: seconds() - 100 });
		its.origin.cards["late.test"] = { signed: 1, keys: [k.entry] };
		await announce("late.test", "In time", { sign: (post) => k.signed(post), date: seconds() - 1000 });
		await ann.has("In time");
	});

	test("a key that the card doesn't hold: waits for a newer card", async () => {
		const k = new DomainKey("new"), old = new DomainKey("old");
		its.origin.cards["rotates.test"] = { signed: 1, keys: [old.entry] };
		await announce("rotates.test", "Too early", { sign: (post) => k.signed(post) });
		await failed("rotates.test", "no key of that id");
		its.origin.cards["rotates.test"] = { signed: 1, keys: [k.entry, old.entry] };
		assert.equal(await refused("no-key"), 1);
		assert.equal(await its.home.number("SELECT count(*) FROM tmtp.notification n JOIN tmtp.sender s USING (sender_id) WHERE s.address = 'shop@rotates.test' AND state = 0 AND not_before > now() + interval '30 s'"), 1);
		assert.equal(its.origin.count("rotates.test"), 1, "not again within a minute");
	});

	test("a card that can't be had says nothing: the message waits", async () => {
		its.origin.cards["silent.test"] = (res) => res.destroy();
		its.origin.cards["broken.test"] = (res) => res.writeHead(200).end('{"dmtp": 1, "signed": "yes"}');
		its.origin.cards["large.test"] = (res) => res.writeHead(200).end(JSON.stringify({ dmtp: 1, name: "x".repeat(70000) }));
		await announce("silent.test", "Silent");
		await announce("broken.test", "Broken");
		await announce("large.test", "Large");
		await failed("silent.test", "site card: broken");
		await failed("broken.test", "site card: it is not of the form");
		await failed("large.test", "site card: too-large");
		for (const domain of ["silent", "broken", "large"])
			await its.home.line(new RegExp(`^event=card-refused .*domain=${domain}\\.test`));
		its.origin.cards["silent.test"] = { signed: 0 };
		await until("the silent one's message", async () => (await ann.subjects()).includes("Silent"), 60_000);
	});

	test("a redirect isn't followed: there is no card", async () => {
		its.origin.cards["redirects.test"] = (res) => res.writeHead(302, { Location: "https://signs.test/.well-known/dmtp" }).end();
		const asked = its.origin.count("signs.test");
		await announce("redirects.test", "Redirected");
		await ann.has("Redirected");
		assert.equal(its.origin.count("signs.test"), asked);
	});

	test("a URI of another host counts when the card names it", async () => {
		its.origin.cards["hosts.test"] = { hosts: ["cdn.hosts.test"] };
		await announce("hosts.test", "From the CDN", { host: "plain.test" });
		await failed("hosts.test", "no URI's host is the sender's domain or in its site card");
		assert.equal(await refused("host"), 1);
	});
});

describe("AUTH, to a home server", () => {
	const its = pairOfItsOwn({ prepare: prepareWild });
	const k = new DomainKey("k"), code = ([letter, told]) => [letter, told?.code];
	let ann, grant;
	const session = (more = {}) => new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, ...more });
	const note = (more) => compose({ from: "shop@proves.test", to: "orders.shop@proves.test", uris: ["https://proves.test/m/nothing"], rcpts: [grant], ...more });
	const auths = (result) => metric(its.home.ports.homeMetrics, `tmtp_dmtp_auths_total{result="${result}"}`);

	before(async () => {
		ann = await its.home.makeAccount("ann");
		await ann.do("PUT", "/v1/channels/shop@proves.test/orders", {});
		grant = Buffer.from(await its.home.sql("SELECT encode(grant_id, 'hex') FROM tmtp.open_grant"), "hex");
		its.origin.cards["proves.test"] = { keys: [k.entry] };
	});

	test("a key of the card proves the domain; K says the limits that the operator gave it; what is posted arrives", async () => {
		const s = session(), greeting = await s.greeting;
		assert.ok(greeting.ext.includes("AUTH"));
		assert.equal(greeting.limits.rcpts, 1000);
		assert.deepEqual(code(await s.ask("POST", note().post)), ["E", "unverified-sender"]);
		const [letter, told] = await s.ask("AUTH", k.proof(s, "proves.test", "home.test"));
		assert.deepEqual([letter, told.limits.rcpts, told.limits.pipeline, told.limits.uris], ["K", 2000, 128, 8]);
		const { octets, post } = note({ subject: "Proved" });
		assert.deepEqual(await s.ask("POST", { ...post, uris: [its.origin.put("proves.test", octets)] }), ["K"]);
		await ann.has("Proved");
		// for that domain and no other
		assert.deepEqual(code(await s.ask("POST", note({ from: "shop@plain.test" }).post)), ["E", "unverified-sender"]);
		await its.home.line(/^event=auth-verified .*domain=proves\.test/);
		assert.equal(await auths("verified"), 1);
		assert.ok(await metric(its.home.ports.homeMetrics, 'tmtp_dmtp_identities_refused_total{reason="unverified-sender"}') >= 2);
		await s.close();
	});

	test("with a certificate the greeting says these limits already", async () => {
		const s = session(its.authority.issue("proves.test"));
		assert.equal((await s.greeting).limits.rcpts, 2000);
		await s.close();
	});

	test("an SRV-ID identifies as a dNSName does", async () => {
		const name = "srv";
		fs.writeFileSync(its.authority.file(`${name}.ext`), "subjectAltName=otherName:1.3.6.1.5.5.7.8.7;IA5STRING:_dmtps.proves.test\nextendedKeyUsage=clientAuth\n");
		its.authority.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", "/CN=x");
		its.authority.openssl("x509", "-req", "-in", `${name}.csr`, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", `${name}.ext`, "-out", `${name}.pem`);
		const s = session({ cert: fs.readFileSync(its.authority.file("srv.pem")), key: fs.readFileSync(its.authority.file("srv.key")) });
		assert.equal((await s.ask("POST", note().post))[0], "K");
		await s.close();
	});

	test("a certificate of a stranger's authority is told of in the log, and AUTH still works", async () => {
		const elsewhere = fs.mkdtempSync(`${its.dir}/ca-`), from = its.home.now;
		const s = session(new Authority(elsewhere).issue("proves.test"));
		await s.greeting;
		await its.home.line(/^event=peer-unverified .*reason=/, from);
		assert.equal(await metric(its.home.ports.homeMetrics, 'tmtp_dmtp_identities_refused_total{reason="certificate"}'), 1);
		assert.equal((await s.ask("AUTH", k.proof(s, "proves.test", "home.test")))[0], "K");
		await s.close();
	});

	test("what isn't a proof: another key, server, domain, session; the third time it closes", async () => {
		const forged = new DomainKey("k"), unknown = new DomainKey("other");
		const s = session(), t = session(), from = its.home.now;
		await Promise.all([s.greeting, t.greeting]);
		const wrong = [forged.proof(s, "proves.test", "home.test"), k.proof(s, "proves.test", "shop.test"), k.proof(t, "proves.test", "home.test")];
		for (const proof of wrong)
			assert.deepEqual(code(await s.ask("AUTH", proof)), ["E", "unverified-sender"]);
		assert.equal((await s.read())[0], "X");
		await s.ended;
		assert.deepEqual(code(await t.ask("AUTH", { ...k.proof(t, "plain.test", "home.test"), domain: "proves.test" })), ["E", "unverified-sender"]);
		assert.deepEqual(code(await t.ask("AUTH", unknown.proof(t, "proves.test", "home.test"))), ["E", "unverified-sender"]);
		assert.deepEqual(code(await t.ask("POST", note().post)), ["E", "unverified-sender"]);
		const lines = its.home.lines.slice(from).filter((line) => /^event=auth-refused .*domain=proves\.test .*reason=/.test(line));
		assert.equal(lines.length, 5);
		await t.close();
		const u = session();
		for (const [auth, told] of [[{ domain: "proves.test", key: "k", signature: "short" }, "malformed"], [{ domain: "proves.test", key: "k" }, "malformed"]])
			assert.deepEqual(code(await u.ask("AUTH", auth)), ["E", told]);
		await u.close();
	});

	test("keys that can't be had: later", async () => {
		its.origin.cards["silent.test"] = (res) => res.destroy();
		const s = session(), before_ = await auths("later");
		await s.greeting;
		const [letter, told] = await s.ask("AUTH", k.proof(s, "silent.test", "home.test"));
		assert.deepEqual([letter, told.code, told.retry > 0], ["Z", "unverified-sender", true]);
		assert.equal(await auths("later"), before_ + 1);
		await its.home.line(/^event=auth-put-off .*domain=silent\.test/);
		assert.deepEqual(await s.ask("NOOP"), ["K"]);
		await s.close();
	});

	test("TLS 1.2 only with the extended master secret", async () => {
		for (const [options, wanted] of [[{}, "K"], [{ secureOptions: 1 }, "E"]]) {
			const old = new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, more: { minVersion: "TLSv1.2", maxVersion: "TLSv1.2", ...options } });
			await old.greeting;
			assert.equal(old.socket.getProtocol(), "TLSv1.2");
			assert.equal((await old.ask("AUTH", k.proof(old, "proves.test", "home.test")))[0], wanted, JSON.stringify(options));
			await old.close();
		}
	});

	test("resumption carries no AUTH", async () => {
		const s = session(), ticket = new Promise((resolve) => s.socket.once("session", resolve));
		await s.greeting;
		assert.equal((await s.ask("AUTH", k.proof(s, "proves.test", "home.test")))[0], "K");
		const again = new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, more: { session: await ticket } });
		await again.greeting;
		assert.equal(again.socket.isSessionReused(), true);
		assert.deepEqual(code(await again.ask("POST", note().post)), ["E", "unverified-sender"]);
		await Promise.all([s.close(), again.close()]);
	});

	test("for one client address cards are fetched one after the other; what is in memory doesn't wait", async () => {
		const held = {};
		for (const domain of ["slow1.test", "slow2.test"])
			its.origin.cards[domain] = (res) => { held[domain] = res; };
		const sessions = [session(), session(), session()];
		await Promise.all(sessions.map((s) => s.greeting));
		const first = sessions[0].ask("AUTH", k.proof(sessions[0], "slow1.test", "home.test"));
		await until("the first card's fetch", () => its.origin.count("slow1.test") === 1);
		const second = sessions[1].ask("AUTH", k.proof(sessions[1], "slow2.test", "home.test"));
		assert.equal((await sessions[2].ask("AUTH", k.proof(sessions[2], "proves.test", "home.test")))[0], "K");
		assert.equal(its.origin.count("slow2.test"), 0);
		const answer = (domain) => held[domain].writeHead(200).end(JSON.stringify({ dmtp: 1, keys: [k.entry] }));
		answer("slow1.test");
		assert.equal((await first)[0], "K");
		await until("the second card's fetch", () => its.origin.count("slow2.test") === 1);
		answer("slow2.test");
		assert.equal((await second)[0], "K");
		await Promise.all(sessions.map((s) => s.close()));
	});
});

// The shop's web server stands behind a proxy, which has a certificate that the shop's own programs lack.
async function frontOf(pair) {
	const { authority, shop } = pair;
	const front = https.createServer({ cert: fs.readFileSync(authority.file("shop.test.pem")), key: fs.readFileSync(authority.file("shop.test.key")) }, (req, res) => {
		const plain = http.request({ host: "127.0.0.1", port: shop.ports.site, method: req.method, path: req.url, headers: req.headers }, (answer) => {
			res.writeHead(answer.statusCode, answer.headers);
			answer.pipe(res);
		});
		plain.on("error", () => res.destroy());
		req.pipe(plain);
	});
	await new Promise((resolve) => front.listen(0, "127.0.0.1", resolve));
	pair.also(() => new Promise((resolve) => { front.closeAllConnections(); front.close(resolve); }));
	pair.pickup.target = front.address().port;
	shop.site = { ...shop.site, port: front.address().port };
}

async function prepareShop(pair, certificate, relay = "") {
	const { authority } = pair;
	if (certificate !== null) {
		const elsewhere = new Authority(fs.mkdtempSync(`${pair.dir}/ca-`));
		elsewhere.issue("shop.test");
		for (const end of ["pem", "key"])
			fs.copyFileSync(elsewhere.file(`shop.test.${end}`), authority.file(`${certificate}.${end}`));
		fs.chmodSync(authority.file(`${certificate}.key`), 0o644);
	}
	authority.issue("mx.test");
	await frontOf(pair);
	const mx = `domain "mx.test" { certificate = "${authority.file("mx.test.pem")}" key = "${authority.file("mx.test.key")}" }`;
	return { shop: { certificate, tls: false, others: mx, relay } };
}

describe("AUTH, by the relay", () => {
	for (const [what, certificate] of [["without a certificate", null], ["with a certificate that the home server doesn't accept", "stranger"]]) {
		describe(what, () => {
			const its = pairOfItsOwn({ prepare: (pair) => prepareShop(pair, certificate) });
			let site, crowd;

			before(async () => {
				site = await its.shop.makeSite("shop", ["orders"]);
				crowd = await Crowd.make(site, "orders", its.home, "c", 2500);
			});

			test("without a key nothing is delivered, and the log says why; with one all that waited is, in sessions that are reused", async () => {
				const ids = [await site.push("orders", "*", "To all"), await site.push("orders", `${crowd.member(7)}@home.test`, "To one")];
				await its.shop.line(/^event=sender-unverified .*peer=home\.test .*no key for AUTH/);
				assert.deepEqual((await site.counts(ids[1])), { waiting: 1, delivered: 0, failed: 0, dead: 0, rejected: 0 });
				assert.ok(await metric(its.shop.ports.relayMetrics, 'tmtp_relay_identities_refused_total{reason="unverified-sender"}') >= 1);
				await key(its.shop, "make", "--id", "k1");
				assert.equal((await site.settled(ids[0])).delivered, 2500);
				assert.equal((await site.settled(ids[1])).delivered, 1);
				await crowd.untilSeen(ids[0]);
				assert.deepEqual(await crowd.seen(ids[0]), { members: 2500, entries: 2500 });
				const member = await crowd.logIn(7);
				await member.has("To one");
				await its.shop.line(/^event=auth-done .*peer=home\.test as=shop\.test/);
				const begun = await metric(its.shop.ports.relayMetrics, "tmtp_relay_sessions_total"), proved = () => metric(its.home.ports.homeMetrics, 'tmtp_dmtp_auths_total{result="verified"}');
				const proofs = await proved();
				await site.settled(await site.push("orders", `${crowd.member(8)}@home.test`, "One more"));
				assert.equal(await metric(its.shop.ports.relayMetrics, "tmtp_relay_sessions_total"), begun);
				assert.equal(await proved(), proofs);
			});

			test("with a key that the home server refuses it waits, told why by the peer", async () => {
				// another private part than the card says
				await its.shop.sql("UPDATE tmtp.domain_key SET public_key = sha256('x'); UPDATE tmtp.revision SET number = number + 1");
				await its.shop.line(/^event=domain-key-broken .*domain=shop\.test .*key=k1/);
				its.toHome.cut();
				const id = await site.push("orders", `${crowd.member(9)}@home.test`, "Waits");
				await its.shop.line(/^event=sender-unverified .*peer=home\.test/, its.shop.now);
				assert.equal((await site.counts(id)).waiting, 1);
				await key(its.shop, "make", "--id", "k2");
				assert.equal((await site.settled(id)).delivered, 1);
			});
		});
	}

	describe("where the operator doesn't want it", () => {
		const its = pairOfItsOwn({ prepare: (pair) => prepareShop(pair, null, "auth = false") });

		test("a key signs messages and proves nothing", async () => {
			const site = await its.shop.makeSite("shop", ["orders"]), crowd = await Crowd.make(site, "orders", its.home, "c", 3);
			await key(its.shop, "make");
			const id = await site.push("orders", `${crowd.member(1)}@home.test`, "Waits");
			await its.shop.line(/^event=sender-unverified .*peer=home\.test/);
			assert.equal((await site.counts(id)).waiting, 1);
			assert.equal(await metric(its.home.ports.homeMetrics, 'tmtp_dmtp_auths_total{result="verified"}'), 0);
		});
	});
});
