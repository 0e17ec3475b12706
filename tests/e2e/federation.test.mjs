// Two appliances, strangers to each other: what a website says at one reaches members at the other, once, whatever dies on
// the way. Real processes, databases, DMTP over TLS; between them proxies that can fail. BUILD names the programs (build).
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { Crowd, endPickupLeases } from "./lib/crowd.mjs";
import { metric, request } from "./lib/http.mjs";
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

	const invitations = async () => (await site.get("/v1/messages")).messages.filter((m) => m.audience === "invitation").map((m) => m.id);

	test("tmtpctl made a site with channels and a key, and an account at the other appliance", async () => {
		assert.deepEqual((await site.get("/v1/channels")).channels.map((c) => c.name).sort(), ["news", "orders"]);
		assert.deepEqual(await ann.get("/v1/inbox"), { entries: [], unread: 0 });
		assert.equal(await its.shop.number("SELECT count(*) FROM tmtp.account"), 0);
		assert.equal(await its.home.number("SELECT count(*) FROM tmtp.site"), 0);
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
	});

	test("a no comes back too, and is final", async () => {
		await site.invite("orders", bob.address);
		await bob.invitation(site.address, "orders");
		await bob.do("POST", `/v1/invitations/${site.address}/orders/refuse`);
		await site.untilState("orders", bob.address, "refused");
		assert.equal((await site.invite("orders", bob.address)).invited, false);
		assert.equal((await site.call("POST", "/v1/channels/orders/messages", { to: bob.address, subject: "But" })).status, 422);
		// another channel may ask again, as far as the site knows: what it says is dropped, and acknowledged
		const before_ = await invitations();
		assert.equal((await site.invite("news", bob.address)).invited, true);
		const id = await until("another invitation", async () => (await invitations()).find((m) => !before_.includes(m)));
		assert.equal((await site.settled(id)).delivered, 1);
		assert.deepEqual(await bob.get("/v1/invitations"), []);
	});

	test("while one is unanswered a second is dropped; nobody at all looks the same to the site", async () => {
		const told = {};
		for (const [channel, address] of [["orders", ann.address], ["news", ann.address], ["orders", "nobody@home.test"], ["news", "nobody@home.test"]]) {
			const before_ = await invitations();
			assert.equal((await site.invite(channel, address)).invited, true);
			const id = await until("the invitation", async () => (await invitations()).find((m) => !before_.includes(m)));
			(told[address] ??= []).push(await site.settled(id), (await site.get(`/v1/messages/${id}/recipients`)).recipients.map((r) => r.state),
				await site.state(channel, address));
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
			await its.shop.sql(`UPDATE tmtp.message SET body = convert_to(replace(convert_from(body, 'LATIN1'), 'AAAAAAAA', 'BBBBBBBB'), 'LATIN1')
				WHERE message_id = '${id}'`);
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
		await endPickupLeases(its.home); // as the next minutes would
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
