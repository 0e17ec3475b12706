// a.test and b.test, homes of persons and nothing else (no website runs): each knows of the other, and of itself,
// only a pinned route through a proxy.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { Appliance, Authority } from "./appliance.mjs";
import { request } from "./http.mjs";
import { Proxy } from "./proxy.mjs";
import { freePorts, until } from "./wait.mjs";

export class Homes {
	// home: more of that section of the configuration.
	async start({ home = "" } = {}) {
		const names = ["site", "members", "dmtps", "dmtp", "siteMetrics", "homeMetrics", "relayMetrics"];
		this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "tp-"));
		fs.chmodSync(this.dir, 0o755);
		this.authority = new Authority(this.dir);
		const numbers = await freePorts(2 * names.length + 5);
		for (const name of ["a", "b"]) {
			this.authority.issue(`${name}.test`);
			this[name] = new Appliance(this.dir, `${name}.test`, this.authority, Object.fromEntries(names.map((n) => [n, numbers.pop()])));
		}
		// The DMTP and the pickup of each domain lead through proxies, whoever comes.
		this.dmtp = { a: await Proxy.listen(numbers.pop(), this.a.ports.dmtps), b: await Proxy.listen(numbers.pop(), this.b.ports.dmtps) };
		this.pickup = { a: await Proxy.listen(numbers.pop(), this.a.ports.members), b: await Proxy.listen(numbers.pop(), this.b.ports.members) };
		const routes = Object.fromEntries(["a", "b"].map((name) => [`${name}.test`, { dmtp: this.dmtp[name].port, pickup: this.pickup[name].port }]));
		// A stranger, who is known to be who it says: a test plays it.
		routes["c.test"] = { dmtp: numbers.pop() };
		for (const name of ["a", "b"])
			this[name].configure({ routes, home, roles: ["relay", "home"] });
		await Promise.all([this.a.start(), this.b.start()]).catch(async (error) => {
			await this.end();
			throw error;
		});
		return this;
	}

	get proxies() {
		return [...Object.values(this.dmtp), ...Object.values(this.pickup)];
	}

	async end() {
		for (const appliance of [this.a, this.b]) {
			if (appliance.child?.exitCode === null && appliance.child.signalCode === null) {
				process.kill(appliance.child.pid, "SIGCONT");
				appliance.child.kill("SIGTERM");
				await appliance.ended;
			}
			if (process.env.LOGS)
				fs.writeFileSync(path.join(process.env.LOGS, `${path.basename(this.dir)}-${appliance.name}.log`), `${appliance.lines.join("\n")}\n`);
			appliance.agent.destroy();
			fs.rmSync(appliance.socket, { recursive: true, force: true });
		}
		await Promise.all(this.proxies.map((proxy) => proxy.close()));
		fs.rmSync(this.dir, { recursive: true, force: true });
	}

	// Both ended as they should, and said nothing that they never should.
	async stop() {
		try {
			for (const proxy of this.proxies)
				proxy.restore();
			await Promise.all([this.a.stop(), this.b.stop()]);
			for (const { lines } of [this.a, this.b])
				assert.deepEqual(lines.filter((line) => /runtime error:|Sanitizer|reply-twice|level=fatal|event=drain-timeout/.test(line)), []);
		} finally {
			await this.end();
		}
	}

	async person(where, name) {
		return new Person(await this[where].makeAccount(name));
	}

	// Two who can write to each other.
	async pair(ann, bob) {
		await ann.invite(bob);
		await bob.accept(ann);
		await ann.state(bob, "contact");
		await bob.state(ann, "contact");
	}
}

// A member as her contacts' API sees her.
export class Person {
	constructor(member) {
		Object.assign(this, { member, address: member.address });
	}

	call(method, target, body, headers) {
		const { appliance, token } = this.member;
		return request(appliance.members, method, target, { body, headers, bearer: token, agent: appliance.agent });
	}

	async get(target) {
		const { status, json, text } = await this.call("GET", target);
		assert.equal(status, 200, `${target}: ${text}`);
		return json;
	}

	path(other, rest = "") {
		return `/v1/contacts/${encodeURIComponent(other.address ?? other)}${rest}`;
	}

	async invite(other, text) {
		const { status, json } = await this.call("POST", "/v1/contacts", { address: other.address ?? other, ...(text ? { text } : {}) });
		assert.equal(status, 202, JSON.stringify(json));
		return json;
	}

	asked(other) {
		return until(`${other.address}'s invitation at ${this.address}`, async () =>
			(await this.get("/v1/contacts")).contacts.find((c) => c.address === other.address && c.state === "asked"));
	}

	async accept(other) {
		await this.asked(other);
		return this.say(other, "accept");
	}

	async say(other, what) {
		const { status, json, text } = await this.call("POST", this.path(other, `/${what}`));
		assert.equal(status, 200, text);
		return json;
	}

	async now(other) {
		const { status, json } = await this.call("GET", this.path(other));
		return status === 404 ? { state: "none" } : json;
	}

	state(other, state) {
		return until(async () => `${other.address} to be ${state} to ${this.address}, not ${(await this.now(other)).state}`,
			async () => (await this.now(other)).state === state);
	}

	// The id of a message that was accepted.
	async write(other, message, more = {}, headers = {}) {
		const { status, json, text } = await this.call("POST", this.path(other, "/messages"), { message, ...more }, headers);
		assert.equal(status, 202, text);
		return json.id;
	}

	// The newest first, all pages.
	async conversation(other, limit = 100) {
		const all = [];
		for (let target = this.path(other, `/messages?limit=${limit}`); target;) {
			const page = await this.get(target);
			all.push(...page.messages);
			target = page.next?.replace(/^https:\/\/[^/]*/, "");
		}
		return all;
	}

	async texts(other) {
		return (await this.conversation(other)).map((m) => m.text).reverse();
	}

	has(other, text) {
		return until(async () => `"${text}" among ${JSON.stringify(await this.texts(other))} of ${this.address}`,
			async () => (await this.conversation(other)).find((m) => m.text === text));
	}

	status(other, id) {
		return this.get(this.path(other, `/messages/${id}`));
	}

	becomes(other, id, state) {
		return until(async () => `${id} to be ${state}: ${JSON.stringify(await this.status(other, id))}`,
			async () => (await this.status(other, id)).state === state);
	}

	watch(lastEventId) {
		return this.member.watch(lastEventId);
	}
}
