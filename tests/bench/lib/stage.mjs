// A stage for one measurement: fresh appliances on embedded databases, strangers to each other, with sites,
// members and grants put in by SQL; sinks; and an end that leaves nothing behind.
import crypto from "node:crypto";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import https from "node:https";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const top = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../..");
const build = path.resolve(top, process.env.BUILD ?? "build");
const root = process.getuid() === 0;
const user = root ? "nobody" : os.userInfo().username;
const TITLES = { orders: "Your orders", news: "News", sink: "Elsewhere", crowd: "Everybody" };

export const tool = (name) => path.join(build, "bench", name);
export const now = () => Number(process.hrtime.bigint() / 1000n); // the C tools' monotonic microseconds

export async function until(what, ask, seconds = 60, everyMs = 10) {
	const end = now() + seconds * 1e6;
	for (;;) {
		const answer = await ask();
		if (answer)
			return answer;
		if (now() > end)
			throw new Error(`waited ${seconds} s in vain for ${typeof what === "function" ? what() : what}`);
		await pause(everyMs);
	}
}

function freePorts(n) {
	const servers = Array.from({ length: n }, () => net.createServer());
	return Promise.all(servers.map((server) => new Promise((resolve, reject) => {
		server.on("error", reject);
		server.listen(0, "127.0.0.1", () => resolve(server.address().port));
	}))).then(async (ports) => {
		await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
		return ports;
	});
}

export function base32(octets) {
	let bits = 0, n = 0, text = "";
	for (const octet of octets) {
		bits = (bits << 8) | octet;
		for (n += 8; n >= 5; n -= 5)
			text += "abcdefghijklmnopqrstuvwxyz234567"[(bits >> (n - 5)) & 31];
		bits &= (1 << n) - 1;
	}
	return n > 0 ? text + "abcdefghijklmnopqrstuvwxyz234567"[(bits << (5 - n)) & 31] : text;
}

function number(n) {
	const octets = Buffer.alloc(8);
	octets.writeBigUInt64BE(BigInt(n));
	return octets;
}

const sha256 = (data) => crypto.createHash("sha256").update(data).digest();
const hex = (octets) => `'\\x${Buffer.from(octets).toString("hex")}'`;

// The same on both sides and in the sinks: a member's grant follows from the domain, the channel and the number.
const grantName = (domain, channel, i) => `${domain}/${channel}/${i}`;
export const grant = (domain, channel, i) => base32(sha256(grantName(domain, channel, i)).subarray(0, 20));
const grantSql = (domain, channel) => `substr(sha256(convert_to('${domain}/${channel}/' || i, 'UTF8')), 1, 20)`;
export const member = (i) => `m${String(i).padStart(6, "0")}`;
const memberSql = "'m' || lpad(i::text, 6, '0')";

// A psql that stays, so that a look costs no process.
class Sql {
	constructor(host) {
		this.child = spawn("psql", ["-qXAt", "-v", "ON_ERROR_STOP=1", "-h", host, "-U", "tmtp_owner", "-d", "tmtp"],
			{ stdio: ["pipe", "pipe", "pipe"] });
		this.out = "";
		this.errors = "";
		this.ended = new Promise((resolve) => this.child.on("close", resolve));
		this.child.stderr.on("data", (text) => { this.errors += text; });
		this.child.stdin.on("error", () => {});
	}

	async ask(text) {
		const mark = `-- ${crypto.randomUUID()}`;
		const answer = new Promise((resolve, reject) => {
			const take = (data) => {
				this.out += data;
				const at = this.out.indexOf(mark);
				if (at < 0)
					return;
				this.child.stdout.off("data", take);
				const rows = this.out.slice(0, at).split("\n").filter((line) => line !== "");
				this.out = "";
				resolve(rows.map((row) => row.split("|")));
			};
			this.child.stdout.on("data", take);
			this.ended.then(() => reject(new Error(`psql: ${this.errors}`)));
		});
		this.child.stdin.write(`${text};\n\\echo ${mark}\n`);
		return answer;
	}

	async number(text) {
		return Number((await this.ask(text))[0][0]);
	}

	close() {
		this.child.stdin.end();
		return this.ended;
	}
}

class Appliance {
	constructor(stage, name, options) {
		Object.assign(this, { stage, name, domain: `${name}.test`, roles: ["site", "relay", "home"], tls: true }, options);
		this.dir = path.join(stage.dir, name);
	}

	config(others) {
		const { stage, ports } = this;
		const own = `certificate = "${stage.dir}/${this.domain}.pem"\n\tkey = "${stage.dir}/${this.domain}.key"`;
		let text = `roles = {${this.roles.map((role) => `"${role}"`).join(", ")}}
state_directory = "${this.dir}"
database = "embedded"
embedded_memory_mb = ${this.memoryMb ?? 1024}
user = "${user}"
log_level = "warn"
domain "${this.domain}" {\n\t${own}\n}
site {
	listen = {"127.0.0.1:${ports.site}"}
	url = "https://${this.domain}:${ports.site}"
	tls = ${this.siteTls ?? this.tls}
}
home {
	listen = {"127.0.0.1:${ports.members}"}
	url = "https://${this.domain}:${ports.members}"
	tls = ${this.homeTls ?? this.tls}
	dmtps_listen = {"127.0.0.1:${ports.dmtps}"}
	dmtp_listen = {"127.0.0.1:${ports.dmtp}"}
}
relay {
	retry_min_s = 1
	retry_max_s = 5
}
`;
		for (const other of others)
			text += `route "${other.domain}" {\n\tdmtp = "127.0.0.1:${other.ports.dmtps}"\n\t` +
				(other.ports.site ? `pickup = "127.0.0.1:${other.ports.site}"\n\t` : "") +
				`ca = "${stage.dir}/ca.pem"\n\tallow_private = true\n}\n`;
		return text;
	}

	start(others) {
		const file = path.join(this.stage.dir, `${this.name}.conf`);
		fs.mkdirSync(this.dir, { recursive: true });
		fs.writeFileSync(file, this.config(others));
		this.log = path.join(this.stage.dir, `${this.name}.log`);
		this.child = spawn(path.join(build, "tmtpd"), ["-c", file], { stdio: ["ignore", "ignore", fs.openSync(this.log, "w")] });
		this.ended = new Promise((resolve) => {
			this.child.on("error", (error) => { this.over = true; fs.writeFileSync(this.log, String(error)); resolve(-1); });
			this.child.on("exit", (code) => { this.over = true; resolve(code); });
		});
	}

	async ready() {
		const doors = [["site", this.siteTls], ["home", this.homeTls]].filter(([role]) => this.roles.includes(role));
		for (const [role, tls] of doors)
			await until(`${this.name}'s ${role}`, async () => {
				if (this.over)
					throw new Error(`${this.name} ended: ${fs.readFileSync(this.log, "utf8").slice(-2000)}`);
				const answer = await this.get(role, "/readyz", { tls }).catch(() => null);
				return answer?.status === 200;
			}, 60, 50);
		this.sql = new Sql(path.join(this.dir, "run"));
	}

	// One HTTP request to a role; JSON when it is some.
	get(role, target, { token, tls, method = "GET" } = {}) {
		const port = role === "home" ? this.ports.members : this.ports.site;
		const headers = { Host: this.domain, ...(token && { Authorization: `Bearer ${token}` }) };
		const options = { host: "127.0.0.1", port, path: target, method, headers, servername: this.domain, ca: this.stage.ca,
			agent: false, timeout: 10000 };
		return new Promise((resolve, reject) => {
			const request = (tls ?? this.tls ? https : http).request(options, (answer) => {
				let text = "";
				answer.on("data", (data) => { text += data; });
				answer.on("end", () => resolve({ status: answer.statusCode, text,
					json: answer.headers["content-type"]?.includes("json") ? JSON.parse(text) : undefined }));
			});
			request.on("timeout", () => request.destroy(new Error("no answer")));
			request.on("error", reject);
			request.end();
		});
	}

	// The processes of the roles: { site: pid, … }.
	processes() {
		const found = {};
		for (const pid of children(this.child.pid)) {
			const words = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8");
			const role = ["site", "relay", "home", "panel"].find((name) => new RegExp(`\\b${name}\\b`).test(words));
			if (role)
				found[role] = pid;
		}
		return found;
	}

	async stop() {
		await this.sql?.close();
		if (this.child && !this.over) {
			this.child.kill("SIGTERM");
			const timer = setTimeout(() => this.child.kill("SIGKILL"), 60000);
			await this.ended;
			clearTimeout(timer);
		}
	}
}

// Processor time of a process so far, and of its children that have ended, in microseconds.
function cpuOf(pid) {
	const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ");
	return fields.slice(11, 15).reduce((all, ticks) => all + Number(ticks) * 10000, 0);
}

function descendants(pid) {
	return children(pid).flatMap((child) => [child, ...descendants(child)]);
}

function children(pid) {
	return fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
}

class Sink {
	constructor(stage, domain, port, args) {
		const own = path.join(stage.dir, domain);
		this.child = spawn(tool("dmtp-sink"), ["--listen", `127.0.0.1:${port}`, "--domain", domain, "--certificate", `${own}.pem`,
			"--key", `${own}.key`, "--ca", `${stage.dir}/ca.pem`, ...args], { stdio: ["pipe", "pipe", "inherit"] });
		this.lines = readline.createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
		this.ended = new Promise((resolve) => this.child.on("exit", resolve));
		this.child.stdin.on("error", () => {});
	}

	async line() {
		const { value, done } = await this.lines.next();
		if (done)
			throw new Error("the sink ended");
		return JSON.parse(value);
	}

	say(text) {
		this.child.stdin.write(`${text}\n`);
	}

	ask(text) {
		this.say(text);
		return this.line();
	}

	stop() {
		this.child.kill("SIGTERM");
		return this.ended;
	}
}

export class Stage {
	constructor() {
		this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "tb-"));
		fs.chmodSync(this.dir, 0o755);
		this.parts = [];
		this.site = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
		this.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
			"-subj", "/CN=bench CA", "-days", "2", "-out", "ca.pem");
		this.ca = fs.readFileSync(path.join(this.dir, "ca.pem"));
	}

	openssl(...args) {
		execFileSync("openssl", args, { cwd: this.dir, stdio: ["ignore", "ignore", "ignore"] });
	}

	file(name, text) {
		const file = path.join(this.dir, name);
		if (text !== undefined)
			fs.writeFileSync(file, text);
		return file;
	}

	certify(domain) {
		this.file("ext", `subjectAltName=DNS:${domain}\nextendedKeyUsage=serverAuth,clientAuth\n`);
		this.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", `${domain}.key`,
			"-subj", `/CN=${domain}`, "-out", "csr");
		this.openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
			"-extfile", "ext", "-out", `${domain}.pem`);
		if (root)
			fs.chownSync(this.file(`${domain}.key`), Number(execFileSync("id", ["-u", user])), 0);
	}

	// { shop: options, home: options, sink: arguments or nothing }
	async start({ shop, home, sink }) {
		const ports = await freePorts(9);
		const sinkPorts = { dmtps: ports[8] };
		this.shop = new Appliance(this, "shop", { ports: { site: ports[0], members: ports[1], dmtps: ports[2], dmtp: ports[3] }, ...shop });
		this.home = home && new Appliance(this, "home",
			{ ports: { site: ports[4], members: ports[5], dmtps: ports[6], dmtp: ports[7] }, ...home });
		for (const domain of ["shop.test", home && "home.test", sink && "sink.test"].filter(Boolean))
			this.certify(domain);
		const others = [this.home, sink && { domain: "sink.test", ports: sinkPorts }].filter(Boolean);
		for (const appliance of [this.shop, this.home].filter(Boolean)) {
			this.parts.push(appliance);
			appliance.start(appliance === this.shop ? others : [this.shop]);
		}
		await Promise.all([this.shop, this.home].map((appliance) => appliance?.ready()));
		if (sink) {
			this.sink = new Sink(this, "sink.test", sinkPorts.dmtps, sink);
			this.parts.push(this.sink);
			await this.sink.line();
		}
		await this.fillSite();
		if (this.home)
			await this.fillHome();
		this.token = this.file("token", `${this.jwt()}\n`);
	}

	jwt() {
		const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
		const exp = Math.floor(Date.now() / 1000) + 3500;
		const signed = `${part({ alg: "ES256", kid: "bench" })}.${part({ iss: "shop@shop.test", aud: "shop.test", exp })}`;
		const signature = crypto.sign("sha256", Buffer.from(signed), { key: this.site.privateKey, dsaEncoding: "ieee-p1363" });
		return `${signed}.${signature.toString("base64url")}`;
	}

	async fillSite() {
		const pem = this.site.publicKey.export({ type: "spki", format: "pem" });
		const channels = Object.keys(TITLES).map((name, i) => `(11, ${i + 1}, '${name}', '${TITLES[name]}', now(), NULL)`);
		await this.shop.sql.ask(`
			INSERT INTO tmtp.local_name VALUES ('shop.test', 'shop', 'site', 11);
			INSERT INTO tmtp.site VALUES (11, 'shop.test', 'shop', 'The Shop', now(), NULL);
			INSERT INTO tmtp.site_key VALUES (11, 'bench', 'ES256', ${hex(pem)}, now(), NULL);
			INSERT INTO tmtp.channel VALUES ${channels.join(", ")};
			INSERT INTO tmtp.domain VALUES (1, 'home.test', now()), (2, 'sink.test', now());
			UPDATE tmtp.revision SET number = number + 1`);
	}

	async fillHome() {
		await this.home.sql.ask(`
			INSERT INTO tmtp.domain VALUES (1, 'shop.test', now());
			INSERT INTO tmtp.sender VALUES (1, 'shop@shop.test', 1, 'shop.test', now())`);
	}

	// Members 1 to n of home.test have accounts; *hold* says which channels are held on both sides.
	async accounts(n) {
		await this.home.sql.ask(`
			INSERT INTO tmtp.account SELECT i, 'home.test', ${memberSql}, '!', now(), NULL FROM generate_series(1, ${n}) i;
			INSERT INTO tmtp.local_name SELECT 'home.test', ${memberSql}, 'account', i FROM generate_series(1, ${n}) i`);
	}

	// Members 1 to n of a domain hold the channel. Chunks are cut when relay runs.
	async hold(channel, domain, n) {
		const id = Object.keys(TITLES).indexOf(channel) + 1, domainId = domain === "home.test" ? 1 : 2;
		await this.shop.sql.ask(`
			INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, grant_id, invited_at, joined_at, grant_date)
			SELECT 11, ${id}, ${domainId}, ${memberSql}, 1, ${grantSql(domain, channel)}, now(), now(),
				extract(epoch FROM now())::bigint FROM generate_series(1, ${n}) i;
			INSERT INTO tmtp.chunk VALUES (11, ${id}, ${domainId}, '', NULL, ${n})`);
		if (domain === "home.test" && this.home)
			await this.home.sql.ask(`
				INSERT INTO tmtp.consent (account_id, sender_id, channel, state, grant_id, changed_id, grant_date)
				SELECT i, 1, '${channel}', 1, ${grantSql(domain, channel)}, gen_random_uuid(), extract(epoch FROM now())::bigint
					FROM generate_series(1, ${n}) i;
				INSERT INTO tmtp.open_grant SELECT ${grantSql(domain, channel)}, i, 1, '${channel}' FROM generate_series(1, ${n}) i`);
		if (this.shop.roles.includes("relay"))
			await until("the chunks", async () => (await this.shop.sql.ask(`SELECT coalesce(max(members), 0) <= 1000 AND
				sum(members) = ${n} FROM tmtp.chunk WHERE channel_id = ${id} AND domain_id = ${domainId}`))[0][0] === "t", 120, 100);
	}

	// What was put in is as if it had been there for long. Not the queues: vacuumed while they are empty, they would
	// be planned for as empty.
	async settle() {
		await this.shop.sql.ask("VACUUM (ANALYZE, FREEZE) tmtp.subscription, tmtp.chunk");
		await this.home?.sql.ask("VACUUM (ANALYZE, FREEZE) tmtp.account, tmtp.local_name, tmtp.consent, tmtp.open_grant");
	}

	// Log-ins for members 1 to n.
	async logins(n) {
		const tokens = [];
		const rows = [];
		for (let i = 1; i <= n; i++) {
			const token = `tmtp_m_${base32(number(i))}_${base32(crypto.randomBytes(20))}`;
			tokens.push(token);
			rows.push(`(${i}, ${hex(sha256(token))}, now(), now() + interval '1 day')`);
		}
		await this.home.sql.ask(`INSERT INTO tmtp.account_token VALUES ${rows.join(", ")}`);
		return tokens;
	}

	// Runs a tool to its end and reads its line of JSON.
	async run(name, args, seconds = 120) {
		const child = spawn(tool(name), args.map(String), { stdio: ["ignore", "pipe", "pipe"] });
		let out = "", errors = "";
		child.stdout.on("data", (data) => { out += data; });
		child.stderr.on("data", (data) => { errors += data; });
		const timer = setTimeout(() => child.kill("SIGKILL"), seconds * 1000);
		child.on("error", (error) => { errors += error; });
		const code = await new Promise((resolve) => child.on("close", resolve));
		clearTimeout(timer);
		if (code !== 0)
			throw new Error(`${name} ended with ${code}: ${errors}${out}`);
		return JSON.parse(out);
	}

	push(args) {
		return this.run("http_load", ["--connect", `127.0.0.1:${this.shop.ports.site}`, "--host", "shop.test", "--token", this.token,
			...(this.shop.siteTls ?? this.shop.tls ? ["--ca", this.file("ca.pem")] : []), ...args]);
	}

	watch(tokens, args) {
		return this.run("stream_watch", ["--connect", `127.0.0.1:${this.home.ports.members}`, "--host", "home.test",
			"--tokens", this.file("tokens", tokens.map((token) => `${token}\n`).join("")),
			"--push", `127.0.0.1:${this.shop.ports.site}`, "--push-host", "shop.test", "--token", this.token,
			"--ca", this.file("ca.pem"), ...(this.home.homeTls === false ? ["--plain"] : []), ...args]);
	}

	// Processor time of every role, database and sink so far, in microseconds: { "shop.site": …, "shop.database": … }.
	cpu() {
		const used = {};
		for (const appliance of [this.shop, this.home].filter(Boolean)) {
			const roles = appliance.processes();
			for (const [role, pid] of Object.entries(roles))
				used[`${appliance.name}.${role}`] = cpuOf(pid);
			used[`${appliance.name}.database`] = descendants(appliance.child.pid)
				.filter((pid) => !Object.values(roles).includes(pid)).reduce((all, pid) => all + cpuOf(pid), 0);
		}
		if (this.sink)
			used.sink = cpuOf(this.sink.child.pid);
		return used;
	}

	// Since such a look, for each of n, in microseconds; what stays below a hundredth is left out.
	cpuSince(before, n) {
		const each = Object.entries(this.cpu()).map(([name, used]) => [name, Math.round((used - before[name]) / n * 100) / 100]);
		return Object.fromEntries(each.filter(([, used]) => used >= 0.01));
	}

	// What stands in the logs that shouldn't: the benches read none, but a warning explains a bad figure.
	complaints() {
		return [this.shop, this.home].filter((appliance) => appliance?.log)
			.map((appliance) => fs.readFileSync(appliance.log, "utf8")).join("").split("\n")
			.filter((line) => /level=(warn|error)|FATAL|PANIC|ERROR/.test(line)).slice(0, 5);
	}

	async close() {
		for (const part of this.parts.reverse())
			await part.stop();
		if (!process.env.KEEP)
			fs.rmSync(this.dir, { recursive: true, force: true });
	}
}
