// An appliance of a test's own: a running tmtpd with its embedded database, its tmtpctl, its SQL, its log and its
// processes. Programs come from BUILD (build), or TMTPD. Two of them with proxies between make a pair of strangers.
// LOGS names a directory where their logs are to be kept; VERBOSE shows them.
import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import https from "node:https";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { jwt, request, Watch } from "./http.mjs";
import { Proxy } from "./proxy.mjs";
import { beginState } from "./state.mjs";
import { freePorts, gone, patience, until } from "./wait.mjs";

const top = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../..");
const build = path.resolve(top, process.env.BUILD || "build");
const tmtpd = path.resolve(process.env.TMTPD ?? path.join(build, "tmtpd"));
const tmtpctl = path.join(path.dirname(tmtpd), "tmtpctl");
export const root = process.getuid() === 0;
const account = root ? "nobody" : os.userInfo().username;

export { build };

// --- certificates -----------------------------------------------------------------------

// A certificate authority in a directory; issue() makes <name>.pem and <name>.key there.
export class Authority {
	// env: more of the environment that openssl runs in.
	constructor(dir, env = {}) {
		this.dir = dir;
		this.env = env;
		this.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
			"-out", "ca.pem", "-days", "2", "-subj", "/CN=Test CA", "-addext", "keyUsage=critical,keyCertSign");
		this.pem = fs.readFileSync(this.file("ca.pem"));
	}

	file(name) {
		return path.join(this.dir, name);
	}

	openssl(...args) {
		execFileSync("openssl", args, { stdio: "ignore", cwd: this.dir, env: { ...process.env, ...this.env } });
	}

	// domain: or several, "a.test,DNS:b.test".
	issue(domain, name = domain) {
		fs.writeFileSync(this.file(`${name}.ext`), `subjectAltName=DNS:${domain}\nextendedKeyUsage=serverAuth,clientAuth\n`);
		this.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", `${name}.key`,
			"-out", `${name}.csr`, "-subj", `/CN=${domain.split(",")[0]}`);
		this.openssl("x509", "-req", "-in", `${name}.csr`, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
			"-extfile", `${name}.ext`, "-out", `${name}.pem`);
		fs.chmodSync(this.file(`${name}.key`), 0o644);
		return { cert: fs.readFileSync(this.file(`${name}.pem`)), key: fs.readFileSync(this.file(`${name}.key`)) };
	}
}

// --- one appliance -------------------------------------------------------------------------

export class Appliance {
	// dir: short, to be reached by everybody. ports: site, members, dmtps, dmtp, and each role's metrics. host: a machine of its
	// own, {address, within}: how a program is run there.
	constructor(dir, domain, authority, ports, host = {}) {
		Object.assign(this, { dir, domain, authority, ports, address: host.address ?? "127.0.0.1", within: host.within ?? [] });
		this.name = domain.split(".")[0];
		this.conf = path.join(dir, `${this.name}.conf`);
		this.state = path.join(dir, this.name);
		this.lines = [];
		this.agent = new https.Agent({ keepAlive: true });
		this.site = { domain, port: ports.site, ca: authority.pem, host: this.address };
		this.members = { domain, port: ports.members, ca: authority.pem, host: this.address };
	}

	// routes: {domain: {dmtp, pickup, public, more}}, ports of this machine; more of other sections; certificate: that of another file, or
	// null for none; site: {tls, more}; listen: further addresses for DMTP.
	configure({ routes = {}, relay = "", own = "", home = "", site = "", tls = true, certificate = this.domain, others = "", listen = {},
		roles = ["site", "relay", "home"] }) {
		const { ports, domain, authority, address } = this;
		const addresses = (port, more = []) => [`${address}:${port}`, ...more].map((one) => `"${one}"`).join(", ");
		fs.writeFileSync(this.conf, `roles = {${roles.map((role) => `"${role}"`).join(", ")}}\nstate_directory = "${this.state}"\nuser = "${account}"\n` +
			`embedded_memory_mb = 128\ndrain_timeout_s = 10\n` +
			`domain "${domain}" { ${certificate === null ? "" : `certificate = "${authority.file(`${certificate}.pem`)}" key = "${authority.file(`${certificate}.key`)}"`} ${own} }\n${others}\n` +
			`site { listen = {"${address}:${ports.site}"} url = "https://${domain}:${ports.site}" tls = ${tls} metrics_listen = "127.0.0.1:${ports.siteMetrics}" ${site} }\n` +
			`home { listen = {"${address}:${ports.members}"} url = "https://${domain}:${ports.members}" tls = true ` +
			`dmtps_listen = {${addresses(ports.dmtps, listen.dmtps)}} dmtp_listen = {${addresses(ports.dmtp, listen.dmtp)}} metrics_listen = "127.0.0.1:${ports.homeMetrics}" ${home} }\n` +
			`relay { retry_min_s = 1 retry_max_s = 4 metrics_listen = "127.0.0.1:${ports.relayMetrics}" ${relay} }\n` +
			Object.entries(routes).map(([to, way]) => `route "${to}" { ${way.dmtp ? `dmtp = "127.0.0.1:${way.dmtp}" ` : ""}${way.more ?? ""} ` +
				`${way.pickup ? `pickup = "127.0.0.1:${way.pickup}" ` : ""}ca = "${authority.file("ca.pem")}" ${way.public ? "" : "allow_private = true "}}\n`).join(""));
	}

	// Resolves when every role is ready.
	async start() {
		const from = this.lines.length;
		if (!fs.existsSync(this.state))
			await beginState(build, tmtpd, account, this.state);
		const [program, ...args] = [...this.within, tmtpd, "-c", this.conf];
		this.child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], cwd: "/", env: { ...process.env, ...this.env } });
		this.ended = new Promise((resolve) => this.child.on("exit", (code, signal) => resolve({ code, signal })));
		let rest = "";
		this.child.stderr.setEncoding("utf8");
		this.child.stderr.on("data", (part) => {
			const all = (rest + part).split("\n");
			rest = all.pop();
			this.lines.push(...all);
			if (process.env.VERBOSE)
				process.stderr.write(all.map((line) => `${this.name}: ${line}\n`).join(""));
		});
		await this.line(/^event=ready configuration=/, from, 3 * patience); // a cluster is made first
	}

	// The first line from `from` on that matches; waits for it.
	line(pattern, from = 0, ms = patience) {
		return until(() => `${pattern} in the log of ${this.name}:\n${this.lines.slice(from).slice(-40).join("\n")}`, () => {
			const found = this.lines.slice(from).find((line) => pattern.test(line));
			if (found === undefined && this.child.exitCode !== null)
				throw new Error(`${this.name} ended without ${pattern}:\n${this.lines.slice(-40).join("\n")}`);
			return found;
		}, { ms });
	}

	get now() {
		return this.lines.length;
	}

	role(name) {
		return Number(/pid=(\d+)/.exec(this.lines.filter((l) => l.startsWith(`event=role-start role=${name} `)).at(-1))[1]);
	}

	get postmaster() {
		return Number(fs.readFileSync(path.join(this.state, "postgres/data/postmaster.pid"), "utf8").split("\n")[0]);
	}

	// SIGKILL; resolves when the role is ready again.
	async killRole(name) {
		const from = this.now, pid = this.role(name);
		process.kill(pid, "SIGKILL");
		await gone(pid);
		await this.line(new RegExp(`^event=role-ready role=${name} `), from);
	}

	// The database dies and stays away until the returned function is called: nobody is there to start it again.
	async loseDatabase() {
		const pid = this.postmaster;
		process.kill(this.child.pid, "SIGSTOP");
		process.kill(pid, "SIGKILL");
		await gone(pid);
		return () => process.kill(this.child.pid, "SIGCONT");
	}

	async stop() {
		if (this.child === undefined)
			return;
		process.kill(this.child.pid, "SIGCONT");
		this.child.kill("SIGTERM");
		assert.deepEqual(await this.ended, { code: 0, signal: null });
		this.child = undefined;
	}

	// Runs tmtpctl; what it says as JSON.
	ctl(args, input = "") {
		return new Promise((resolve, reject) => {
			const child = execFile(tmtpctl, ["--config", this.conf, "--json", ...args], { cwd: "/" }, (error, stdout, stderr) =>
				error ? reject(new Error(`tmtpctl ${args.join(" ")}: ${stdout}${stderr}`)) : resolve(stdout === "" ? null : JSON.parse(stdout)));
			child.stdin.end(input);
		});
	}

	get socket() {
		const noted = path.join(this.state, "socket-directory");
		return fs.existsSync(noted) ? fs.readFileSync(noted, "utf8").trim() : path.join(this.state, "run");
	}

	// One or more statements; the rows as psql writes them unaligned.
	sql(text) {
		return new Promise((resolve, reject) => {
			const child = execFile("psql", ["-qXAt", "-v", "ON_ERROR_STOP=1", `host=${this.socket} dbname=tmtp user=tmtp_owner`],
				{ cwd: "/", maxBuffer: 64 << 20 }, (error, stdout, stderr) => error ? reject(new Error(`${text}\n${stderr}`)) : resolve(stdout.trim()));
			child.stdin.end(text);
		});
	}

	// A transaction that stays open, with the locks that the text takes, until it is released: committed then.
	hold(text) {
		const child = spawn("psql", ["-qXAt", "-v", "ON_ERROR_STOP=1", `host=${this.socket} dbname=tmtp user=tmtp_owner`], { stdio: ["pipe", "ignore", "inherit"], cwd: "/" });
		const ended = new Promise((resolve) => child.on("exit", resolve));
		child.stdin.write(`BEGIN; ${text};\n`);
		return { release: () => {
			child.stdin.end("COMMIT;\n");
			return ended;
		} };
	}

	async number(text) {
		return Number(await this.sql(text));
	}

	// Waits within the database, which sees it within a millisecond.
	sqlUntil(condition) {
		return this.sql(`DO $$ DECLARE deadline timestamptz := clock_timestamp() + interval '30 s'; BEGIN LOOP EXIT WHEN (${condition});
			IF clock_timestamp() > deadline THEN RAISE EXCEPTION 'waited in vain'; END IF; PERFORM pg_sleep(0.001); END LOOP; END $$`);
	}

	// --- websites ---

	// A site with channels and a key; a function that calls its API.
	async makeSite(name, channels) {
		return (await this.makeSiteAndKey(name, channels)).site;
	}

	// For tokens that the test makes itself.
	async makeSiteAndKey(name, channels) {
		const address = `${name}@${this.domain}`, pair = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
		const made = await this.ctl(["site", "create", address, "--title", `The ${name}`]);
		for (const channel of channels)
			await this.ctl(["channel", "create", address, channel, "--title", `Your ${channel}`]);
		await this.ctl(["key", "add", address, "--kid", "k1", "--algorithm", "ES256", "--public-key", "-"],
			pair.publicKey.export({ type: "spki", format: "pem" }));
		return { site: new Site(this, address, made.id, jwt(address, "k1", pair.privateKey)), privateKey: pair.privateKey };
	}

	// --- members ---

	async makeAccount(name, domain = this.domain) {
		const address = `${name}@${domain}`, password = crypto.randomBytes(12).toString("hex");
		await this.ctl(["account", "create", address, "--password-file", "-"], `${password}\n`);
		const { status, json } = await request(this.members, "POST", "/v1/login", { body: { address, password }, agent: this.agent });
		assert.equal(status, 200, `logging in: ${JSON.stringify(json)}`);
		return new Member(this, address, json.token);
	}
}

// A website as its own API sees it.
export class Site {
	constructor(appliance, address, id, token) {
		Object.assign(this, { appliance, address, id, token });
	}

	call(method, target, body, headers) {
		return request(this.appliance.site, method, target, { body, headers, bearer: this.token, agent: this.appliance.agent });
	}

	async get(target) {
		const { status, json, text } = await this.call("GET", target);
		assert.equal(status, 200, `${target}: ${text}`);
		return json;
	}

	// Resolves to the id of the message, which was accepted.
	async push(channel, to, subject, more = {}) {
		const { status, json, text } = await this.call("POST", `/v1/channels/${channel}/messages`, { to, subject, ...more });
		assert.equal(status, 202, text);
		return json.id;
	}

	counts(id) {
		return this.get(`/v1/messages/${id}`).then((m) => m.recipients);
	}

	// Waits until nobody is waiting any more.
	settled(id) {
		return until(async () => `the end of the deliveries: ${JSON.stringify(await this.counts(id))}`, async () => {
			const counts = await this.counts(id);
			return counts.waiting === 0 && counts;
		});
	}

	member(channel, address) {
		return this.get(`/v1/channels/${channel}/members/${address}`);
	}

	async state(channel, address) {
		const { status, json } = await this.call("GET", `/v1/channels/${channel}/members/${address}`);
		return status === 404 ? "none" : json.state;
	}

	untilState(channel, address, state) {
		return until(async () => `${address} to be ${state}, not ${await this.state(channel, address)}`,
			async () => (await this.state(channel, address)) === state);
	}

	async invite(channel, address, text) {
		const { status, json } = await this.call("POST", `/v1/channels/${channel}/members`, { address, ...(text ? { text } : {}) });
		assert.equal(status, 202);
		return json.members[0];
	}
}

// A member as the inbox's API sees it.
export class Member {
	constructor(appliance, address, token) {
		Object.assign(this, { appliance, address, token });
	}

	call(method, target, body) {
		return request(this.appliance.members, method, target, { body, bearer: this.token, agent: this.appliance.agent });
	}

	async get(target) {
		const { status, json, text } = await this.call("GET", target);
		assert.equal(status, 200, `${target}: ${text}`);
		return json;
	}

	async do(method, target, body) {
		const { status, text } = await this.call(method, target, body);
		assert.equal(status, 204, `${method} ${target}: ${text}`);
	}

	// Everything in the inbox, the newest first.
	async entries() {
		const all = [];
		for (let target = "/v1/inbox?limit=100"; target;) {
			const page = await this.get(target);
			all.push(...page.entries);
			target = page.next?.replace(/^https:\/\/[^/]*/, "");
		}
		return all;
	}

	async subjects() {
		return (await this.entries()).map((entry) => entry.subject);
	}

	has(subject) {
		return until(async () => `${subject} among ${await this.subjects()}`, async () =>
			(await this.entries()).find((entry) => entry.subject === subject));
	}

	invitation(from, channel) {
		return until(`an invitation from ${from}`, async () =>
			(await this.get("/v1/invitations")).find((i) => i.from === from && i.channel === channel));
	}

	watch(lastEventId) {
		return Watch.open(this.appliance.members, "/v1/inbox/events", this.token, lastEventId);
	}

	// Opens a channel of a site, unasked; the site has heard of it.
	async hold(site, channel) {
		await this.do("PUT", `/v1/channels/${site.address}/${channel}`, {});
		await site.untilState(channel, this.address, "granted");
	}
}

// --- a pair ----------------------------------------------------------------------------------

// shop.test and home.test: each knows of the other only a pinned route, which leads through a proxy.
export class Pair {
	// routes: further domains that the shop knows a way to; ways[domain] is its proxy, whose target the test sets.
	// prepare: told of the pair when its authority is there; more of both configurations ({shop, home}).
	// home: more of home.test's section of that name.
	// proxy: the kind of proxies between them. hosts: machines of their own, {shop, home}, each
	// {address, within, way}, the last what a proxy before it is told of addresses. env: that certificates are made in.
	async start({ routes = [], home: section = "", prepare = async () => ({}), proxy: Kind = Proxy, hosts = {}, env } = {}) {
		const names = ["site", "members", "dmtps", "dmtp", "siteMetrics", "homeMetrics", "relayMetrics"];
		this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "tf-"));
		fs.chmodSync(this.dir, 0o755);
		this.authority = new Authority(this.dir, env);
		const numbers = await freePorts(2 * names.length + 3 + routes.length);
		const ports = () => Object.fromEntries(names.map((name) => [name, numbers.pop()]));
		for (const name of ["shop", "home"]) {
			this.authority.issue(`${name}.test`);
			this[name] = new Appliance(this.dir, `${name}.test`, this.authority, ports(), hosts[name]);
		}
		this.toHome = await Kind.listen(numbers.pop(), this.home.ports.dmtps, hosts.home?.way);
		this.toShop = await Kind.listen(numbers.pop(), this.shop.ports.dmtps, hosts.shop?.way);
		this.pickup = await Kind.listen(hosts.shop === undefined ? numbers.pop() : this.shop.ports.site, this.shop.ports.site, hosts.shop?.way);
		this.ways = { "home.test": this.toHome };
		for (const domain of routes)
			this.ways[domain] = await Kind.listen(numbers.pop(), 0);
		const { shop = {}, home = {} } = await prepare(this);
		this.shop.configure({ ...shop, routes: shop.routes ?? Object.fromEntries(Object.entries(this.ways).map(([domain, way]) => [domain, { dmtp: way.port }])) });
		this.home.configure({ home: section, ...home, routes: { "shop.test": { dmtp: this.toShop.port, pickup: this.pickup.port, more: home.shop }, ...home.routes } });
		await Promise.all([this.shop.start(), this.home.start()]).catch(async (error) => {
			await this.abort();
			throw error;
		});
		return this;
	}

	get proxies() {
		return [...Object.values(this.ways), this.toShop, this.pickup];
	}

	// What else is to end with the pair.
	also(end) {
		(this.ends ??= []).push(end);
	}

	async abort() {
		for (const end of this.ends?.splice(0) ?? [])
			await end();
		for (const appliance of [this.shop, this.home])
			if (appliance.child?.exitCode === null && appliance.child.signalCode === null) {
				process.kill(appliance.child.pid, "SIGCONT");
				appliance.child.kill("SIGTERM");
				await appliance.ended;
			}
		await this.remove();
	}

	async remove() {
		for (const appliance of [this.shop, this.home]) {
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
			await Promise.all([this.shop.stop(), this.home.stop()]);
			for (const { lines } of [this.shop, this.home]) {
				const bad = lines.filter((line) => /runtime error:|Sanitizer|reply-twice|level=fatal|event=drain-timeout/.test(line));
				const ends = lines.slice(lines.findLastIndex((line) => line.startsWith("event=drain "))).filter((line) => line.startsWith("event=role-end "));
				assert.deepEqual([...bad, ...ends.filter((line) => !/ how=exit code=0 /.test(line))], []);
			}
		} finally {
			await this.abort();
		}
	}
}
