// What becomes of messages when the other side has wishes of its own, or is away: pauses, X, small limits, lost sessions,
// owners of leases that are killed, expiry, GRANTs that got lost. Sinks with faults are the other side where a real home
// server has none. BUILD names the programs (build).
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { compose, encode, Session } from "./lib/dmtp.mjs";
import { metric } from "./lib/http.mjs";
import { Sink } from "./lib/sink.mjs";
import { until } from "./lib/wait.mjs";

function pairOfItsOwn(options) {
	const its = new Pair();
	before(() => its.start(options));
	after(() => its.stop());
	return its;
}

describe("a peer that can't take everything at once", () => {
	const its = pairOfItsOwn({ routes: ["z.test", "i.test", "x.test", "drop.test", "halved.test", "e.test", "four.test", "wide.test", "bulk.test", "place.test", "gone.test", "ahead.test"] });
	let site, ann;

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders", "news"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
	});

	const sink = async (domain, ...faults) => {
		const made = await Sink.start(its, domain, faults);
		its.also(() => made.stop());
		return made;
	};
	const peer = (domain, what) => its.shop.sql(`SELECT ${what} FROM tmtp.peer p JOIN tmtp.domain d USING (domain_id) WHERE d.name = '${domain}'`);
	const batch = (id, what) => its.shop.sql(`SELECT ${what} FROM tmtp.batch WHERE message_id = '${id}'`);
	// The relay has looked at everything that waited before, and sent what it would.
	const lookedSince = async (subject) => {
		await site.settled(await site.push("orders", ann.address, subject));
		await ann.has(subject);
	};

	test("Z instead of a greeting: it is asked again when it said, not before, and that is no failure of it", async () => {
		const its_ = await sink("z.test", "--z-greetings", "2", "--retry", "3");
		const crowd = await Crowd.make(site, "news", "z.test", "z", 1);
		const id = await site.push("news", `${crowd.member(1)}@z.test`, "Later");
		const retryAt = await until("the wait to be written down", () => peer("z.test", "p.retry_at"));
		assert.match(await peer("z.test", "p.failures || ' ' || p.reason"), /^0 Z throttled/);
		assert.equal((await site.counts(id)).waiting, 1);
		assert.equal((await site.settled(id)).delivered, 1);
		assert.equal(await batch(id, `done_at >= '${retryAt}'`), "t");
		assert.equal((await its_.stats()).turned_away, 2);
		assert.equal((await its_.stats()).sessions, 3);
		await until("the wait to be forgotten", async () => await peer("z.test", "p.retry_at IS NULL AND p.reason IS NULL") === "t");
	});

	test("I throttled: what was sent is answered, nothing more is sent until the pause is over, also by a relay that starts meanwhile", async () => {
		const its_ = await sink("i.test", "--i-after", "3", "--retry", "3600");
		const crowd = await Crowd.make(site, "news", "i.test", "i", 1), to = `${crowd.member(1)}@i.test`;
		const ids = [];
		for (let i = 0; i < 4; i++) {
			ids.push(await site.push("news", to, `Paused ${i}`));
			if (i < 2)
				await site.settled(ids[i]);
		}
		await until("the pause", () => peer("i.test", "p.retry_at"));
		assert.match(await peer("i.test", "p.failures || ' ' || p.reason"), /^0 I throttled/);
		await lookedSince("While paused");
		const { posts } = await its_.stats();
		assert.ok(posts >= 3 && posts <= 4);
		for (let i = 4; i < 8; i++)
			ids.push(await site.push("news", to, `Paused ${i}`));
		await lookedSince("Still paused");
		await its.shop.killRole("relay");
		await lookedSince("And after a restart");
		assert.equal((await its_.stats()).posts, posts);
		const { peers } = await its.shop.ctl(["peer", "list"]);
		assert.equal(peers.find((p) => p.domain === "i.test").state, "waiting");
		await its.shop.ctl(["peer", "release", "i.test"]); // whoever waits no longer: each session is told once again
		await until("all of them", async () => {
			if (await peer("i.test", "p.retry_at IS NOT NULL") === "t")
				await its.shop.ctl(["peer", "release", "i.test"]);
			return (await Promise.all(ids.map((id) => site.counts(id)))).every((c) => c.delivered === 1);
		}, { every: 200 });
		for (const id of ids)
			assert.equal(its_.record(id).length, 1);
	});

	test("X after two commands: what was sent is answered, the rest goes on in new sessions, and nothing is sent twice", async () => {
		const its_ = await sink("x.test", "--x-after", "2", "--limits", "rcpts=100,command_octets=65536,pipeline=8,uris=4");
		const count = 4000, crowd = await Crowd.make(site, "news", "x.test", "x", count);
		const id = await site.push("news", "*", "In many sessions");
		await until(async () => `all of ${count}: ${its_.record(id).length}`, () => its_.record(id).length >= count, { ms: 60_000 });
		await until("the end", async () => await batch(id, `count(*) FILTER (WHERE state = 0 AND domain_id = ${await its.shop.sql(
			"SELECT domain_id FROM tmtp.domain WHERE name = 'x.test'")})`) === "0");
		assert.equal(new Set(its_.record(id)).size, count);
		assert.equal(its_.record(id).length, count);
		const stats = await its_.stats();
		assert.equal(stats.posts, stats.recipients / 100, "each POST as large as the peer's limit allows");
		assert.ok(stats.sessions > 4, `${stats.sessions} sessions`);
		assert.ok(["", "0"].includes(await peer("x.test", "p.failures")));
		assert.equal(crowd.count, count);
	});

	test("lost sessions halve the window; a command alone in three of them is parked, and an administrator can send it again", async () => {
		const its_ = await sink("drop.test", "--drop-after", "1", "--drop-times", "3");
		const crowd = await Crowd.make(site, "news", "drop.test", "d", 1);
		const id = await site.push("news", `${crowd.member(1)}@drop.test`, "Parked");
		await until("a session that is lost", async () => Number(await batch(id, "lost_alone")) >= 1);
		await its.shop.killRole("relay"); // what is counted outlives it
		assert.deepEqual(await site.settled(id), { waiting: 0, delivered: 0, failed: 0, dead: 1, rejected: 0 });
		assert.equal(its_.record(id).length, 3);
		assert.match(await batch(id, "reason"), /^parked: lost its session each of 3 times .*; last: ./);
		assert.equal(await peer("drop.test", "p.window_commands"), "1");
		const dead = (await its.shop.ctl(["queue", "list", "--dead", "--message", id])).batches;
		assert.deepEqual(dead.map((b) => [b.message, b.domain, b.state]), [[id, "drop.test", "dead"]]);
		assert.equal((await its.shop.ctl(["queue", "retry", "--message", id, "--domain", "x.test"])).changed, 0);
		assert.equal((await its.shop.ctl(["queue", "retry", "--message", id, "--domain", "drop.test"])).changed, 1);
		assert.equal((await site.settled(id)).delivered, 1);
		assert.equal(its_.record(id).length, 4);
		assert.equal(await batch(id, "lost_alone"), "0");
	});

	test("each lost session halves the window, and what is answered afterwards doubles it again", async () => {
		const its_ = await sink("halved.test", "--limits", "rcpts=100", "--drop-after", "2", "--drop-times", "2", "--delay-ms", "100");
		const crowd = await Crowd.make(site, "news", "halved.test", "h", 1600), from = its.shop.now;
		const id = await site.push("news", "*", "Sixteen commands");
		const narrowed = (commands) => its.shop.line(new RegExp(`^event=window-narrowed .*peer=halved\\.test unanswered=${commands * 2} commands=${commands}`), from);
		await narrowed(4);
		await narrowed(2);
		assert.equal((await site.settled(id)).delivered >= 1600, true);
		assert.equal(crowd.count, 1600);
		assert.equal((await its_.stats()).dropped, 2);
		await until("the window to be the peer's own again", async () => ["", "0"].includes(await peer("halved.test", "p.window_commands")));
	});

	test("as many commands as the peer allows are under way, and not one more; of a broadcast eight", async () => {
		for (const [name, to, expected] of [["wide", null, 40], ["bulk", "*", 8]]) {
			const domain = `${name}.test`, its_ = await sink(domain, "--limits", "pipeline=40,rcpts=100", "--silent-after", "1");
			const own = await its.shop.makeSite(name, ["news"]), crowd = await Crowd.make(own, "news", domain, name, 2000);
			await own.settled(await own.push("news", `${crowd.member(1)}@${domain}`, "First"));
			for (let i = 0; i < (to ? 1 : 60); i++)
				await own.push("news", to ?? `${crowd.member(i + 2)}@${domain}`, `Under way ${i}`);
			await until("all these commands", async () => (await its_.stats()).commands >= 1 + expected);
			await lookedSince(`Looked at ${name}`);
			const { commands, sessions } = await its_.stats();
			assert.deepEqual([commands, sessions], [1 + expected, 1]);
			await its.shop.ctl(["queue", "drop", "--domain", domain]);
			await its_.stop(); // else the relay would wait for its answers when it ends
		}
	});

	test("a recipient that got Z loses its place: what comes later overtakes", async () => {
		const its_ = await sink("place.test", "--z-every", "3"), crowd = await Crowd.make(site, "news", "place.test", "p", 1);
		const push = async (subject) => site.push("news", `${crowd.member(1)}@place.test`, subject);
		for (const subject of ["First", "Second"])
			await site.settled(await push(subject));
		const put_off = await push("Put off");
		await until("the Z", () => its_.record(put_off).length === 1);
		const later = await push("Later");
		assert.equal((await site.settled(later)).delivered, 1);
		assert.equal((await site.counts(put_off)).waiting, 1);
		await its.shop.ctl(["queue", "retry", "--message", put_off]); // by itself: in a minute
		assert.equal((await site.settled(put_off)).delivered, 1);
	});

	test("an answer that speaks for the session leaves the message in the queue: it is delivered, once, when the peer takes it", async () => {
		const its_ = await sink("e.test", "--refuse", "limit,unknown-command");
		const crowd = await Crowd.make(site, "news", "e.test", "e", 1);
		const id = await site.push("news", `${crowd.member(1)}@e.test`, "Not in this session");
		assert.deepEqual(await site.settled(id), { waiting: 0, delivered: 1, failed: 0, dead: 0, rejected: 0 });
		assert.equal(its_.record(id).length, 1);
		assert.ok((await its_.stats()).sessions >= 3, "each answer ended its session");
	});

	test("however many sites write to a domain: they share at most four sessions, unless the operator says otherwise", async () => {
		const its_ = await sink("four.test");
		const sites = await Promise.all(Array.from({ length: 8 }, (_, i) => its.shop.makeSite(`four${i}`, ["news"])));
		for (const [i, one] of sites.entries())
			await Crowd.make(one, "news", "four.test", `f${i}`, 1);
		// The first message to a domain goes out alone; what comes then is spread.
		for (const to of [sites.slice(0, 1), sites, sites]) {
			const ids = await Promise.all(to.map((one) => one.push("news", "*", "One of eight")));
			for (const [i, one] of to.entries())
				assert.equal((await one.settled(ids[i])).delivered, 1);
		}
		const { sessions, sessions_most: most } = await its_.stats();
		assert.ok(sessions >= 2 && sessions <= 4 && most === sessions, `${sessions} sessions, ${most} at once`);
	});

	// What a clock that was an hour ahead leaves in the database once it is right again.
	test("a peer isn't waited for longer because the clock was ahead when its next try was set", async () => {
		const its_ = await sink("ahead.test");
		const crowd = await Crowd.make(site, "news", "ahead.test", "c", 1);
		its.ways["ahead.test"].refuse();
		const id = await site.push("news", `${crowd.member(1)}@ahead.test`, "An hour ahead"), from = its.shop.now;
		await until("a try that failed", () => peer("ahead.test", "p.retry_at"));
		await its.shop.sql(`BEGIN;
			UPDATE tmtp.clock SET seen_at = seen_at + interval '1 hour' WHERE role = 'relay';
			UPDATE tmtp.peer SET retry_at = retry_at + interval '1 hour' WHERE domain_id = (SELECT domain_id FROM tmtp.domain WHERE name = 'ahead.test');
			UPDATE tmtp.batch SET not_before = now() + interval '1 hour' WHERE message_id = '${id}';
			COMMIT`);
		await its.shop.killRole("relay"); // so that all of it is read from there
		its.ways["ahead.test"].restore();
		assert.match(await its.shop.line(/^event=clock-set-back /, from), / by_s=3[56]\d\d /);
		assert.equal((await site.settled(id)).delivered, 1);
		assert.equal(its_.record(id).length, 1);
	});

	test("pickups that were put off for long come as soon as one from their sender works again", async () => {
		its.pickup.refuse();
		const from = its.home.now, late = ["Late 1", "Late 2", "Late 3"];
		for (const subject of late)
			await site.push("orders", ann.address, subject);
		const waiting = "FROM tmtp.notification WHERE state = 0 AND not_before IS NOT NULL";
		await until("three that were put off", async () => await its.home.number(`SELECT count(*) ${waiting}`) === 3);
		await its.home.sql("UPDATE tmtp.notification SET not_before = now() + interval '1 hour', attempts = 9 WHERE state = 0");
		its.pickup.restore();
		await site.push("orders", ann.address, "In time");
		await ann.has("In time");
		for (const subject of late)
			await ann.has(subject);
		await its.home.line(/^event=pickups-resumed .*domain=shop\.test count=3/, from);
	});

	test("a dead domain costs one probe at a time, whoever waits for it; what expires meanwhile is dead with the reason, held or not", async () => {
		const other = await its.shop.makeSite("other", ["news"]);
		const crowds = [await Crowd.make(site, "news", "gone.test", "g", 20), await Crowd.make(other, "news", "gone.test", "o", 20)];
		const way = its.ways["gone.test"], from = its.shop.now, accepted = way.accepted;
		const failed = () => its.shop.lines.slice(from).filter((l) => /^event=peer-failed .*peer=gone\.test/.test(l));
		way.refuse();
		const ids = [];
		for (let n = 1; n <= 20; n++)
			ids.push(await site.push("news", `${crowds[0].member(n)}@gone.test`, "Gone"), await other.push("news", `${crowds[1].member(n)}@gone.test`, "Gone"));
		await until("five tries", () => failed().length >= 5);
		assert.ok(way.accepted - accepted <= failed().length + 1, `${way.accepted - accepted} connections for ${failed().length} failures`);
		assert.deepEqual(failed().slice(0, 4).map((l) => Number(/failures=(\d+)/.exec(l)[1])), [1, 2, 3, 4]);
		const words = () => failed().map((l) => /reason="?([^"]*)"? failures/.exec(l)[1]);
		await its.shop.sql(`UPDATE tmtp.message SET expires_at = now() WHERE message_id = '${ids[0]}'`);
		await its.shop.ctl(["peer", "hold", "gone.test"]);
		await its.shop.sql(`UPDATE tmtp.message SET expires_at = now() WHERE message_id = '${ids[1]}'`);
		for (const id of ids.slice(0, 2)) {
			await until("the dead letter", async () => await batch(id, "state") === "2");
			const [, said] = /^expired before it could be delivered; last: (.+)$/.exec(await batch(id, "reason"));
			assert.ok(words().includes(said), said);
		}
		await its.shop.line(new RegExp(`^event=delivery-dead .*message=${ids[1]} reason="expired before`), from);
		assert.equal((await its.shop.ctl(["queue", "drop", "--domain", "gone.test"])).changed, 40);
		await its.shop.ctl(["peer", "release", "gone.test"]);
	});
});

describe("a home server that refuses a whole notification", () => {
	const its = pairOfItsOwn();

	test("is heard: its own words are in the log, and the website is told the reason of each recipient", async () => {
		const site = await its.shop.makeSite("shop", ["orders"]), ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
		await its.shop.ctl(["peer", "hold", "home.test"]);
		const id = await site.push("orders", ann.address, "From the future"), from = its.shop.now, there = its.home.now;
		await its.shop.sql(`UPDATE tmtp.message SET date_s = date_s + 7200 WHERE message_id = '${id}'`); // as a clock that is wrong
		await its.shop.ctl(["peer", "release", "home.test"]);
		assert.equal((await site.settled(id)).failed, 1);
		assert.match(await its.shop.line(/^event=notification-refused /, from), new RegExp(`peer=home\\.test message=${id} recipients=1 reason="E malformed: The date is more than an hour ahead`));
		assert.match(await its.home.line(/^event=command-refused /, there), /detail="The date is more than an hour ahead: one of the two clocks is wrong\."/);
		assert.deepEqual((await site.get(`/v1/messages/${id}/recipients`)).recipients.map(({ state, reason }) => [state, reason]), [["failed", "malformed"]]);
		assert.deepEqual(await ann.subjects(), []);
	});
});

describe("a home server that takes commands and says nothing", () => {
	const its = pairOfItsOwn({ prepare: async () => ({ shop: { relay: "reply_timeout_s = 2" } }) });

	test("counts as failed after the time that it has for an answer; what it didn't answer arrives once when it speaks again", async () => {
		const site = await its.shop.makeSite("shop", ["orders"]), ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
		await site.settled(await site.push("orders", ann.address, "Before")); // a session is open
		const from = its.shop.now;
		its.toHome.hold("down");
		const id = await site.push("orders", ann.address, "Into silence");
		await its.shop.line(/^event=session-ended .*peer=home\.test .*reason=no-reply/, from);
		await its.shop.line(/^event=peer-failed .*peer=home\.test /, from);
		its.toHome.restore();
		assert.equal((await site.settled(id)).delivered, 1);
		await ann.has("Into silence");
		assert.equal((await ann.entries()).filter((e) => e.subject === "Into silence").length, 1);
	});
});

describe("GRANTs that got lost", () => {
	const its = pairOfItsOwn();
	let site, ann, bob;

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders"]);
		[ann, bob] = [await its.home.makeAccount("ann"), await its.home.makeAccount("bob")];
		await bob.hold(site, "orders");
		await site.settled(await site.push("orders", bob.address, "First")); // from now on the shop knows whom to ask
		await bob.has("First");
	});

	// The member says something, and the shop never hears of it.
	async function unheard(say) {
		its.toShop.refuse();
		try {
			await say();
			await its.home.sqlUntil("EXISTS (SELECT FROM tmtp.grant_outbox)");
			await its.home.sql("DELETE FROM tmtp.grant_outbox");
		} finally {
			its.toShop.restore();
		}
	}
	const caughtUp = (from) => its.shop.line(/^event=caught-up .*peer=home\.test/, from).then((l) => /events=(\d+) changed=(\d+)/.exec(l).slice(1).map(Number));

	test("an administrator's question makes a lost yes good", async () => {
		await unheard(() => ann.do("PUT", `/v1/channels/${site.address}/orders`, {}));
		assert.equal(await site.state("orders", ann.address), "none");
		await until("her yes to be old enough to be told", async () => { // a change is told when those before it are committed for sure
			await its.shop.ctl(["peer", "catch-up", "home.test"]);
			return await site.state("orders", ann.address) === "granted";
		}, { every: 500 });
		await site.push("orders", ann.address, "Found again");
		await ann.has("Found again");
		const [told] = (await its.shop.ctl(["peer", "catch-ups", "--domain", "home.test"])).catch_ups;
		assert.deepEqual([told.site, told.changed, told.reason], [site.address, 1, null]);
		assert.notEqual(told.asked, null);
	});

	test("by itself when its time has come, from where it stopped; the next time is about a day away", async () => {
		await unheard(() => ann.do("DELETE", `/v1/channels/${site.address}/orders`));
		assert.equal(await site.state("orders", ann.address), "granted");
		await its.home.sqlUntil("(SELECT max(left(replace(changed_id::text, '-', ''), 12) COLLATE \"C\") FROM tmtp.consent) < " +
			"lpad(to_hex((extract(epoch FROM clock_timestamp() - interval '6 s') * 1000)::bigint), 12, '0')");
		const from = its.shop.now;
		await its.shop.sql("UPDATE tmtp.catchup SET next_at = now()");
		await site.untilState("orders", ann.address, "revoked");
		assert.deepEqual(await caughtUp(from), [1, 1]);
		assert.equal(await its.shop.sql("SELECT next_at BETWEEN now() + interval '19 h' AND now() + interval '25 h' FROM tmtp.catchup"), "t");
	});

	test("after an outage, when the domain answers again; and from the start when its cursor is refused", async () => {
		await its.shop.sql("UPDATE tmtp.catchup SET cursor = 'nonsense'");
		const from = its.shop.now;
		its.toHome.refuse();
		const id = await site.push("orders", bob.address, "Through the outage");
		await its.shop.line(/^event=peer-failed .*peer=home\.test/, from);
		its.toHome.restore();
		assert.equal((await site.settled(id)).delivered, 1);
		await its.shop.line(/^event=catch-up-failed .*E malformed/, from);
		const [events, changed] = await caughtUp(from);
		assert.ok(events >= 2, "all that its members ever said");
		assert.equal(changed, 0, "and it was known");
		assert.equal(await site.state("orders", bob.address), "granted");
	});

	test("more than one answer holds, to the end", async () => {
		const crowd = await Crowd.make(site, "orders", its.home, "c", 2500);
		await its.shop.sql(`UPDATE tmtp.subscription SET state = 4, left_at = to_timestamp(0), grant_date = 0 WHERE member LIKE 'c%'; UPDATE tmtp.catchup SET cursor = ''`);
		// their changes are as old as those of a crowd that came one by one
		await its.home.sql(`UPDATE tmtp.consent SET changed_id = overlay(tmtp.uuid_floor(current_date - 1)::text PLACING lpad(to_hex(account_id - ${crowd.first}), 12, '0') FROM 25)::uuid
			WHERE account_id BETWEEN ${crowd.first} AND ${crowd.first + 2500n}`);
		const from = its.shop.now;
		await its.shop.ctl(["peer", "catch-up", "home.test", "--from-start"]);
		const [events, changed] = await caughtUp(from);
		assert.ok(events >= 2500);
		assert.equal(changed, 2500);
		assert.equal(await its.shop.number("SELECT count(*) FROM tmtp.subscription WHERE member LIKE 'c%' AND state = 1"), 2500);
	});

	test("a domain nobody sent to can't be asked", async () => {
		await assert.rejects(its.shop.ctl(["peer", "catch-up", "nobody.test"]), /nothing was sent to nobody\.test yet/);
		await assert.rejects(its.shop.ctl(["peer", "catch-up", "not a domain"]), /domain/);
		await assert.rejects(its.shop.ctl(["queue", "drop"]), /--all/);
		await assert.rejects(its.shop.ctl(["queue", "drop", "--all", "--domain", "home.test"]), /--all/);
	});
});

describe("a home server with limits", () => {
	const its = pairOfItsOwn({ home: "rcpts = 100 max_rcpts_per_second = 200 max_connections_per_address = 12 max_sessions_per_minute = 90" });
	let site, crowd, shop;

	before(async () => {
		site = await its.shop.makeSite("shop", ["news"]);
		crowd = await Crowd.make(site, "news", its.home, "m", 1500);
		shop = { cert: fs.readFileSync(its.authority.file("shop.test.pem")), key: fs.readFileSync(its.authority.file("shop.test.key")) };
	});
	const session = (identity = shop) => new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, ...identity });
	const note = (more) => compose({ from: "shop@shop.test", to: "news.shop@shop.test", uris: ["https://shop.test/m/nothing"], ...more }).post;
	const strangers = (n) => Array.from({ length: n }, () => crypto.randomBytes(20));

	test("a full window waits for a slow database: others are served meanwhile, replies come in order, commits are shared", async () => {
		const lock = spawn("psql", ["-qXAt", `host=${its.home.socket} dbname=tmtp user=tmtp_owner`], { stdio: ["pipe", "pipe", "inherit"], cwd: "/" });
		const ended = new Promise((resolve) => lock.on("close", resolve));
		let said = "";
		lock.stdout.on("data", (part) => { said += part; });
		lock.stdin.write("BEGIN; LOCK TABLE tmtp.arrival_count IN EXCLUSIVE MODE; SELECT 'locked';\n");
		await until("the lock", () => said.includes("locked"));
		const grants = (await its.home.sql("SELECT encode(grant_id, 'hex') FROM tmtp.open_grant LIMIT 16")).split("\n").map((hex) => Buffer.from(hex, "hex"));
		const s = session(), other = session();
		try {
			await Promise.all([s.greeting, other.greeting]);
			// The i-th has i + 1 recipients who hold nothing: its reply says which it is.
			const window = grants.map((grant, i) => ["POST", note({ id: `window ${i}`, rcpts: [...strangers(i + 1), grant] })]);
			s.socket.write(Buffer.concat([...window.map(encode), encode(["NOOP"])]));
			await its.home.sqlUntil("EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
			assert.deepEqual(await other.ask("NOOP"), ["K"]);
			assert.equal(s.replies.length, 0);
			lock.stdin.end("COMMIT;\n");
			await ended;
			for (let i = 0; i < 16; i++) {
				const [letter, told] = await s.read();
				assert.deepEqual([letter, told.failed.length], ["K", i + 1]);
			}
			assert.deepEqual(await s.read(), ["K"]);
			assert.equal(await its.home.number("SELECT count(*) FROM tmtp.posted WHERE id LIKE 'window %'"), 16);
			const commits = await its.home.number("SELECT count(DISTINCT xmin::text) FROM tmtp.posted WHERE id LIKE 'window %'");
			assert.ok(commits <= 4, `${commits} commits for 16 commands`);
		} finally {
			lock.kill();
			await Promise.all([s.close(), other.close()]);
		}
	});

	test("announces with I that a domain has used up its rate, before it refuses with Z; afterwards all is well", async () => {
		const s = session(), told = [];
		for (let i = 0; i < 4 && told.at(-1)?.[0] !== "I"; i++)
			told.push(...await Promise.all([s.ask("POST", note({ rcpts: strangers(100) }))]));
		if (told.at(-1)[0] === "I")
			assert.equal((await s.read())[0], "K", "what was announced is still taken");
		const i = told.find(([letter]) => letter === "I");
		assert.deepEqual([i[1].code, i[1].retry >= 1], ["throttled", true]);
		const z = await s.ask("POST", note({ rcpts: strangers(1) }));
		assert.deepEqual([z[0], z[1].code, z[1].retry >= 1], ["Z", "throttled", true]);
		await until("the rate to be there again", async () => (await s.ask("POST", note({ rcpts: strangers(1) })))[0] === "K", { every: 100 });
		await s.close();
	});

	test("and a relay that is throttled delivers all of it, each once", async () => {
		const from = its.shop.now, id = await site.push("news", "*", "Throttled");
		await its.shop.line(/^event=peer-asks-to-wait .*peer=home\.test reason="[IZ] throttled/, from);
		await crowd.untilSeen(id, crowd.count, { ms: 90_000 });
		await until("the end", async () => (await site.counts(id)).waiting === 0);
		assert.deepEqual(await site.counts(id), { waiting: 0, delivered: 1500, failed: 0, dead: 0, rejected: 0 });
		assert.deepEqual(await crowd.seen(id), { members: 1500, entries: 1500 });
		assert.equal(its.shop.lines.slice(from).some((l) => /^event=peer-failed .*peer=home\.test/.test(l)), false);
	});

	test("connections above the limit of an address, and sessions above its rate, hear Z and when to come back", async () => {
		const open = [], refused = [];
		for (let i = 0; i < 14 && refused.length === 0; i++) {
			const s = session(), first = await s.greeting;
			open.push(s);
			if (Array.isArray(first))
				refused.push(first);
		}
		assert.deepEqual([refused[0][0], refused[0][1].code, refused[0][1].retry], ["Z", "throttled", 60]);
		await its.home.line(/^event=dmtp-refused .*reason="too many connections from there"/);
		await Promise.all(open.map((s) => s.close()));
		const before_ = await metric(its.home.ports.homeMetrics, "tmtp_dmtp_sessions_refused_total");
		const answer = await until("a refusal by rate", async () => {
			const s = session(), first = await s.greeting.catch(() => null);
			await s.close();
			return Array.isArray(first) && first[1].retry < 60 && first;
		}, { every: 1 });
		assert.deepEqual([answer[0], answer[1].code], ["Z", "throttled"]);
		assert.ok(await metric(its.home.ports.homeMetrics, "tmtp_dmtp_sessions_refused_total") > before_);
		await its.home.line(/^event=dmtp-refused .*reason="too many sessions begun from there"/);
	});
});
