// What an adversary can do, and what happens then: ADVERSARY.md has it as a table. Here are the attacks that no other file tries,
// for each what was refused, that nothing came of it, and the one line of the log that says who and why.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { compose, encode, seconds, Session } from "./lib/dmtp.mjs";
import { metric } from "./lib/http.mjs";
import { NameServer } from "./lib/nameserver.mjs";
import { Origin } from "./lib/origin.mjs";
import { freePorts, until } from "./lib/wait.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const random = (n = 20) => crypto.randomBytes(n);

describe("an adversary", () => {
	const its = new Pair();
	let dns, site, other, ann, shop, wild, grant, foreign, wildGrant, inward, handshakes;

	before(async () => {
		const [port] = await freePorts(1);
		await its.start({ prepare: async (pair) => {
			dns = await NameServer.start(path.join(pair.dir, "dns"), port);
			pair.also(() => dns.stop());
			pair.origin = await Origin.listen(pair.authority, ["wild.test", "inward.test"]);
			pair.also(() => pair.origin.close());
			await dns.set("host A 127.0.0.1", "inward A 127.0.0.1");
			return {
				shop: { relay: `nameservers = {"127.0.0.1:${port}"}`, routes: { "home.test": { dmtp: pair.toHome.port }, "strip.test": {}, "inject.test": {} } },
				home: { home: "idle_s = 10 max_connections = 3000 max_connections_per_address = 64", relay: `nameservers = {"127.0.0.1:${port}"}`,
					routes: { "wild.test": { pickup: pair.origin.port }, "inward.test": { public: true } } },
			};
		} });
		[site, other] = [await its.shop.makeSite("shop", ["orders", "news"]), await its.shop.makeSite("other", ["orders"])];
		ann = await its.home.makeAccount("ann");
		await Promise.all([ann.hold(site, "orders"), ann.hold(other, "orders")]);
		for (const sender of ["shop@wild.test", "shop@inward.test"])
			await ann.do("PUT", `/v1/channels/${sender}/orders`, {});
		const grantOf = async (sender) => Buffer.from(await its.home.sql(`SELECT encode(g.grant_id, 'hex') FROM tmtp.open_grant g
			JOIN tmtp.sender s USING (sender_id) WHERE s.address = '${sender}'`), "hex");
		[grant, foreign, wildGrant] = [await grantOf(site.address), await grantOf(other.address), await grantOf("shop@wild.test")];
		inward = { ...its.authority.issue("inward.test"), grant: await grantOf("shop@inward.test") };
		shop = { cert: fs.readFileSync(its.authority.file("shop.test.pem")), key: fs.readFileSync(its.authority.file("shop.test.key")) };
		wild = its.authority.issue("wild.test");
		handshakes = ["", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"].map(unfinished); // while the other tests run
	});
	after(() => its.stop());

	// A TLS handshake of which these octets come at once, and then one a second, if it has begun.
	function unfinished(octets) {
		const began = Date.now(), socket = net.connect(its.home.ports.dmtps, "127.0.0.1");
		const trickle = octets === "" ? undefined : setInterval(() => socket.write("x"), 1000);
		const seen = { from: its.home.now };
		socket.on("error", () => {});
		socket.on("connect", () => {
			seen.at = `127\\.0\\.0\\.1:${socket.localPort}`;
			socket.write(octets, "latin1");
		});
		seen.took = new Promise((resolve) => socket.on("close", () => {
			clearInterval(trickle);
			resolve(Date.now() - began);
		}));
		return seen;
	}

	const session = (identity, more = {}) => new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, ...identity, more });
	const note = (more) => compose({ from: "shop@shop.test", to: "orders.shop@shop.test", uris: ["https://shop.test/m/nothing"], rcpts: [grant], ...more }).post;
	const entries = () => its.home.number("SELECT count(*) FROM tmtp.inbox");
	const code = ([letter, told]) => [letter, told?.code];
	const rss = () => Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${its.home.role("home")}/status`, "utf8"))[1]) / 1024;
	const where = (s) => `127\\.0\\.0\\.1:${s.socket.localPort}`;

	async function once(identity, ...command) {
		const s = session(identity);
		try {
			await s.greeting;
			const at = where(s);
			return { answer: await s.ask(...command), at };
		} finally {
			await s.close();
		}
	}
	// Whatever has been done to it: somebody else is served.
	async function serves() {
		const id = await site.push("orders", ann.address, `Alive ${crypto.randomUUID()}`);
		assert.equal((await site.settled(id)).delivered, 1);
	}

	test("a forged sender leaves a line that says from where, whom it named, and why", async () => {
		const before_ = await entries(), from = its.home.now;
		const { answer, at } = await once(wild, "POST", note());
		assert.deepEqual(code(answer), ["E", "unverified-sender"]);
		await its.home.line(new RegExp(`^event=command-refused .*address=${at} verb=POST from=shop@shop\\.test reason=unverified-sender`), from);
		assert.equal(await entries(), before_);
	});

	test("a replay shows nothing twice, on another session, under another id, and not when it is old", async () => {
		const post = note({ id: "replayed" }), before_ = await entries(), from = its.home.now;
		for (const again of [post, post, { ...post, id: "replayed-as-another" }])
			assert.deepEqual((await once(shop, "POST", again)).answer, ["K"]);
		assert.equal(await entries(), before_ + 1);
		const { answer, at } = await once(shop, "POST", note({ date: seconds() - 31 * 86400 }));
		assert.deepEqual(code(answer), ["E", "malformed"]);
		await its.home.line(new RegExp(`^event=command-refused .*address=${at} .*from=shop@shop\\.test reason=malformed detail="The date is more than 30 days old\\."`), from);
		assert.equal(await entries(), before_ + 1);
	});

	test("the same id with another digest is told as a conflict, with the id", async () => {
		const from = its.home.now;
		assert.deepEqual((await once(shop, "POST", note({ id: "one-id" }))).answer, ["K"]);
		const { answer, at } = await once(shop, "POST", note({ id: "one-id" }));
		assert.deepEqual(code(answer), ["E", "duplicate-conflict"]);
		await its.home.line(new RegExp(`^event=post-refused .*address=${at} from=shop@shop\\.test id=one-id reason=duplicate-conflict`), from);
	});

	test("a member's grant used by another site is closed like one that never was, and told who tried", async () => {
		const before_ = await entries(), from = its.home.now;
		const [theirs, none] = [await once(shop, "POST", note({ rcpts: [foreign] })), await once(shop, "POST", note({ rcpts: [random()] }))];
		assert.deepEqual(theirs.answer, none.answer);
		assert.deepEqual(theirs.answer, ["K", { failed: [[0, "E", "channel-closed"]] }]);
		const lines = await Promise.all([theirs, none].map(({ at }) => its.home.line(new RegExp(`^event=post-refused .*address=${at} from=shop@shop\\.test .*reason=channel-closed recipients=1 closed=1`), from)));
		const [a, b] = lines.map((line) => line.replace(/address=\S+|id=\S+/g, ""));
		assert.equal(a, b, "the log tells neither whether the grant is anybody's");
		assert.equal(await entries(), before_);
	});

	// The database writes down every statement, by its name: what is asked of it for those who exist and for those who don't.
	test("addresses can't be harvested: known and unknown get the same answers for the same statements and commits", async () => {
		const settings = /LOCAL_SETTINGS\s+"([^"]+)"/.exec(fs.readFileSync(path.join(here, "../../appliance/store/embedded_cluster.c"), "utf8"))[1];
		const file = path.join(its.home.state, "postgres/data", settings), kept = fs.existsSync(file) ? fs.readFileSync(file) : null;
		const reload = async (text) => {
			fs.writeFileSync(file, text);
			fs.chmodSync(file, 0o644);
			process.kill(its.home.postmaster, "SIGHUP");
			const wanted = text.includes("all") ? "all" : "none";
			await until(`log_statement = ${wanted}`, async () => (await its.home.sql("SHOW log_statement")) === wanted, { every: 50 });
		};
		await ann.do("DELETE", `/v1/channels/${other.address}/orders`);
		const s = session(shop), rounds = 12;
		await s.greeting;
		// What the roles do by themselves, whoever asks. Each other statement is a transaction of its own: it stands for its commit.
		const ownWork = /^(worker|clock|copy_|upkeep|revision|queue|peer|grant_(claim|finish)|receipt_|catchup|presence|pickup_|domain_key|partition|notice)/;
		async function work(command) {
			const from = its.home.now, answers = [];
			for (let i = 0; i < rounds; i++)
				answers.push(await s.ask(...command(i)));
			// One more of a kind of its own, whose statement stands behind all of these in the log.
			const mark = `mark-${crypto.randomUUID()}`;
			await its.home.sql(`SELECT '${mark}'`);
			await its.home.line(new RegExp(mark), from);
			const counts = {};
			for (const line of its.home.lines.slice(from)) {
				const [, name] = /^event=postgres .*text=LOG: +execute (\w+):/.exec(line) ?? [];
				if (name && !ownWork.test(name))
					counts[name] = (counts[name] ?? 0) + 1;
			}
			return { answers: answers.map((a) => JSON.stringify(a)), counts };
		}
		const same = async (what, known, unknown) => {
			const [a, b] = [await work(known), await work(unknown)];
			assert.deepEqual(a.answers, b.answers, `${what}: the answers`);
			assert.deepEqual(a.counts, b.counts, `${what}: the statements`);
			return a.counts;
		};
		try {
			await reload("log_statement = 'all'\n");
			const posts = (rcpt) => (i) => ["POST", note({ rcpts: [rcpt(i)] })];
			const counted = await same("another site's grant, and none", posts(() => foreign), posts(() => random()));
			assert.ok(Object.values(counted).some((n) => n >= rounds), `the statements are seen: ${JSON.stringify(counted)}`);
			for (const channel of ["inbox", "smtp", "orders"])
				await same(`the channel ${channel}`, posts(() => [ann.address, channel]), posts((i) => [`nobody${i}@home.test`, channel]));
			const users = (name) => (i) => ["CHANNELS", { from: "shop@shop.test", users: [name(i)] }];
			const closed = await its.home.makeAccount("closed");
			const [a, b] = [await work(users(() => closed.address)), await work(users(() => "nobody@home.test"))];
			assert.deepEqual(a.answers.map((t) => t.replaceAll("closed@", "x@")), b.answers.map((t) => t.replaceAll("nobody@", "x@")));
			assert.deepEqual(a.counts, b.counts, "CHANNELS: the statements");
			// An invitation is answered K whether there is somebody or not.
			const invites = (name) => (i) => ["POST", { ...note({ rcpts: [[name(i), "invite"]] }), channel: "news" }];
			const invited = await same("invitations", invites(() => closed.address), invites((i) => `nobody${i}@home.test`));
			assert.ok(Object.values(invited).some((n) => n >= rounds), JSON.stringify(invited));
		} finally {
			await reload(kept ?? "");
			if (kept === null)
				fs.rmSync(file);
			await s.close();
		}
	});

	test("an invitation is fetched from its sender whether the member exists or not: the web server learns nothing", async () => {
		const begun = its.origin.asked.length, there = await its.home.makeAccount("there"), uris = [];
		for (const member of [there.address, "absent@home.test"]) {
			const { octets, post } = compose({ from: "shop@wild.test", to: member, uris: [], rcpts: [[member, "invite"]] });
			uris.push(its.origin.put("wild.test", octets));
			assert.deepEqual((await once(wild, "POST", { ...post, channel: "news", uris: [uris.at(-1)] })).answer, ["K"]);
		}
		const paths = uris.map((uri) => uri.replace("https://wild.test", ""));
		await until(() => `both to be asked for: ${its.origin.asked.slice(begun)}`, () => paths.every((p) => its.origin.count("wild.test", p) > 0));
		assert.deepEqual(paths.map((p) => its.origin.count("wild.test", p)), [1, 1]);
		assert.equal((await there.get("/v1/invitations")).length, 1);
		assert.equal(await its.home.number("SELECT count(*) FROM tmtp.notification WHERE recipient = 'absent@home.test'"), 0);
	});

	test("STARTTLS that is stripped, or plaintext behind its K: the relay says nothing, keeps the message, and tells why", async () => {
		const heard = [];
		const fake = async (greeting, reply) => {
			const sockets = new Set(), server = net.createServer((socket) => {
				sockets.add(socket);
				socket.on("error", () => {});
				socket.on("data", (octets) => {
					heard.push(octets.toString("latin1"));
					if (/STARTTLS/.test(octets))
						socket.write(reply);
				});
				socket.write(encode(greeting));
			});
			its.also(() => new Promise((resolve) => {
				server.close(resolve);
				sockets.forEach((socket) => socket.destroy());
			}));
			return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
		};
		const [strip, inject] = [await fake({ dmtp: 1, host: "strip.test" }, ""), await fake({ dmtp: 1, host: "inject.test", tls: 1 }, Buffer.concat([encode(["K"]), encode(["K"])]))];
		await dns.set("host A 127.0.0.1", "inward A 127.0.0.1", `_dmtp._tcp.strip SRV 0 0 ${strip} host`, `_dmtp._tcp.inject SRV 0 0 ${inject} host`);
		for (const [domain, reason] of [["strip.test", "no-tls"], ["inject.test", "(injected|[^ ]*behind|\"?plaintext)"]]) {
			const from = its.shop.now, crowd = await Crowd.make(site, "news", domain, domain[0], 1);
			const id = await site.push("news", `${crowd.member(1)}@${domain}`, "Secret words");
			await its.shop.line(new RegExp(`^event=peer-failed .*peer=${domain.replace(".", "\\.")} reason=${reason}`), from);
			assert.equal((await site.counts(id)).waiting, 1);
		}
		assert.deepEqual(heard.filter((text) => /POST|Secret/.test(text)), []);
	});

	test("plaintext injected behind STARTTLS ends the session before all else, and is told", async () => {
		const s = new Session({ port: its.home.ports.dmtp, plain: true }), from = its.home.now;
		await s.greeting;
		const at = where(s);
		s.socket.write(Buffer.concat([encode(["STARTTLS"]), encode(["POST", note()])]));
		await assert.rejects(s.read(), /ended/);
		await its.home.line(new RegExp(`^event=dmtp-session-ended .*address=${at} reason=injected`), from);
		assert.equal(await metric(its.home.ports.homeMetrics, "tmtp_dmtp_injections_total"), 1);
	});

	test("whoever doesn't say that it speaks DMTP is told apart from who breaks off, and counted; who leaves is not", async () => {
		const refused = () => metric(its.home.ports.homeMetrics, 'tmtp_dmtp_identities_refused_total{reason="handshake"}');
		const before_ = await refused(), from = its.home.now;
		const socket = tls.connect({ host: "127.0.0.1", port: its.home.ports.dmtps, servername: "home.test", ca: its.authority.pem });
		await new Promise((resolve) => socket.on("error", resolve));
		await its.home.line(/^event=dmtp-session-ended .*reason="TLS handshake: the client offers no ALPN"/, from);
		assert.equal(await refused(), before_ + 1);
		const leaves = net.connect(its.home.ports.dmtps, "127.0.0.1", () => leaves.end("\x16\x03\x01"));
		leaves.on("error", () => {});
		await its.home.line(/^event=dmtp-session-ended .*reason="TLS handshake: closed by the peer"/, from);
		assert.equal(await refused(), before_ + 1);
	});

	test("oversize everything is refused as soon as a length says so; memory stays where it is", async () => {
		const from = its.home.now, before_ = [await entries(), rss()];
		const refused = [[{ uris: Array(9).fill("https://shop.test/m/x") }, "limit"], [{ rcpts: Array.from({ length: 1001 }, () => random()) }, "limit"],
			[{ id: "x".repeat(65) }, "malformed"], [{ uris: [`https://shop.test/${"x".repeat(2048)}`] }, "malformed"],
			[{ rcpts: [[grant, { name: "x".repeat(1100) }]] }, "malformed"]];
		for (const [more, reason] of refused) {
			const { answer, at } = await once(shop, "POST", note(more));
			assert.deepEqual(code(answer), ["E", reason], JSON.stringify(Object.keys(more)));
			await its.home.line(new RegExp(`^event=command-refused .*address=${at} .*reason=${reason}`), from);
		}
		const { answer, at } = await once(shop, "POST", { ...note(), size: 26214401 });
		assert.deepEqual(code(answer), ["E", "too-large"]);
		await its.home.line(new RegExp(`^event=command-refused .*address=${at} .*reason=too-large`), from);
		// An element that is announced to be long: not one octet of it is waited for. Fifty at once.
		await Promise.all(Array.from({ length: 50 }, async (_, i) => {
			const s = session(i % 2 ? shop : {});
			await s.greeting;
			const mine = where(s);
			s.socket.write("l4:POSTd4:from2000000000:");
			assert.deepEqual(code(await s.read()), ["E", "too-large"]);
			await s.ended;
			await its.home.line(new RegExp(`^event=dmtp-session-ended .*address=${mine} reason=too-large`), from);
		}));
		const s = session(shop);
		await s.greeting;
		const shapeless = where(s);
		s.socket.write("l".repeat(9));
		assert.deepEqual(code(await s.read()), ["E", "malformed"]);
		await its.home.line(new RegExp(`^event=command-refused .*address=${shapeless} .*reason=malformed detail="No canonical bencode\\."`), from);
		await s.close();
		// What has the shape of a command, and isn't one: the session goes on, and the log says so too.
		const odd = session(shop);
		await odd.greeting;
		assert.deepEqual(code(await odd.ask("SHOUT", {})), ["E", "unknown-command"]);
		assert.deepEqual(code(await odd.ask("POST", { id: 7 })), ["E", "malformed"]);
		for (const what of ["verb=SHOUT .*reason=unknown-command", String.raw`verb=POST .*reason=malformed detail="\\"date\\" is missing, or not of its type\."`])
			await its.home.line(new RegExp(`^event=command-refused .*address=${where(odd)} ${what}`), from);
		await odd.close();
		assert.equal(await entries(), before_[0]);
		assert.ok(rss() < before_[1] + 64, `${before_[1]} MiB became ${rss()}`);
		await serves();
	});

	test("slowloris: octets that trickle don't keep a session beyond the time of one command; others are served meanwhile", async () => {
		const from = its.home.now, slow = Array.from({ length: 30 }, () => session({}));
		await Promise.all(slow.map((s) => s.greeting));
		const octets = encode(["NOOP", "x".repeat(200)]), places = slow.map(where);
		let at = 0;
		const trickle = setInterval(() => {
			slow.forEach((s) => s.socket.writable && s.socket.write(octets.subarray(at, at + 1)));
			at++;
		}, 200);
		try {
			await serves();
			await Promise.all(slow.map((s) => s.ended));
			assert.ok(at < octets.length - 1, "before it was complete");
			for (const place of places)
				await its.home.line(new RegExp(`^event=dmtp-session-ended .*address=${place} reason=slow-command`), from);
		} finally {
			clearInterval(trickle);
		}
	});

	test("ten thousand half-open connections: memory and limits hold, few addresses shut nobody out, many only while they are there", async (t) => {
		const limit = Number(/^Max open files +(\d+)/m.exec(fs.readFileSync("/proc/self/limits", "utf8"))[1]);
		if (limit < 12_000)
			return t.skip(`only ${limit} files may be open`);
		const open = new Set(), memory = rss();
		// count connections that say nothing, from so many addresses.
		async function flood(count, addresses) {
			let at = 0;
			const one = () => new Promise((resolve) => {
				const n = at++, a = n % addresses;
				const socket = net.connect({ port: its.home.ports.dmtps, host: "127.0.0.1", localAddress: `127.9.${a >> 8}.${(a & 255) + 1}` });
				open.add(socket);
				socket.on("connect", resolve);
				socket.on("error", resolve);
				socket.on("close", resolve);
			});
			const lane = async () => {
				while (at < count)
					await one();
			};
			await Promise.all(Array.from({ length: 100 }, lane));
		}
		const clear = () => {
			open.forEach((socket) => socket.destroy());
			open.clear();
		};
		const held = () => fs.readdirSync(`/proc/${its.home.role("home")}/fd`).length;
		try {
			let from = its.home.now;
			await flood(10_000, 20);
			await its.home.line(/^event=dmtp-refused .*address=127\.9\.\d+\.\d+:\d+ reason="too many connections from there"/, from);
			assert.ok(held() < 20 * 64 + 300, `${held()} files are open`);
			await serves(); // all of them are still there
			clear();
			from = its.home.now;
			await until("the seats to be free", () => held() < 300);
			await flood(10_000, 200);
			await its.home.line(/^event=dmtp-refused .*reason="too many connections" /, from);
			assert.ok(held() < 3000 + 300, `${held()} files are open`);
			assert.ok(rss() < memory + 400, `${memory} MiB became ${rss()}`);
		} finally {
			clear();
		}
		await serves();
	});

	test("a pickup URI to 127.0.0.1, to a name that leads there, and to a redirect: nobody is asked, nothing is seen", async () => {
		const from = its.home.now, asked = [], before_ = its.origin.asked.length;
		const trap = net.createServer((socket) => { asked.push("trap"); socket.destroy(); });
		const port = await new Promise((resolve) => trap.listen(0, "127.0.0.1", () => resolve(trap.address().port)));
		const answer = its.origin.answer.bind(its.origin);
		its.origin.answer = (req, res) => req.url === "/m/leads-on" ? (its.origin.asked.push("leads-on"), res.writeHead(302, { Location: "https://wild.test/m/led" }).end()) : answer(req, res);
		try {
			const tell = (sender, identity, to, uri) => once(identity, "POST", note({ from: sender, to: "orders.shop@wild.test", uris: [uri], rcpts: [to] }));
			assert.deepEqual((await tell("shop@wild.test", wild, wildGrant, `https://127.0.0.1:${port}/m/x`)).answer, ["K"]);
			await its.home.line(/^event=pickup-failed .*sender=shop@wild\.test .*reason=/, from);
			assert.deepEqual((await tell("shop@inward.test", inward, inward.grant, `https://inward.test:${port}/m/x`)).answer, ["K"]);
			// It is the domain's card already that is refused; e2e/inward.test.mjs has one that isn't.
			await its.home.line(/^event=pickup-failed .*sender=shop@inward\.test .*host="" reason="the sender's site card: blocked: no address of the host is public"/, from);
			assert.deepEqual((await tell("shop@wild.test", wild, wildGrant, "https://wild.test/m/leads-on")).answer, ["K"]);
			await its.home.line(/^event=pickup-failed .*sender=shop@wild\.test .*host=wild\.test .*reason=.*302/, from);
			assert.deepEqual(asked, []);
			assert.deepEqual(its.origin.asked.slice(before_).filter((line) => !/well-known/.test(line)), ["leads-on"]);
			assert.equal((await ann.subjects()).includes("Hello"), false);
		} finally {
			delete its.origin.answer;
			await new Promise((resolve) => trap.close(resolve));
		}
	});

	test("a message that lies about its size, its digest, its sender or its recipient is never seen, and told of whom it was", async () => {
		const lies = { longer: ({ octets, post }) => ({ octets, post: { ...post, size: post.size - 1 } }), shorter: ({ octets, post }) => ({ octets, post: { ...post, size: post.size + 1 } }),
			digest: ({ octets, post }) => ({ octets, post: { ...post, digest: random(32) } }), altered: ({ octets, post }) => ({ octets: Buffer.from(octets.toString("latin1").replace("Lie", "Lye"), "latin1"), post }),
			date: ({ octets, post }) => ({ octets, post: { ...post, date: post.date - 1 } }) };
		const say = async (message, uri, told = /^event=pickup-failed .*sender=shop@wild\.test .*attempts=1$/) => {
			const from = its.home.now;
			assert.deepEqual((await once(wild, "POST", { ...message.post, uris: [uri] })).answer, ["K"]);
			assert.match(await its.home.line(told, from), /reason=("[^"]+"|\S+)/);
		};
		const made = (more) => compose({ from: "shop@wild.test", to: "orders.shop@wild.test", subject: "Lie", uris: [], rcpts: [wildGrant], ...more });
		for (const lie of Object.values(lies)) {
			const told = lie(made());
			await say(told, its.origin.put("wild.test", told.octets));
		}
		// Octets that say another sender, or another recipient, than the notification.
		const other = made({ from: "other@wild.test" });
		await say({ post: { ...other.post, from: "shop@wild.test" } }, its.origin.put("wild.test", other.octets));
		for (const to of ["orders.shop@shop.test", "shop@wild.test", "nobody@home.test"]) {
			const told = made({ to });
			await say(told, its.origin.put("wild.test", told.octets), /^event=message-unseen .*sender=shop@wild\.test /);
		}
		const honest = made({ subject: "Truth" });
		await once(wild, "POST", { ...honest.post, uris: [its.origin.put("wild.test", honest.octets)] });
		await ann.has("Truth");
		assert.deepEqual((await ann.subjects()).filter((subject) => /L[iy]e/.test(subject ?? "")), []);
	});

	test("slowloris: a handshake that doesn't begin, or trickles, is over after thirty seconds", { timeout: 60_000 }, async () => {
		for (const { took, at, from } of handshakes) {
			const ms = await took;
			assert.ok(ms >= 29_500 && ms < 45_000, `${ms} ms`);
			await its.home.line(new RegExp(`^event=dmtp-session-ended .*address=${at} reason="TLS handshake: `), from);
		}
	});
});
