// Two appliances in trouble: a website pushes while roles and databases are killed, the network fails, disks fill and clocks
// jump. When all faults have ended and everything has settled, the ledger must balance: README.md.
import { execFileSync } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Pair } from "../e2e/lib/appliance.mjs";
import { Crowd } from "../e2e/lib/crowd.mjs";
import { until } from "../e2e/lib/wait.mjs";
import { Dice } from "./dice.mjs";
import { FaultProxy } from "./fault_proxy.mjs";
import { faultsOf } from "./faults.mjs";
import { enterHub, Hosts } from "./hosts.mjs";
import { Ledger } from "./ledger.mjs";
import { Settling } from "./settling.mjs";
import { Website } from "./website.mjs";

const number = (name, otherwise) => Number(process.env[name] || otherwise);
const MESSAGES = number("MESSAGES", 100_000), SEED = number("SEED", crypto.randomInt(1e9)), MEMBERS = number("MEMBERS", 200);
const CLIENTS = number("CLIENTS", 8), CALM_S = number("CALM_S", 0), SETTLE_S = number("SETTLE_S", 300), SECONDS = number("SECONDS", 0), BREAK = process.env.BREAK ?? "", names = (option) => (process.env[option] ?? "").split(",").filter(Boolean);
const ONLY = names("ONLY"), EXCEPT = names("EXCEPT"), HURRY = process.env.HURRY === "1";
const SIDES = ["shop", "home"];
const say = (...words) => console.log("#", ...words);

// --- the two appliances, and what faults need of the machine ------------------------------------------------

const played = {}, unplayed = {}, seen = {}, disks = {}, clocks = {};
const its = new Pair(), ledger = new Ledger();
const FAKETIME = ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"]
	.find((file) => fs.existsSync(file));
const DISK_MB = 448 + Math.ceil(MESSAGES / 60); // what is written has room, until a fault takes it

// An appliance's state on a file system of its own, that can be filled. Needs root, and a system that lets it mount.
function mountDisk(name) {
	const dir = fs.mkdtempSync(path.join(os.tmpdir(), "td-"));
	try {
		execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MB}m,mode=0755`, "tmpfs", dir], { stdio: "pipe" });
		disks[name] = dir;
		its[name].state = path.join(dir, name);
	} catch (error) {
		fs.rmdirSync(dir);
		unplayed[`${name}'s disk full`] = `no file system of its own can be mounted: ${String(error.stderr ?? error).trim()}`;
	}
}

function unmountDisks() {
	for (const dir of Object.values(disks)) {
		execFileSync("umount", [dir]);
		fs.rmdirSync(dir);
	}
}

// libfaketime's, of processes that were killed: one that gets the same id later would not start.
function sweepSharedMemory() {
	for (const name of fs.readdirSync("/dev/shm")) {
		const pid = /^(?:sem\.)?faketime_(?:sem|shm)_(\d+)$/.exec(name)?.[1];
		if (pid !== undefined && !fs.existsSync(`/proc/${pid}`))
			fs.rmSync(`/dev/shm/${name}`, { force: true });
	}
}

// A clock of its own, that jumps. libfaketime and jemalloc wait for each other while a program starts; the C library before both
// takes the allocator's place.
function giveClock(name) {
	if (FAKETIME === undefined) {
		unplayed[`${name}'s clock jumps`] = "libfaketime isn't installed";
		return;
	}
	const file = path.join(its.dir, `${name}.clock`);
	clocks[name] = (seconds) => {
		fs.writeFileSync(`${file}.new`, `${seconds < 0 ? "-" : "+"}${Math.abs(seconds)}\n`);
		fs.renameSync(`${file}.new`, file);
	};
	clocks[name](0);
	sweepSharedMemory();
	setInterval(sweepSharedMemory, 1000).unref();
	its[name].env = { LD_PRELOAD: `${FAKETIME}:libc.so.6`, FAKETIME_TIMESTAMP_FILE: file, FAKETIME_CACHE_DURATION: "1", FAKETIME_DONT_FAKE_MONOTONIC: "1", FAKETIME_WAIT_MS: "5" };
}

// Where there are hosts, each finds the other by its name.
async function prepare(hosts) {
	for (const name of SIDES) {
		mountDisk(name);
		giveClock(name);
	}
	const home = "idle_s = 10"; // so long a silent session is believed in
	let relay = "connect_timeout_s = 5";
	if (hosts === undefined)
		return { shop: { relay, home }, home: { relay, home } };
	await hosts.name(its.dir, { shop: its.toShop.port, home: its.toHome.port });
	its.also(() => hosts.dns.stop());
	its.card = await FaultProxy.listen(443, its.shop.ports.site, hosts.shop.way); // the site card has no port in its URL
	its.also(() => its.card.close());
	relay += ` nameservers = {"${hosts.nameserver}"}`;
	return { shop: { relay, home, routes: { "home.test": {} } }, home: { relay, home, routes: { "shop.test": {} } } };
}

async function machinesFor(why) {
	if (why === undefined) {
		const hosts = new Hosts();
		await hosts.start();
		for (const [name, discipline] of Object.entries({ "narrow link": ["tbf", "rate", "1mbit", "burst", "3000", "latency", "30ms"], "lossy link": ["netem", "delay", "1ms"] })) {
			const refused = hosts.shop.shapeable(...discipline);
			if (refused !== undefined)
				unplayed[name] = `${discipline[0]}: ${refused}`;
		}
		return hosts;
	}
	unplayed["faults of links and addresses"] = `on the loopback interface, no network namespaces: ${why}`;
	return undefined;
}

// --- the plan ------------------------------------------------------------------------------------------------

const enough = () => SECONDS === 0 && ledger.accepted.size >= MESSAGES;
const allPlayed = (faults) => Object.values(faults).every((list) => Object.keys(list).every((name) => played[name] || name in unplayed));

// Each list over and over, in another order each time, every fault once before any is played again.
async function play(list, dice, running) {
	const names = Object.keys(list).filter((name) => !(name in unplayed));
	let plan = [];
	while (running() && names.length > 0) {
		if (plan.length === 0) {
			if (enough() && names.every((name) => played[name])) { // only the other lists aren't through
				await pause(100);
				continue;
			}
			plan = dice.shuffled(names);
		}
		const name = plan.pop();
		say(`${(performance.now() / 1000).toFixed(1)} s: ${name} (${ledger.accepted.size} accepted)`);
		await list[name]().catch((error) => { throw new Error(`${name}: ${error.message}`, { cause: error }); });
		played[name] = (played[name] ?? 0) + 1;
		for (const end = performance.now() + dice.below(400 + 2000 * CALM_S); running() && performance.now() < end;)
			await pause(100);
	}
}

// --- the whole ------------------------------------------------------------------------------------------------

// The public API agrees with the database about some members.
async function look(crowd, dice) {
	const wrong = [];
	for (let i = 0; i < 5; i++) {
		const member = await crowd.logIn(1 + dice.below(MEMBERS)), subjects = await member.subjects();
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

// What both databases say of the first messages that went wrong.
async function explain(wrong) {
	const ids = [...new Set(wrong.map((line) => /[0-9a-f]{8}-[0-9a-f-]{27}/.exec(line)?.[0]).filter(Boolean))].slice(0, 5), told = [];
	for (const id of ids) {
		const digest = await its.shop.sql(`SELECT digest FROM tmtp.message WHERE message_id = '${id}'`);
		told.push(`${id}: ${await its.shop.sql(`SELECT row_to_json(m) FROM (SELECT accepted_at, audience, lane, expires_at FROM tmtp.message WHERE message_id = '${id}') m
			UNION ALL SELECT row_to_json(b) FROM tmtp.batch b WHERE message_id = '${id}'`)}`);
		told.push(`${id} at home: ${await its.home.sql(`SELECT row_to_json(n) FROM (SELECT notification_id, state, reason, attempts, verified_at FROM tmtp.notification
			WHERE digest = '${digest}') n`)}`);
	}
	return told;
}

// A site with three channels that all, half and a quarter of the same members hold.
async function makeWebsite() {
	const shares = { orders: 1, news: 2, offers: 4 };
	const { site, privateKey } = await its.shop.makeSiteAndKey("shop", Object.keys(shares));
	const crowd = await Crowd.make(site, "orders", its.home, "c", MEMBERS), channels = {};
	for (const [channel, share] of Object.entries(shares)) {
		const { count } = share === 1 ? crowd : await crowd.also(channel, Math.ceil(MEMBERS / share));
		channels[channel] = Array.from({ length: count }, (_, i) => `${crowd.member(i + 1)}@home.test`);
	}
	await its.shop.sql("UPDATE tmtp.subscription SET joined_at = joined_at - interval '1 day'"); // before any time that a clock is set back to
	return { crowd, website: new Website(site, privateKey, channels, ledger) };
}

async function breakOnPurpose() {
	if (BREAK === "lose")
		await its.home.sql("DELETE FROM tmtp.inbox WHERE ctid = (SELECT ctid FROM tmtp.inbox LIMIT 1) AND tableoid = (SELECT tableoid FROM tmtp.inbox LIMIT 1)");
	if (BREAK === "hide")
		await its.home.sql("UPDATE tmtp.inbox SET dropped_at = now()");
}

// A pickup that failed again and again waits for minutes: it needn't, for those in a hurry.
const hurry = () => until("the home's database", () => its.home.sql("UPDATE tmtp.notification SET not_before = now() WHERE state = 0 AND not_before > now()")
	.then(() => true, () => false), { every: 200 });

// Pushing and faults, until enough was accepted and everything was played, or the time is over.
async function trouble(website, faults) {
	const over = SECONDS > 0 ? performance.now() + SECONDS * 1000 : Infinity;
	const done = () => performance.now() > over || (enough() && allPlayed(faults));
	await Promise.all([
		...Array.from({ length: CLIENTS }, (_, i) => website.client(new Dice(SEED, `client ${i}`), done)),
		...Object.entries(faults).map(([name, list]) => play(list, new Dice(SEED, `plan of ${name}`), () => !done())),
	]);
}

function restore(hosts) {
	hosts?.restore();
	for (const proxy of [...its.proxies, ...(its.card ? [its.card] : [])]) {
		proxy.restore();
		proxy.cut(); // what a fault has left silent would be waited for
	}
}

async function run(hosts) {
	say(`SEED=${SEED} MESSAGES=${MESSAGES} MEMBERS=${MEMBERS}${SECONDS > 0 ? ` SECONDS=${SECONDS}` : ""}${ONLY.length > 0 ? ` ONLY=${ONLY}` : ""}${hosts ? ", two hosts in network namespaces" : ""}`);
	const env = FAKETIME === undefined ? {} : { LD_PRELOAD: FAKETIME, FAKETIME: "-1d" }; // certificates hold for clocks set back
	await its.start({ prepare: () => prepare(hosts), proxy: FaultProxy, hosts, env });
	const { crowd, website } = await makeWebsite();
	const dice = Object.fromEntries(["processes", "connections", "links"].map((name) => [name, new Dice(SEED, name)]));
	const faults = faultsOf({ its, disks, clocks, hosts, dice, note: (what, was) => { seen[what] = seen[what] || was; } });
	for (const list of Object.values(faults))
		for (const name of Object.keys(list))
			if (ONLY.length > 0 && !ONLY.includes(name))
				delete list[name];
			else if (EXCEPT.includes(name))
				unplayed[name] = "EXCEPT names it";
	const begun = performance.now(), seconds = (from, to) => Math.round((to - from) / 100) / 10;
	await trouble(website, faults);
	restore(hosts);
	const faultsEnded = performance.now();
	if (HURRY)
		await hurry();
	const settling = new Settling(its);
	await settling.end(SETTLE_S, say);
	const settled = performance.now();
	await breakOnPurpose();
	website.renewToken();
	const result = await ledger.balance(website.site, its.shop, its.home), lists = ["missing", "doubles", "strangers", "unverified", "unknown"];
	const wrong = [...lists.flatMap((name) => result[name]), ...await look(crowd, new Dice(SEED, "look"))];
	for (const line of await explain(wrong))
		say(line);
	console.log(JSON.stringify({ ledger: { ...result, ...Object.fromEntries(lists.map((name) => [name, result[name].length])), unanswered: ledger.unanswered,
		repeated: ledger.repeated }, faults: played, seen, not_played: unplayed, settling: { seconds: settling.seconds, last: settling.last },
		seconds: { faults: seconds(begun, faultsEnded), settling: seconds(faultsEnded, settled), all: seconds(0, performance.now()) }, seed: SEED }, null, 1));
	for (const line of wrong.slice(0, 20))
		say(line);
	const lacking = Object.values(faults).flatMap((list) => Object.keys(list)).filter((name) => !played[name] && !(name in unplayed));
	if (lacking.length > 0 && SECONDS === 0)
		wrong.push(`never played: ${lacking}`);
	console.log(`${wrong.length === 0 ? "ok" : "not ok"} - every accepted message is in every entitled inbox once, or given up with a reason${
		[...Object.entries(unplayed), ...lacking.map((name) => [name, "no time"])].map(([name, why]) => ` # NOT PLAYED ${name}: ${why}`).join("")}`);
	return wrong.length === 0;
}

// Everything that the run began is ended, whatever it is in the middle of; then the process is.
async function clean(hosts) {
	for (const step of [() => its.abort(), () => hosts?.end(), unmountDisks])
		await Promise.resolve().then(step).catch((error) => say(error.message));
}

const hosts = await machinesFor(await enterHub()); // what stays outside doesn't come back from there
const interrupted = new Promise((_, reject) => {
	for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
		process.on(signal, () => reject(new Error(`ended by ${signal}`)));
});
let good = false;
try {
	good = await Promise.race([run(hosts), interrupted]);
} catch (error) {
	console.log(`not ok - ${error.stack}`);
	if (process.env.LOGS === undefined)
		say("LOGS=folder keeps both appliances' logs");
} finally {
	await clean(hosts);
}
process.exit(good ? 0 : 1);
