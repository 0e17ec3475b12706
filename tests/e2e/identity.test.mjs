// Who is who between two appliances: site cards and their keys, signatures. Real processes, DMTP over TLS; senders that
// are made up have a web server of the test's own. BUILD names the programs (build).
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import tls from "node:tls";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { compose, Session } from "./lib/dmtp.mjs";
import { metric, request } from "./lib/http.mjs";
import { DomainKey, prepareWild } from "./lib/origin.mjs";
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
		await its.shop.line(/^event=card-unsigned .*domain=shop\.test/);
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

	test("a server that shows another domain's certificate is told nothing", async () => {
		let heard = 0;
		const impostor = tls.createServer({ ...its.authority.issue("impostor.test"), ALPNProtocols: ["dmtp/1"] }, (socket) => {
			socket.on("error", () => {}).on("data", (octets) => { heard += octets.length; });
		});
		impostor.on("tlsClientError", () => {});
		await new Promise((resolve) => impostor.listen(0, "127.0.0.1", resolve));
		const from = its.shop.now, own = its.toHome.target;
		its.toHome.target = impostor.address().port;
		its.toHome.cut();
		const id = await site.push("orders", ann.address, "Not for impostors");
		await its.shop.line(/^event=server-unverified .*peer=home\.test .*reason=.*(hostname|Hostname)/, from);
		assert.ok(await metric(its.shop.ports.relayMetrics, 'tmtp_relay_identities_refused_total{reason="server-certificate"}') >= 1);
		its.toHome.target = own;
		await new Promise((resolve) => impostor.close(resolve));
		await site.settled(id);
		await ann.has("Not for impostors");
		assert.equal(heard, 0);
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
	// Messages of the domain that wait for the next try, after so many: the first, at their arrival, isn't counted there.
	const waiting = (domain, tries = 1) => its.home.number(`SELECT count(*) FROM tmtp.notification n JOIN tmtp.sender s USING (sender_id)
		WHERE s.address = 'shop@${domain}' AND state = 0 AND leased_until IS NULL AND not_before IS NOT NULL AND attempts = ${tries - 1}`);
	const makeDue = (domain) => its.home.sql(`UPDATE tmtp.notification n SET not_before = now() FROM tmtp.sender s
		WHERE s.sender_id = n.sender_id AND s.address = 'shop@${domain}' AND state = 0`);
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

	test("a card server that takes the question and never answers is given up after 5 seconds, and the message waits", async () => {
		let asked;
		its.origin.cards["hangs.test"] = () => { asked = Date.now(); };
		await announce("hangs.test", "Hangs");
		await its.home.line(/^event=card-refused .*domain=hangs\.test reason="?timeout/);
		const took = Date.now() - asked;
		assert.ok(took > 4000 && took < 15_000, `${took} ms`);
		await failed("hangs.test", "site card: timeout");
		await until("the message to wait", () => waiting("hangs.test"));
		assert.equal((await ann.subjects()).includes("Hangs"), false);
	});

	test("429, or 500 and more, says nothing of a card: the message waits; any other 4xx says that there is none: it is shown", async () => {
		for (const [domain, status] of [["busy.test", 429], ["down.test", 503], ["closed.test", 403]])
			its.origin.cards[domain] = (res) => res.writeHead(status).end();
		for (const [domain, status] of [["busy.test", 429], ["down.test", 503]]) {
			await announce(domain, `By ${domain}`);
			await its.home.line(new RegExp(`^event=card-refused .*domain=${domain} reason="HTTP status ${status}"`));
			await failed(domain, `site card: HTTP status ${status}`);
			await until("the message to wait", () => waiting(domain));
		}
		await announce("closed.test", "By closed.test");
		await ann.has("By closed.test");
		assert.deepEqual((await ann.subjects()).filter((subject) => /^By (busy|down)/.test(subject)), []);
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

	test("a key that no newer card holds: the third try refuses the message for good", async () => {
		const domain = "forever.test", k = new DomainKey("never");
		const tries = () => its.home.lines.filter((line) => line.startsWith("event=pickup-failed ") && line.includes(`shop@${domain}`) && line.includes("no key of that id")).length;
		its.origin.cards[domain] = { signed: 1, keys: [] };
		const { uris } = await announce(domain, "Never", { sign: (post) => k.signed(post) });
		for (const n of [1, 2]) {
			await until(`try ${n}, and the message to wait`, async () => tries() === n && await waiting(domain, n) === 1);
			await makeDue(domain);
		}
		await until("the end", () => its.home.number(`SELECT count(*) FROM tmtp.notification n JOIN tmtp.sender s USING (sender_id) WHERE s.address = 'shop@${domain}' AND state = 2`));
		assert.equal(tries(), 3);
		assert.equal(its.origin.count(domain, new URL(uris[0]).pathname), 0);
		assert.equal((await ann.subjects()).includes("Never"), false);
	});

	test("a key that the card doesn't hold: once a newer card holds it the message is shown", async () => {
		const domain = "waits.test", k = new DomainKey("new");
		its.origin.cards[domain] = { signed: 1, keys: [] };
		await announce(domain, "By the new key", { sign: (post) => k.signed(post) });
		await failed(domain, "no key of that id");
		await until("the message to wait", () => waiting(domain));
		its.origin.cards[domain] = { signed: 1, keys: [k.entry] };
		await its.home.killRole("home"); // it asks for a card at most once a minute
		await makeDue(domain);
		await ann.has("By the new key");
	});
});
