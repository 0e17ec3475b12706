// The administrators' API: who may call it, the queue and the peers as they are, and what can be done to them.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { request } from "./lib/http.mjs";
import { freePorts, until } from "./lib/wait.mjs";

describe("the panel's API", () => {
	const its = new Pair();
	let port, site, ann, reader, writer;

	const call = (method, target, { body, token = writer } = {}) =>
		request({ domain: "shop.test", port, ca: its.authority.pem }, method, target, { body, bearer: token });
	const queue = async (query = "") => {
		const { status, json, text } = await call("GET", `/v1/queue${query}`);
		assert.equal(status, 200, text);
		return json;
	};
	const change = async (action, body) => {
		const { status, json, text } = await call("POST", `/v1/queue/${action}`, { body });
		assert.equal(status, 200, text);
		return json.changed;
	};
	const audited = () => its.shop.sql("SELECT actor || ' ' || action || ' ' || subject FROM tmtp.audit ORDER BY audit_id DESC LIMIT 1");
	const tokenFor = async (...args) => (await its.shop.ctl(["admin-token", "create", ...args])).token;

	before(async () => {
		const ports = await freePorts(1);
		port = ports[0];
		await its.start({ prepare: async () => ({ shop: { roles: ["site", "relay", "home", "panel"],
			others: `panel { listen = {"127.0.0.1:${port}"} url = "https://shop.test:${port}" tls = true }` } }) });
		site = await its.shop.makeSite("shop", ["orders"]);
		ann = await its.home.makeAccount("ann");
		await ann.hold(site, "orders");
		reader = await tokenFor("onlooker", "--scope", "read");
		writer = await tokenFor("on-call", "--scope", "read,write", "--expires", "90d");
		its.toHome.refuse();
	});
	after(() => its.stop());

	test("nobody without an administrator's token, no website's, and none that was revoked or has expired", async () => {
		const challenge = async (token) => {
			const answer = await call("GET", "/v1/queue", { token });
			assert.deepEqual([answer.status, answer.headers["content-type"], answer.headers["www-authenticate"], answer.json.type],
				[401, "application/problem+json", "Bearer", "urn:tmtp:problem:unauthorized"]);
		};
		await challenge(null);
		await challenge(site.token);
		await challenge((await its.shop.ctl(["token", "create", site.address, "--name", "web", "--scope", "read"])).token);
		await challenge(`${writer.slice(0, -1)}${writer.endsWith("a") ? "b" : "a"}`);
		const gone = await tokenFor("gone", "--scope", "read");
		assert.equal((await call("GET", "/v1/queue", { token: gone })).status, 200);
		await its.shop.ctl(["admin-token", "revoke", "gone"]);
		await challenge(gone);
		const old = await tokenFor("old", "--scope", "read", "--expires", "1h");
		await its.shop.sql("UPDATE tmtp.admin_token SET expires_at = now() WHERE name = 'old'");
		await challenge(old);
		const { tokens } = await its.shop.ctl(["admin-token", "list"]);
		assert.deepEqual(tokens.map((t) => [t.name, t.state, t.scopes]), [["onlooker", "valid", ["read"]], ["on-call", "valid", ["read", "write"]],
			["gone", "revoked", ["read"]], ["old", "expired", ["read"]]]);
		assert.equal(JSON.stringify(tokens).includes(reader), false);
	});

	test("a name is given once, also after a revocation, and what isn't there can't be revoked", async () => {
		await assert.rejects(tokenFor("gone", "--scope", "read"), /there is a token \\?"gone\\?" already/);
		await assert.rejects(its.shop.ctl(["admin-token", "revoke", "nobody"]), /there is no administrator's token \\?"nobody\\?"/);
		await assert.rejects(tokenFor("third", "--scope", "everything"), /--scope takes read, or read,write/);
	});

	test("who may only read changes nothing", async () => {
		const answer = await call("POST", "/v1/queue/drop", { token: reader, body: { all: true } });
		assert.deepEqual([answer.status, answer.json.type], [403, "urn:tmtp:problem:forbidden"]);
		assert.equal((await call("POST", "/v1/peers/home.test/hold", { token: reader })).status, 403);
		assert.equal((await call("GET", "/v1/peers", { token: reader })).status, 200);
	});

	test("what waits is shown page by page, with the reason in words", async () => {
		const ids = [];
		for (let i = 0; i < 5; i++)
			ids.push(await site.push("orders", ann.address, `Order ${i}`, i === 0 ? { lane: "urgent" } : {}));
		await until("the first try to fail", async () => (await queue()).batches.some((batch) => batch.reason !== null));
		const all = (await queue()).batches;
		assert.deepEqual(all.map((batch) => batch.message), ids);
		assert.deepEqual([all[0].site, all[0].channel, all[0].domain, all[0].lane, all[0].state, all[0].recipients],
			["shop@shop.test", "orders", "home.test", "urgent", "waiting", 1]);
		const pages = [];
		for (let page = await queue("?limit=2"); ; page = await queue(new URL(page.next).search)) {
			pages.push(page.batches.map((batch) => batch.message));
			if (page.next === undefined)
				break;
		}
		assert.deepEqual(pages, [ids.slice(0, 2), ids.slice(2, 4), ids.slice(4)]);
		assert.deepEqual((await queue(`?message=${ids[3]}&domain=HOME.test`)).batches.map((batch) => batch.message), [ids[3]]);
		assert.deepEqual((await queue("?domain=other.test")).batches, []);
		const { json: { peers } } = await call("GET", "/v1/peers");
		assert.deepEqual([peers[0].domain, peers[0].state, peers[0].failures > 0, typeof peers[0].reason], ["home.test", "failing", true, "string"]);
	});

	test("one delivery is held, released and dropped, and the audit log says who did it", async () => {
		const { batches: [{ message }] } = await queue("?limit=1");
		assert.equal(await change("hold", { message, domain: "home.test" }), 1);
		assert.equal(await audited(), `on-call queue-hold ${message} home.test`);
		assert.equal((await queue(`?message=${message}`)).batches[0].state, "held");
		assert.equal(await change("release", { message }), 1);
		assert.equal((await queue(`?message=${message}`)).batches[0].state, "waiting");
		assert.equal(await change("drop", { message }), 1);
		assert.equal(await audited(), `on-call queue-drop ${message}`);
		assert.deepEqual((await queue(`?message=${message}`)).batches, []);
		assert.deepEqual((await queue("?state=dead")).batches.map((batch) => [batch.message, batch.state, batch.reason]),
			[[message, "dropped", "dropped by an administrator"]]);
		assert.equal((await site.counts(message)).dead, 1);
	});

	test("a peer is held, and nothing is tried; released, everything arrives", async () => {
		assert.deepEqual((await call("POST", "/v1/peers/home.test/hold")).json, { domain: "home.test", held: true });
		its.toHome.restore();
		assert.match((await queue("?limit=1")).batches[0].reason, /the domain is held/);
		assert.equal((await call("POST", "/v1/peers/nowhere.test/hold")).status, 404);
		assert.deepEqual((await call("POST", "/v1/peers/home.test/release")).json, { domain: "home.test", held: false });
		assert.equal(await audited(), "on-call peer-release home.test");
		await ann.has("Order 4");
		await until("an empty queue", async () => (await queue()).batches.length === 0);
		its.toHome.refuse();
	});

	test("a retry does not wait for the next try; what was given up is tried too", async () => {
		its.toHome.cut();
		const id = await site.push("orders", ann.address, "Tried again");
		await until("a failed try", async () => (await queue(`?message=${id}`)).batches[0]?.reason);
		await its.shop.sql(`UPDATE tmtp.batch SET state = 2, done_at = now(), reason = 'given up' WHERE message_id = '${id}'`);
		assert.deepEqual((await queue(`?state=dead&message=${id}`)).batches.map((batch) => [batch.message, batch.state]), [[id, "dead"]]);
		its.toHome.restore();
		assert.equal(await change("retry", { domain: "home.test" }), 1);
		await ann.has("Tried again");
	});

	test("what isn't right is refused with a reason and changes nothing", async () => {
		for (const [method, target, body, type, says] of [
			["POST", "/v1/queue/drop", {}, "invalid-value", /domain, message or both/],
			["POST", "/v1/queue/drop", { all: false }, "invalid-value", /domain, message or both/],
			["POST", "/v1/queue/drop", { all: true, domain: "home.test" }, "invalid-value", /domain, message or both/],
			["POST", "/v1/queue/drop", { message: "7" }, "invalid-value", /message is a message's id/],
			["POST", "/v1/queue/drop", { domain: "not a domain" }, "invalid-value", /domain is a domain's name/],
			["POST", "/v1/queue/drop", { everything: true }, "unknown-field", /./],
			["GET", "/v1/queue?limit=0", undefined, "invalid-value", /limit/],
			["GET", "/v1/queue?state=lost", undefined, "invalid-value", /state/],
			["GET", "/v1/queue?after=1.2.3", undefined, "invalid-value", /after/],
			["GET", `/v1/queue?after=019aa9d4-0000-7000-8000-000000000000.1.2x`, undefined, "invalid-value", /after/],
			["GET", "/v1/queue?message=7", undefined, "invalid-value", /message/],
			["GET", "/v1/queue?domein=x", undefined, "bad-request", /domein/],
		]) {
			const { status, json } = await call(method, target, { body });
			assert.deepEqual([status, json.type], [400, `urn:tmtp:problem:${type}`], `${method} ${target} ${JSON.stringify(body)}`);
			assert.match(JSON.stringify(json), says);
		}
		assert.equal((await call("POST", "/v1/queue/everything", { body: {} })).status, 404);
		assert.equal((await call("DELETE", "/v1/queue")).status, 405);
	});

	test("a database that is gone is 503 with Retry-After, and comes back by itself", async () => {
		const back = await its.shop.loseDatabase();
		const gone = await call("GET", "/v1/queue");
		back();
		assert.deepEqual([gone.status, gone.json.type, Number(gone.headers["retry-after"]) > 0], [503, "urn:tmtp:problem:unavailable", true]);
		await until("the queue again", async () => (await call("GET", "/v1/queue")).status === 200);
	});
});
