// tmtpd as a whole: starting, restarting roles, reloading, draining, and leaving nothing behind.
// TMTPD names the program (default build/tmtpd). Started by root it shows the change of user too.
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePorts } from "./lib/wait.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const program = path.resolve(process.env.TMTPD ?? path.join(here, "../../build/tmtpd"));
const root = process.getuid() === 0;
const account = "nobody"; // exists everywhere
const patience = 60_000;
const roles = ["site", "relay", "home", "panel"];

// --- the machine ------------------------------------------------------------

async function until(what, ask) {
	const end = Date.now() + patience;
	for (;;) {
		const answer = await ask();
		if (answer)
			return answer;
		if (Date.now() > end)
			throw new Error(`waited in vain for ${typeof what === "function" ? what() : what}`);
		await pause(20);
	}
}

// Alive and not merely unreaped.
function alive(pid) {
	try {
		return !/^State:\s*[ZX]/m.test(fs.readFileSync(`/proc/${pid}/status`, "utf8"));
	} catch {
		return false;
	}
}

const gone = (pids) => until(`the end of ${pids}`, () => pids.every((pid) => !alive(pid)));

const userOf = (pid) => Number(/^Uid:\s*(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]);

function uid(name) {
	return Number(execFileSync("id", ["-u", name], { encoding: "utf8" }));
}

// --- one configuration and the tmtpds started with it ------------------------

class Place {
	static async make(name = "state") {
		const place = new Place();
		place.dir = fs.mkdtempSync(path.join(os.tmpdir(), "tmtpd-e2e-"));
		fs.chmodSync(place.dir, 0o755);
		place.conf = path.join(place.dir, "tmtp.conf");
		place.state = path.join(place.dir, name);
		place.ports = await freePorts(5);
		execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
			"-keyout", path.join(place.dir, "key.pem"), "-out", path.join(place.dir, "cert.pem"), "-days", "2",
			"-subj", "/CN=shop.test", "-addext", "subjectAltName=DNS:shop.test"], { stdio: "ignore" });
		fs.chmodSync(path.join(place.dir, "key.pem"), 0o644);
		place.write();
		return place;
	}

	text(more = "") {
		const [a, b, c, d, e] = this.ports;
		return `state_directory = "${this.state}"\nuser = "${account}"\ndrain_timeout_s = 2\n` +
			`embedded_memory_mb = 64\n${more}\n` +
			`domain "shop.test" { certificate = "cert.pem" key = "key.pem" }\n` +
			`site { listen = {"127.0.0.1:${a}"} }\n` +
			`home { listen = {"127.0.0.1:${b}"} dmtp_listen = {"127.0.0.1:${c}"} dmtps_listen = {"127.0.0.1:${d}"} }\n` +
			`panel { listen = {"127.0.0.1:${e}"} }\n`;
	}

	write(more) {
		fs.writeFileSync(this.conf, this.text(more));
	}

	start(prefix = [], env = {}) {
		const [command, ...args] = [...prefix, program, "-c", this.conf];
		return new Tmtpd(spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], cwd: "/",
			env: { ...process.env, ...env } }));
	}

	async ready(...args) {
		const tmtpd = this.start(...args);
		await tmtpd.line(/^event=ready configuration=/);
		return tmtpd;
	}

	get sockets() {
		const noted = path.join(this.state, "socket-directory");
		return fs.existsSync(noted) ? fs.readFileSync(noted, "utf8").trim() : path.join(this.state, "run");
	}

	sql(text, user = "tmtp_owner") {
		return spawnSync("psql", ["-qXAt", "-v", "ON_ERROR_STOP=1", "-c", text,
			`host=${this.sockets} dbname=tmtp user=${user}`], { encoding: "utf8" });
	}

	remove() {
		const noted = path.join(this.state, "socket-directory");
		if (fs.existsSync(noted))
			fs.rmSync(fs.readFileSync(noted, "utf8").trim(), { recursive: true, force: true });
		fs.rmSync(this.dir, { recursive: true, force: true });
	}
}

class Tmtpd {
	constructor(child) {
		this.child = child;
		this.pid = child.pid;
		this.lines = [];
		this.ended = new Promise((resolve) => child.on("exit", (code, signal) => resolve({ code, signal })));
		let rest = "";
		child.stderr.setEncoding("utf8");
		child.stderr.on("data", (part) => {
			const all = (rest + part).split("\n");
			rest = all.pop();
			this.lines.push(...all);
		});
	}

	// The first line from `from` on that matches; waits for it.
	line(pattern, from = 0) {
		return until(() => `${pattern} in\n${this.lines.join("\n")}`, () => {
			for (let i = from; i < this.lines.length; i++)
				if (pattern.test(this.lines[i]))
					return this.lines[i];
			if (this.child.exitCode !== null)
				throw new Error(`tmtpd ended without ${pattern}:\n${this.lines.join("\n")}`);
			return null;
		});
	}

	// The pid of the role that was started last.
	role(name) {
		const found = this.lines.filter((l) => l.startsWith(`event=role-start role=${name} `)).at(-1);
		return Number(/pid=(\d+)/.exec(found)[1]);
	}

	get database() {
		return Number(/pid=(\d+)/.exec(this.lines.find((l) => l.startsWith("event=database-ready ")))[1]);
	}

	get processes() {
		return [...roles.map((name) => this.role(name)), this.database];
	}

	async stop() {
		this.child.kill("SIGTERM");
		return this.ended;
	}

	async refused(pattern) {
		const { code } = await this.ended;
		assert.equal(code, 1, this.lines.join("\n"));
		assert.match(this.lines.join("\n"), pattern);
	}
}

// --- arguments ---------------------------------------------------------------

describe("arguments", () => {
	test("the sample configuration is accepted, each of its sections too", async () => {
		const place = await Place.make();
		const sample = fs.readFileSync(path.join(here, "../../deploy/tmtp.conf.sample"), "utf8")
			.replace(/"[^"]*\/fullchain\.pem"/, `"${place.dir}/cert.pem"`)
			.replace(/"[^"]*\/privkey\.pem"/, `"${place.dir}/key.pem"`)
			.replace("example.org", "shop.test");
		const open = sample.replace(/^#(\t|route|\})/gm, "$1").replace(/^\t#(certificate|key) = .*\n/gm, "")
			.replace(/^(\s*)#(\w+ = )/gm, "$1$2")
			.replace('user = "tmtp"', `user = "${account}"`)
			.replace(/allow_private = false/, "allow_private = true");
		for (const text of [sample.replace(/^#user = .*/m, `user = "${account}"`), open]) {
			fs.writeFileSync(place.conf, text);
			const { stdout, stderr } = spawnSync(program, ["-n", "-c", place.conf], { encoding: "utf8" });
			assert.equal(stdout, "ok\n", stderr);
		}
		place.remove();
	});

	let place;
	before(async () => { place = await Place.make(); });
	after(() => place.remove());
	const run = (...args) => spawnSync(program, args, { encoding: "utf8" });

	test("-n says ok to a good configuration and starts nothing", () => {
		const { status, stdout } = run("-n", "-c", place.conf);
		assert.equal(stdout, "ok\n");
		assert.equal(status, 0);
		assert.equal(fs.existsSync(place.state), false);
	});

	test("-n says file, line and what to do of a bad one", () => {
		const bad = path.join(place.dir, "bad.conf");
		fs.writeFileSync(bad, place.text("log_level = \"loud\""));
		const { status, stdout, stderr } = run("--check", "--config", bad);
		assert.equal(status, 1);
		assert.equal(stdout, "");
		assert.equal(stderr, `${bad}:5: log_level: "loud" is not a level: write debug, info, warn or error\n`);
	});

	test("a missing file is named", () => {
		const { status, stderr } = run("-n", "-c", "/nonexistent/tmtp.conf");
		assert.equal(status, 1);
		assert.match(stderr, /^\/nonexistent\/tmtp\.conf: cannot be opened: No such file/);
	});

	test("help and version end with 0, what isn't understood with 2", () => {
		assert.match(run("--help").stdout, /^usage: tmtpd/);
		assert.match(run("-V").stdout, /^tmtpd \d/);
		assert.match(run("--help-config").stdout, /state_directory/);
		assert.equal(run("--help").status, 0);
		assert.equal(run("--nonsense").status, 2);
		assert.equal(run("surplus").status, 2);
		assert.match(run("-n", "-c", "/etc/tmtp/tmtp.conf", "extra").stderr, /"extra" is one argument too many/);
		assert.equal(run("--role", "post").status, 2);
	});

	test("a broken configuration doesn't start", async () => {
		const bad = path.join(place.dir, "bad.conf");
		fs.writeFileSync(bad, "nonsense = 1\n");
		const tmtpd = new Tmtpd(spawn(program, ["-c", bad], { stdio: ["ignore", "ignore", "pipe"] }));
		await tmtpd.refused(/event=configuration-refused .*bad\.conf:1: no such option 'nonsense'/);
	});
});

// --- a life ------------------------------------------------------------------

describe("a life", () => {
	let place, tmtpd;
	before(async () => {
		place = await Place.make();
		tmtpd = await place.ready();
	});
	after(async () => {
		await tmtpd.stop();
		place.remove();
	});

	test("the first start makes the database and its tables", () => {
		assert.ok(tmtpd.lines.some((l) => l.startsWith("event=database-make ")));
		assert.ok(tmtpd.lines.some((l) => l.startsWith("event=migration ")));
		const { stdout, stderr } = place.sql("SELECT count(*) > 0 FROM tmtp.schema_migration", "tmtp_ctl");
		assert.equal(stdout, "t\n", stderr);
	});

	test("the database listens on its socket only and keeps what it promises", () => {
		assert.equal(place.sql("SHOW listen_addresses").stdout, "\n");
		for (const [name, value] of [["fsync", "on"], ["synchronous_commit", "on"], ["full_page_writes", "on"],
			["data_checksums", "on"], ["server_encoding", "UTF8"], ["jit", "off"], ["wal_compression", "lz4"]])
			assert.equal(place.sql(`SHOW ${name}`).stdout, `${value}\n`, name);
	});

	test("the database's roles may log in and not much else", () => {
		assert.equal(place.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'tmtp\\_%' AND " +
			"(rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)").stdout, "0\n");
		assert.notEqual(place.sql("CREATE TABLE public.t ()", "tmtp_site").status, 0);
		assert.notEqual(place.sql("CREATE TEMP TABLE t ()", "tmtp_site").status, 0);
	});

	test("root's roles run as the configured user, the database as its own", { skip: !root }, () => {
		assert.equal(userOf(tmtpd.pid), 0);
		for (const name of roles) {
			const status = fs.readFileSync(`/proc/${tmtpd.role(name)}/status`, "utf8");
			assert.match(status, new RegExp(`^Uid:(\\s+${uid(account)}){4}$`, "m"));
			assert.match(status, /^NoNewPrivs:\s+1$/m);
			assert.match(status, /^CapEff:\s+0{13}[04]00$/m); // at most the right to bind low ports
		}
		assert.equal(userOf(tmtpd.database), uid("postgres"));
		assert.notEqual(place.sql("SELECT 1", "postgres").status, 0);
		const stat = fs.statSync(path.join(place.state, "run"));
		assert.equal(stat.mode & 0o007, 0);
	});

	test("a role that is killed comes back, later each time", async () => {
		for (const wait of [100, 200, 400]) {
			const old = tmtpd.role("relay"), from = tmtpd.lines.length;
			process.kill(old, "SIGKILL");
			const end = await tmtpd.line(/^event=role-end .*role=relay /, from);
			assert.match(end, new RegExp(`how=signal code=9 restart_ms=${wait}$`));
			// Behind its end: the one before may have said only after `from` that it is ready.
			await tmtpd.line(/^event=role-ready role=relay /, tmtpd.lines.indexOf(end, from));
			assert.notEqual(tmtpd.role("relay"), old);
		}
	});

	test("a broken configuration changes nothing, not even for a role that restarts", async () => {
		const before_ = roles.map((name) => tmtpd.role(name)), from = tmtpd.lines.length;
		place.write("nonsense = 1");
		tmtpd.child.kill("SIGHUP");
		await tmtpd.line(/^event=reload-refused .*tmtp\.conf:5: no such option 'nonsense'/, from);
		assert.deepEqual(roles.map((name) => tmtpd.role(name)), before_);
		process.kill(tmtpd.role("site"), "SIGKILL");
		await tmtpd.line(/^event=role-ready role=site /, from);
		place.write();
	});

	test("a reload reaches the roles and names what waits for a restart", async () => {
		const from = tmtpd.lines.length, site = tmtpd.role("site");
		place.write("store_connections = 3\nlog_level = \"debug\"");
		tmtpd.child.kill("SIGHUP");
		await tmtpd.line(/^event=reload roles=4$/, from);
		assert.match(await tmtpd.line(/^event=reload-needs-restart /, from), /options=store_connections$/);
		assert.equal(tmtpd.role("site"), site);
		assert.ok(alive(site));
		place.write();
	});

	test("a database that is killed comes back with what was committed", async () => {
		const from = tmtpd.lines.length;
		assert.equal(place.sql("CREATE TABLE kept AS SELECT 1 AS n").status, 0);
		process.kill(tmtpd.database, "SIGKILL");
		await tmtpd.line(/^event=database-end .*how=signal code=9/, from);
		await tmtpd.line(/^event=database-restart$/, from);
		await until("the database", () => place.sql("SELECT n FROM kept").stdout === "1\n");
	});

	test("a second tmtpd on the same state directory is refused", async () => {
		await place.start().refused(new RegExp(`another tmtpd \\(process ${tmtpd.pid}\\) runs the database`));
	});
});

// --- endings and new beginnings ------------------------------------------------

describe("endings", () => {
	let place;
	before(async () => { place = await Place.make(); });
	after(() => place.remove());

	test("SIGTERM ends everything, the database last and in order", async () => {
		const tmtpd = await place.ready(), processes = tmtpd.processes;
		assert.equal(place.sql("CREATE TABLE kept AS SELECT 2 AS n").status, 0);
		assert.deepEqual(await tmtpd.stop(), { code: 0, signal: null });
		assert.deepEqual(processes.filter(alive), []);
		const at = (pattern) => tmtpd.lines.findLastIndex((l) => pattern.test(l));
		assert.ok(at(/^event=role-end /) < at(/database system is shut down/));
		for (const name of roles)
			assert.match(tmtpd.lines.join("\n"), new RegExp(`role=${name} pid=\\d+ how=exit code=0`));
	});

	test("the next start finds what was there", async () => {
		const tmtpd = await place.ready();
		assert.equal(tmtpd.lines.some((l) => /^event=(database-make|migration) /.test(l)), false);
		assert.equal(place.sql("SELECT n FROM kept").stdout, "2\n");
		await tmtpd.stop();
	});

	test("SIGINT to the whole terminal drains as well", async () => {
		const tmtpd = await place.ready(["setsid"]);
		process.kill(-tmtpd.pid, "SIGINT");
		assert.equal((await tmtpd.ended).code, 0);
		assert.match(tmtpd.lines.join("\n"), /event=drain roles=4/);
	});

	test("a role that doesn't finish is killed when the time is over", async () => {
		const tmtpd = await place.ready(), processes = tmtpd.processes;
		process.kill(tmtpd.role("home"), "SIGSTOP");
		const began = Date.now();
		assert.equal((await tmtpd.stop()).code, 0);
		assert.ok(Date.now() - began >= 2000);
		assert.match(tmtpd.lines.join("\n"), /event=drain-timeout level=warn roles=1/);
		assert.deepEqual(processes.filter(alive), []);
	});

	test("a second SIGTERM doesn't wait", async () => {
		place.write("log_level = \"info\"");
		fs.writeFileSync(place.conf, place.text().replace("drain_timeout_s = 2", "drain_timeout_s = 600"));
		const tmtpd = await place.ready();
		process.kill(tmtpd.role("home"), "SIGSTOP");
		tmtpd.child.kill("SIGTERM");
		await tmtpd.line(/^event=drain /);
		// Asked again and again; what comes within a second of the first belongs to it.
		const began = Date.now(), again = setInterval(() => tmtpd.child.kill("SIGTERM"), 50);
		assert.equal((await tmtpd.ended.finally(() => clearInterval(again))).code, 0);
		assert.ok(Date.now() - began >= 900, "two at once are one");
		place.write();
	});

	test("a killed supervisor leaves nothing", async () => {
		const tmtpd = await place.ready(), processes = tmtpd.processes;
		tmtpd.child.kill("SIGKILL");
		await tmtpd.ended;
		await gone(processes);
	});

	test("a start right behind a killed supervisor works", async () => {
		const first = await place.ready();
		first.child.kill("SIGKILL");
		await first.ended;
		const second = await place.ready();
		assert.equal(place.sql("SELECT n FROM kept").stdout, "2\n");
		await second.stop();
	});

	// One that nobody's death ends: started by hand, as somebody might.
	async function stray() {
		const data = path.join(place.state, "postgres/data"), log = [];
		const bin = fs.readdirSync("/usr/lib/postgresql").map((v) => `/usr/lib/postgresql/${v}/bin/postgres`)
			.find((file) => file.includes(`/${fs.readFileSync(path.join(data, "PG_VERSION"), "utf8").trim()}/`));
		const [command, ...args] = [...(root ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : []),
			bin, "-D", data, "-c", "listen_addresses=", "-k", path.join(place.state, "run")];
		const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
		child.stderr.on("data", (part) => log.push(part));
		await until("the stray", () => log.join("").includes("ready to accept connections"));
		return child;
	}

	test("a postmaster that was left behind is stopped first", async () => {
		const old = await stray();
		const tmtpd = await place.ready();
		assert.match(tmtpd.lines[0], new RegExp(`^event=database-left-behind .*pid=${old.pid}$`));
		assert.equal(alive(old.pid), false);
		assert.ok(tmtpd.lines.some((l) => l.includes("database system was shut down")));
		await tmtpd.stop();
	});

	test("backends whose postmaster was killed are ended, then the database recovers", async () => {
		const old = await stray();
		const host = path.join(place.state, "run");
		const client = spawn("psql", ["-qXAt", "-c", "SELECT pg_backend_pid()", "-c", "DO $$ BEGIN LOOP END LOOP; END $$",
			`host=${host} dbname=tmtp user=tmtp_owner`], { stdio: ["ignore", "pipe", "ignore"] });
		const backend = Number(await new Promise((resolve) => client.stdout.once("data", resolve)));
		const gone_ = new Promise((resolve) => old.once("exit", resolve));
		old.kill("SIGKILL");
		await gone_;
		assert.ok(alive(backend));
		const tmtpd = await place.ready();
		assert.equal(alive(backend), false);
		assert.equal(place.sql("SELECT n FROM kept").stdout, "2\n");
		await tmtpd.stop();
		client.kill();
	});

	test("a lock file whose number is somebody else's by now doesn't stand in the way", async () => {
		const first = await place.ready(), old = first.database;
		const file = path.join(place.state, "postgres/data/postmaster.pid");
		const text = fs.readFileSync(file, "utf8"), stat = fs.statSync(file);
		first.child.kill("SIGKILL");
		await first.ended;
		await gone([old]);
		// a process of the same account, as in a container where numbers are small
		const other = spawn(root ? "setpriv" : "sleep", [...(root ? ["--reuid=postgres", "--regid=postgres",
			"--clear-groups", "sleep"] : []), "600"]);
		await until("it", () => userOf(other.pid) === stat.uid);
		// PostgreSQL has one beside its data, and one beside its socket
		for (const lock of [file, path.join(place.sockets, ".s.PGSQL.5432.lock")]) {
			fs.writeFileSync(lock, text.replace(String(old), String(other.pid)), { mode: 0o600 });
			fs.chownSync(lock, stat.uid, stat.gid);
		}
		const second = await place.ready();
		assert.ok(alive(other.pid));
		assert.equal(place.sql("SELECT n FROM kept").stdout, "2\n");
		await second.stop();
		other.kill();
	});

	test("a SIGTERM while starting ends cleanly", async () => {
		const tmtpd = place.start();
		await tmtpd.line(/event=postgres /);
		assert.deepEqual(await tmtpd.stop(), { code: 0, signal: null });
	});
});

// --- refusals ------------------------------------------------------------------

describe("refusals", () => {
	let place;
	before(async () => {
		place = await Place.make();
		await (await place.ready()).stop();
	});
	after(() => place.remove());

	test("a database of another PostgreSQL version", async () => {
		const file = path.join(place.state, "postgres/data/PG_VERSION"), was = fs.readFileSync(file);
		fs.writeFileSync(file, "14\n");
		await place.start().refused(/postgresql-14/);
		fs.writeFileSync(file, was);
	});

	test("a data directory without a version is not overwritten", async () => {
		const file = path.join(place.state, "postgres/data/PG_VERSION"), was = fs.readFileSync(file);
		fs.unlinkSync(file);
		await place.start().refused(/no PG_VERSION/);
		fs.writeFileSync(file, was);
		assert.ok(fs.existsSync(path.join(place.state, "postgres/data/global/pg_control")));
	});

	test("a schema that this program doesn't know", async () => {
		const tmtpd = await place.ready();
		assert.equal(place.sql("INSERT INTO tmtp.schema_migration (number, name, fingerprint, applied_at) " +
			"VALUES (999, '999_future', repeat('0', 64), now())").status, 0);
		await tmtpd.stop();
		const next = place.start();
		await next.refused(/event=schema-refused .*999_future/);
		assert.equal(next.lines.some((l) => l.startsWith("event=role-start ")), false);
	});

	test("a schema that is behind keeps the roles waiting, and the database up, for tmtpctl migrate", async () => {
		const other = await Place.make();
		const first = await other.ready();
		const row = other.sql("DELETE FROM tmtp.schema_migration WHERE number = " +
			"(SELECT max(number) FROM tmtp.schema_migration) RETURNING number || ',' || quote_literal(name) || ',' || " +
			"quote_literal(fingerprint) || ',now()'").stdout.trim();
		await first.stop();
		const next = other.start();
		assert.match(await next.line(/^event=database-awaited /), /run `tmtpctl migrate`/);
		assert.equal(next.lines.some((l) => l.startsWith("event=role-start ")), false);
		assert.equal(other.sql(`INSERT INTO tmtp.schema_migration (number, name, fingerprint, applied_at) VALUES (${row})`)
			.status, 0);
		await next.line(/^event=ready configuration=/);
		await next.stop();
		other.remove();
	});

	test("a state directory that the database's account cannot reach", { skip: !root }, async () => {
		const other = await Place.make("closed/state");
		fs.mkdirSync(path.join(other.dir, "closed"), { mode: 0o700 });
		await other.start().refused(/cannot reach .*closed\/state/);
		other.remove();
	});

	test("a state directory that everybody can write", async () => {
		const other = await Place.make();
		fs.mkdirSync(other.state);
		fs.chmodSync(other.state, 0o777);
		await other.start().refused(/can be written by everybody/);
		other.remove();
	});

	test("PostgreSQL that doesn't say its version, and one that says something else before it", async () => {
		const other = await Place.make(), bin = path.join(other.dir, "bin"), real = execFileSync("sh", ["-c", "ls -d /usr/lib/postgresql/*/bin | tail -n 1"], { encoding: "utf8" }).trim();
		const postgres = (script) => fs.writeFileSync(path.join(bin, "postgres"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
		fs.mkdirSync(bin);
		fs.symlinkSync(path.join(real, "initdb"), path.join(bin, "initdb"));
		other.write(`postgres_directory = "${bin}"`);
		postgres("echo out of order >&2; exit 3");
		await other.start().refused(/bin\/postgres does not say its version \(it ended with 3\): out of order/);
		postgres("echo 'postgres (PostgreSQL) 14.2'");
		await other.start().refused(/bin\/postgres is PostgreSQL 14, and 15 or newer is needed/);
		postgres(`echo 'a library is preloaded' >&2; exec ${real}/postgres "$@"`);
		await (await other.ready()).stop();
		other.remove();
	});

	test("PostgreSQL that isn't there", async () => {
		place.write("postgres_directory = \"/nonexistent\"");
		const checked = spawnSync(program, ["-c", place.conf, "--check"], { encoding: "utf8" });
		assert.equal(checked.status, 1);
		assert.match(checked.stderr, /no initdb and postgres in \/nonexistent/);
		await place.start().refused(/no initdb and postgres in \/nonexistent/);
		place.write();
	});
});

describe("other circumstances", () => {
	test("a state directory too long for a socket", async () => {
		const place = await Place.make("s".repeat(120));
		const tmtpd = await place.ready();
		const noted = fs.readFileSync(path.join(place.state, "socket-directory"), "utf8").trim();
		assert.ok(noted.length < 40);
		assert.equal(place.sql("SELECT 1").stdout, "1\n");
		await tmtpd.stop();
		const again = await place.ready();
		assert.equal(fs.readFileSync(path.join(place.state, "socket-directory"), "utf8").trim(), noted);
		await again.stop();
		place.remove();
	});

	test("started by somebody who isn't root", { skip: !root }, async () => {
		const place = await Place.make();
		fs.mkdirSync(place.state);
		fs.chownSync(place.state, uid(account), uid(account));
		const tmtpd = await place.ready(["setpriv", `--reuid=${account}`, "--clear-groups"]);
		for (const pid of [tmtpd.pid, ...tmtpd.processes])
			assert.equal(userOf(pid), uid(account));
		assert.equal((await tmtpd.stop()).code, 0);
		place.remove();
	});

	test("an external database that is away is waited for", async () => {
		const place = await Place.make();
		place.write(`database = "host=${place.dir} dbname=tmtp connect_timeout=2"`);
		const tmtpd = place.start();
		await tmtpd.line(/^event=database-awaited /);
		assert.equal(fs.existsSync(place.state), false);
		assert.equal((await tmtpd.stop()).code, 0);
		place.remove();
	});

	test("systemd hears of readiness, reload, watchdog and the end", async () => {
		const place = await Place.make(), socket = path.join(place.dir, "notify");
		const heard = spawn("python3", ["-u", "-c", "import socket, sys\n" +
			"s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print('bound')\n" +
			"while True: print(s.recv(4096).decode().replace('\\n', '\\n'))", socket]);
		let text = "";
		heard.stdout.setEncoding("utf8");
		heard.stdout.on("data", (part) => { text += part; });
		await until("the socket", () => text.includes("bound"));
		const tmtpd = await place.ready([], { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "400000" });
		await until("READY", () => /^READY=1$/m.test(text));
		await until("STATUS", () => /^STATUS=site ready, relay ready, home ready, panel ready$/m.test(text));
		await until("WATCHDOG", () => /^WATCHDOG=1$/m.test(text));
		tmtpd.child.kill("SIGHUP");
		await until("RELOADING", () => /^RELOADING=1[^]*^READY=1$/m.test(text));
		await tmtpd.stop();
		await until("STOPPING", () => /^STOPPING=1$/m.test(text));
		heard.kill();
		place.remove();
	});
});
