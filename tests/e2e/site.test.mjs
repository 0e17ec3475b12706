// The role site as websites and home servers see it: tokens, pushes, status, members, channels, pickup, bad
// input, and a database that goes away. TMTPD names the program (default build/tmtpd).
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePorts } from "./lib/wait.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const top = path.join(here, "../..");
const program = path.resolve(process.env.TMTPD ?? path.join(top, "build/tmtpd"));
const pgbin = process.env.POSTGRES_BIN ?? "/usr/lib/postgresql/15/bin";
const patience = 20_000;

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

const dir = fs.mkdtempSync(path.join(os.tmpdir(), "ts-"));
fs.chmodSync(dir, 0o755);
const cluster = path.join(dir, "c");

function sql(text, user = "tmtp_ctl") {
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
// Every process of it stays where it is: connections are open, and nothing answers.
const freezeDatabase = (signal) => {
	const postmaster = fs.readFileSync(path.join(cluster, "data/postmaster.pid"), "utf8").split("\n")[0];
	const children = fs.readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, "utf8");
	for (const pid of [postmaster, ...children.trim().split(" ")])
		try {
			process.kill(Number(pid), signal);
		} catch (error) { // one that has ended since
			if (error.code !== "ESRCH")
				throw error;
		}
};

// --- who there is ---------------------------------------------------------------

const SHOP = 11n, OTHER = 12n;
const ec = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
const rsa = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 });
const stranger = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
const secret = crypto.randomBytes(32);
const otherSecret = crypto.randomBytes(32);
const pem = (pair) => pair.publicKey.export({ type: "spki", format: "pem" });
const hex = (octets) => `'\\x${Buffer.from(octets).toString("hex")}'`;

function base32(octets) {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
	let bits = 0n, text = "";
	for (const octet of octets)
		bits = (bits << 8n) | BigInt(octet);
	const length = Math.ceil((octets.length * 8) / 5);
	bits <<= BigInt(length * 5 - octets.length * 8);
	for (let i = length - 1; i >= 0; i--)
		text += alphabet[Number((bits >> BigInt(i * 5)) & 31n)];
	return text;
}

function number(n) {
	const octets = Buffer.alloc(8);
	octets.writeBigUInt64BE(BigInt(n));
	return octets;
}

const opaque = (site, random = crypto.randomBytes(20)) => `tmtp_s_${base32(number(site))}_${base32(random)}`;
const tokens = { all: opaque(SHOP), read: opaque(SHOP), expired: opaque(SHOP), revoked: opaque(SHOP), fleeting: opaque(SHOP) };
const hash = (text) => crypto.createHash("sha256").update(text).digest();

function tokenRow(name, token, scopes, expires = "NULL", revoked = "NULL") {
	return `INSERT INTO tmtp.site_token VALUES (${SHOP}, ${hex(hash(token))}, '${name}', '{${scopes}}', now(), ${expires}, ${revoked});`;
}

function site(id, name) {
	return `INSERT INTO tmtp.local_name VALUES ('shop.test', '${name}', 'site', ${id});
		INSERT INTO tmtp.site VALUES (${id}, 'shop.test', '${name}', 'The ${name}', now(), NULL);`;
}

function key(id, kid, algorithm, material) {
	return `INSERT INTO tmtp.site_key VALUES (${id}, '${kid}', '${algorithm}', ${hex(material)}, now(), NULL);`;
}

const channel = (id, channelId, name, closed = "NULL") =>
	`INSERT INTO tmtp.channel VALUES (${id}, ${channelId}, '${name}', 'Your ${name}', now(), ${closed});`;
const raise = "UPDATE tmtp.revision SET number = number + 1;";

function fill() {
	sql(`${site(SHOP, "shop")} ${site(OTHER, "other")} ${site(13, "asleep")}
		UPDATE tmtp.site SET suspended_at = now() WHERE site_id = 13;
		${key(SHOP, "ec", "ES256", pem(ec))} ${key(SHOP, "rsa", "RS256", pem(rsa))} ${key(SHOP, "hs", "HS256", secret)}
		${key(OTHER, "hs", "HS256", otherSecret)} ${key(13, "hs", "HS256", secret)}
		${channel(SHOP, 101, "orders")} ${channel(SHOP, 102, "news")} ${channel(SHOP, 103, "gone", "now()")}
		${channel(OTHER, 201, "private")} ${channel(OTHER, 202, "orders")}
		${tokenRow("all", tokens.all, "push,members,read")} ${tokenRow("read", tokens.read, "read")}
		${tokenRow("expired", tokens.expired, "push", "now() - interval '1 second'")}
		${tokenRow("revoked", tokens.revoked, "push", "NULL", "now()")}
		${tokenRow("fleeting", tokens.fleeting, "push,read")}
		INSERT INTO tmtp.domain VALUES (1, 'home.test', now()), (2, 'else.test', now());`);
	// Those who hold the channels, as their home servers said.
	sql(`INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, grant_id, joined_at)
		SELECT ${SHOP}, 101, d, m, 1, decode(md5(d::text || m) || '00000000', 'hex'), now() - interval '1 hour'
		FROM (VALUES (1, 'ann'), (1, 'bob'), (2, 'cem')) AS v(d, m);
		INSERT INTO tmtp.chunk SELECT ${SHOP}, 101, d, '', NULL, 1 FROM generate_series(1, 2) AS d;`, "tmtp_home");
}

// --- tokens -----------------------------------------------------------------------

const b64 = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const now = () => Math.floor(Date.now() / 1000);
const claims = (more = {}) => ({ iss: "shop@shop.test", aud: "shop.test", exp: now() + 600, jti: crypto.randomUUID(), ...more });

function signed(header, payload, sign) {
	const text = `${b64({ typ: "JWT", ...header })}.${b64(payload)}`;
	return `${text}.${sign(text).toString("base64url")}`;
}

const hs256 = (payload, kid = "hs", material = secret) =>
	signed({ alg: "HS256", kid }, payload, (text) => crypto.createHmac("sha256", material).update(text).digest());
const es256 = (payload, pair = ec, kid = "ec") =>
	signed({ alg: "ES256", kid }, payload, (text) => crypto.sign("sha256", Buffer.from(text), { key: pair.privateKey, dsaEncoding: "ieee-p1363" }));
const rs256 = (payload, kid = "rsa") =>
	signed({ alg: "RS256", kid }, payload, (text) => crypto.sign("sha256", Buffer.from(text), rsa.privateKey));

// --- the role and requests ------------------------------------------------------------

const agent = new http.Agent({ keepAlive: true, maxSockets: 1000 });
let port, metrics, role, token, log = "";

async function startRole(more = "", domain = "", ready = () => get("/readyz")) {
	[port, metrics] = await freePorts(2);
	const conf = path.join(dir, "tmtp.conf");
	fs.writeFileSync(conf, `state_directory = "${dir}/state"\nuser = "nobody"\ndatabase = "host=${cluster} dbname=tmtp"\n` +
		`roles = {"site"}\nlog_level = "debug"\ndrain_timeout_s = 5\ndomain "shop.test" { ${domain} }\n` +
		`site { listen = {"127.0.0.1:${port}"} url = "https://shop.test" metrics_listen = "127.0.0.1:${metrics}"\n` +
		`body_max_bytes = 262144 message_max_bytes = 65536 ${more} }\n`);
	role = spawn(program, ["-c", conf, "--role", "site"], { stdio: ["ignore", "inherit", "pipe"] });
	role.stderr.setEncoding("utf8");
	role.stderr.on("data", (text) => (log += text));
	await until("readiness", () => ready().then((r) => r.status === 200, () => false));
}

async function stopRole() {
	const ended = new Promise((resolve) => role.on("exit", (code, signal) => resolve({ code, signal })));
	role.kill("SIGTERM");
	const late = setTimeout(() => role.kill("SIGKILL"), patience);
	return ended.finally(() => clearTimeout(late));
}

function request(method, target, { body, headers = {}, bearer = token, at = port } = {}) {
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

function post(target, value, more = {}) {
	return request("POST", target, { ...more, body: typeof value === "string" || Buffer.isBuffer(value) ? value : JSON.stringify(value),
		headers: { "Content-Type": "application/json", ...more.headers } });
}

const push = (value, more) => post("/v1/channels/orders/messages", value, more);
const pushed = (id) => sql(`SELECT audience, lane, encode(digest, 'hex') FROM tmtp.message WHERE message_id = '${id}'`);
const pickup = (id, digest, siteId = SHOP) => `/m/${base32(number(siteId))}/${id}/${base32(digest)}`;
const digestOf = (id) => Buffer.from(sql(`SELECT encode(digest, 'hex') FROM tmtp.message WHERE message_id = '${id}'`), "hex");

before(async () => {
	execFileSync("sh", [path.join(top, "tests/cluster.sh"), "start", cluster], { stdio: "inherit", env: { ...process.env, SHARED_BUFFERS: "64MB" } });
	for (const file of fs.readdirSync(path.join(top, "schema")).filter((name) => /^\d+.*\.sql$/.test(name)).sort())
		sql(fs.readFileSync(path.join(top, "schema", file), "utf8"), "tmtp_owner");
	fill();
	token = hs256(claims());
	await startRole();
});

after(async () => {
	const ended = role?.exitCode === null ? await stopRole() : undefined;
	agent.destroy();
	execFileSync("sh", [path.join(top, "tests/cluster.sh"), "stop", cluster]);
	fs.rmSync(dir, { recursive: true, force: true });
	if (process.env.VERBOSE)
		process.stderr.write(log);
	assert.deepEqual(ended, { code: 0, signal: null });
	assert.doesNotMatch(log, /runtime error:|Sanitizer|reply-twice|reply-header-dropped/);
});

// --- who may -----------------------------------------------------------------------------

describe("tokens", () => {
	test("all three algorithms and an opaque token work", async () => {
		for (const bearer of [hs256(claims()), es256(claims()), rs256(claims()), es256(claims({ aud: ["x.test", "shop.test"] })), tokens.all])
			assert.equal((await get("/v1/channels", { bearer })).status, 200);
	});

	test("what isn't valid is 401, and says so without saying too much", async () => {
		const parts = es256(claims()).split(".");
		const bad = {
			missing: "",
			garbage: "garbage",
			cut: parts.slice(0, 2).join("."),
			none: `${b64({ alg: "none", kid: "ec" })}.${parts[1]}.`,
			"none with a signature": `${b64({ alg: "none", kid: "ec" })}.${parts[1]}.${parts[2]}`,
			expired: hs256(claims({ exp: now() - 120 })),
			"valid for too long": hs256(claims({ exp: now() + 7200 })),
			"without an end": hs256({ iss: "shop@shop.test", aud: "shop.test" }),
			"not yet valid": hs256(claims({ nbf: now() + 600 })),
			"of another audience": hs256(claims({ aud: "else.test" })),
			"without audience": hs256({ iss: "shop@shop.test", exp: now() + 60 }),
			"by a stranger's key": es256(claims(), stranger),
			"changed afterwards": `${parts[0]}.${b64(claims({ sub: "x" }))}.${parts[2]}`,
			"with an unknown key": es256(claims(), ec, "nokey"),
			"without a key": signed({ alg: "HS256" }, claims(), (text) => crypto.createHmac("sha256", secret).update(text).digest()),
			"of an unknown site": hs256(claims({ iss: "nobody@shop.test" })),
			"of a domain that isn't ours": hs256(claims({ iss: "shop@else.test", aud: "else.test" })),
			"of another site's key": hs256(claims({ iss: "other@shop.test" })),
			"HS256 with the EC public key as secret": hs256(claims(), "ec", pem(ec)),
			"HS256 with the RSA public key as secret": hs256(claims(), "rsa", pem(rsa)),
			"ES256 for an HS256 key": es256(claims(), ec, "hs"),
			"too long": hs256(claims({ sub: "x".repeat(5000) })),
			"opaque and unknown": opaque(SHOP),
			"opaque of another site": tokens.all.replace(base32(number(SHOP)), base32(number(OTHER))),
			"opaque and cut": tokens.all.slice(0, -1),
			"opaque and expired": tokens.expired,
			"opaque and revoked": tokens.revoked,
		};
		for (const [what, bearer] of Object.entries(bad)) {
			const res = await get("/v1/channels", { bearer });
			assert.equal(res.status, 401, what);
			assert.match(res.headers["www-authenticate"], /^Bearer/, what);
			assert.equal(res.type, "unauthorized", what);
			assert.ok(res.json.detail.length > 0, what);
		}
		const details = async (bearer) => (await get("/v1/channels", { bearer })).json.detail;
		assert.equal(await details(bad["by a stranger's key"]), await details(bad["with an unknown key"]));
	});

	test("refusals are logged with their reason and without the token", () => {
		for (const reason of ["expired", "missing", "unknown-token", "wrong-audience"])
			assert.match(log, new RegExp(`event=auth-refused .*reason="?${reason}`), reason);
		for (const bearer of [...Object.values(tokens), token])
			assert.ok(!log.includes(bearer.slice(-30)));
	});

	test("a suspended site is refused", async () => {
		const res = await get("/v1/channels", { bearer: hs256(claims({ iss: "asleep@shop.test" })) });
		assert.equal(res.status, 403);
	});

	test("scopes are kept to", async () => {
		const message = { to: "ann@home.test", subject: "x" };
		const only = (scope) => ({ bearer: hs256(claims({ scope })) });
		for (const target of ["/v1/channels", "/v1/messages", "/v1/channels/orders/members"])
			assert.equal((await get(target, only(""))).status, 403, `an empty scope at ${target}`);
		assert.equal((await push(message, only(""))).status, 403);
		assert.equal((await push(message, only("push"))).status, 202);
		assert.equal((await push(message, only("read members"))).status, 403);
		assert.equal((await push(message, { bearer: tokens.read })).status, 403);
		assert.equal((await get("/v1/messages", only("push"))).status, 403);
		assert.equal((await get("/v1/messages", { bearer: tokens.read })).status, 200);
		assert.equal((await post("/v1/channels/orders/members", { address: "new@home.test" }, only("push read"))).status, 403);
		assert.equal((await get("/v1/channels/orders/members", only("read"))).status, 200);
		assert.equal((await get("/v1/channels", only("push"))).status, 200);
		assert.equal((await get("/v1/channels", only("nothing"))).status, 403);
	});

	test("a revoked token and a revoked key stop working within a second, a new key works", async () => {
		const bearer = es256(claims());
		assert.equal((await push({ to: "ann@home.test", subject: "x" }, { bearer: tokens.fleeting })).status, 202);
		assert.equal((await get("/v1/channels", { bearer })).status, 200);
		sql(`BEGIN; UPDATE tmtp.site_token SET revoked_at = now() WHERE name = 'fleeting';
			UPDATE tmtp.site_key SET revoked_at = now() WHERE kid = 'ec'; ${raise} COMMIT;`);
		await pause(1000);
		assert.equal((await push({ to: "ann@home.test", subject: "x" }, { bearer: tokens.fleeting })).status, 401);
		assert.equal((await get("/v1/channels", { bearer })).status, 401);
		sql(`BEGIN; UPDATE tmtp.site_key SET revoked_at = NULL WHERE kid = 'ec'; ${raise} COMMIT;`);
		await until("the key's return", async () => (await get("/v1/channels", { bearer })).status === 200);
	});
});

// --- pushing ------------------------------------------------------------------------------------

describe("pushes", () => {
	test("a message to one member is committed before its 202, and can be picked up", async () => {
		const res = await push({ to: "Ann@Home.Test", subject: "Order 1", message: "On its way", lang: "en",
			action: { label: "Track", url: "https://shop.test/o/1" } });
		assert.equal(res.status, 202);
		assert.deepEqual(Object.keys(res.json).sort(), ["id", "status_url"]);
		assert.equal(res.json.status_url, `https://shop.test/v1/messages/${res.json.id}`);
		assert.equal(res.headers.location, res.json.status_url);
		assert.match(pushed(res.json.id), /^0\|1\|/);
		assert.equal(sql(`SELECT members FROM tmtp.batch WHERE message_id = '${res.json.id}'`), "{ann}");
		const digest = digestOf(res.json.id);
		const body = await get(pickup(res.json.id, digest), { bearer: "" });
		assert.equal(body.status, 200);
		assert.equal(body.headers["content-type"], "application/octet-stream");
		assert.equal(body.headers.etag, `"${base32(digest)}"`);
		assert.match(body.headers["cache-control"], /^private/);
		assert.deepEqual(crypto.createHash("sha256").update(body.octets).digest(), digest);
		const text = body.octets.toString();
		assert.match(text, /^d4:datei\d+e6:fieldsl/);
		assert.match(text, /4:from14:shop@shop\.test/);
		assert.match(text, /2:to13:ann@home\.teste$/);
		assert.match(text, /# Track\r\nhttps:\/\/shop\.test\/o\/1\r\n/);
	});

	test("two messages of the same words differ", async () => {
		const ids = [];
		for (let i = 0; i < 2; i++)
			ids.push((await push({ to: "ann@home.test", subject: "same" })).json.id);
		assert.notDeepEqual(digestOf(ids[0]), digestOf(ids[1]));
	});

	test("a list tells who holds no channel, and goes to the others", async () => {
		const res = await push({ to: ["ann@home.test", "nobody@home.test", "cem@else.test", "ANN@home.test", "x@unknown.test"], subject: "x" });
		assert.equal(res.status, 202);
		assert.deepEqual(res.json.rejected, ["nobody@home.test", "x@unknown.test"]);
		assert.match(pushed(res.json.id), /^1\|1\|/);
		assert.equal(sql(`SELECT string_agg(members::text, ' ' ORDER BY domain_id) FROM tmtp.batch WHERE message_id = '${res.json.id}'`), "{ann} {cem}");
		const body = await get(pickup(res.json.id, digestOf(res.json.id)), { bearer: "" });
		assert.match(body.octets.toString(), /2:to21:orders\.shop@shop\.teste$/);
		assert.match(body.headers["cache-control"], /^public, max-age=3600, s-maxage=60$/);
	});

	test("everybody: the channel's chunks, in bulk", async () => {
		const res = await push({ to: "*", subject: "x", expires: 3600 });
		assert.equal(res.status, 202);
		assert.match(pushed(res.json.id), /^2\|2\|/);
		assert.equal(sql(`SELECT count(*) FROM tmtp.batch WHERE message_id = '${res.json.id}' AND members IS NULL`), "2");
		const left = Number(sql(`SELECT extract(epoch FROM expires_at - accepted_at) FROM tmtp.message WHERE message_id = '${res.json.id}'`));
		assert.equal(left, 3600);
	});

	test("nobody who holds the channel: 422 that names them, nothing stored", async () => {
		const count = () => sql("SELECT count(*) FROM tmtp.message");
		const stood = count();
		for (const to of ["nobody@home.test", ["nobody@home.test", "x@unknown.test"]]) {
			const res = await push({ to, subject: "x" });
			assert.equal(res.status, 422);
			assert.equal(res.type, "no-recipient");
			assert.deepEqual(res.json.errors.map((e) => e.address), [to].flat());
			assert.deepEqual(res.json.errors.map((e) => e.pointer), Array.isArray(to) ? ["/to/0", "/to/1"] : ["/to"]);
		}
		assert.equal(count(), stood);
	});

	test("an idempotency key gives the same answer, once stored", async () => {
		const headers = { "Idempotency-Key": crypto.randomUUID() };
		const message = { to: ["ann@home.test", "nobody@home.test"], subject: "once" };
		const first = await push(message, { headers });
		assert.equal(first.status, 202);
		assert.equal(first.headers["idempotency-replayed"], undefined);
		for (const bearer of [token, tokens.all]) {
			const again = await push(message, { headers, bearer });
			assert.equal(again.status, 202);
			assert.equal(again.headers["idempotency-replayed"], "true");
			assert.equal(again.headers.location, first.headers.location);
			assert.deepEqual(again.json, first.json);
		}
		const other = await push({ ...message, subject: "twice" }, { headers });
		assert.equal(other.status, 422);
		assert.equal(other.type, "idempotency-mismatch");
		const everybody = { to: "*", subject: "to whom it concerns" };
		const headersToo = { "Idempotency-Key": crypto.randomUUID() };
		assert.equal((await push(everybody, { headers: headersToo })).status, 202);
		assert.equal((await post("/v1/channels/news/messages", everybody, { headers: headersToo })).type, "idempotency-mismatch");
		const stranger = await post("/v1/channels/orders/messages", { to: "*", subject: "once" },
			{ headers, bearer: hs256(claims({ iss: "other@shop.test" }), "hs", otherSecret) });
		assert.equal(stranger.status, 202);
		assert.notEqual(stranger.json.id, first.json.id);
	});

	// What the key is for: the answer was lost, and since then everything has changed.
	test("an idempotency key gives its answer when the member has left and the channel is closed", async (t) => {
		const of = (to) => ({ to, subject: "before she left" });
		sql(`INSERT INTO tmtp.channel VALUES (${SHOP}, 99, 'brief', 'Brief', now(), NULL);
			INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, grant_id, joined_at)
				SELECT ${SHOP}, 99, domain_id, member, 1, grant_id, joined_at FROM tmtp.subscription
				WHERE site_id = ${SHOP} AND channel_id = 101 AND member = 'ann'`, "tmtp_owner");
		t.after(() => sql(`DELETE FROM tmtp.subscription WHERE channel_id = 99; DELETE FROM tmtp.channel WHERE channel_id = 99`, "tmtp_owner"));
		const brief = (to, key) => post("/v1/channels/brief/messages", of(to), { headers: { "Idempotency-Key": key } });
		const keys = { one: crypto.randomUUID(), list: crypto.randomUUID() };
		const to = { one: "ann@home.test", list: ["ann@home.test", "nobody@home.test"] };
		const first = {};
		for (const kind of ["one", "list"]) {
			first[kind] = await brief(to[kind], keys[kind]);
			assert.equal(first[kind].status, 202, kind);
		}
		const replays = async (when) => {
			for (const kind of ["one", "list"]) {
				const again = await brief(to[kind], keys[kind]);
				assert.equal(again.status, 202, `${kind}, ${when}`);
				assert.equal(again.headers["idempotency-replayed"], "true");
				assert.equal(again.json.id, first[kind].json.id);
				assert.equal((await brief("cem@else.test", keys[kind])).type, "idempotency-mismatch");
			}
		};
		sql(`UPDATE tmtp.subscription SET state = 3 WHERE site_id = ${SHOP} AND channel_id = 99`, "tmtp_owner");
		await replays("when she has left");
		assert.equal((await brief("ann@home.test", crypto.randomUUID())).type, "no-recipient");
		sql(`UPDATE tmtp.channel SET closed_at = now() WHERE site_id = ${SHOP} AND channel_id = 99;
			UPDATE tmtp.revision SET number = number + 1`, "tmtp_owner");
		await until("the closed channel", async () => (await brief("ann@home.test", crypto.randomUUID())).status === 404);
		await replays("when the channel is closed");
	});

	test("one key from a hundred at once stores one message", async () => {
		const headers = { "Idempotency-Key": "all-at-once" };
		const all = await Promise.all(Array.from({ length: 100 }, () => push({ to: "ann@home.test", subject: "once" }, { headers })));
		assert.deepEqual([...new Set(all.map((res) => res.status))], [202]);
		assert.equal(new Set(all.map((res) => res.json.id)).size, 1);
		assert.equal(all.filter((res) => res.headers["idempotency-replayed"] === undefined).length, 1);
	});

	test("a key that was refused can be used", async () => {
		const headers = { "Idempotency-Key": "refused-first" };
		assert.equal((await push({ to: "nobody@home.test", subject: "x" }, { headers })).status, 422);
		assert.equal((await push({ to: "ann@home.test", subject: "x" }, { headers })).status, 202);
	});

	// What has come for the role and was not read yet, in octets over all its connections.
	const unread = () => fs.readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1).map((line) => line.trim().split(/\s+/))
		.filter(([, local]) => local?.endsWith(`:${port.toString(16).toUpperCase().padStart(4, "0")}`))
		.reduce((sum, fields) => sum + parseInt(fields[4].split(":")[1], 16), 0);

	// A thousand connections that hold back the last octet of their requests. They send it while the database stands still,
	// which goes on once the role has read them all: so all of them wait at once, however the processors are shared.
	async function thousandAtOnce(body) {
		const head = `POST /v1/channels/orders/messages HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer ${token}\r\n` +
			`Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
		const sockets = Array.from({ length: 1000 }, () => net.connect(port, "127.0.0.1"));
		const answers = sockets.map((socket) => new Promise((resolve, reject) => socket.on("error", reject).on("data", (text) => resolve(String(text)))));
		await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.write(head + body.slice(0, -1), resolve))));
		await until("all but their last octets to be read", () => unread() === 0);
		const go = async () => {
			freezeDatabase("SIGSTOP");
			try {
				await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.write(body.slice(-1), resolve))));
				await until("all to be read", () => unread() === 0);
			} finally {
				freezeDatabase("SIGCONT");
			}
		};
		return { go,
			done: () => Promise.all(answers).finally(() => sockets.forEach((socket) => socket.destroy())) };
	}

	// The commits of all its life so far. A session that has nothing to do reports its own up to ten seconds later, but when it
	// ends at once; so the role's sessions are ended, and the role sees it when it is counted.
	async function commits() {
		const sessions = () => Number(sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'tmtp_site'", "postgres")), before = sessions();
		role.kill("SIGSTOP");
		try {
			sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tmtp_site'", "postgres");
			await until("no sessions", () => sessions() === 0);
			return Number(sql("SELECT xact_commit FROM pg_stat_database WHERE datname = 'tmtp'", "postgres"));
		} finally {
			role.kill("SIGCONT");
			await until("sessions again", async () => sessions() >= before && (await get("/readyz")).status === 200);
		}
	}

	test("1,000 pushes at once share their commits", async (t) => {
		const all = await thousandAtOnce(JSON.stringify({ to: "ann@home.test", subject: "many", message: "x".repeat(500) }));
		const before = await commits();
		await all.go();
		const answers = await all.done(), cost = await commits() - before; // with polling, new sessions and this look
		assert.ok(answers.every((text) => text.startsWith("HTTP/1.1 202 ")));
		t.diagnostic(`${cost} commits`);
		assert.ok(cost <= 125, `${cost} commits`);
	});
});

// --- bad input ------------------------------------------------------------------------------------

describe("bad input", () => {
	const fine = { to: "ann@home.test", subject: "x" };

	test("each refusal leaves one line, that says who, where and why", async () => {
		const lines = () => log.split("\n").filter((line) => /^event=(request|auth)-refused /.test(line));
		const asked = async (status, line, ask) => {
			const before_ = lines().length;
			assert.equal((await ask()).status, status);
			await until(`a line for ${status}`, () => lines().length > before_);
			assert.equal(lines().length, before_ + 1, lines().slice(before_).join("\n"));
			assert.match(lines().at(-1), line);
			assert.match(lines().at(-1), / client=127\.0\.0\.1( |$)/);
		};
		await asked(400, /status=400 reason=unknown-field route=\/v1\/channels\/:channel\/messages/, () => push({ ...fine, more: 1 }));
		await asked(404, /status=404 reason=not-found/, () => post("/v1/channels/nothing/messages", fine));
		await asked(422, /status=422 reason=no-recipient/, () => push({ ...fine, to: "nobody@home.test" }));
		await asked(415, /status=415 reason=unsupported-media/, () => push(fine, { headers: { "Content-Type": "text/plain" } }));
		await asked(401, /^event=auth-refused/, () => push(fine, { bearer: "garbage" }));
		await asked(404, /status=404 reason=not-found/, () => get("/nowhere"));
	});

	test("JSON that isn't", async () => {
		for (const body of ["", "{", "[]", "null", "7", "{}{}", `{"to":"a@b.test","to":"c@d.test","subject":"x"}`,
			`{"to":"ann@home.test","subject":"a\\u0000b"}`, "[".repeat(1000), `{"to":${"[".repeat(100)}${"]".repeat(100)}}`, `{"to":"ann@home.test","subject":NaN}`,
			Buffer.from([0x7b, 0x22, 0x74, 0x6f, 0x22, 0x3a, 0x22, 0xff, 0xfe, 0x22, 0x7d]),
			Buffer.from(`{"to":"ann@home.test","subject":"\xed\xa0\x80"}`, "latin1")]) {
			const res = await push(body);
			assert.equal(res.status, 400, String(body).slice(0, 40));
			assert.equal(res.type, "malformed-json", String(body).slice(0, 40));
			assert.match(res.headers["content-type"], /^application\/problem\+json/);
		}
	});

	test("fields that aren't", async () => {
		const table = [
			[{ ...fine, colour: "red" }, "unknown-field", "/colour"],
			[{ subject: "x" }, "missing-field", "/to"],
			[{ to: fine.to }, "missing-field", "/message"],
			[{ ...fine, to: 1 }, "invalid-value", "/to"],
			[{ ...fine, to: true }, "invalid-value", "/to"],
			[{ ...fine, to: { a: 1 } }, "missing-field", "/to/address"],
			[{ ...fine, to: { address: 1 } }, "invalid-value", "/to/address"],
			[{ ...fine, to: [] }, "invalid-value", "/to"],
			[{ ...fine, to: ["ann@home.test", 1] }, "invalid-value", "/to/1"],
			[{ ...fine, subject: 1 }, "invalid-value", "/subject"],
			[{ ...fine, subject: "x".repeat(201) }, "invalid-value", "/subject"],
			[{ ...fine, message: 1 }, "invalid-value", "/message"],
			[{ ...fine, message: { "text/plain": "x", "image/png": "x" } }, "unknown-field", "/message"],
			[{ ...fine, lane: "first" }, "invalid-value", "/lane"],
			[{ ...fine, expires: 59 }, "invalid-value", "/expires"],
			[{ ...fine, expires: 1e9 }, "invalid-value", "/expires"],
			[{ ...fine, expires: 99.5 }, "invalid-value", "/expires"],
			[{ ...fine, action: { label: "x", url: "http://shop.test" } }, "invalid-value", "/action/url"],
			[{ ...fine, action: { label: "x", url: "https://shop.test", more: 1 } }, "unknown-field", "/action/more"],
			[{ ...fine, action: "x" }, "invalid-value", "/action"],
		];
		for (const [body, type, pointer] of table) {
			const res = await push(body);
			assert.equal(res.status, 400, JSON.stringify(body));
			assert.equal(res.type, type, JSON.stringify(body));
			assert.equal(res.json.errors[0].pointer, pointer, JSON.stringify(body));
		}
	});

	test("addresses that aren't", async () => {
		for (const to of ["", "ann", "@home.test", "ann@", "ann@@home.test", "a b@home.test", "ann@home..test", "ann@-home.test",
			"ann@home.test\n", "ann\u0007@home.test", `${"a".repeat(65)}@home.test`, `ann@${"a".repeat(64)}.test`, `ann@${"a.".repeat(130)}test`,
			"ann@127.0.0.1", "ann@[::1]", "a\u200e b@home.test"]) {
			const res = await push({ ...fine, to });
			assert.ok(res.status === 400 || (to === "ann@home.test\n" && res.status === 202), `${JSON.stringify(to)} ${res.status}`);
		}
		assert.equal((await push({ ...fine, to: Array.from({ length: 1001 }, (_, i) => `m${i}@home.test`) })).status, 400);
	});

	test("too much", async () => {
		const long = await push({ to: fine.to, message: "x".repeat(65536) });
		assert.equal(long.status, 413);
		assert.equal(long.type, "payload-too-large");
		const longer = await push({ to: fine.to, message: "x".repeat(300000) }).catch((error) => error);
		assert.ok(longer.status === 413 || /EPIPE|ECONNRESET/.test(longer.code), String(longer));
		assert.equal((await get(`/v1/channels?x=${"x".repeat(20000)}`)).status, 414);
		assert.equal((await get("/v1/channels", { headers: { "X-Long": "x".repeat(9000) } })).status, 431);
	});

	test("media types and methods", async () => {
		assert.equal((await push(fine, { headers: { "Content-Type": "text/plain" } })).status, 415);
		assert.equal((await push(fine, { headers: { "Content-Type": "application/json; charset=latin1" } })).status, 415);
		assert.equal((await push(fine, { headers: { "Content-Encoding": "gzip" } })).status, 415);
		const res = await request("PUT", "/v1/channels/orders/messages");
		assert.equal(res.status, 405);
		assert.equal(res.headers.allow, "POST");
		assert.equal((await get("/v2")).status, 404);
	});

	test("idempotency keys that aren't", async () => {
		for (const value of ["x".repeat(129), "\u00e4", ""])
			assert.equal((await push(fine, { headers: { "Idempotency-Key": value } })).status, 400, value);
		assert.equal((await push(fine, { headers: { "Idempotency-Key": "x".repeat(128) } })).status, 202);
	});

	test("another site's channels and messages don't exist", async () => {
		const others = { bearer: hs256(claims({ iss: "other@shop.test" }), "hs", otherSecret) };
		const { id } = (await push(fine)).json;
		for (const name of ["private", "nothing", "gone", "NEWS", "a%2Fb", "%20"]) {
			assert.equal((await post(`/v1/channels/${name}/messages`, fine)).status, 404, name);
			assert.equal((await get(`/v1/channels/${name}/members`)).status, 404, name);
			assert.equal((await post(`/v1/channels/${name}/members`, { address: "a@home.test" })).status, 404, name);
			assert.equal((await request("DELETE", `/v1/channels/${name}/members/ann@home.test`)).status, 404, name);
		}
		assert.equal((await get("/v1/channels/private")).status, 404);
		assert.equal((await get(`/v1/messages/${id}`)).status, 200);
		for (const at of [`/v1/messages/${id}`, `/v1/messages/${id}/recipients`, "/v1/messages/00000000-0000-7000-8000-000000000000",
			"/v1/messages/00000000-0000-7000-8000-000000000000/recipients", "/v1/messages/x", `/v1/messages/${id.toUpperCase()}x`])
			assert.equal((await get(at, others)).status, 404, at);
		assert.ok(!(await get("/v1/messages?limit=1000", others)).json.messages.some((m) => m.id === id));
	});
});

// --- reading --------------------------------------------------------------------------------------

describe("status", () => {
	test("a message, its counts and its recipients", async () => {
		const { id } = (await push({ to: ["ann@home.test", "bob@home.test", "cem@else.test", "nobody@home.test"], subject: "x", lane: "urgent" })).json;
		const status = (await get(`/v1/messages/${id}`)).json;
		assert.equal(status.id, id);
		assert.equal(status.channel, "orders");
		assert.equal(status.audience, "list");
		assert.equal(status.lane, "urgent");
		assert.match(status.accepted, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
		assert.deepEqual(status.recipients, { waiting: 3, delivered: 0, failed: 0, dead: 0, rejected: 1 });
		// As relay would: one domain is delivered, but for one of its members.
		sql(`UPDATE tmtp.batch SET state = 1, done_at = now() WHERE message_id = '${id}' AND domain_id = 1;
			INSERT INTO tmtp.failure SELECT ${SHOP}, '${id}', 1, 'bob', 'channel-closed', NULL, now();`, "tmtp_relay");
		assert.deepEqual((await get(`/v1/messages/${id}`)).json.recipients, { waiting: 1, delivered: 1, failed: 1, dead: 0, rejected: 1 });
		const all = [];
		for (let at = `/v1/messages/${id}/recipients?limit=1`; at !== undefined;) {
			const page = (await get(at)).json;
			assert.ok(page.recipients.length <= 1);
			all.push(...page.recipients);
			at = page.next?.replace("https://shop.test", "");
			assert.ok(all.length < 10);
		}
		assert.deepEqual(Object.fromEntries(all.map((r) => [r.address, r.state])),
			{ "ann@home.test": "delivered", "bob@home.test": "failed", "cem@else.test": "waiting", "nobody@home.test": "rejected" });
		assert.match(all.find((r) => r.address === "bob@home.test").reason, /channel-closed/);
		const failed = (await get(`/v1/messages/${id}/recipients?state=failed`)).json;
		assert.deepEqual(failed.recipients.map((r) => r.address), ["bob@home.test"]);
		assert.deepEqual((await get(`/v1/messages/${id}/recipients?state=dead`)).json, { recipients: [] });
		assert.equal((await get(`/v1/messages/${id}/recipients?state=lost`)).status, 400);
		assert.equal((await get(`/v1/messages/${id}/recipients?after=x`)).status, 400);
	});

	test("the list, newest first, page by page", async () => {
		const ids = [];
		for (let i = 0; i < 5; i++)
			ids.unshift((await push({ to: "ann@home.test", subject: "x" })).json.id);
		const seen = [];
		for (let at = "/v1/messages?limit=2"; seen.length < 5;) {
			const page = (await get(at)).json;
			assert.equal(page.messages.length, 2);
			seen.push(...page.messages.map((m) => m.id));
			at = page.next.replace("https://shop.test", "");
		}
		assert.deepEqual(seen.slice(0, 5), ids);
		for (const limit of ["0", "1001", "x", "-1"])
			assert.equal((await get(`/v1/messages?limit=${limit}`)).status, 400, limit);
		assert.equal((await get("/v1/messages?before=x")).status, 400);
	});
});

describe("channels and members", () => {
	test("channels", async () => {
		const list = (await get("/v1/channels")).json.channels;
		assert.deepEqual(list.filter((c) => c.closed === undefined).map((c) => c.name), ["news", "orders"]);
		const one = (await get("/v1/channels/orders")).json;
		assert.equal(one.title, "Your orders");
		assert.match(one.created, /Z$/);
	});

	test("a closed one is shown, and takes nothing", async () => {
		sql(`INSERT INTO tmtp.channel (site_id, channel_id, name, title, created_at, closed_at) VALUES (${SHOP}, 190, 'shut', 'Shut', now(), now())`);
		const one = await get("/v1/channels/shut");
		assert.equal(one.status, 200);
		assert.match(one.json.closed, /Z$/);
		assert.equal((await post("/v1/channels/shut/members", { address: "ann@home.test" })).status, 404);
		assert.equal((await post("/v1/channels/shut/messages", { to: "ann@home.test", subject: "x" })).status, 404);
	});

	test("arguments that nobody knows, two keys, a body where none belongs: 400 that names it", async () => {
		for (const [target, detail] of [["/v1/channels?limit=3", /"limit"/], ["/v1/messages?offset=3", /"offset"/], ["/v1/messages?before=x%00", /./],
			["/v1/channels/orders/members?limit=3&page=2", /"page"/], ["/v1/messages?%e4=1", /./]]) {
			const res = await get(target);
			assert.equal(res.status, 400, target);
			assert.match(res.json.detail ?? "-", detail);
		}
		assert.equal((await get("/v1/channels/orders/members?limit=3&state=granted&after=a@b.test")).status, 200);
		const twice = await push({ to: "ann@home.test", subject: "x" }, { headers: { "Idempotency-Key": ["a", "b"] } });
		assert.equal(twice.status, 400);
		assert.match(twice.json.detail, /Idempotency-Key/);
		const body = await request("DELETE", "/v1/channels/orders/members/zoe@home.test", { body: "{}", headers: { "Content-Type": "application/json", "Content-Length": 2 } });
		assert.equal(body.status, 400);
		assert.match(body.json.detail, /No body/);
	});

	test("registering invites once", async () => {
		const res = await post("/v1/channels/news/members", { addresses: ["Dee@home.test", "eve@new.test", "dee@HOME.test"], text: "All that is new" });
		assert.equal(res.status, 202);
		assert.deepEqual(res.json.members, [{ address: "dee@home.test", state: "invited", invited: true },
			{ address: "eve@new.test", state: "invited", invited: true }]);
		const body = sql(`SELECT encode(body, 'escape') FROM tmtp.message WHERE audience = 3 AND channel_id = 102 LIMIT 1`);
		assert.match(body, /9:Your news/);
		assert.match(body, /15:All that is new/);
		const again = await post("/v1/channels/news/members", { address: "dee@home.test" });
		assert.deepEqual(again.json.members, [{ address: "dee@home.test", state: "invited", invited: false }]);
		const held = await post("/v1/channels/orders/members", { address: "ann@home.test" });
		assert.deepEqual(held.json.members, [{ address: "ann@home.test", state: "granted", invited: false }]);
	});

	test("a thousand in one request", async () => {
		const addresses = Array.from({ length: 1000 }, (_, i) => `m${i}@many.test`);
		const res = await post("/v1/channels/news/members", { addresses });
		assert.equal(res.status, 202);
		assert.equal(res.json.members.filter((m) => m.invited).length, 1000);
		assert.equal((await post("/v1/channels/news/members", { addresses: [...addresses, "one@many.test"] })).status, 400);
	});

	test("listing, looking up, taking off", async () => {
		const seen = [];
		for (let at = "/v1/channels/news/members?limit=300"; at !== undefined;) {
			const page = (await get(at)).json;
			seen.push(...page.members.map((m) => m.address));
			at = page.next?.replace("https://shop.test", "");
		}
		assert.equal(seen.length, 1002);
		assert.equal(new Set(seen).size, 1002);
		assert.equal((await get("/v1/channels/news/members?state=granted")).json.members.length, 0);
		assert.equal((await get("/v1/channels/news/members?state=never")).status, 400);
		const one = (await get("/v1/channels/orders/members/ann%40home.test")).json;
		assert.equal(one.state, "granted");
		assert.match(one.joined, /Z$/);
		assert.equal((await get("/v1/channels/orders/members/nobody@home.test")).status, 404);
		assert.equal((await get("/v1/channels/orders/members/nonsense")).status, 404);
		assert.equal((await request("DELETE", "/v1/channels/news/members/dee@home.test")).status, 204);
		assert.equal((await get("/v1/channels/news/members/dee@home.test")).json.state, "removed");
		assert.equal((await request("DELETE", "/v1/channels/news/members/never@home.test")).status, 404);
	});

	test("what is wrong with a registration", async () => {
		const table = [[{}, "missing-field"], [{ address: "a@b.test", addresses: ["c@d.test"] }, "missing-field"], [{ address: "x" }, "invalid-value"],
			[{ addresses: "a@b.test" }, "invalid-value"], [{ addresses: [] }, "invalid-value"], [{ addresses: [1] }, "invalid-value"],
			[{ address: "a@b.test", text: "see https://shop.test" }, "invalid-value"], [{ address: "a@b.test", text: "x".repeat(141) }, "invalid-value"],
			[{ address: "a@b.test", more: 1 }, "unknown-field"]];
		for (const [body, type] of table) {
			const res = await post("/v1/channels/news/members", body);
			assert.equal(res.status, 400, JSON.stringify(body));
			assert.equal(res.type, type, JSON.stringify(body));
		}
	});
});

// --- pickup -----------------------------------------------------------------------------------------

describe("pickup", () => {
	test("all three parts must fit", async () => {
		const { id } = (await push({ to: "ann@home.test", subject: "x" })).json;
		const other = (await push({ to: "ann@home.test", subject: "y" })).json.id;
		const digest = digestOf(id);
		const bare = { bearer: "" };
		for (const at of [pickup(id, digest, OTHER), pickup(other, digest), pickup(id, digestOf(other)), pickup(id, digest).toUpperCase(),
			pickup(id, digest).slice(0, -1), `/m/${id}`, "/m/x/y/z", pickup("00000000-0000-7000-8000-000000000000", digest)]) {
			assert.equal((await get(at, bare)).status, 404, at);
			await pause(0);
		}
		await pause(2100); // no longer in memory
		assert.equal((await get(pickup(id, digest, OTHER), bare)).status, 404);
		assert.equal((await get(pickup(id, digestOf(other)), bare)).status, 404);
		const whole = await get(pickup(id, digest), bare);
		assert.equal(whole.status, 200);
		const etag = whole.headers.etag;
		assert.equal((await get(pickup(id, digest), { ...bare, headers: { "If-None-Match": etag } })).status, 304);
		const part = await get(pickup(id, digest), { ...bare, headers: { Range: "bytes=2-5" } });
		assert.equal(part.status, 206);
		assert.deepEqual(part.octets, whole.octets.subarray(2, 6));
		const head = await request("HEAD", pickup(id, digest), bare);
		assert.equal(head.status, 200);
		assert.equal(Number(head.headers["content-length"]), whole.octets.length);
		assert.equal(head.octets.length, 0);
	});

	test("a recalled one is gone within two seconds", async () => {
		const { id } = (await push({ to: "*", subject: "oops" })).json;
		const at = pickup(id, digestOf(id));
		assert.equal((await get(at, { bearer: "" })).status, 200);
		sql(`UPDATE tmtp.message SET recalled_at = now() WHERE message_id = '${id}'`, "tmtp_site");
		await pause(2100);
		const res = await get(at, { bearer: "" });
		assert.equal(res.status, 410);
		assert.equal(res.type, "gone");
		assert.ok((await get(`/v1/messages/${id}`)).json.recalled);
	});
});

// --- around it ----------------------------------------------------------------------------------------

describe("the role", () => {
	test("health and metrics", async () => {
		assert.equal((await get("/livez")).status, 200);
		for (const at of ["/livez", "/readyz"])
			assert.equal((await get(at, { at: metrics, bearer: "" })).status, 200);
		const text = (await get("/metrics", { at: metrics, bearer: "" })).octets.toString();
		assert.match(text, /tmtp_pushes_total\{result="accepted"\} [1-9]/);
		assert.match(text, /tmtp_pickups_total\{source="memory"\} [1-9]/);
		assert.match(text, /tmtp_pickups_total\{source="store"\} [1-9]/);
	});

	test("without its database it says 503, acknowledges nothing, and recovers by itself", async () => {
		const message = { to: "ann@home.test", subject: "x" };
		stopDatabase();
		for (const ask of [() => push(message), () => get("/v1/messages"), () => push(message, { bearer: es256(claims()) }),
			() => push(message, { bearer: opaque(SHOP) }), () => get("/m/" + pickup("00000000-0000-7000-8000-000000000000", Buffer.alloc(32)).slice(3), { bearer: "" })]) {
			const res = await ask();
			assert.equal(res.status, 503);
			assert.equal(res.type, "unavailable");
			assert.ok(Number(res.headers["retry-after"]) >= 1);
		}
		assert.equal((await get("/readyz")).status, 503);
		assert.equal((await get("/readyz", { at: metrics, bearer: "" })).status, 503);
		assert.equal((await get("/livez")).status, 200);
		startDatabase();
		await until("recovery", async () => (await push(message)).status === 202);
		assert.equal((await get("/readyz")).status, 200);
	});

	test("with one that hangs it says 503 within seconds, and recovers by itself", async () => {
		const message = { to: "ann@home.test", subject: "hangs" };
		assert.equal((await push(message)).status, 202);
		freezeDatabase("SIGSTOP");
		try {
			const first = await Promise.all([push(message), get("/v1/messages"), push(message, { headers: { "Idempotency-Key": "hangs" } })]);
			await until("unreadiness", async () => (await get("/readyz")).status === 503);
			await until("the reason", async () => /does not answer|took too long/.test((await get("/readyz", { at: metrics, bearer: "" })).octets.toString()));
			for (const res of [...first, await push(message)]) {
				assert.equal(res.status, 503);
				assert.ok(Number(res.headers["retry-after"]) >= 1);
			}
			assert.equal((await get("/livez")).status, 200);
		} finally {
			freezeDatabase("SIGCONT");
		}
		await until("recovery", async () => (await push(message)).status === 202);
		assert.equal((await get("/readyz")).status, 200);
		const again = await push(message, { headers: { "Idempotency-Key": "hangs" } });
		assert.equal(again.status, 202);
		assert.equal((await push(message, { headers: { "Idempotency-Key": "hangs" } })).json.id, again.json.id);
	});

	test("a day without partitions is made by who meets it", async () => {
		sql(`DO $$ DECLARE one record; BEGIN FOR one IN SELECT inhrelid::regclass AS name FROM pg_inherits
			WHERE inhparent IN (SELECT to_regclass('tmtp.' || name) FROM tmtp.partitioned) LOOP EXECUTE 'DROP TABLE ' || one.name; END LOOP; END $$`, "tmtp_owner");
		const res = await push({ to: "ann@home.test", subject: "a new day" });
		assert.equal(res.status, 202);
		assert.equal((await get(`/v1/messages/${res.json.id}`)).status, 200);
	});

	test("clients that leave before their answer hold up neither it nor its end", async () => {
		const body = JSON.stringify({ to: "ann@home.test", subject: "gone" });
		const text = `POST /v1/channels/orders/messages HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer ${token}\r\n` +
			`Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
		const count = () => Number(sql("SELECT count(*) FROM tmtp.message"));
		const before = count();
		agent.destroy(); // what it keeps open
		const leave = () => new Promise((resolve, reject) => {
			const socket = net.connect(port, "127.0.0.1").on("error", reject).on("close", resolve);
			socket.write(text, () => socket.resetAndDestroy());
		});
		for (let i = 0; i < 10; i++)
			await Promise.all(Array.from({ length: 100 }, leave));
		await until("all to be over", async () => /^tmtp_http_connections [1-3]$/m.test((await get("/metrics", { at: metrics, bearer: "" })).octets));
		assert.ok(count() > before); // nobody waits for them, but what was asked for happens
		const started = Date.now();
		assert.deepEqual(await stopRole(), { code: 0, signal: null });
		assert.ok(Date.now() - started < 3000);
		await startRole();
	});

	test("SIGHUP is survived; SIGTERM ends it after what is under way", async () => {
		role.kill("SIGHUP");
		await until("the reload", () => log.includes("event=reloaded"));
		const last = Array.from({ length: 50 }, () => push({ to: "ann@home.test", subject: "last" }).catch((error) => ({ status: error.code })));
		const { code, signal } = await stopRole();
		assert.deepEqual({ code, signal }, { code: 0, signal: null });
		for (const { status } of await Promise.all(last))
			assert.ok([202, 503, "ECONNRESET", "ECONNREFUSED", "EPIPE"].includes(status), String(status));
	});

	test("a site that pushes too often hears 429", async () => {
		await startRole("max_pushes_per_second = 5");
		const all = await Promise.all(Array.from({ length: 50 }, () => push({ to: "ann@home.test", subject: "x" })));
		const refused = all.filter((res) => res.status === 429);
		assert.ok(all.some((res) => res.status === 202));
		assert.ok(refused.length >= 30, String(refused.length));
		assert.equal(refused[0].type, "too-many-requests");
		assert.ok(Number(refused[0].headers["retry-after"]) >= 1);
		const other = { bearer: hs256(claims({ iss: "other@shop.test" }), "hs", otherSecret) };
		assert.notEqual((await push({ to: "*", subject: "x" }, other)).status, 429);
		assert.equal((await get("/v1/messages")).status, 200);
		assert.equal((await stopRole()).code, 0);
	});

	test("HTTPS by itself, with certificates renewed on SIGHUP; a bad one keeps the old", async () => {
		const file = (name) => path.join(dir, name);
		const renew = () => execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file("key.pem"),
			"-out", file("cert.pem"), "-days", "2", "-subj", "/CN=shop.test", "-addext", "subjectAltName=DNS:shop.test"], { stdio: "ignore" });
		const serial = () => new crypto.X509Certificate(fs.readFileSync(file("cert.pem"))).serialNumber;
		const ask = () => new Promise((resolve, reject) => {
			https.get({ host: "127.0.0.1", port, path: "/readyz", servername: "shop.test", agent: false, ca: fs.readFileSync(file("cert.pem")), rejectUnauthorized: false },
				(res) => resolve({ status: res.statusCode, serial: res.socket.getPeerCertificate().serialNumber }, res.resume())).on("error", reject);
		});
		renew();
		fs.chmodSync(file("key.pem"), 0o644);
		await startRole("tls = true", `certificate = "cert.pem" key = "key.pem"`, ask);
		const first = serial();
		assert.equal((await ask()).serial, first);
		renew();
		role.kill("SIGHUP");
		await until("the new certificate", async () => (await ask()).serial === serial());
		assert.notEqual(serial(), first);
		const second = serial();
		fs.writeFileSync(file("cert.pem"), "nothing");
		role.kill("SIGHUP");
		await until("the refusal", () => log.includes("event=reload-refused"));
		assert.equal((await ask()).serial, second);
	});
});
