// Two appliances in trouble: a website pushes while roles and databases are killed, the network fails, a disk fills and
// clocks jump. When all faults have ended and everything has settled, the ledger must balance: README.md.
import crypto from "node:crypto";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Pair } from "../e2e/lib/appliance.mjs";
import { Crowd } from "../e2e/lib/crowd.mjs";
import { gone, until } from "../e2e/lib/wait.mjs";
import { FaultProxy } from "./fault_proxy.mjs";
import { Ledger } from "./ledger.mjs";

const number = (name, otherwise) => Number(process.env[name] || otherwise);
const MESSAGES = number("MESSAGES", 100_000), SEED = number("SEED", crypto.randomInt(1e9)), MEMBERS = number("MEMBERS", 200);
const CLIENTS = number("CLIENTS", 8), SETTLE_S = number("SETTLE_S", 300), BREAK = process.env.BREAK ?? "";
const say = (...words) => console.log("#", ...words);

// A generator of its own, so that a plan can be played again (mulberry32).
let state = SEED >>> 0;
function random() {
	state = (state + 0x6d2b79f5) >>> 0;
	let t = state;
	t = Math.imul(t ^ (t >>> 15), t | 1);
	t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
	return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (n) => Math.floor(random() * n);
const one = (list) => list[below(list.length)];

// --- the two appliances -----------------------------------------------------------------------

const its = new Pair(), ledger = new Ledger(), played = {}, unplayed = {};
const FAKETIME = ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"]
	.find((file) => fs.existsSync(file));
const DISK_MB = 384;
let disk, clock;

// The home's state on a file system of its own, that can be filled. Needs root, and a system that lets it mount.
function mountDisk() {
	const dir = fs.mkdtempSync(path.join(os.tmpdir(), "td-"));
	try {
		execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MB}m,mode=0755`, "tmpfs", dir], { stdio: "pipe" });
		disk = dir;
	} catch (error) {
		fs.rmdirSync(dir);
		unplayed["disk full"] = `no file system of its own can be mounted: ${String(error.stderr ?? error).trim()}`;
	}
}

function setClock(seconds) {
	fs.writeFileSync(`${clock}.new`, `${seconds < 0 ? "-" : "+"}${Math.abs(seconds)}\n`);
	fs.renameSync(`${clock}.new`, clock);
}

async function prepare(pair) {
	mountDisk();
	if (disk !== undefined)
		pair.home.state = path.join(disk, "home");
	if (FAKETIME === undefined) {
		unplayed["clock jumps"] = "libfaketime isn't installed";
	} else {
		pair.home.program = path.join(process.env.BUILD, "tmtpd-plain-malloc");
		clock = path.join(pair.dir, "clock");
		setClock(0);
		pair.home.env = { LD_PRELOAD: FAKETIME, FAKETIME_TIMESTAMP_FILE: clock, FAKETIME_CACHE_DURATION: "1", FAKETIME_DONT_FAKE_MONOTONIC: "1" };
	}
	return { shop: {}, home: {} };
}

// --- faults: each ends what it began ---------------------------------------------------------------

const ready = (appliance, role, from) => appliance.line(new RegExp(`^event=role-ready role=${role} `), from);
const answers = (appliance) => until(`${appliance.name}'s database`, () => appliance.sql("SELECT 1").then(() => true, () => false), { every: 100 });
const side = () => one([its.shop, its.home]);

async function killRole(appliance, role, signal) {
	const from = appliance.now, pid = appliance.role(role);
	process.kill(pid, signal);
	await gone(pid);
	await ready(appliance, role, from);
}

// During some connections' trouble.
const trouble = (begin, seconds) => async () => {
	const proxy = one([its.toHome, its.pickup, its.toShop]);
	begin(proxy);
	await pause(seconds * 1000);
	proxy.restore();
};

const faults = {
	"kill site": () => killRole(its.shop, "site", "SIGKILL"),
	"kill relay": () => killRole(side(), "relay", "SIGKILL"),
	"kill home": () => killRole(its.home, "home", "SIGKILL"),
	"restart": () => killRole(side(), one(["site", "relay", "home"]), "SIGTERM"),
	"kill PostgreSQL": async () => {
		const appliance = side(), pid = appliance.postmaster;
		process.kill(pid, "SIGKILL");
		await gone(pid);
		await answers(appliance);
	},
	"freeze a role": async () => {
		const appliance = side(), pid = appliance.role(one(["site", "relay", "home"]));
		process.kill(pid, "SIGSTOP");
		await pause(1500);
		process.kill(pid, "SIGCONT");
	},
	"cut": async () => {
		for (let i = 0; i < 5; i++) {
			one(its.proxies).cut();
			await pause(100 + below(200));
		}
	},
	"refuse": trouble((proxy) => proxy.refuse(), 2),
	"half-open": trouble((proxy) => {
		proxy.silence();
		proxy.cut();
	}, 3),
	"reorder": trouble((proxy) => {
		proxy.shuffle();
		proxy.cut();
	}, 1),
	"delay": trouble((proxy) => proxy.stutter(50 + below(250)), 3),
	"cut at an octet": trouble((proxy) => {
		proxy.pass(below(20_000));
		setTimeout(() => proxy.cut(), 700);
	}, 1),
	"disk full": async () => {
		const from = its.home.now, file = path.join(disk, "filler");
		const { bavail, bsize } = fs.statfsSync(disk), fd = fs.openSync(file, "w");
		try {
			for (let left = bavail * bsize, part = Buffer.alloc(1 << 20); left > 0; left -= part.length)
				fs.writeSync(fd, part, 0, Math.min(left, part.length));
		} catch (error) {
			if (error.code !== "ENOSPC")
				throw error;
		}
		fs.closeSync(fd);
		await pause(2500);
		fs.rmSync(file);
		await answers(its.home);
		played["disk full seen by PostgreSQL"] = its.home.lines.slice(from).some((line) => /No space left/.test(line)) ? "yes" : played["disk full seen by PostgreSQL"] ?? "no";
	},
	"clock jumps": async () => {
		for (const seconds of [3600, -300, 0]) {
			setClock(seconds);
			await pause(1500);
		}
	},
};

const allPlayed = () => Object.keys(faults).every((name) => played[name] || name in unplayed);

async function play(running) {
	const names = Object.keys(faults).filter((name) => !(name in unplayed));
	let plan = [];
	while (running()) {
		if (plan.length === 0)
			plan = [...names].sort(() => random() - 0.5);
		const name = plan.pop();
		say(`${(performance.now() / 1000).toFixed(1)} s: ${name} (${ledger.accepted.size} accepted)`);
		await faults[name]();
		played[name] = (played[name] ?? 0) + 1;
		await pause(below(800));
	}
}

// --- the website --------------------------------------------------------------------------------------

// As a careful website does: the same key until there is an answer.
async function push(site, channel, to, addresses, more) {
	const key = crypto.randomUUID(), subject = `Message ${key}`, body = { to, subject, message: "x".repeat(1 + below(2000)), ...more };
	for (;;) {
		let answer;
		try {
			answer = await site.call("POST", `/v1/channels/${channel}/messages`, body, { "Idempotency-Key": key, Connection: "close" });
		} catch {
			ledger.unanswered++;
			await pause(50);
			continue;
		}
		if (answer.status === 202) {
			if (answer.headers["idempotency-replayed"])
				ledger.repeated++;
			ledger.add(key, answer.json.id, subject, addresses);
			return;
		}
		if (![429, 503].includes(answer.status))
			throw new Error(`a push was answered with ${answer.status}: ${answer.text}`);
		await pause(100);
	}
}

async function website(site, crowd, left) {
	const address = (n) => `${crowd.member(n)}@home.test`, all = Array.from({ length: MEMBERS }, (_, i) => address(i + 1));
	while (left.deliveries > 0 || !allPlayed()) {
		const dice = random();
		const several = () => [...new Set(Array.from({ length: 2 + below(20) }, () => one(all)))];
		const addresses = dice < 0.9 ? [one(all)] : dice < 0.99 ? several() : all;
		left.deliveries -= addresses.length;
		await push(site, "crowd", addresses.length === MEMBERS ? "*" : addresses.length === 1 ? addresses[0] : addresses, addresses,
			addresses.length === MEMBERS ? {} : { lane: one(["urgent", "normal", "bulk"]) });
	}
}

// --- the whole ------------------------------------------------------------------------------------------

const settled = async () => await its.shop.number("SELECT count(*) FROM tmtp.batch WHERE state IN (0, 3)") === 0 &&
	await its.home.number("SELECT count(*) FROM tmtp.notification WHERE state = 0") === 0;

// The public API agrees with the database about some members.
async function look(crowd) {
	const wrong = [];
	for (let i = 0; i < 5; i++) {
		const member = await crowd.logIn(1 + below(MEMBERS)), subjects = await member.subjects();
		const wanted = [...ledger.accepted].filter(([id, m]) => m.to.has(member.address) && !ledger.givenUp.has(`${member.address} ${id}`)).map(([, m]) => m.subject);
		if (new Set(subjects).size !== subjects.length)
			wrong.push(`${member.address} sees something twice`);
		const unknown = subjects.filter((s) => !wanted.includes(s));
		if (unknown.length > 0)
			wrong.push(`${member.address} sees ${unknown[0]}`);
		const unseen = wanted.filter((s) => !subjects.includes(s));
		if (unseen.length > 0)
			wrong.push(`${member.address} does not see ${unseen[0]}`);
	}
	return wrong;
}

async function run() {
	say("on the loopback interface: links between network namespaces aren't played");
	say(`SEED=${SEED} MESSAGES=${MESSAGES} MEMBERS=${MEMBERS}`);
	await its.start({ prepare, proxy: FaultProxy });
	const site = await its.shop.makeSite("shop", ["crowd"]);
	const crowd = await Crowd.make(site, "crowd", its.home, "c", MEMBERS);
	const left = { deliveries: MESSAGES }, begun = performance.now();
	let pushing = true;
	const pushed = Promise.all(Array.from({ length: CLIENTS }, () => website(site, crowd, left))).finally(() => { pushing = false; });
	await Promise.all([pushed, play(() => pushing)]);
	for (const proxy of its.proxies)
		proxy.restore();
	const faultsEnded = performance.now();
	await until(async () => `everything to settle; ${await its.shop.sql("SELECT state, count(*), max(reason) FROM tmtp.batch GROUP BY 1")}`, () => settled().catch(() => false), { ms: SETTLE_S * 1000, every: 200 });
	if (BREAK === "lose")
		await its.home.sql("DELETE FROM tmtp.inbox WHERE ctid = (SELECT ctid FROM tmtp.inbox LIMIT 1) AND tableoid = (SELECT tableoid FROM tmtp.inbox LIMIT 1)");
	if (BREAK === "hide")
		await its.home.sql("UPDATE tmtp.inbox SET dropped_at = now()");
	const result = await ledger.balance(site, its.shop, its.home);
	const wrong = [...result.missing, ...result.doubles, ...result.strangers, ...result.unverified, ...await look(crowd)];
	const seconds = (from, to) => Math.round((to - from) / 100) / 10;
	console.log(JSON.stringify({ ledger: { ...result, missing: result.missing.length, doubles: result.doubles.length, strangers: result.strangers.length,
		unverified: result.unverified.length, unanswered: ledger.unanswered, repeated: ledger.repeated }, faults: played, not_played: unplayed,
		seconds: { faults: seconds(begun, faultsEnded), settling: seconds(faultsEnded, performance.now()) }, seed: SEED }, null, 1));
	for (const line of wrong.slice(0, 20))
		say(line);
	const lacking = Object.keys(faults).filter((name) => !played[name] && !(name in unplayed));
	if (lacking.length > 0)
		wrong.push(`never played: ${lacking}`);
	console.log(`${wrong.length === 0 ? "ok" : "not ok"} - every accepted message is in every entitled inbox once, or given up with a reason${
		Object.entries(unplayed).map(([name, why]) => ` # NOT PLAYED ${name}: ${why}`).join("")}`);
	return wrong.length === 0;
}

let good = false;
try {
	good = await run();
} catch (error) {
	console.log(`not ok - ${error.stack}`);
	if (process.env.LOGS === undefined)
		say("LOGS=folder keeps both appliances' logs");
} finally {
	await its.abort().catch((error) => say(error.message));
	if (disk !== undefined) {
		execFileSync("umount", [disk]);
		fs.rmdirSync(disk);
	}
}
process.exit(good ? 0 : 1);
