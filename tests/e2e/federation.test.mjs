// Two appliances, strangers to each other: what a website says at one reaches members at the other, once, whatever dies on
// the way. Real processes, databases, DMTP over TLS; between them proxies that can fail. BUILD names the programs (build).
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { after, afterEach, before, describe, test } from "node:test";
import { Authority, Pair } from "./lib/appliance.mjs";
import { base32, Crowd } from "./lib/crowd.mjs";
import { compose, Session } from "./lib/dmtp.mjs";
import { metric, request } from "./lib/http.mjs";
import { Sink } from "./lib/sink.mjs";
import { kill, until } from "./lib/wait.mjs";

// A pair for each group, so that what one breaks no other has to do with.
function pairOfItsOwn(options) {
	const its = new Pair();
	before(() => its.start(options));
	after(() => its.stop());
	return its;
}

const pickups = async (shop) => await metric(shop.ports.siteMetrics, 'tmtp_pickups_total{source="memory"}') +
	await metric(shop.ports.siteMetrics, 'tmtp_pickups_total{source="store"}');

const failures = (shop) => shop.number("SELECT coalesce(max(failures), 0) FROM tmtp.peer p JOIN tmtp.domain d USING (domain_id) WHERE d.name = 'home.test'");

describe("consent", () => {
	const its = pairOfItsOwn();
	let site, ann, bob;

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders", "news"]);
		[ann, bob] = await Promise.all([its.home.makeAccount("ann"), its.home.makeAccount("bob")]);
	});

	const invitations = async (from = site) => (await from.get("/v1/messages")).messages.filter((m) => m.audience === "invitation").map((m) => m.id);

	test("tmtpctl made a site with channels and a key, and an account at the other appliance", async () => {
		assert.deepEqual((await site.get("/v1/channels")).channels.map((c) => c.name).sort(), ["news", "orders"]);
		assert.deepEqual(await ann.get("/v1/inbox"), { entries: [], unread: 0 });
		assert.equal(await its.shop.number("SELECT count(*) FROM tmtp.account"), 0);
		assert.equal(await its.home.number("SELECT count(*) FROM tmtp.site WHERE kind = 0"), 0);
	});

	test("a registered address is invited over DMTP, a yes opens the channel and comes back", async () => {
		const cat = await its.home.makeAccount("cat");
		assert.equal((await site.invite("orders", cat.address, "How your orders are doing")).invited, true);
		await cat.invitation(site.address, "orders");
		const seen = await until("the invitation's words", async () => {
			const invitation = await cat.get(`/v1/invitations/${site.address}/orders`);
			return invitation.words !== null && invitation;
		});
		assert.equal(seen.words, "How your orders are doing");
		assert.equal(await site.state("orders", cat.address), "invited");
		await cat.do("POST", `/v1/invitations/${site.address}/orders/accept`, {});
		await site.untilState("orders", cat.address, "granted");
		assert.deepEqual(await cat.get("/v1/invitations"), []);
		await site.push("orders", cat.address, "Welcome");
		await cat.has("Welcome");
		const peer = await until("the shop to know that it sent", () => its.shop.ctl(["peer", "show", "home.test"]).catch(() => null));
		assert.equal(peer.state, "well");
		assert.ok(Math.abs(Date.parse(peer.sent) - Date.now()) < 600_000);
	});

	test("a no comes back too, and is final", async () => {
		await site.invite("orders", bob.address);
		await bob.invitation(site.address, "orders");
		await bob.do("POST", `/v1/invitations/${site.address}/orders/refuse`);
		await site.untilState("orders", bob.address, "refused");
		assert.equal((await site.invite("orders", bob.address)).invited, false);
		assert.equal((await site.call("POST", "/v1/channels/orders/messages", { to: bob.address, subject: "But" })).status, 422);
		// nor does another channel ask again: it would be dropped
		const before_ = (await invitations()).length;
		assert.deepEqual(await site.invite("news", bob.address), { address: bob.address, state: "none", invited: false, held_by: "orders" });
		assert.equal((await invitations()).length, before_);
		assert.deepEqual(await bob.get("/v1/invitations"), []);
	});

	test("while one is unanswered the site's next waits for it, and goes out when it was answered", async () => {
		const lea = await its.home.makeAccount("lea");
		await site.invite("orders", lea.address);
		await lea.invitation(site.address, "orders");
		assert.deepEqual(await site.invite("news", lea.address), { address: lea.address, state: "none", invited: false, held_by: "orders" });
		assert.equal(await site.state("news", lea.address), "none");
		await lea.do("POST", `/v1/invitations/${site.address}/orders/accept`, {});
		await site.untilState("orders", lea.address, "granted");
		assert.equal((await site.invite("news", lea.address)).invited, true);
		await lea.invitation(site.address, "news");
	});

	test("while one is unanswered a second of the domain is dropped; nobody at all looks the same to the site", async () => {
		const told = {}, club = await its.shop.makeSite("club", ["news"]);
		for (const [from, channel, address] of [[site, "orders", ann.address], [club, "news", ann.address],
			[site, "orders", "nobody@home.test"], [club, "news", "nobody@home.test"]]) {
			const before_ = await invitations(from);
			assert.equal((await from.invite(channel, address)).invited, true);
			const id = await until("the invitation", async () => (await invitations(from)).find((m) => !before_.includes(m)));
			(told[address] ??= []).push(await from.settled(id), (await from.get(`/v1/messages/${id}/recipients`)).recipients.map((r) => r.state),
				await from.state(channel, address));
		}
		assert.deepEqual(told["nobody@home.test"], told[ann.address]);
		assert.deepEqual(told[ann.address].slice(-3), [{ waiting: 0, delivered: 1, failed: 0, dead: 0, rejected: 0 }, ["delivered"], "invited"]);
		assert.deepEqual((await ann.get("/v1/invitations")).map((i) => i.channel), ["orders"]);
	});

	test("after a revocation nothing arrives, and the site has learnt it", async () => {
		const dan = await its.home.makeAccount("dan"), eve = await its.home.makeAccount("eve");
		await Promise.all([dan.hold(site, "orders"), eve.hold(site, "orders")]);
		await site.push("orders", dan.address, "Before");
		await dan.has("Before");
		await dan.do("DELETE", `/v1/channels/${site.address}/orders`);
		await site.untilState("orders", dan.address, "revoked");
		assert.equal((await site.call("POST", "/v1/channels/orders/messages", { to: dan.address, subject: "After" })).status, 422);
		const id = await site.push("orders", "*", "To those who stayed");
		await site.settled(id);
		await eve.has("To those who stayed");
		assert.equal((await site.get(`/v1/messages/${id}/recipients`)).recipients.some((r) => r.address === dan.address), false);
		assert.deepEqual(await dan.subjects(), ["Before"]);
	});

	test("a revocation that the site hasn't heard of yet is told by the delivery", async () => {
		const fay = await its.home.makeAccount("fay");
		await fay.hold(site, "orders");
		its.toShop.refuse();
		try {
			await fay.do("DELETE", `/v1/channels/${site.address}/orders`);
			const id = await site.push("orders", fay.address, "Too late");
			assert.deepEqual(await site.settled(id), { waiting: 0, delivered: 0, failed: 1, dead: 0, rejected: 0 });
			assert.deepEqual((await site.get(`/v1/messages/${id}/recipients`)).recipients,
				[{ address: fay.address, state: "failed", reason: "channel-closed" }]);
			assert.deepEqual(await fay.subjects(), []);
		} finally {
			its.toShop.restore();
		}
		await site.untilState("orders", fay.address, "revoked");
	});

	test("a member whom the site took off holds the channel again when invited again, and gets what is sent", async () => {
		const ira = await its.home.makeAccount("ira");
		await ira.hold(site, "news");
		assert.equal((await site.call("DELETE", `/v1/channels/news/members/${ira.address}`)).status, 204);
		await site.untilState("news", ira.address, "removed");
		assert.equal((await site.invite("news", ira.address)).invited, true);
		await site.untilState("news", ira.address, "granted");
		await site.push("news", ira.address, "Welcome back");
		await ira.has("Welcome back");
		assert.deepEqual(await ira.get("/v1/invitations"), []);
	});

	test("a member whom the site took off comes back by saying yes again", async () => {
		const jon = await its.home.makeAccount("jon");
		await jon.hold(site, "news");
		assert.equal((await site.call("DELETE", `/v1/channels/news/members/${jon.address}`)).status, 204);
		await site.untilState("news", jon.address, "removed");
		await until("the yes to be heard", async () => {
			await jon.do("PUT", `/v1/channels/${site.address}/news`, {});
			return (await site.state("news", jon.address)) === "granted";
		}, { every: 300 });
	});
});

describe("messages", () => {
	const its = pairOfItsOwn();
	let site, ann, bob, crowd;

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders", "news", "crowd"]);
		[ann, bob] = await Promise.all([its.home.makeAccount("ann"), its.home.makeAccount("bob")]);
		await Promise.all([ann.hold(site, "orders"), bob.hold(site, "orders"), ann.hold(site, "news")]);
		crowd = await Crowd.make(site, "crowd", its.home, "c", 2500);
	});

	test("to one, to a list with some who hold nothing, to all: each arrives where it should", async () => {
		await site.push("orders", ann.address, "One", { message: "It arrives tomorrow.", action: { label: "Track it", url: "https://shop.test/1" } });
		const list = await site.call("POST", "/v1/channels/orders/messages", { to: [bob.address, "cat@home.test", ann.address, "nobody@else.test"], subject: "List" });
		assert.equal(list.status, 202);
		assert.deepEqual(list.json.rejected.sort(), ["cat@home.test", "nobody@else.test"]);
		const all = await site.push("news", "*", "All");
		const entry = await ann.has("One");
		await Promise.all([ann.has("List"), ann.has("All"), bob.has("List")]);
		assert.deepEqual(await bob.subjects(), ["List"]);
		const one = await ann.get(`/v1/inbox/${entry.id}`);
		assert.deepEqual(one.fields, { subject: "One", message: [{ type: "text/plain", text: "It arrives tomorrow." }],
			actions: [{ label: "Track it", url: "https://shop.test/1" }], attachments: [] });
		assert.deepEqual([one.from, one.channel, one.read], [site.address, "orders", null]);
		assert.equal((await site.settled(all)).delivered, 1);
	});

	test("what was answered with 202 outlives a database killed at that moment", async () => {
		const ids = [];
		for (let i = 0; i < 3; i++) {
			const from = its.shop.now;
			ids.push(await site.push("orders", ann.address, `Durable ${i}`));
			await kill(its.shop.postmaster);
			await its.shop.line(/^event=database-restart/, from);
			await until("the site", () => site.call("GET", `/v1/messages/${ids[i]}`).then((r) => r.status === 200));
		}
		for (const [i, id] of ids.entries()) {
			assert.equal((await site.settled(id)).delivered, 1);
			await ann.has(`Durable ${i}`);
		}
		const subjects = await ann.subjects();
		assert.equal(new Set(subjects).size, subjects.length);
	});

	test("batches are sent without waiting for answers, and count as delivered only when they were acknowledged", async () => {
		await site.settled(await site.push("crowd", `${crowd.member(1)}@home.test`, "First"));
		its.toHome.hold("down");
		try {
			const id = await site.push("crowd", "*", "Pipelined");
			await crowd.untilSeen(id);
			assert.equal(await its.shop.number(`SELECT count(*) FROM tmtp.batch WHERE message_id = '${id}' AND state = 0`), 4);
			assert.deepEqual(await site.counts(id), { waiting: 2500, delivered: 0, failed: 0, dead: 0, rejected: 0 });
			its.toHome.release();
			assert.equal((await site.settled(id)).delivered, 2500);
			assert.deepEqual(await crowd.seen(id), { members: 2500, entries: 2500 });
		} finally {
			its.toHome.release();
		}
	});

	test("a message to thousands is picked up once", async () => {
		const before_ = await pickups(its.shop);
		const id = await site.push("crowd", "*", "Once");
		await crowd.untilSeen(id);
		assert.equal((await site.settled(id)).delivered, 2500);
		assert.equal(await pickups(its.shop), before_ + 1);
		const member = await crowd.logIn(1234);
		assert.equal((await member.subjects()).filter((s) => s === "Once").length, 1);
		assert.equal(await its.home.number(`SELECT count(*) FROM tmtp.notification n WHERE n.digest =
			'${await its.shop.sql(`SELECT digest FROM tmtp.message WHERE message_id = '${id}'`)}'`), 1);
	});

	test("a message that was altered in the store never becomes visible", async () => {
		const watch = await ann.watch(), unread = (await ann.get("/v1/inbox")).unread;
		its.pickup.refuse();
		let uri, digest;
		try {
			const id = await site.push("orders", ann.address, "Pay here: AAAAAAAA");
			await site.settled(id);
			digest = await its.shop.sql(`SELECT digest FROM tmtp.message WHERE message_id = '${id}'`);
			await its.shop.sql(`UPDATE tmtp.message SET body = overlay(body PLACING 'BBBBBBBB'::bytea
				FROM position('AAAAAAAA'::bytea IN body)) WHERE message_id = '${id}'`);
			uri = new URL(await its.home.sql(`SELECT uris FROM tmtp.notification WHERE digest = '${digest}'`));
			await until("the altered message to be served", async () => (await request(its.shop.site, "GET", uri.pathname)).text.includes("BBBBBBBB"));
		} finally {
			its.pickup.restore();
		}
		const state = () => its.home.sql(`UPDATE tmtp.notification SET not_before = now() WHERE digest = '${digest}' AND state = 0 AND not_before > now();
			SELECT state FROM tmtp.notification WHERE digest = '${digest}'`);
		await until(async () => `the pickup to be given up, not ${await state()}`, async () => await state() === "2", { every: 100 });
		assert.match(its.home.lines.join("\n"), /event=pickup-failed .*what was picked up is not what was announced: digest/);
		const behind = await site.push("orders", ann.address, "Behind the altered one");
		await ann.has("Behind the altered one");
		await site.settled(behind);
		await watch.has("Behind the altered one");
		watch.close();
		assert.equal((await ann.subjects()).some((s) => s.startsWith("Pay here")), false);
		assert.equal(watch.entries.some((s) => s.startsWith("Pay here")), false);
		assert.equal((await ann.get("/v1/inbox")).unread, unread + 1);
		const hidden = await its.home.sql(`SELECT notification_id FROM tmtp.notification WHERE digest = '${digest}'`);
		assert.equal((await ann.call("GET", `/v1/inbox/${hidden}`)).status, 404);
	});

	test("an idempotency key is forgotten after a week, and one that is younger isn't", async () => {
		const push = (key, subject) => site.call("POST", "/v1/channels/orders/messages", { to: ann.address, subject }, { "Idempotency-Key": key });
		for (const key of ["week-old", "younger"])
			assert.equal((await push(key, "With a key")).status, 202);
		await its.shop.sql(`UPDATE tmtp.push_key SET created_at = now() - interval '7 days 1 minute' WHERE key = 'week-old';
			UPDATE tmtp.push_key SET created_at = now() - interval '6 days 23 hours' WHERE key = 'younger'`);
		await its.shop.killRole("site"); // it looks when it begins
		await its.shop.line(/^event=keys-forgotten .*count=1\b/);
		assert.equal((await push("week-old", "With another body")).status, 202);
		assert.equal((await push("younger", "With another body")).status, 422);
	});

	test("what was read is read, and no longer counted", async () => {
		await site.push("orders", bob.address, "To be read");
		const entry = await bob.has("To be read"), unread = (await bob.get("/v1/inbox/count")).unread;
		await bob.do("POST", `/v1/inbox/${entry.id}/read`);
		assert.notEqual((await bob.get(`/v1/inbox/${entry.id}`)).read, null);
		assert.equal((await bob.get("/v1/inbox/count")).unread, unread - 1);
		assert.equal((await bob.get("/v1/inbox?unread=true")).entries.some((e) => e.id === entry.id), false);
	});

	test("the inbox is told live, and again from where it stopped, without gap and double, across a restart of the role", async () => {
		const expected = Array.from({ length: 60 }, (_, i) => `Live ${i}`), seen = [];
		const mine = (watch) => watch.entries.filter((s) => s.startsWith("Live "));
		let watch = await bob.watch(), last;
		const next = async () => {
			watch.close();
			seen.push(...mine(watch));
			last = watch.lastId ?? last;
			watch = await until("the stream", () => bob.watch(last).catch(() => null));
		};
		await site.push("orders", bob.address, expected[0]);
		await watch.has(expected[0]);
		for (let i = 1; i < 20; i++) // a client that loses its connection again and again
			await site.push("orders", bob.address, expected[i]).then(() => i % 5 === 0 && next());
		await bob.has(expected[19]);
		watch.close();
		for (let i = 20; i < 30; i++) // while nobody watches
			await site.push("orders", bob.address, expected[i]);
		await bob.has(expected[29]);
		await next();
		await watch.has(expected[29]);
		const restarted = its.home.killRole("home"); // and in the middle of it the role dies
		for (let i = 30; i < 50; i++)
			await site.push("orders", bob.address, expected[i]);
		await restarted;
		await until("the end of the stream", () => watch.ended);
		await next();
		for (let i = 50; i < 60; i++)
			await site.push("orders", bob.address, expected[i]);
		await until(() => `all of it, not ${seen} and ${mine(watch)}`, () => seen.length + mine(watch).length >= expected.length);
		seen.push(...mine(watch));
		watch.close();
		assert.deepEqual([...seen].sort(), [...expected].sort());
		assert.deepEqual((await bob.subjects()).filter((s) => s.startsWith("Live ")).sort(), [...expected].sort());
	});

	test("status counts and names every recipient, page by page, for one, a list, and all, with failures", async () => {
		const members = [];
		for (let n = 1; n <= 7; n++)
			members.push(`${crowd.member(n)}@home.test`);
		// two of them said no without the site having heard of it
		const closed = [3, 5];
		await its.home.sql(`DELETE FROM tmtp.open_grant WHERE account_id IN (${closed.map((n) => crowd.first + BigInt(n)).join(", ")})`);
		const failed = closed.map((n) => ({ address: `${crowd.member(n)}@home.test`, state: "failed", reason: "channel-closed" }));
		const pages = async (target, limit) => {
			const found = [];
			let sheets = 0;
			for (target += `${target.includes("?") ? "&" : "?"}limit=${limit}`; target; sheets++) {
				const page = await site.get(target);
				assert.ok(page.recipients.length <= limit);
				found.push(...page.recipients);
				target = page.next?.replace(/^https:\/\/[^/]*/, "");
			}
			return { found, sheets };
		};

		const one = await site.push("crowd", members[2], "Status of one");
		assert.deepEqual(await site.settled(one), { waiting: 0, delivered: 0, failed: 1, dead: 0, rejected: 0 });
		assert.deepEqual((await pages(`/v1/messages/${one}/recipients`, 2)).found, [failed[0]]);

		const list = await site.push("crowd", [...members, "nobody@home.test", "a@else.test"], "Status of a list");
		assert.deepEqual(await site.settled(list), { waiting: 0, delivered: 5, failed: 2, dead: 0, rejected: 2 });
		const listed = await pages(`/v1/messages/${list}/recipients`, 2);
		assert.deepEqual(listed.found.map((r) => [r.address, r.state]).sort(), [...members.map((m, i) => [m, closed.includes(i + 1) ? "failed" : "delivered"]),
			["nobody@home.test", "rejected"], ["a@else.test", "rejected"]].sort());
		assert.ok(listed.sheets >= 4);
		assert.deepEqual((await pages(`/v1/messages/${list}/recipients?state=failed`, 1)).found, failed);
		assert.equal((await pages(`/v1/messages/${list}/recipients?state=rejected`, 1)).found.length, 2);

		const all = await site.push("crowd", "*", "Status of all");
		assert.deepEqual(await site.settled(all), { waiting: 0, delivered: 2498, failed: 2, dead: 0, rejected: 0 });
		const everybody = (await pages(`/v1/messages/${all}/recipients`, 400)).found;
		assert.equal(everybody.length, 2500);
		assert.equal(new Set(everybody.map((r) => r.address)).size, 2500);
		assert.deepEqual(everybody.filter((r) => r.state !== "delivered"), failed);
		assert.deepEqual((await pages(`/v1/messages/${all}/recipients?state=failed`, 1)).found, failed);
	});

	test("what could not be delivered in its time is given up, and said so", async () => {
		const known = await failures(its.shop);
		its.toHome.refuse();
		let id;
		try {
			id = await site.push("orders", [ann.address, bob.address], "Perishable", { expires: 60 });
			await until("a try that failed", async () => await failures(its.shop) > known);
			assert.equal((await site.counts(id)).waiting, 2);
			await its.shop.sql(`UPDATE tmtp.message SET expires_at = now() WHERE message_id = '${id}'`);
		} finally {
			its.toHome.restore();
		}
		assert.deepEqual(await site.settled(id), { waiting: 0, delivered: 0, failed: 0, dead: 2, rejected: 0 });
		assert.deepEqual((await site.get(`/v1/messages/${id}/recipients?state=dead`)).recipients.map((r) => r.address), [ann.address, bob.address]);
		assert.equal((await ann.subjects()).includes("Perishable"), false);
	});
});

describe("what goes away", () => {
	const its = pairOfItsOwn();
	let site, ann;

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
	});

	const arrivals = (subjects) => its.home.sql(`SELECT i.arrived_at, encode(n.body, 'escape') FROM tmtp.inbox i JOIN tmtp.notification n USING (notification_id)
		WHERE n.state = 1 ORDER BY i.arrived_at, n.notification_id`).then((rows) => rows.split("\n")
		.map((row) => subjects.find((s) => row.includes(`:${s}4:name7:subject`))).filter((s) => s !== undefined));

	test("without its database the shop says 503 and when to come back, loses nothing it acknowledged, and recovers by itself", async () => {
		const accepted = new Set(), refused = new Set();
		let pushing = true, n = 0, first = 0;
		const pusher = async () => {
			while (pushing) {
				const subject = `Stormy ${n++}`, headers = { "Idempotency-Key": crypto.randomUUID() };
				for (let done = false; pushing && !done;) {
					const { status, headers: told } = await site.call("POST", "/v1/channels/orders/messages", { to: ann.address, subject }, headers);
					if (status === 202) {
						accepted.add(subject);
						done = true;
					} else {
						assert.equal(status, 503);
						assert.ok(Number(told["retry-after"]) >= 1);
						refused.add(subject);
					}
				}
			}
		};
		const pushers = Array.from({ length: 8 }, pusher);
		await until("the first ones", () => accepted.size >= 50);
		const back = await its.shop.loseDatabase();
		try {
			await until("a refusal", () => refused.size > 0);
			first = accepted.size;
			assert.equal((await site.call("GET", "/readyz")).status, 503);
		} finally {
			back();
		}
		await until("pushes to be accepted again", () => accepted.size >= first + 50);
		pushing = false;
		await Promise.all(pushers);
		await until(async () => `all of ${accepted.size} to arrive`, async () => {
			const subjects = new Set(await ann.subjects());
			return [...accepted].every((s) => subjects.has(s));
		}, { every: 200 });
		// what was repeated with its key after a 503 came once
		const subjects = (await ann.subjects()).filter((s) => s.startsWith("Stormy "));
		assert.equal(new Set(subjects).size, subjects.length);
	});

	test("without its database the home server says Z; the shop keeps the message and delivers it once", async () => {
		const from = its.shop.now;
		const back = await its.home.loseDatabase();
		let id;
		try {
			id = await site.push("orders", ann.address, "Kept for home");
			assert.match(await its.shop.line(/^event=peer-asks-to-wait .*peer=home\.test/, from), /Z storage/);
			assert.equal((await site.counts(id)).waiting, 1);
		} finally {
			back();
		}
		assert.equal((await site.settled(id)).delivered, 1);
		await ann.has("Kept for home");
		assert.equal((await ann.subjects()).filter((s) => s === "Kept for home").length, 1);
	});

	test("without the home server messages are kept and tried again, later each time; when it is back the urgent one is first", async () => {
		await its.home.stop();
		const from = its.shop.now, subjects = ["Bulk", "Normal", "Urgent"], ids = [];
		try {
			for (const subject of subjects)
				ids.push(await site.push("orders", ann.address, subject, { lane: subject.toLowerCase() }));
			const waits = await until("three tries", () => {
				const found = its.shop.lines.slice(from).filter((l) => /^event=peer-failed .*peer=home\.test/.test(l));
				return found.length >= 3 && found.map((l) => [Number(/failures=(\d+)/.exec(l)[1]), Number(/retry_s=(\d+)/.exec(l)[1])]);
			});
			assert.deepEqual(waits.slice(0, 3), [[1, 1], [2, 2], [3, 4]]);
			for (const id of ids)
				assert.equal((await site.counts(id)).waiting, 1);
			const { batches } = await its.shop.ctl(["queue", "list", "--domain", "home.test"]);
			assert.deepEqual(batches.map((b) => b.message).sort(), [...ids].sort());
		} finally {
			await its.home.start();
		}
		for (const id of ids)
			assert.equal((await site.settled(id)).delivered, 1);
		for (const subject of subjects)
			await ann.has(subject);
		assert.equal((await arrivals(subjects))[0], "Urgent");
		const now = await ann.subjects();
		for (const subject of subjects)
			assert.equal(now.filter((s) => s === subject).length, 1);
	});
});

describe("what administrators say", () => {
	const its = pairOfItsOwn();
	let site, ann;

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
	});

	test("what a site pushed before it was suspended is still delivered, also by a relay that starts then", async () => {
		its.toHome.refuse();
		try {
			const id = await site.push("orders", ann.address, "Before the suspension");
			await its.shop.ctl(["site", "suspend", site.address]);
			await until("the site to be refused", async () => (await site.call("GET", "/v1/channels")).status === 403);
			await its.shop.killRole("relay");
			its.toHome.restore();
			await ann.has("Before the suspension");
			await its.shop.ctl(["site", "resume", site.address]);
			await until("the site to be let in", async () => (await site.call("GET", "/v1/channels")).status === 200);
			assert.equal((await site.settled(id)).delivered, 1);
		} finally {
			its.toHome.restore();
		}
	});

	test("a domain that is held is sent nothing until it is released", async () => {
		await site.settled(await site.push("orders", ann.address, "Before the hold"));
		await its.shop.ctl(["peer", "hold", "home.test"]);
		const until_ = Date.now() + 3000, kept = [];
		let n = 0;
		while (kept.length < 3 && Date.now() < until_) { // the relay hears of it within a second
			const id = await site.push("orders", ann.address, `Held ${n++}`);
			const settled = await until("the end or the hold", async () => (await site.counts(id)).delivered === 1, { ms: 300 }).catch(() => false);
			kept.push(...(settled ? [] : [id]));
		}
		assert.equal(kept.length, 3);
		await its.shop.ctl(["peer", "release", "home.test"]);
		for (const id of kept)
			assert.equal((await site.settled(id)).delivered, 1);
		for (let i = 0; i < n; i++)
			await ann.has(`Held ${i}`);
		assert.equal((await ann.subjects()).filter((s) => s.startsWith("Held ")).length, n);
	});
});

describe("a broadcast to 20,000", () => {
	const its = pairOfItsOwn(), count = 20_000;
	let site, crowd, last;

	before(async () => {
		site = await its.shop.makeSite("shop", ["news"]);
		crowd = await Crowd.make(site, "news", its.home, "m", count);
		last = await crowd.logIn(count);
		await site.settled(await site.push("news", last.address, "Warm"));
	});

	afterEach(() => its.proxies.forEach((proxy) => proxy.release()));

	// Everybody has it once; the shop's ledger says that all is done and nothing failed, the home's that all is there.
	async function agree(id, subject) {
		await crowd.untilSeen(id, count, { ms: 60_000 });
		assert.deepEqual(await site.settled(id), { waiting: 0, delivered: count, failed: 0, dead: 0, rejected: 0 });
		assert.deepEqual(await crowd.seen(id), { members: count, entries: count });
		assert.equal(await its.shop.sql(`SELECT DISTINCT state FROM tmtp.batch WHERE message_id = '${id}'`), "1");
		assert.equal(await its.shop.number(`SELECT sum(recipients) FROM tmtp.batch WHERE message_id = '${id}'`), count);
		assert.equal(await its.shop.number(`SELECT count(*) FROM tmtp.failure WHERE message_id = '${id}'`), 0);
		assert.equal((await last.subjects()).filter((s) => s === subject).length, 1);
	}

	// Pushes, and holds the way to the home server when about half of it has passed.
	async function halfway(subject) {
		its.toHome.pass(count * 23 / 2);
		const id = await site.push("news", "*", subject);
		await until("half of it to be on its way", () => its.toHome.held.up);
		await its.home.sqlUntil(`(SELECT count(*) FROM tmtp.inbox i JOIN tmtp.notification n USING (notification_id)
			WHERE n.digest = '${await its.shop.sql(`SELECT digest FROM tmtp.message WHERE message_id = '${id}'`)}') >= ${count / 4}`);
		const open = await its.shop.number(`SELECT count(*) FROM tmtp.batch WHERE message_id = '${id}' AND state = 0`);
		assert.ok(open > 0, "it is not in the middle any more");
		return id;
	}

	test("an urgent message overtakes it", async () => {
		its.toHome.pass(60_000);
		const id = await site.push("news", "*", "Bulk");
		await until("some of it to be on its way", () => its.toHome.held.up);
		const urgent = await site.push("news", last.address, "Urgent", { lane: "urgent" });
		await until("the urgent one to arrive", async () => {
			if (its.toHome.held.up)
				its.toHome.pass(10_000);
			return (await last.subjects()).includes("Urgent");
		}, { every: 30 });
		const { members } = await crowd.seen(id);
		assert.ok(members < count * 0.7, `${members} had got the bulk before`);
		its.toHome.release();
		await agree(id, "Bulk");
		assert.equal((await site.settled(urgent)).delivered, 1);
	});

	test("survives connections that are cut again and again", async () => {
		its.toHome.pass(40_000);
		const id = await site.push("news", "*", "Cut");
		for (let cuts = 0; cuts < 8; cuts++) {
			await until("octets to pass", () => its.toHome.held.up);
			its.toHome.cut();
			its.toHome.pass(40_000);
		}
		its.toHome.release();
		await agree(id, "Cut");
	});

	test("survives SIGKILL of the shop's database", async () => {
		const id = await halfway("Shop's database"), from = its.shop.now;
		await kill(its.shop.postmaster);
		await its.shop.line(/^event=database-restart/, from);
		its.toHome.release();
		await until("the site", () => site.call("GET", "/readyz").then((r) => r.status === 200));
		await agree(id, "Shop's database");
	});

	test("survives SIGKILL of the home's database", async () => {
		const id = await halfway("Home's database"), from = its.home.now;
		await kill(its.home.postmaster);
		its.toHome.release();
		await its.home.line(/^event=database-restart/, from);
		await until("the inbox", () => last.call("GET", "/readyz").then((r) => r.status === 200));
		await agree(id, "Home's database");
	});

	test("survives SIGKILL of the site's role, to which others push at the same time", async () => {
		const single = Array.from({ length: 40 }, (_, i) => `Meanwhile ${i}`);
		const push = async (subject) => {
			const headers = { "Idempotency-Key": crypto.randomUUID() };
			await until("the push to be accepted", () => site.call("POST", "/v1/channels/news/messages", { to: last.address, subject }, headers)
				.then((res) => res.status === 202, () => false));
		};
		its.pickup.hold("up");
		const id = await halfway("Site");
		const pushed = Promise.all(single.map(push));
		await its.shop.killRole("site");
		await pushed;
		its.pickup.cut();
		its.pickup.release();
		its.toHome.release();
		await agree(id, "Site");
		await last.has(single.at(-1));
		await until("all of them", async () => (await last.subjects()).filter((s) => s.startsWith("Meanwhile ")).length >= single.length);
		assert.deepEqual((await last.subjects()).filter((s) => s.startsWith("Meanwhile ")).sort(), [...single].sort());
	});

	test("survives SIGKILL of the relay's role", async () => {
		const id = await halfway("Relay");
		await its.shop.killRole("relay");
		its.toHome.release();
		await agree(id, "Relay");
	});

	test("survives SIGKILL of the home's role", async () => {
		its.pickup.hold("up");
		const id = await halfway("Home");
		await its.home.killRole("home");
		its.pickup.release();
		its.toHome.release();
		await agree(id, "Home");
	});
});

describe("SIGKILL of a role after the other side has seen some batches", () => {
	const its = pairOfItsOwn({ routes: ["sink.test"] }), batch = 800, count = 10 * batch;
	let site, crowd, real, sink;

	before(async () => {
		sink = await Sink.start(its, "sink.test");
		its.also(() => sink.stop());
		site = await its.shop.makeSite("shop", ["news"]);
		real = await Crowd.make(site, "news", its.home, "r", batch);
		crowd = await Crowd.make(site, "news", "sink.test", "s", count);
	});
	afterEach(() => its.ways["sink.test"].release());

	for (const [role, seen, answered] of [["relay", 1, false], ["relay", 3, true], ["relay", 7, false], ["site", 2, true], ["home", 2, true]])
		test(`${role}, ${seen}, ${answered ? "answered" : "not answered yet"}: nobody is left out, and a real home server shows it once`, async () => {
			const way = its.ways["sink.test"], subject = `${role}, seen ${seen}`;
			await site.settled(await site.push("news", `${crowd.member(1)}@sink.test`, "Warm")); // opens the session
			if (!answered)
				way.hold("down");
			way.pass(0);
			const id = await site.push("news", "*", subject);
			await until(() => `${seen} batches, not ${sink.record(id).length / batch}`, () => {
				if (sink.record(id).length >= seen * batch)
					return true;
				if (way.held.up)
					way.pass(4000);
				return false;
			});
			assert.equal(sink.record(id).length, seen * batch);
			await its.shop.killRole(role);
			way.cut();
			way.release();
			assert.deepEqual(await site.settled(id), { waiting: 0, delivered: count + batch, failed: 0, dead: 0, rejected: 0 });
			assert.deepEqual(await its.shop.sql(`SELECT state, sum(recipients) FROM tmtp.batch WHERE message_id = '${id}' GROUP BY state`), `1|${count + batch}`);
			const grants = (await its.shop.sql(`SELECT encode(s.grant_id, 'hex') FROM tmtp.subscription s JOIN tmtp.domain d USING (domain_id)
				WHERE d.name = 'sink.test'`)).split("\n").map((hex) => base32(Buffer.from(hex, "hex")));
			const record = sink.record(id);
			assert.deepEqual([...new Set(record)].sort(), grants.sort());
			assert.ok(record.length <= count + seen * batch, "only what was not known to be delivered is sent again");
			assert.ok(answered || record.length > count);
			await real.untilSeen(id);
			assert.deepEqual(await real.seen(id), { members: batch, entries: batch });
		});
});

describe("certificates", () => {
	const its = pairOfItsOwn();
	let site, ann;

	before(async () => {
		site = await its.shop.makeSite("shop", ["orders"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
	});

	// Of what is served at a port.
	const served = (port, protocols) => new Promise((resolve, reject) => {
		const socket = tls.connect({ host: "127.0.0.1", port, servername: "home.test", ca: its.authority.pem, ALPNProtocols: protocols }, () => {
			resolve(socket.getPeerX509Certificate().fingerprint256);
			socket.destroy();
		});
		socket.on("error", reject);
	});
	const everywhere = () => Promise.all([served(its.home.ports.dmtps, ["dmtp/1"]), served(its.home.ports.members), served(its.home.ports.site)]);
	const fingerprint = (cert) => new crypto.X509Certificate(cert).fingerprint256;

	test("what the store answers last, when the role's API is gone, ends nothing badly", async () => {
		const from = its.home.now, pid = its.home.role("home");
		const holder = its.home.hold("LOCK TABLE tmtp.revision; UPDATE tmtp.revision SET number = number + 1"); // the role asks for it twice a second
		await its.home.sqlUntil("EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'tmtp.revision'::regclass)");
		process.kill(pid, "SIGTERM");
		await until("the end of the API", () => new Promise((resolve) => {
			const socket = net.connect(its.home.ports.homeMetrics, "127.0.0.1", () => { socket.destroy(); resolve(false); }).on("error", () => resolve(true));
		}));
		await holder.release();
		const end = await its.home.line(/^event=role-end .*role=home /, from);
		assert.match(end, new RegExp(`pid=${pid} how=exit code=0 `));
		await its.home.line(/^event=role-ready role=home /, from);
	});

	test("new ones are served after SIGHUP, to new connections; those that are open stay", async () => {
		await site.settled(await site.push("orders", ann.address, "Before the reload"));
		const session = new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem });
		await session.greeting;
		const watch = await ann.watch(), sessions = its.toHome.accepted, roles = ["site", "relay", "home"].map((name) => its.home.role(name));
		const { cert } = its.authority.issue("home.test");
		its.home.child.kill("SIGHUP");
		await until("the new certificate everywhere", async () => (await everywhere()).every((f) => f === fingerprint(cert)));
		assert.deepEqual(await session.ask("NOOP"), ["K"]);
		await site.settled(await site.push("orders", ann.address, "After the reload"));
		await watch.has("After the reload");
		assert.equal(its.toHome.accepted, sessions);
		assert.deepEqual(["site", "relay", "home"].map((name) => its.home.role(name)), roles);
		watch.close();
		await session.close();
	});

	test("the relay shows the new one to others, in sessions that begin then", async () => {
		const { cert } = its.authority.issue("home.test"), from = its.home.now;
		its.home.child.kill("SIGHUP");
		await its.home.line(/^event=reloaded role=relay/, from);
		const shown = new Promise((resolve, reject) => {
			const witness = tls.createServer({ ...its.authority.issue("shop.test", "witness"), ca: its.authority.pem, requestCert: true, rejectUnauthorized: false,
				ALPNProtocols: ["dmtp/1"] }, (socket) => {
				resolve(socket.getPeerX509Certificate().fingerprint256);
				socket.destroy();
				witness.close();
			});
			witness.on("error", reject);
			witness.listen(0, "127.0.0.1", () => {
				its.toShop.target = witness.address().port;
				its.toShop.cut();
			});
		});
		await ann.do("PUT", `/v1/channels/${site.address}/orders`, { receipts: true });
		assert.equal(await shown, fingerprint(cert));
		its.toShop.target = its.shop.ports.dmtps;
		await until("the site to hear of it", async () => (await site.member("orders", ann.address)).receipts);
	});

	test("a broken file keeps the old one", async () => {
		const [old] = await everywhere(), file = its.authority.file("home.test.pem"), good = fs.readFileSync(file);
		for (const bad of [good.subarray(0, good.length / 2), "not a certificate\n", ""]) {
			const from = its.home.now;
			fs.writeFileSync(file, bad);
			its.home.child.kill("SIGHUP");
			await its.home.line(/^event=(certificates-kept|reload-refused) /, from);
			assert.deepEqual(await everywhere(), [old, old, old]);
		}
		fs.writeFileSync(file, good);
		its.home.child.kill("SIGHUP");
		await site.settled(await site.push("orders", ann.address, "After the broken ones"));
		await ann.has("After the broken ones");
	});
});

describe("a stranger's DMTP", () => {
	const its = pairOfItsOwn();
	let site, other, ann, shop, wrong, grant, foreign;
	const random = () => crypto.randomBytes(20);

	before(async () => {
		[site, other] = [await its.shop.makeSite("shop", ["orders"]), await its.shop.makeSite("other", ["orders"])];
		ann = await its.home.makeAccount("ann");
		await Promise.all([ann.hold(site, "orders"), ann.hold(other, "orders")]);
		const grantOf = async (sender) => Buffer.from(await its.home.sql(`SELECT encode(g.grant_id, 'hex') FROM tmtp.open_grant g
			JOIN tmtp.sender s USING (sender_id) WHERE s.address = '${sender}'`), "hex");
		[grant, foreign] = [await grantOf(site.address), await grantOf(other.address)];
		shop = { cert: fs.readFileSync(its.authority.file("shop.test.pem")), key: fs.readFileSync(its.authority.file("shop.test.key")) };
		wrong = its.authority.issue("wrong.test");
	});

	const session = (identity) => new Session({ port: its.home.ports.dmtps, domain: "home.test", ca: its.authority.pem, ...identity });
	const note = (more) => compose({ from: "shop@shop.test", to: "orders.shop@shop.test", uris: ["https://shop.test/m/nothing"], rcpts: [grant], ...more }).post;
	const entries = () => its.home.number("SELECT count(*) FROM tmtp.inbox");
	const code = ([letter, told]) => [letter, told?.code];

	// Sends one command in a session of its own.
	async function once(identity, ...command) {
		const s = session(identity);
		try {
			return await s.ask(...command);
		} finally {
			await s.close();
		}
	}

	test("with a certificate of another domain, or a stranger's, or none, is not the sender that it says", async () => {
		const before_ = await entries(), elsewhere = fs.mkdtempSync(path.join(its.dir, "ca-"));
		const forged = new Authority(elsewhere).issue("shop.test");
		for (const identity of [wrong, forged, {}])
			assert.deepEqual(code(await once(identity, "POST", note())), ["E", "unverified-sender"]);
		assert.deepEqual(code(await once(shop, "POST", note({ from: "shop@wrong.test" }))), ["E", "unverified-sender"]);
		assert.equal(await entries(), before_);
	});

	test("with a grant that was given to another site, or to nobody, hears the same", async () => {
		const before_ = await entries(), answers = [];
		for (const rcpts of [[foreign], [random()]])
			answers.push(await once(shop, "POST", note({ rcpts })));
		assert.deepEqual(answers[0], ["K", { failed: [[0, "E", "channel-closed"]] }]);
		assert.deepEqual(answers[1], answers[0]);
		assert.deepEqual(await once(shop, "POST", note({ rcpts: [random(), grant, foreign] })),
			["K", { failed: [[0, "E", "channel-closed"], [2, "E", "channel-closed"]] }]);
		assert.equal(await entries(), before_ + 1);
	});

	test("in plaintext is refused, and offered TLS", async () => {
		const s = new Session({ port: its.home.ports.dmtp, plain: true }), before_ = await entries();
		assert.equal((await s.greeting).tls, 1);
		assert.deepEqual(code(await s.ask("POST", note())), ["E", "tls-required"]);
		await s.close();
		assert.equal(await entries(), before_);
	});

	test("may repeat itself, but not say two things under one id", async () => {
		const s = session(shop), before_ = await entries(), first = note({ id: "one" });
		assert.deepEqual(await s.ask("POST", first), ["K"]);
		assert.deepEqual(await s.ask("POST", first), ["K"]);
		assert.deepEqual(code(await s.ask("POST", note({ id: "one" }))), ["E", "duplicate-conflict"]);
		assert.deepEqual(code(await s.ask("POST", { ...first, size: first.size + 1 })), ["E", "duplicate-conflict"]);
		assert.deepEqual(await s.ask("POST", { ...first, id: "another" }), ["K"]);
		assert.equal(await entries(), before_ + 1);
		assert.deepEqual(await s.ask("QUIT"), ["K"]);
		await s.ended;
	});

	test("may name the last of all integers as the end: a message is kept to the year 9999 then", async () => {
		for (const expires of [2n ** 63n - 1n, 9223372036855n]) {
			const announced = note();
			assert.deepEqual(await once(shop, "POST", { ...announced, expires }), ["K"]);
			assert.equal(await its.home.sql(`SELECT extract(year FROM expires_at AT TIME ZONE 'UTC') FROM tmtp.notification
				WHERE digest = '\\x${announced.digest.toString("hex")}'`), "9999");
		}
	});

	test("that is no DMTP ends its own session, and no other", async () => {
		const good = session(shop), bad = session(shop);
		await Promise.all([good.greeting, bad.greeting]);
		bad.socket.write("GET / HTTP/1.1\r\n\r\n");
		assert.deepEqual(code(await bad.read()), ["E", "malformed"]);
		assert.equal((await bad.read())[0], "X");
		await bad.ended;
		assert.deepEqual(await good.ask("POST", note()), ["K"]);
		await good.close();
	});

	test("what was announced and can't be picked up is never seen", async () => {
		assert.ok(await entries() > 0);
		assert.deepEqual(await ann.get("/v1/inbox"), { entries: [], unread: 0 });
	});
});
