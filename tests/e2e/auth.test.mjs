// AUTH between two appliances, by hand against a home server and by the relay. Real processes, DMTP over TLS. BUILD names the
// programs (build).
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { after, before, describe, test } from "node:test";
import { Authority, Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { compose, seconds, Session } from "./lib/dmtp.mjs";
import { metric } from "./lib/http.mjs";
import { DomainKey, prepareWild } from "./lib/origin.mjs";
import { until } from "./lib/wait.mjs";

function pairOfItsOwn(options) {
	const its = new Pair();
	before(() => its.start(options));
	after(() => its.stop());
	return its;
}

const key = (appliance, verb, ...args) => appliance.ctl(["domain-key", verb, appliance.domain, ...args]);

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

	// Whether the session is verified for the domain, without a trace.
	const verified = async (s, domain) => {
		const answer = await s.ask("CHANNELS", { from: `shop@${domain}`, users: [] });
		assert.ok(answer[0] === "K" || code(answer)[1] === "unverified-sender", JSON.stringify(answer));
		return answer[0] === "K";
	};

	test("without SNI, or with a name that is none of the server's, a session proves nothing", async () => {
		for (const [domain, servers] of [[undefined, ["home.test", ""]], ["elsewhere.test", ["home.test", "elsewhere.test"]]]) {
			const s = session({ domain, more: { checkServerIdentity: () => undefined } });
			await s.greeting;
			for (const server of servers) {
				const from = its.home.now;
				assert.deepEqual(code(await s.ask("AUTH", k.proof(s, "proves.test", server))), ["E", "unverified-sender"]);
				await its.home.line(/^event=auth-refused .*domain=proves\.test .*reason="the session names no domain of ours \(SNI\)"/, from);
			}
			assert.equal(await verified(s, "proves.test"), false);
			await s.close();
		}
	});

	test("a session proves 8 domains, each by an AUTH of its own; one more is refused, and those hold", async () => {
		const s = session(), domains = Array.from({ length: 9 }, (_, i) => `many${i}.test`);
		const proves = async (domain) => code(await s.ask("AUTH", k.proof(s, domain, "home.test")));
		await s.greeting;
		for (const [i, domain] of domains.entries()) {
			its.origin.cards[domain] = { keys: [k.entry] };
			assert.equal(await verified(s, domain), false);
			assert.deepEqual(await proves(domain), i < 8 ? ["K", undefined] : ["E", "unverified-sender"]);
		}
		await its.home.line(/^event=auth-refused .*domain=many8\.test .*reason="too many domains in one session"/);
		assert.deepEqual(await Promise.all(domains.map((domain) => verified(s, domain))), domains.map((_, i) => i < 8));
		assert.deepEqual(await proves(domains[0]), ["K", undefined], "once more is not one more");
		await s.close();
		const t = session();
		await t.greeting;
		assert.equal((await t.ask("AUTH", k.proof(t, domains[8], "home.test")))[0], "K");
		await t.close();
	});

	test("a proof ends at the key's `until`", async () => {
		const s = session(), end = seconds() + 6, short = new DomainKey("short", { until: end });
		its.origin.cards["ends.test"] = { keys: [short.entry] };
		await s.greeting;
		assert.equal((await s.ask("AUTH", short.proof(s, "ends.test", "home.test")))[0], "K");
		assert.equal(await verified(s, "ends.test"), true);
		await until("the end of the proof", async () => !await verified(s, "ends.test"), { every: 50 });
		assert.ok(Date.now() >= end * 1000);
		assert.deepEqual(code(await s.ask("AUTH", short.proof(s, "ends.test", "home.test"))), ["E", "unverified-sender"]);
		await s.close();
	});

	// The minute for which no card is fetched again has to pass.
	test("a cached card counts on while asking for it again gets no answer; a newer one without the key ends what it proved", async () => {
		const domain = "rotates.test", unknown = new DomainKey("unknown"), s = session(), t = session();
		// Somebody proves nothing with a key that no card holds, until the card was asked for so often.
		const asked = (times) => until(`fetch ${times} of the card`, async () => {
			const other = session();
			await other.greeting;
			assert.deepEqual(code(await other.ask("AUTH", unknown.proof(other, domain, "home.test"))), ["E", "unverified-sender"]);
			await other.close();
			return its.origin.count(domain) === times;
		}, { ms: 120_000, every: 1000 });
		its.origin.cards[domain] = { keys: [k.entry] };
		await Promise.all([s.greeting, t.greeting]);
		assert.equal((await s.ask("AUTH", k.proof(s, domain, "home.test")))[0], "K");
		assert.equal(await verified(s, domain), true);
		its.origin.cards[domain] = (res) => res.writeHead(503).end();
		await asked(2);
		await its.home.line(/^event=card-refused .*domain=rotates\.test .*503/);
		assert.equal(await verified(s, domain), true);
		assert.equal((await t.ask("AUTH", k.proof(t, domain, "home.test")))[0], "K", "what is cached proves, too");
		its.origin.cards[domain] = { keys: [new DomainKey("new").entry] };
		await asked(3);
		assert.deepEqual([await verified(s, domain), await verified(t, domain)], [false, false]);
		assert.deepEqual(code(await s.ask("AUTH", k.proof(s, domain, "home.test"))), ["E", "unverified-sender"]);
		await Promise.all([s.close(), t.close()]);
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
				await its.home.killRole("home"); // it asks for a card at most once a minute
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
