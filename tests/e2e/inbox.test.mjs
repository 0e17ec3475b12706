// The role home as members see it: logging in, entries, invitations and consent, live push, bad input, and a database
// that goes away. Messages arrive as they do in life, over DMTP and by pickup. TMTPD names the program (default
// build/tmtpd); needs openssl.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import os from "node:os";
import path from "node:path";
import tls from "node:tls";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePorts } from "./lib/wait.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const top = path.join(here, "../..");
const program = path.resolve(process.env.TMTPD ?? path.join(top, "build/tmtpd"));
const pgbin = process.env.POSTGRES_BIN ?? "/usr/lib/postgresql/15/bin";
const patience = 30_000;

async function until(what, ask) {
	const end = Date.now() + patience;
	for (;;) {
		const answer = await ask();
		if (answer)
			return answer;
		if (Date.now() > end)
			throw new Error(`waited in vain for ${what}`);
		await pause(20);
	}
}

// --- the database -------------------------------------------------------------

const dir = fs.mkdtempSync(path.join(os.tmpdir(), "ti-"));
fs.chmodSync(dir, 0o755);
const cluster = path.join(dir, "c");
const file = (name) => path.join(dir, name);

function sql(text, user = "tmtp_owner") {
	return execFileSync("psql", ["-qXAt", "-v", "ON_ERROR_STOP=1", "-h", cluster, "-U", user, "-d", "tmtp", "-f", "-"],
		{ input: text, encoding: "utf8" }).trim();
}

function asPostgres(...command) {
	if (process.getuid() === 0)
		command = ["runuser", "-u", "postgres", "--", ...command];
	execFileSync(command[0], command.slice(1), { stdio: "ignore", cwd: "/" });
}

const stopDatabase = () => asPostgres(path.join(pgbin, "pg_ctl"), "-D", path.join(cluster, "data"), "-m", "immediate", "-w", "stop");
const startDatabase = () => asPostgres(path.join(pgbin, "pg_ctl"), "-D", path.join(cluster, "data"), "-l",
	path.join(cluster, "log"), "-w", "start");

// --- messages -------------------------------------------------------------------

const raw = (value) => Buffer.isBuffer(value) ? value : Buffer.from(value);
const str = (value) => Buffer.concat([Buffer.from(`${raw(value).length}:`), raw(value)]);

function ben(value) {
	if (typeof value === "number")
		return Buffer.from(`i${value}e`);
	if (typeof value === "string" || Buffer.isBuffer(value))
		return str(value);
	if (Array.isArray(value))
		return Buffer.concat([Buffer.from("l"), ...value.map(ben), Buffer.from("e")]);
	const keys = Object.keys(value).filter((key) => value[key] !== undefined).sort();
	return Buffer.concat([Buffer.from("d"), ...keys.flatMap((key) => [str(key), ben(value[key])]), Buffer.from("e")]);
}

const seconds = () => Math.floor(Date.now() / 1000);
const sha256 = (octets) => crypto.createHash("sha256").update(octets).digest();
const hex = (octets) => `'\\x${Buffer.from(octets).toString("hex")}'`;

function message(fields, { to = "orders.shop@shop.test", from = "shop@shop.test", date = seconds() } = {}) {
	return { date, from, octets: ben({ date, from, to, salt: crypto.randomBytes(16), fields }) };
}

const text = (name, data, type = "text/plain") => ({ name, type, data });
const plain = (subject, body = "Hello.") => message([text("subject", subject), text("message", body)]);

function uuid(ms = Date.now()) {
	const octets = crypto.randomBytes(16);
	octets.writeUIntBE(ms, 0, 6);
	octets[6] = 0x70 | (octets[6] & 15);
	octets[8] = 0x80 | (octets[8] & 63);
	return octets.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

// An entry as if it had arrived and been verified at ms.
function entryRows(account, { octets, date }, { id, ms = Date.now(), state = 1, vars = "NULL", read = "NULL" } = {}) {
	id ??= uuid(ms);
	return { id, text: `INSERT INTO tmtp.notification (notification_id, sender_id, channel, digest, size, date_s, uris, state, verified_at, body)
		VALUES ('${id}', 51, 'orders', ${hex(sha256(octets))}, ${octets.length}, ${date}, '', ${state}, to_timestamp(${ms / 1000}), ${hex(octets)});
		INSERT INTO tmtp.inbox (account_id, notification_id, arrived_at, variables, read_at)
		VALUES (${account}, '${id}', to_timestamp(${ms / 1000}), ${vars}, ${read});` };
}

function entry(account, content, more) {
	const rows = entryRows(account, content, more);
	sql(rows.text);
	return rows.id;
}

// --- who there is ---------------------------------------------------------------

const ANN = 1001, BOB = 1002, DAN = 1003, EVE = 1004;
const password = "correct horse";
const hash = "$argon2id$v=19$m=65536,t=2,p=1$5W3nfONJ6tfiY7XEQMNiiQ$Vp2qET6yZ2Grc2RFw5zw0NV537Jqi6nVH9GpnEIMGsY";
const grants = { ann: crypto.randomBytes(20), bob: crypto.randomBytes(20), eve: crypto.randomBytes(20) };

function account(id, name, more = "NULL") {
	return `INSERT INTO tmtp.local_name VALUES ('home.test', '${name}', 'account', ${id});
		INSERT INTO tmtp.account VALUES (${id}, 'home.test', '${name}', '${hash}', now(), ${more});`;
}

function granted(id, grant) {
	return `INSERT INTO tmtp.consent (account_id, sender_id, channel, state, grant_id, changed_id, grant_date)
		VALUES (${id}, 51, 'orders', 1, ${hex(grant)}, '${uuid()}', ${seconds()});
		INSERT INTO tmtp.open_grant VALUES (${hex(grant)}, ${id}, 51, 'orders');`;
}

function fill() {
	sql(`${account(ANN, "ann")} ${account(BOB, "bob")} ${account(DAN, "dan", "now()")} ${account(EVE, "eve")}
		INSERT INTO tmtp.domain VALUES (41, 'shop.test', now());
		INSERT INTO tmtp.sender VALUES (51, 'shop@shop.test', 41, 'shop.test', now());
		${granted(ANN, grants.ann)} ${granted(BOB, grants.bob)} ${granted(EVE, grants.eve)}`);
}

// --- certificates ------------------------------------------------------------------

function openssl(...args) {
	execFileSync("openssl", args, { stdio: "ignore", cwd: dir });
}

function makeCertificates() {
	const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
	openssl("req", "-x509", ...ec, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test CA",
		"-addext", "keyUsage=critical,keyCertSign");
	for (const name of ["shop.test", "home.test"]) {
		fs.writeFileSync(file(`${name}.ext`), `subjectAltName=DNS:${name}\nextendedKeyUsage=serverAuth,clientAuth\n`);
		openssl("req", ...ec, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
		openssl("x509", "-req", "-in", `${name}.csr`, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
			"-extfile", `${name}.ext`, "-out", `${name}.pem`);
		fs.chmodSync(file(`${name}.key`), 0o644);
	}
}

// --- the sender: a message store and a DMTP client -------------------------------------

const stored = new Map();
let shop, shopPort, dmtp;

async function startShop() {
	const keys = { cert: fs.readFileSync(file("shop.test.pem")), key: fs.readFileSync(file("shop.test.key")) };
	shop = https.createServer(keys, (req, res) => {
		const octets = stored.get(req.url);
		res.writeHead(octets ? 200 : 404).end(octets);
	});
	await new Promise((resolve) => shop.listen(0, "127.0.0.1", resolve));
	shopPort = shop.address().port;
}

class Dmtp {
	constructor(port) {
		this.waiting = [];
		this.input = Buffer.alloc(0);
		this.socket = tls.connect({ host: "127.0.0.1", port, servername: "home.test", ALPNProtocols: ["dmtp/1"], ca: fs.readFileSync(file("ca.pem")),
			cert: fs.readFileSync(file("shop.test.pem")), key: fs.readFileSync(file("shop.test.key")) });
		this.greeting = new Promise((resolve) => this.waiting.push(resolve));
		this.socket.on("data", (data) => this.take(data));
		this.socket.on("error", () => {});
	}

	// Replies are few and short: each is parsed from its beginning whenever octets come.
	take(data) {
		this.input = Buffer.concat([this.input, data]);
		for (let end; (end = elementEnd(this.input, 0)) > 0; this.input = this.input.subarray(end))
			this.waiting.shift()?.(this.input.subarray(0, end).toString("latin1"));
	}

	async ask(command) {
		await this.greeting;
		const reply = new Promise((resolve) => this.waiting.push(resolve));
		this.socket.write(ben(command));
		return reply;
	}
}

// Where the element at at ends; 0 when it isn't all there.
function elementEnd(octets, at) {
	const c = String.fromCharCode(octets[at] ?? 0);
	if (c === "i")
		return octets.indexOf("e", at) + 1;
	if (c === "l" || c === "d") {
		for (at++; at > 0 && at < octets.length; at = elementEnd(octets, at))
			if (octets[at] === 0x65)
				return at + 1;
		return 0;
	}
	const colon = octets.indexOf(":", at);
	const end = colon < 0 ? 0 : colon + 1 + Number(octets.subarray(at, colon).toString());
	return end <= octets.length ? end : 0;
}

// Posts a message, to be picked up from the shop. Resolves when it has been accepted.
async function post(content, rcpts) {
	const digest = sha256(content.octets), at = `/m/${digest.toString("hex")}`;
	stored.set(at, content.octets);
	const reply = await dmtp.ask(["POST", { from: content.from, id: crypto.randomUUID(), date: content.date, size: content.octets.length, digest,
		uris: [`https://shop.test${at}`], rcpts }]);
	assert.equal(reply, "l1:Ke");
}

// --- the role and requests ------------------------------------------------------------

const agent = new http.Agent({ keepAlive: true, maxSockets: 1000 });
let port, dmtpPort, metrics, role, log = "";

async function startRole(more = "", ask = get) {
	[port, dmtpPort, metrics] = await freePorts(3);
	const conf = file("tmtp.conf");
	fs.writeFileSync(conf, `state_directory = "${dir}/state"\nuser = "nobody"\ndatabase = "host=${cluster} dbname=tmtp"\n` +
		`roles = {"home"}\nlog_level = "debug"\ndrain_timeout_s = 6\n` +
		`domain "home.test" { certificate = "home.test.pem" key = "home.test.key" }\n` +
		`route "shop.test" { ca = "ca.pem" pickup = "127.0.0.1:${shopPort}" allow_private = true }\n` +
		`home { listen = {"127.0.0.1:${port}"} url = "https://home.test" metrics_listen = "127.0.0.1:${metrics}"\n` +
		`dmtp_listen = {} dmtps_listen = {"127.0.0.1:${dmtpPort}"} ${more} }\n`);
	role = spawn(program, ["-c", conf, "--role", "home"], { stdio: ["ignore", "inherit", "pipe"] });
	role.stderr.setEncoding("utf8");
	role.stderr.on("data", (line) => (log += line));
	await until("readiness", () => ask("/readyz").then((r) => r.status === 200, () => role.exitCode !== null && assert.fail(log)));
	dmtp = new Dmtp(dmtpPort);
}

async function stopRole() {
	const ended = new Promise((resolve) => role.on("exit", (code, signal) => resolve({ code, signal })));
	dmtp.socket.destroy();
	role.kill("SIGTERM");
	return ended;
}

const members = {};
let clients = 0;

function request(method, target, { body, headers = {}, as = "ann", bearer = members[as], at = port } = {}) {
	return new Promise((resolve, reject) => {
		const req = http.request({ host: "127.0.0.1", port: at, method, path: target, agent,
			headers: { ...(bearer ? { Authorization: `Bearer ${bearer}` } : {}), ...headers } }, (res) => {
			const parts = [];
			res.on("data", (part) => parts.push(part));
			res.on("end", () => {
				const octets = Buffer.concat(parts);
				const json = /json/.test(res.headers["content-type"] ?? "") ? JSON.parse(octets) : undefined;
				resolve({ status: res.statusCode, headers: res.headers, octets, json, type: json?.type?.replace("urn:tmtp:problem:", "") });
			});
			res.on("error", reject);
		});
		req.on("error", reject);
		req.end(body);
	});
}

const get = (target, more) => request("GET", target, more);

function send(method, target, value, more = {}) {
	return request(method, target, { ...more, body: typeof value === "string" ? value : JSON.stringify(value),
		headers: { "Content-Type": "application/json", ...more.headers } });
}

// Each attempt from another client, as a proxy on this machine tells it, unless the test says which.
const client = () => `10.${(clients >> 16) & 255}.${(clients >> 8) & 255}.${clients++ & 255}`;
const login = (address, word = password, from = client()) =>
	send("POST", "/v1/login", { address, password: word }, { bearer: null, headers: { "X-Forwarded-For": from } });

// --- a watcher -------------------------------------------------------------------------

class Events {
	constructor({ as = "ann", bearer = members[as], last, query, headers = {} } = {}) {
		this.list = [];
		this.input = "";
		this.ended = false;
		this.req = http.request({ host: "127.0.0.1", port, path: `/v1/inbox/events${query ? `?last_event_id=${query}` : ""}`, agent: false,
			headers: { ...(bearer ? { Authorization: `Bearer ${bearer}` } : {}), ...(last ? { "Last-Event-ID": last } : {}), ...headers } });
		this.open = new Promise((resolve, reject) => {
			this.req.on("response", (res) => {
				this.res = res;
				res.setEncoding("utf8");
				res.on("data", (data) => this.take(data));
				res.on("close", () => (this.ended = true));
				res.on("error", () => {});
				resolve(res);
			});
			this.req.on("error", reject);
		});
		this.open.catch(() => {});
		this.req.end();
	}

	take(data) {
		const frames = (this.input + data).split("\n\n");
		this.input = frames.pop();
		for (const frame of frames) {
			const fields = Object.fromEntries(frame.split("\n").filter((line) => /^\w/.test(line)).map((line) => line.split(/: (.*)/s, 2)));
			if (fields.event)
				this.list.push({ id: fields.id, event: fields.event, data: JSON.parse(fields.data) });
		}
	}

	get subjects() {
		return this.list.filter(({ event }) => event === "entry").map(({ data }) => data.subject);
	}

	async has(n) {
		await until(`${n} events`, () => this.list.length >= n);
		return this.list[n - 1];
	}

	close() {
		this.req.destroy();
	}
}

async function watching(more) {
	const events = new Events(more);
	assert.equal((await events.open).statusCode, 200);
	return events;
}

before(async () => {
	execFileSync("sh", [path.join(top, "tests/cluster.sh"), "start", cluster], { stdio: "inherit", env: { ...process.env, SHARED_BUFFERS: "64MB" } });
	for (const name of fs.readdirSync(path.join(top, "schema")).filter((one) => /^\d+.*\.sql$/.test(one)).sort())
		sql(fs.readFileSync(path.join(top, "schema", name), "utf8"));
	makeCertificates();
	fill();
	await startShop();
	await startRole();
	for (const name of ["ann", "bob", "eve"])
		members[name] = (await login(`${name}@home.test`)).json.token;
});

after(async () => {
	const ended = role?.exitCode === null && role.signalCode === null ? await stopRole() : undefined;
	agent.destroy();
	shop?.closeAllConnections();
	shop?.close();
	execFileSync("sh", [path.join(top, "tests/cluster.sh"), "stop", cluster]);
	fs.rmSync(dir, { recursive: true, force: true });
	if (process.env.VERBOSE)
		process.stderr.write(log);
	assert.deepEqual(ended ?? { code: role.exitCode, signal: role.signalCode }, { code: 0, signal: null });
	assert.doesNotMatch(log, /runtime error:|Sanitizer|reply-twice|reply-header-dropped|requests-left/);
	for (const secret of [password, ...Object.values(members)])
		assert.ok(!log.includes(secret), "a secret is in the log");
});

// --- who may ------------------------------------------------------------------------------

describe("logging in", () => {
	test("gives a token that works as a bearer and as a cookie", async () => {
		const res = await login(" Ann@HOME.test ");
		assert.equal(res.status, 200);
		assert.match(res.json.token, /^tmtp_m_[a-z2-7]{13}_[a-z2-7]{32}$/);
		assert.equal(res.json.address, "ann@home.test");
		const days = (Date.parse(res.json.expires) - Date.now()) / 86400_000;
		assert.ok(days > 29.9 && days <= 30, String(days));
		const [cookie] = res.headers["set-cookie"];
		assert.match(cookie, /^tmtp_token=tmtp_m_[a-z2-7_]+; Path=\/; Max-Age=2592000; HttpOnly; SameSite=Strict$/);
		assert.equal((await get("/v1/login", { bearer: res.json.token })).json.address, "ann@home.test");
		const byCookie = await get("/v1/login", { bearer: null, headers: { Cookie: `a=b; ${cookie.split(";")[0]}; c=d` } });
		assert.equal(byCookie.json.expires, res.json.expires);
		assert.equal(sql(`SELECT count(*) FROM tmtp.account_token WHERE token_hash = ${hex(sha256(res.json.token))}`), "1");
	});

	test("behind a proxy that speaks HTTPS the cookie is Secure", async () => {
		const res = await send("POST", "/v1/login", { address: "ann@home.test", password },
			{ bearer: null, headers: { "X-Forwarded-For": client(), "X-Forwarded-Proto": "https" } });
		assert.match(res.headers["set-cookie"][0], /; Secure$/);
	});

	test("wrong, unknown, malformed and disabled are one and the same, and cost the same", async () => {
		const took = {}, bodies = new Set();
		for (const [what, address, word] of [["wrong", "ann@home.test", "wrong"], ["unknown", "nobody@home.test", password],
			["foreign", "ann@else.test", password], ["malformed", "no address", password], ["disabled", "dan@home.test", password]]) {
			const start = performance.now();
			const res = await login(address, word);
			took[what] = performance.now() - start;
			assert.equal(res.status, 401, what);
			bodies.add(res.octets.toString());
			assert.equal(res.headers["set-cookie"], undefined);
		}
		assert.equal(bodies.size, 1);
		for (const [what, ms] of Object.entries(took))
			assert.ok(ms > took.wrong / 3, `${what} took ${ms}, wrong took ${took.wrong}`);
	});

	test("bodies that aren't a log-in are told what is wrong", async () => {
		const bad = { "not JSON": "{", "no password": { address: "ann@home.test" }, "a number": { address: 1, password },
			"an unknown field": { address: "ann@home.test", password, more: 1 }, "too long": { address: "ann@home.test", password: "x".repeat(1025) } };
		for (const [what, body] of Object.entries(bad))
			assert.equal((await send("POST", "/v1/login", body, { bearer: null })).status, 400, what);
		assert.equal((await request("POST", "/v1/login", { bearer: null, body: "{}", headers: { "Content-Type": "text/plain" } })).status, 415);
		assert.equal((await send("POST", "/v1/login", { address: "x".repeat(70000), password }, { bearer: null })).status, 413);
	});

	test("ten attempts at one address, wherever from; another address isn't touched", async () => {
		const all = await Promise.all(Array.from({ length: 14 }, () => login("eve@home.test", "wrong")));
		const limited = all.filter(({ status }) => status === 429);
		assert.ok(limited.length >= 3 && limited.length <= 4, String(all.map(({ status }) => status)));
		assert.ok(Number(limited[0].headers["retry-after"]) >= 1);
		assert.equal((await login("eve@home.test")).status, 429);
		assert.equal((await login("bob@home.test")).status, 200);
	});

	test("thirty attempts from one client; what succeeds isn't counted", async () => {
		for (let i = 0; i < 35; i++)
			assert.equal((await login("ann@home.test", password, "192.0.2.1")).status, 200);
		const all = await Promise.all(Array.from({ length: 45 }, (_, i) => login(`x${i}@home.test`, "wrong", "192.0.2.2")));
		const statuses = new Set(all.map(({ status }) => status));
		assert.deepEqual(statuses, new Set([401, 429]));
		assert.ok(all.filter(({ status }) => status === 429).length >= 5);
	});

	test("more at once than wait for a processor are sent away", async () => {
		const all = await Promise.all(Array.from({ length: 120 }, (_, i) => login(`z${i}@home.test`, "wrong")));
		const away = all.filter(({ status }) => status === 429);
		assert.ok(away.length >= 20 && away.length < 60, String(away.length));
		assert.equal(away[0].headers["retry-after"], "2");
		assert.ok(all.every(({ status }) => status === 401 || status === 429));
	});

	test("a house with a /64 is one client", async () => {
		const all = await Promise.all(Array.from({ length: 45 }, (_, i) => login(`y${i}@home.test`, "wrong", `2001:db8:1:1::${i + 1}`)));
		assert.ok(all.some(({ status }) => status === 429));
	});
});

describe("tokens", () => {
	test("what isn't one is 401", async () => {
		const good = members.ann;
		const bad = { missing: "", garbage: "x", cut: good.slice(0, -1), "another's account": good.slice(0, 7) + members.bob.slice(7, 20) + good.slice(20),
			changed: good.slice(0, -1) + (good.endsWith("a") ? "b" : "a"), "upper case": good.toUpperCase(), "a site's": good.replace("tmtp_m", "tmtp_s") };
		for (const [what, bearer] of Object.entries(bad)) {
			const res = await get("/v1/inbox", { bearer });
			assert.equal(res.status, 401, what);
			assert.equal(res.type, "unauthorized");
		}
	});

	test("a cookie alone changes nothing for other people's pages", async () => {
		const Cookie = `tmtp_token=${members.ann}`;
		const id = entry(ANN, plain("csrf"));
		const mark = (headers) => request("POST", `/v1/inbox/${id}/read`, { bearer: null, headers: { Cookie, ...headers } });
		assert.equal((await mark({})).status, 403);
		assert.equal((await mark({ "Sec-Fetch-Site": "cross-site" })).status, 403);
		assert.equal((await mark({ "Sec-Fetch-Site": "same-site" })).status, 403);
		assert.equal((await get("/v1/inbox/count", { bearer: null, headers: { Cookie } })).status, 200);
		assert.equal((await mark({ "X-TMTP-Request": "1" })).status, 204);
		assert.equal((await mark({ "Sec-Fetch-Site": "same-origin" })).status, 204);
		assert.equal((await request("DELETE", `/v1/inbox/${id}`)).status, 204);
	});

	test("logging out ends the token and its stream, and no other", async () => {
		const { token } = (await login("ann@home.test")).json;
		const events = await watching({ bearer: token }), other = await watching();
		assert.equal((await get("/v1/inbox/count", { bearer: token })).status, 200);
		const out = await request("DELETE", "/v1/login", { bearer: token });
		assert.equal(out.status, 204);
		assert.match(out.headers["set-cookie"][0], /^tmtp_token=; .*Max-Age=0/);
		assert.equal((await get("/v1/inbox/count", { bearer: token })).status, 401);
		await until("the stream's end", () => events.ended);
		assert.equal(other.ended, false);
		assert.equal((await get("/v1/inbox/count")).status, 200);
		other.close();
	});

	test("disabling an account is heard although the log-in is kept in memory", async () => {
		const { token } = (await login("bob@home.test")).json;
		assert.equal((await get("/v1/inbox/count", { bearer: token })).status, 200);
		sql(`DELETE FROM tmtp.account_token WHERE token_hash = ${hex(sha256(token))}`);
		assert.equal((await get("/v1/inbox/count", { bearer: token })).status, 200);
		sql("UPDATE tmtp.revision SET number = number + 1");
		await until("the refusal", async () => (await get("/v1/inbox/count", { bearer: token })).status === 401);
	});
});

// --- entries ---------------------------------------------------------------------------------

describe("the inbox", () => {
	test("lists newest first, pages without gap or double while entries come, and counts", async () => {
		sql("DELETE FROM tmtp.inbox");
		const start = Date.now() - 1000_000, rows = [];
		for (let i = 0; i < 25; i++)
			rows.push(entryRows(ANN, plain(`n${i}`), { ms: start + i * 1000, read: i < 5 ? "now()" : "NULL" }));
		sql(rows.map((row) => row.text).join("\n"));
		entry(BOB, plain("bob's"));
		const seen = [];
		let next = "https://home.test/v1/inbox?limit=10", page;
		for (; next; next = page.json.next) {
			page = await get(next.replace("https://home.test", ""));
			assert.equal(page.status, 200);
			seen.push(...page.json.entries);
			entry(ANN, plain("later"), { ms: Date.now() });
		}
		assert.deepEqual(seen.map((one) => one.subject), Array.from({ length: 25 }, (_, i) => `n${24 - i}`));
		assert.deepEqual(Object.keys(seen[0]), ["id", "from", "channel", "subject", "date", "arrived", "read"]);
		assert.equal(seen[0].from, "shop@shop.test");
		assert.equal(seen[0].channel, "orders");
		assert.equal(seen[0].read, null);
		assert.match(seen[24].read, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
		assert.equal(Date.parse(seen[0].arrived), Math.floor((start + 24000) / 1000) * 1000);
		assert.equal((await get("/v1/inbox/count")).json.unread, 23);
		const unread = await get("/v1/inbox?unread=true&limit=100");
		assert.equal(unread.json.entries.length, 23);
		assert.equal(unread.json.unread, 23);
		assert.equal((await get("/v1/inbox", { as: "bob" })).json.entries.length, 1);
	});

	test("query arguments that aren't understood are 400", async () => {
		for (const query of ["limit=0", "limit=101", "limit=x", "before=x", "unread=maybe"])
			assert.equal((await get(`/v1/inbox?${query}`)).status, 400, query);
	});

	test("a whole entry: texts, variables escaped by type, actions, attachments", async () => {
		const content = message([
			text("subject", "Dear {{name}}"), text("message", "Hi {{name}}, {{missing}}."),
			{ ...text("message", "<p>Hi {{name}}</p><script>alert(1)</script>", "text/html"), lang: "en" },
			text("action", "# Track it\r\nhttps://shop.test/t?a=1#x\r\n", "text/uri-list"),
			text("action", "# Bad\r\njavascript:alert(1)\r\n", "text/uri-list"),
			text("action", "http://shop.test/plain\r\n", "text/uri-list"),
			{ name: "attachment", type: "image/png", data: Buffer.from([0x89, 0x50, 0, 1]) },
			{ name: "attachment", type: "application/pdf", size: 123456, digest: crypto.randomBytes(32), uris: ["https://shop.test/big"] },
			text("unheard-of", "x"),
		]);
		const id = entry(ANN, content, { vars: hex(ben({ name: "<A&B>" })) });
		const res = await get(`/v1/inbox/${id}`);
		assert.equal(res.status, 200);
		assert.equal(res.json.subject, "Dear <A&B>");
		assert.deepEqual(res.json.fields, {
			subject: "Dear <A&B>",
			message: [{ type: "text/plain", text: "Hi <A&B>, ." },
				{ type: "text/html", text: "<p>Hi &lt;A&amp;B&gt;</p><script>alert(1)</script>", lang: "en" }],
			actions: [{ label: "Track it", url: "https://shop.test/t?a=1#x" }],
			attachments: [{ type: "image/png", size: 4, url: `/v1/inbox/${id}/attachments/0` }, { type: "application/pdf", size: 123456,
				url: `/v1/inbox/${id}/attachments/1`, state: "failed" }], // nobody fetched it: it was put here by hand
		});
		const picture = await get(res.json.fields.attachments[0].url);
		assert.deepEqual([...picture.octets], [0x89, 0x50, 0, 1]);
		assert.equal(picture.headers["content-type"], "application/octet-stream");
		assert.equal(picture.headers["content-disposition"], "attachment");
		assert.equal(picture.headers["x-content-type-options"], "nosniff");
		assert.equal((await get(`/v1/inbox/${id}/attachments/1`)).status, 410);
		for (const n of ["2", "-1", "x"])
			assert.equal((await get(`/v1/inbox/${id}/attachments/${n}`)).status, 404, n);
		assert.equal((await get(`/v1/inbox/${id}/attachments/0`, { as: "bob" })).status, 404);
	});

	test("reading, unreading, dropping; another member's ids are 404", async () => {
		const id = entry(ANN, plain("mine"));
		const path1 = `/v1/inbox/${id}`;
		assert.equal((await request("POST", `${path1}/read`)).status, 204);
		const first = (await get(path1)).json.read;
		assert.ok(first);
		assert.equal((await send("PATCH", path1, { read: true })).status, 204);
		assert.equal((await get(path1)).json.read, first);
		assert.equal((await send("PATCH", path1, { read: false })).status, 204);
		assert.equal((await get(path1)).json.read, null);
		assert.equal((await send("PATCH", path1, {})).status, 400);
		assert.equal((await send("PATCH", path1, { read: 1 })).status, 400);
		for (const other of [path1, `/v1/inbox/${uuid()}`, "/v1/inbox/x"]) {
			assert.equal((await get(other, { as: "bob" })).status, 404);
			assert.equal((await send("PATCH", other, { read: true }, { as: "bob" })).status, 404);
			assert.equal((await request("POST", `${other}/read`, { as: "bob" })).status, 404);
			assert.equal((await request("DELETE", other, { as: "bob" })).status, 404);
		}
		assert.equal((await get(path1)).json.read, null);
		assert.equal((await request("DELETE", path1)).status, 204);
		assert.equal((await get(path1)).status, 404);
		assert.ok(!(await get("/v1/inbox")).json.entries.some((one) => one.id === id));
	});

	test("many at once get each their own", async () => {
		const ids = Array.from({ length: 20 }, (_, i) => entry(ANN, plain(`many ${i}`)));
		const all = [];
		for (let i = 0; i < 600; i++)
			all.push(i % 3 === 0 ? get(`/v1/inbox/${uuid()}`) : get(`/v1/inbox/${ids[i % 20]}`, i % 3 === 1 ? {} : { as: "bob" }));
		(await Promise.all(all)).forEach((res, i) => {
			assert.equal(res.status, i % 3 === 1 ? 200 : 404);
			if (i % 3 === 1)
				assert.equal(res.json.subject, `many ${i % 20}`);
		});
		for (const id of ids)
			await request("DELETE", `/v1/inbox/${id}`);
	});

	test("what was withdrawn is said to be; what can't be read spoils nothing else; what isn't verified isn't there", async () => {
		const withdrawn = entry(ANN, plain("gone"), { state: 3 });
		const broken = entry(ANN, { octets: Buffer.from("d4:datei1ee"), date: seconds() });
		const waiting = entry(ANN, plain("waiting"), { state: 0 });
		const list = (await get("/v1/inbox?limit=3")).json.entries;
		assert.deepEqual(list.find((one) => one.id === withdrawn), { ...list.find((one) => one.id === withdrawn), subject: null, withdrawn: true });
		assert.equal(list.find((one) => one.id === broken).subject, null);
		assert.ok(!list.some((one) => one.id === waiting));
		assert.equal((await get(`/v1/inbox/${withdrawn}`)).json.fields, null);
		assert.equal((await get(`/v1/inbox/${broken}`)).status, 500);
		assert.equal((await get(`/v1/inbox/${waiting}`)).status, 404);
		assert.match(log, new RegExp(`event=message-undecodable .*notification=${broken}`));
		await request("DELETE", `/v1/inbox/${broken}`);
	});

	test("a list of large messages costs no more than their subjects", async () => {
		const content = message([text("subject", "{{a}}".repeat(3000) + "Large"), { name: "attachment", type: "x/y", data: crypto.randomBytes(3_000_000) }]);
		const id = entry(ANN, content, { vars: hex(ben({ a: "x".repeat(900) })) });
		const [one] = (await get("/v1/inbox?limit=1")).json.entries;
		assert.equal(one.id, id);
		assert.equal(one.subject, "x".repeat(1000));
		await request("DELETE", `/v1/inbox/${id}`);
	});
});

// --- consent -------------------------------------------------------------------------------------

describe("invitations and channels", () => {
	const invitation = (accountId, senderId, channel, words) => {
		const content = message([text("subject", "News"), ...(words ? [text("message", words)] : [])]);
		const { id, text: rows } = entryRows(accountId, content);
		sql(`${rows} DELETE FROM tmtp.inbox WHERE notification_id = '${id}';
			INSERT INTO tmtp.consent (account_id, sender_id, channel, state, asked_at, invitation, changed_id, grant_date)
			VALUES (${accountId}, ${senderId}, '${channel}', 0, now(), '${id}', '${uuid()}', ${seconds()});`);
	};
	const state = (channel, accountId = ANN) => sql(`SELECT state, receipts, (SELECT count(*) FROM tmtp.open_grant o WHERE o.grant_id = c.grant_id)
		FROM tmtp.consent c WHERE account_id = ${accountId} AND channel = '${channel}'`);

	test("an invitation shows who and what; the words only when it is opened", async () => {
		invitation(ANN, 51, "news", "We write to you once a month, see https://shop.test/x or www.shop.test for more. ".repeat(4));
		const list = (await get("/v1/invitations")).json;
		assert.equal(list.length, 1);
		assert.deepEqual(Object.keys(list[0]), ["from", "channel", "asked"]);
		assert.deepEqual([list[0].from, list[0].channel], ["shop@shop.test", "news"]);
		assert.ok(Math.abs(Date.parse(list[0].asked) - Date.now()) < 60_000);
		const { words } = (await get("/v1/invitations/shop@shop.test/news")).json;
		assert.match(words, /^We write to you once a month, see or for more\./);
		assert.ok([...words].length <= 140);
		assert.equal((await get("/v1/invitations/shop@shop.test/news", { as: "bob" })).status, 404);
		assert.deepEqual((await get("/v1/invitations", { as: "bob" })).json, []);
	});

	test("accepting mints a grant; again changes nothing; refusing what was accepted is 404", async () => {
		const at = "/v1/invitations/shop%40shop.test/news";
		assert.equal((await send("POST", `${at}/accept`, { receipts: true })).status, 204);
		assert.equal(state("news"), "1|t|1");
		assert.equal((await send("POST", `${at}/accept`, { receipts: true })).status, 204);
		assert.equal((await request("POST", `${at}/refuse`)).status, 404);
		assert.deepEqual((await get("/v1/invitations")).json, []);
		assert.equal((await get(at)).status, 404);
		const held = (await get("/v1/channels")).json.find((one) => one.channel === "news");
		assert.deepEqual({ ...held, since: 0 }, { from: "shop@shop.test", channel: "news", state: "granted", since: 0, receipts: true });
		assert.equal(sql(`SELECT count(*) FROM tmtp.grant_outbox WHERE account_id = ${ANN} AND channel = 'news'`), "1");
	});

	test("refusing; accepting what nobody asked is 404", async () => {
		invitation(ANN, 51, "offers");
		assert.equal((await get("/v1/invitations/shop@shop.test/offers")).json.words, null);
		assert.equal((await request("POST", "/v1/invitations/shop@shop.test/offers/refuse")).status, 204);
		assert.equal((await request("POST", "/v1/invitations/shop@shop.test/offers/refuse")).status, 204);
		assert.equal(state("offers"), "2|f|0");
		assert.equal((await request("POST", "/v1/invitations/shop@shop.test/offers/accept")).status, 404);
		assert.equal((await request("POST", "/v1/invitations/nobody@x.test/a/accept")).status, 404);
		assert.equal((await request("POST", "/v1/invitations/nobody@x.test/a/refuse")).status, 404);
	});

	test("a member grants unasked, changes her mind, and revokes", async () => {
		const at = "/v1/channels/News@Sub.Mag.Example/weekly";
		assert.equal((await request("PUT", at)).status, 204);
		assert.equal(state("weekly"), "1|f|1");
		assert.equal(sql("SELECT registrable FROM tmtp.sender WHERE address = 'news@sub.mag.example'"), "mag.example");
		const grant = () => sql(`SELECT encode(grant_id, 'hex') FROM tmtp.consent WHERE account_id = ${ANN} AND channel = 'weekly'`);
		const first = grant();
		assert.equal((await send("PUT", at, { receipts: true })).status, 204);
		assert.equal(state("weekly"), "1|t|1");
		assert.equal(grant(), first);
		assert.equal((await request("DELETE", at)).status, 204);
		assert.equal((await request("DELETE", at)).status, 204);
		assert.equal(state("weekly"), "3|f|0");
		assert.equal((await request("PUT", at)).status, 204);
		assert.notEqual(grant(), first);
		assert.deepEqual((await get("/v1/channels?state=refused")).json.map(({ channel }) => channel), ["offers"]);
		assert.equal((await request("DELETE", "/v1/channels/a@x.test/never")).status, 404);
	});

	test("names that can't be are 400", async () => {
		for (const at of ["/v1/channels/noaddress/a", "/v1/channels/a@x.test/Upper", "/v1/channels/a@x.test/invite", `/v1/channels/a@x.test/${"a".repeat(31)}`])
			assert.equal((await request("PUT", at)).status, 400, at);
		assert.equal((await send("PUT", "/v1/channels/a@x.test/a", { receipts: "yes" })).status, 400);
		assert.equal((await get("/v1/channels?state=asked")).status, 400);
	});

	test("who changes without end is slowed down", async () => {
		let limited;
		for (let i = 0; i < 130 && !limited; i++) {
			const res = await request("DELETE", "/v1/channels/a@x.test/never", { as: "eve" });
			if (res.status === 429)
				limited = res;
		}
		assert.ok(Number(limited?.headers["retry-after"]) >= 1);
	});
});

// --- live -------------------------------------------------------------------------------------------

describe("live push", () => {
	test("what arrives over DMTP is told at once to those who got it, and only to them", async () => {
		const ann = [await watching(), await watching()], eve = await watching({ as: "eve" });
		const content = plain("Live");
		await post(content, [grants.ann, grants.bob]);
		const told = await ann[0].has(1);
		assert.equal(told.event, "entry");
		assert.equal(told.data.subject, "Live");
		const [listed] = (await get("/v1/inbox?limit=1")).json.entries;
		assert.deepEqual(told.data, listed);
		assert.match(told.id, new RegExp(`^\\d{16}-${listed.id}$`));
		assert.deepEqual(await ann[1].has(1), told);
		await post(plain("For Eve"), [grants.eve]);
		await eve.has(1);
		assert.deepEqual(eve.subjects, ["For Eve"]);
		assert.deepEqual(ann[0].subjects, ["Live"]);
		for (const one of [...ann, eve])
			one.close();
	});

	test("each member reads her own variables, in the order of arrival", async () => {
		const ann = await watching(), bob = await watching({ as: "bob" });
		for (let i = 0; i < 10; i++) {
			await post(plain(`Dear {{name}} ${i}`), [[grants.ann, { name: "Ann" }], [grants.bob, { name: "Bob" }]]);
			await post(plain(`All ${i}`), [grants.ann, grants.bob]);
		}
		await ann.has(20);
		await bob.has(20);
		assert.deepEqual([...ann.subjects].sort(), Array.from({ length: 10 }, (_, i) => [`Dear Ann ${i}`, `All ${i}`]).flat().sort());
		assert.deepEqual([...bob.subjects].sort(), Array.from({ length: 10 }, (_, i) => [`Dear Bob ${i}`, `All ${i}`]).flat().sort());
		const ids = ann.list.map(({ id }) => id);
		assert.deepEqual(ids, [...ids].sort());
		ann.close();
		bob.close();
	});

	test("who comes back hears what was missed, oldest first, once, and then goes on", async () => {
		const first = await watching();
		await post(plain("before"), [grants.ann]);
		const { id } = await first.has(1);
		first.close();
		for (let i = 0; i < 5; i++)
			await post(plain(`missed ${i}`), [grants.ann]);
		await until("their pickup", async () => (await get("/v1/inbox?limit=5")).json.entries.every(({ subject }) => subject.startsWith("missed")));
		for (const how of [{ last: id }, { query: id }]) {
			const again = await watching(how);
			await again.has(5);
			await post(plain("after"), [grants.ann]);
			await again.has(6);
			assert.deepEqual(again.subjects.slice(0, 5), [0, 1, 2, 3, 4].map((i) => `missed ${i}`));
			assert.equal(again.subjects[5], "after");
			const ids = again.list.map((one) => one.id);
			assert.equal(new Set(ids).size, ids.length);
			again.close();
			sql(`DELETE FROM tmtp.inbox b USING tmtp.notification n WHERE n.notification_id = b.notification_id AND b.account_id = ${ANN}
				AND n.verified_at > to_timestamp(${id.split("-")[0]} / 1000000.0 ) AND n.body LIKE '%after%'`);
		}
	});

	test("a long absence is told page by page, through a reader that takes its time", async () => {
		const start = Date.now() - 500_000, rows = [];
		for (let i = 0; i < 700; i++)
			rows.push(entryRows(EVE, plain(`${i} ${"é".repeat(450)}`), { ms: start + Math.floor(i / 3) }));
		sql(rows.map((row) => row.text).join("\n"));
		const slow = new Events({ as: "eve", last: `${(start - 1) * 1000}-${uuid(0)}` });
		(await slow.open).pause();
		await post(plain("meanwhile"), [grants.eve]);
		await pause(300);
		slow.res.resume();
		await until("the last", () => slow.subjects.includes("meanwhile"));
		const ids = slow.list.map((one) => one.id);
		assert.equal(new Set(ids).size, ids.length);
		assert.deepEqual(ids, [...ids].sort());
		assert.deepEqual(new Set(slow.list.filter(({ data }) => data.subject?.includes("é")).map(({ data }) => data.id)), new Set(rows.map((row) => row.id)));
		assert.equal(slow.ended, false);
		slow.close();
	});

	test("arrivals while many come back are neither missed nor doubled", async () => {
		const mark = await watching();
		await post(plain("mark"), [grants.ann]);
		const { id } = await mark.has(1);
		mark.close();
		const sending = (async () => {
			for (let i = 0; i < 60; i++)
				await post(plain(`storm ${i}`), [i % 4 === 0 ? [grants.ann, { x: "y" }] : grants.ann]);
		})();
		const watchers = [];
		for (let i = 0; i < 20; i++) {
			watchers.push(await watching({ last: id }));
			await pause(5);
		}
		await sending;
		await Promise.all(watchers.map((one) => until("all 60", () => one.list.length >= 60)));
		for (const one of watchers) {
			assert.equal(new Set(one.list.map((event) => event.id)).size, 60);
			assert.equal(one.list.length, 60);
			one.close();
		}
	});

	test("an invitation is told", async () => {
		const events = await watching({ as: "bob" });
		const content = message([text("subject", "Club"), text("message", "Join us.")], { to: "bob@home.test" });
		const digest = sha256(content.octets), at = `/m/${digest.toString("hex")}`;
		stored.set(at, content.octets);
		assert.equal(await dmtp.ask(["POST", { from: content.from, id: crypto.randomUUID(), date: content.date, size: content.octets.length, digest,
			uris: [`https://shop.test${at}`], rcpts: [["bob@home.test", "invite"]], channel: "club" }]), "l1:Ke");
		const told = await events.has(1);
		assert.deepEqual(told, { id: undefined, event: "invitation", data: {} });
		await until("its words", async () => (await get("/v1/invitations/shop@shop.test/club", { as: "bob" })).json?.words === "Join us.");
		events.close();
	});

	test("a cursor that isn't one is 400; no token is 401; a member's 33rd stream ends the first", async () => {
		assert.equal((await get("/v1/inbox/events", { headers: { "Last-Event-ID": "x" } })).status, 400);
		assert.equal((await get("/v1/inbox/events?last_event_id=1-2")).status, 400);
		assert.equal((await get("/v1/inbox/events", { bearer: null })).status, 401);
		assert.equal((await new Events({ headers: { Cookie: `tmtp_token=${members.ann}` }, bearer: null }).open).statusCode, 200);
		const all = [];
		for (let i = 0; i < 40; i++)
			all.push(await watching({ as: "bob" }));
		await until("the oldest to end", () => all.slice(0, 8).every((one) => one.ended));
		await post(plain("To many"), [grants.bob]);
		await Promise.all(all.slice(8).map((one) => one.has(1)));
		assert.ok(all.slice(8).every((one) => !one.ended));
		for (const one of all)
			one.close();
	});
});

// --- when things fail -----------------------------------------------------------------------------------

describe("a database that goes away", () => {
	test("is 503 with Retry-After, streams stay open, and all goes on when it is back", async () => {
		const events = await watching();
		await get("/v1/inbox/count");
		stopDatabase();
		await until("unreadiness", async () => (await get("/readyz")).status === 503);
		const id = uuid();
		for (const [method, target] of [["GET", "/v1/inbox"], ["GET", "/v1/inbox/count"], ["GET", `/v1/inbox/${id}`], ["POST", `/v1/inbox/${id}/read`],
			["GET", "/v1/channels"], ["GET", "/v1/invitations"], ["PUT", "/v1/channels/a@x.test/a"], ["DELETE", "/v1/login"]]) {
			const res = await request(method, target);
			assert.equal(res.status, 503, `${method} ${target}`);
			assert.ok(Number(res.headers["retry-after"]) >= 1);
		}
		assert.equal((await login("ann@home.test")).status, 503);
		assert.equal((await get("/livez")).status, 200);
		startDatabase();
		await until("readiness", async () => (await get("/readyz")).status === 200);
		assert.equal(events.ended, false);
		await until("an accepted message", () => post(plain("back"), [grants.ann]).then(() => true, () => false));
		await until("its event", () => events.subjects.includes("back"));
		events.close();
	});
});

describe("the end", () => {
	test("numbers are shown, without anybody's address", async () => {
		const events = await watching();
		const shown = (await get("/metrics", { at: metrics })).octets.toString();
		assert.match(shown, /^tmtp_inbox_watchers [1-9]/m);
		assert.match(shown, /^tmtp_logins_total\{result="refused"\} [1-9]/m);
		assert.doesNotMatch(shown, /ann|shop\.test/);
		events.close();
	});

	test("streams end, new requests get 503 or no connection, the process leaves with 0", async () => {
		const events = await watching();
		const ended = stopRole();
		await until("the stream's end", () => events.ended);
		const { status } = await get("/v1/inbox").catch(() => ({ status: 503 }));
		assert.equal(status, 503);
		assert.deepEqual(await ended, { code: 0, signal: null });
	});

	test("HTTPS by itself: a Secure cookie, a watcher, a certificate renewed on SIGHUP", async () => {
		const ask = (target, { method = "GET", body, headers } = {}) => new Promise((resolve, reject) => {
			const req = https.request({ host: "127.0.0.1", port, path: target, method, headers, servername: "home.test", agent: false, ca: fs.readFileSync(file("ca.pem")) }, (res) => {
				const answer = { status: res.statusCode, headers: res.headers, serial: res.socket.getPeerCertificate().serialNumber, text: "" };
				res.setEncoding("utf8");
				res.on("data", (data) => {
					answer.text += data;
					if (data.includes("event: entry"))
						resolve(answer, req.destroy());
				});
				res.on("end", () => resolve(answer));
			});
			req.on("error", reject);
			req.end(body);
		});
		await startRole("tls = true", ask);
		const res = await ask("/v1/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ address: "bob@home.test", password }) });
		assert.equal(res.status, 200);
		const [cookie] = res.headers["set-cookie"];
		assert.match(cookie, /; Secure$/);
		assert.match(res.headers["strict-transport-security"], /max-age/);
		const seen = ask("/v1/inbox/events", { headers: { Cookie: cookie.split(";")[0], "Last-Event-ID": `0-${uuid(0)}` } });
		assert.match((await seen).text, /event: entry\ndata: \{/);
		const { serial } = await ask("/livez");
		makeCertificates();
		role.kill("SIGHUP");
		await until("the new certificate", () => ask("/livez").then((one) => one.serial !== serial, () => false));
		assert.deepEqual(await stopRole(), { code: 0, signal: null });
	});
});
