// Finding a domain's DMTP servers: a real name server with a zone of the tests' own tells the relay where to go, and
// changes its mind, lies, and falls silent. Each group names the sentence of PROTOCOL.md that it is about.
import assert from "node:assert/strict";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { after, afterEach, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { NameServer } from "./lib/nameserver.mjs";
import { Proxy } from "./lib/proxy.mjs";
import { Sink } from "./lib/sink.mjs";
import { freePorts, until } from "./lib/wait.mjs";

// A domain for each test, so that none is told what an earlier one was, and none waits for a cache.
const domains = Array.from({ length: 30 }, (_, i) => `d${i}.test`), guarded = domains.at(-1);

describe("discovery", () => {
	const its = new Pair();
	let dns, site, first, second, starttls, dead, host, half, silent, used = 0, kept = [];

	// 127.x.y.z for the well-known ports, which no SRV record can change: one of this run's own.
	const ownAddress = () => `127.${2 + Math.floor(Math.random() * 250)}.${Math.floor(Math.random() * 256)}.${1 + Math.floor(Math.random() * 250)}`;

	// The home serves all the domains; the shop knows of them only whom to trust, and asks the name server where they are.
	function configured({ authority, home }, port) {
		authority.issue(domains.join(",DNS:"), "domains");
		const own = `certificate = "${authority.file("domains.pem")}" key = "${authority.file("domains.key")}"`;
		return {
			shop: { routes: Object.fromEntries(domains.map((domain) => [domain, { public: domain === guarded }])),
				relay: `nameservers = {"127.0.0.1:${port}"} connect_timeout_s = 5` },
			home: { others: domains.map((domain) => `domain "${domain}" { ${own} }\n`).join(""),
				listen: { dmtps: [`[::1]:${home.ports.dmtps}`, `${host}:3688`], dmtp: [`${host}:3687`, `${half}:3687`] } },
		};
	}

	before(async () => {
		const [port, ...ports] = await freePorts(5);
		[host, half] = [ownAddress(), ownAddress()];
		await its.start({
			prepare: async (pair) => {
				dns = await NameServer.start(path.join(pair.dir, "dns"), port);
				pair.also(() => dns.stop());
				return configured(pair, port);
			},
		});
		first = await Proxy.listen(ports[0], its.home.ports.dmtps);
		second = await Proxy.listen(ports[1], its.home.ports.dmtps);
		starttls = await Proxy.listen(ports[2], its.home.ports.dmtp);
		dead = ports[3];
		for (const proxy of [first, second, starttls])
			its.also(() => proxy.close());
		site = await its.shop.makeSite("shop", ["orders"]);
		await beginSilent(); // it takes half a minute, while the other tests run
	});
	after(() => its.stop());
	afterEach(() => {
		dns.resume();
		for (const proxy of [first, second, starttls]) {
			proxy.restore();
			proxy.cut();
		}
	});

	const local = "host A 127.0.0.1";
	let n = 0, domain, ann;
	const srv = (service, priority, weight, port, target) => `_${service}._tcp.${domain.split(".")[0]} SRV ${priority} ${weight} ${port} ${target}`;
	const address = (ip) => `${domain.split(".")[0]} A ${ip}`;

	// All that the zone says from now on, and what it says all the time.
	const tell = (...records) => dns.set(...records, ...kept);

	// From now on it is about a new domain, of which the zone says what records() answers.
	async function zone(records, about = domains[used++]) {
		domain = about;
		ann = await its.home.makeAccount("ann", domain);
		await ann.hold(site, "orders");
		for (const proxy of [first, second, starttls])
			proxy.accepted = 0;
		await tell(...records());
	}

	// A domain whose first target takes connections and never says a word.
	async function beginSilent() {
		const server = net.createServer((socket) => {
			silent.seen++;
			socket.on("error", () => {});
			socket.on("close", () => { silent.left++; });
			socket.resume();
		});
		await new Promise((resolve, reject) => server.on("error", reject).listen(0, "127.0.0.1", resolve));
		its.also(() => new Promise((resolve) => server.close(resolve)));
		silent = { seen: 0, left: 0 };
		kept = ["still A 127.0.0.1", `_dmtps._tcp.${domains[used].split(".")[0]} SRV 0 0 ${server.address().port} still`,
			`_dmtps._tcp.${domains[used].split(".")[0]} SRV 1 0 ${its.home.ports.dmtps} still`];
		await zone(() => []);
		silent.ann = ann;
		silent.id = await site.push("orders", ann.address, "Passed over");
		await until("the silent target to be tried", () => silent.seen === 1);
	}

	const push = () => site.push("orders", ann.address, `Message ${++n}`);

	async function arrives() {
		const id = await push();
		assert.equal((await site.settled(id)).delivered, 1);
		await ann.has(`Message ${n}`);
		return id;
	}

	const peer = () => its.shop.sql(`SELECT failures, reason FROM tmtp.peer p JOIN tmtp.domain d USING (domain_id) WHERE d.name = '${domain}'`);
	const failed = async (id, pattern) => {
		const seen = await until(async () => `a failure, not ${await peer()}`, async () => {
			const [failures, reason] = (await peer()).split("|");
			return Number(failures) > 0 && reason;
		});
		assert.match(seen, pattern);
		assert.equal((await site.counts(id)).waiting, 1, "it is kept");
	};
	// DNS has said it for two days: the stored time is set back.
	async function final(id, pattern) {
		const since = () => its.shop.sql(`SELECT p.refused_since IS NOT NULL FROM tmtp.peer p JOIN tmtp.domain d USING (domain_id) WHERE d.name = '${domain}'`);
		await until("a refusal", async () => (await since()) === "t");
		const from = its.shop.now, set = (interval) => its.shop.sql(`UPDATE tmtp.peer p SET refused_since = refused_since - interval '${interval}' FROM tmtp.domain d WHERE d.domain_id = p.domain_id AND d.name = '${domain}'`);
		await set("47 hours");
		await until("another try", async () => (await its.shop.sql(`SELECT failures FROM tmtp.peer p JOIN tmtp.domain d USING (domain_id) WHERE d.name = '${domain}'`)) > 3);
		assert.equal((await site.counts(id)).waiting, 1, "47 hours are not enough");
		await set("1 hour");
		const counts = await site.settled(id);
		assert.deepEqual([counts.delivered, counts.dead], [0, 1], JSON.stringify(counts));
		assert.match(await its.shop.line(new RegExp(`^event=delivery-dead .*peer=${domain.replace(".", "\\.")} .*message=${id}`), from), pattern);
		const { batches } = await its.shop.ctl(["queue", "list", "--dead", "--domain", domain]);
		assert.match(batches[0].reason, pattern);
	}
	// What waits is sent as soon as the zone leads somewhere again, without anybody's help.
	const recovers = async (id) => assert.equal((await site.settled(id)).delivered, 1);

	test("a _dmtps SRV record leads there, with TLS from the first octet", async () => {
		await zone(() => [local, srv("dmtps", 0, 0, first.port, "host")]);
		await arrives();
		assert.equal(first.accepted, 1);
	});

	test("_dmtps targets come before _dmtp ones, whatever their priorities", async () => {
		await zone(() => [local, srv("dmtp", 0, 0, starttls.port, "host"), srv("dmtps", 10, 0, first.port, "host")]);
		await arrives();
		assert.deepEqual([first.accepted, starttls.accepted], [1, 0]);
	});

	test("a _dmtp SRV record alone: STARTTLS", async () => {
		await zone(() => [local, srv("dmtp", 0, 0, starttls.port, "host")]);
		await arrives();
		assert.equal(starttls.accepted, 1);
	});

	test("the lowest priority first; every target is tried before the attempt counts as failed", async () => {
		first.refuse();
		await zone(() => [local, srv("dmtps", 0, 5, dead, "host"), srv("dmtps", 1, 5, first.port, "host"),
			srv("dmtps", 2, 0, 1, "nowhere"), srv("dmtps", 3, 0, second.port, "host")]);
		await arrives();
		assert.deepEqual([first.accepted > 0, second.accepted], [true, 1]);
		assert.match(await peer(), /^(0\||$)/, "a target that is dead is no failure of the domain");
	});

	test("when the last _dmtps target is dead, the _dmtp ones are tried", async () => {
		await zone(() => [local, srv("dmtps", 0, 0, dead, "host"), srv("dmtp", 0, 0, starttls.port, "host")]);
		await arrives();
		assert.equal(starttls.accepted, 1);
	});

	test("weights share the load between targets of one priority", async () => {
		await zone(() => [local, srv("dmtps", 0, 1, first.port, "host"), srv("dmtps", 0, 1, second.port, "host")]);
		for (let round = 0; round < 40 && (first.accepted === 0 || second.accepted === 0); round++) {
			await arrives();
			first.cut();
			second.cut();
		}
		assert.ok(first.accepted > 0 && second.accepted > 0, `${first.accepted} and ${second.accepted}`);
	});

	test("the target \".\": none of that kind; the other kind is used", async () => {
		await zone(() => [local, srv("dmtps", 0, 0, 0, "."), srv("dmtp", 0, 0, starttls.port, "host"), address(host)]);
		await arrives();
		assert.equal(starttls.accepted, 1);
	});

	test("\".\" for both: temporary at first, with the reason, and never the domain's own address", async () => {
		await zone(() => [local, srv("dmtps", 0, 0, 0, "."), srv("dmtp", 0, 0, 0, "."), address(host)]);
		const id = await push();
		await failed(id, /takes no DMTP/);
		await tell(local, srv("dmtps", 0, 0, first.port, "host"));
		await recovers(id);
		assert.equal(await its.shop.sql(`SELECT count(*) FROM tmtp.peer p JOIN tmtp.domain d USING (domain_id) WHERE d.name = '${domain}' AND p.refused_since IS NOT NULL`), "0", "what it said before counts no more");
	});

	test("\".\" for both for 48 hours: dead, with the reason; what is pushed after it moved is sent", async () => {
		await zone(() => [local, srv("dmtps", 0, 0, 0, "."), srv("dmtp", 0, 0, 0, "."), address(host)]);
		await final(await push(), /DNS has said for two days that the domain takes no DMTP; last: the domain's records say that it takes no DMTP/);
		await tell(local, srv("dmtps", 0, 0, first.port, "host"));
		// What is pushed before the old answer's time is over still goes by it.
		await until("a delivery", async () => (await site.settled(await push())).delivered === 1);
	});

	test("a domain that does not exist for 48 hours: dead, with the reason", async () => {
		await zone(() => [local]);
		await final(await push(), /DNS has said for two days that the domain takes no DMTP; last: .*no such name/);
	});

	test("no SRV record of either name: the domain's own address on the well-known ports", async () => {
		await zone(() => [address(host)]);
		await arrives();
		// 3688 first, with TLS at once; 3687 when nobody serves there.
		let seen = 0;
		const server = net.createServer((socket) => { seen++; socket.destroy(); });
		await new Promise((resolve, reject) => server.on("error", reject).listen(3688, half, resolve));
		try {
			await zone(() => [address(half)]);
			await arrives();
			assert.equal(seen, 1);
		} finally {
			await new Promise((resolve) => server.close(resolve));
		}
	});

	test("IPv6 and IPv4: an address that leads nowhere costs a try, not the delivery", async () => {
		await zone(() => ["six AAAA ::1", srv("dmtps", 0, 0, its.home.ports.dmtps, "six")]);
		await arrives();
		await zone(() => ["both AAAA ::1", "both A 127.0.0.1", srv("dmtps", 0, 0, second.port, "both")]);
		await arrives();
		assert.equal(second.accepted, 1);
	});

	test("a server that fails before its greeting costs a try too: the target's other addresses are next", async () => {
		const { cert, key } = its.authority.issue("host.test", "sixth");
		let seen = 0;
		const other = tls.createServer({ cert, key, ALPNProtocols: ["dmtp/1"] }, (socket) => socket.on("error", () => {}));
		other.on("tlsClientError", () => {});
		other.on("connection", () => { seen++; });
		await new Promise((resolve, reject) => other.on("error", reject).listen(first.port, "::1", resolve));
		try {
			await zone(() => ["both AAAA ::1", "both A 127.0.0.1", srv("dmtps", 0, 0, first.port, "both")]);
			await arrives();
			assert.deepEqual([seen > 0, first.accepted], [true, 1]);
		} finally {
			await new Promise((resolve) => other.close(resolve));
		}
	});

	test("a domain that does not exist is a temporary failure at first", async () => {
		await zone(() => [local]);
		const id = await push();
		await failed(id, /no such name/);
		await tell(local, srv("dmtps", 0, 0, first.port, "host"));
		await recovers(id);
	});

	test("a name server that is silent, and then is not", async () => {
		await zone(() => [local, srv("dmtps", 0, 0, first.port, "host")]);
		dns.pause();
		const id = await push();
		await failed(id, /name servers gave no usable answer/);
		dns.resume();
		await recovers(id);
	});

	test("a lame answer is no \"no such record\": the domain's own address is not tried", async () => {
		await zone(() => [address(host)]);
		await dns.lame();
		const id = await push();
		await failed(id, /name servers gave no usable answer/);
		await tell(local, srv("dmtps", 0, 0, first.port, "host"));
		await recovers(id);
	});

	test("a zone that changes is noticed when what it said has run out", async () => {
		await zone(() => [local, srv("dmtps", 0, 0, first.port, "host")]);
		await arrives();
		await tell(local, srv("dmtps", 0, 0, second.port, "host"));
		first.refuse();
		await arrives();
		assert.equal(second.accepted, 1);
	});

	test("a _dmtps server without the ALPN dmtp/1 is none: the next target is tried", async () => {
		const { cert, key } = its.authority.issue("home.test", "other");
		let seen = 0;
		const other = tls.createServer({ cert, key, ALPNProtocols: ["http/1.1"] }, (socket) => socket.destroy());
		other.on("tlsClientError", () => {});
		other.on("connection", () => { seen++; });
		const port = await new Promise((resolve) => other.listen(0, "127.0.0.1", () => resolve(other.address().port)));
		try {
			await zone(() => [local, srv("dmtps", 0, 0, port, "host"), srv("dmtps", 1, 0, first.port, "host")]);
			await arrives();
			assert.deepEqual([seen > 0, first.accepted], [true, 1]);
		} finally {
			await new Promise((resolve) => other.close(resolve));
		}
	});

	test("the certificate is checked against the recipient's domain, not the target's name", async () => {
		const { cert, key } = its.authority.issue("host.test", "target");
		let seen = 0;
		const other = tls.createServer({ cert, key, ALPNProtocols: ["dmtp/1"] }, (socket) => socket.on("error", () => {}));
		other.on("tlsClientError", () => {});
		other.on("connection", () => { seen++; });
		const port = await new Promise((resolve) => other.listen(0, "127.0.0.1", () => resolve(other.address().port)));
		try {
			await zone(() => [local, srv("dmtps", 0, 0, port, "host")]);
			const id = await push();
			await failed(id, /hostname mismatch/);
			assert.ok(seen > 0);
			await tell(local, srv("dmtps", 0, 0, first.port, "host"));
			await recovers(id);
		} finally {
			await new Promise((resolve) => other.close(resolve));
		}
	});

	test("a target at a private address is not connected to, unless the operator pinned that", async () => {
		let seen = 0;
		const server = net.createServer((socket) => { seen++; socket.destroy(); });
		const port = await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
		try {
			await zone(() => [local, srv("dmtps", 0, 0, port, "host")], guarded);
			const id = await push();
			await failed(id, /not a public address/);
			assert.equal(seen, 0);
		} finally {
			await new Promise((resolve) => server.close(resolve));
		}
	});

	test("a target that takes the connection and stays silent is passed over: the next one is tried, in the same attempt", { timeout: 90_000 }, async () => {
		await until(() => `the silent target to be left: ${silent.seen} ${silent.left}`, () => silent.left === 1, { ms: 60_000 });
		assert.equal((await site.settled(silent.id)).delivered, 1);
		await silent.ann.has("Passed over");
		assert.equal(silent.seen, 1);
		assert.equal(its.shop.lines.filter((line) => /^event=peer-failed /.test(line) && line.includes(`peer=${silent.ann.address.split("@")[1]} `)).length, 0);
	});
});

describe("a pinned route", () => {
	const its = new Pair();
	before(() => its.start({ routes: ["plain.test", "bare.test"], prepare: async ({ ways }) => ({ shop: { routes: Object.fromEntries(
		Object.entries(ways).map(([domain, way]) => [domain, { dmtp: way.port, more: domain === "plain.test" ? "plaintext = true" : "" }])) } }) }));
	after(() => its.stop());

	test("may be plaintext, if the operator says so; no other way is", async () => {
		const site = await its.shop.makeSite("shop", ["news"]), from = its.shop.now;
		const pushed = async (domain) => {
			const sink = await Sink.start(its, domain, ["--plain"], { secure: false });
			its.also(() => sink.stop());
			const crowd = await Crowd.make(site, "news", domain, domain[0], 1);
			return { sink, id: await site.push("news", `${crowd.member(1)}@${domain}`, "In the open") };
		};
		const plain = await pushed("plain.test"), bare = await pushed("bare.test");
		assert.equal((await site.settled(plain.id)).delivered, 1);
		await its.shop.line(/^event=session-begun .*peer=plain\.test .*tls=none/, from);
		await its.shop.line(/^event=peer-failed .*peer=bare\.test /, from);
		assert.equal((await site.counts(bare.id)).waiting, 1);
		assert.deepEqual([(await plain.sink.stats()).posts, (await bare.sink.stats()).commands], [1, 0]);
	});
});
