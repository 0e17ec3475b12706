// Measures the product end to end: one line of JSON a figure. `node tests/bench/bench.mjs accept relay` runs a
// selection, without arguments all. BUILD names the build; KEEP=1 leaves the state and logs. Ends with 1 when a floor
// was missed or something was wrong.
import fs from "node:fs";
import { Stage, grant, member, now, until } from "./lib/stage.mjs";

const sum = (list) => list.reduce((a, b) => a + b, 0);
const sorted = (list) => [...list].sort((a, b) => a - b);
const at = (list, share) => sorted(list)[Math.min(list.length - 1, Math.floor(list.length * share))];
const median = (list) => at(list, 0.5);
const addresses = (n) => Array.from({ length: n }, (_, i) => `${member(i + 1)}@home.test\n`).join("");
let failed = false;

function say(bench, value, unit, detail = {}, good = true) {
	const round = Math.abs(value) >= 100 ? Math.round(value) : Math.round(value * 100) / 100;
	console.log(JSON.stringify({ bench, value: round, unit, detail: { ...detail, ...(good ? {} : { missed: true }) } }));
	failed ||= !good;
}

function check(what, is, shall) {
	if (is !== shall)
		throw new Error(`${what}: ${is}, not ${shall}`);
}

// --- accept ---------------------------------------------------------------------------------------------------

// The role site alone: what is accepted waits. The limit: the same rows into the same database by somebody who does
// nothing else.
async function accept(stage) {
	await stage.start({ shop: { roles: ["site"], tls: false } });
	await stage.hold("orders", "home.test", 1000);
	await stage.settle();
	const args = ["--channel", "orders", "--to", stage.file("to", addresses(1000)), "--connections", 64];
	await stage.push([...args, "--seconds", 1]);
	const before = await stage.shop.sql.number("SELECT count(*) FROM tmtp.message");
	const used = stage.cpu();
	const load = await stage.push([...args, "--seconds", 6]);
	const cpu = { ...stage.cpuSince(used, load.answered), client: Math.round(load.cpu_us / load.answered * 100) / 100 };
	const stored = await stage.shop.sql.number("SELECT count(*) FROM tmtp.message m JOIN tmtp.batch USING (site_id, message_id)");
	check("messages stored with their batch", stored - before, load.answered);
	const [[octets]] = await stage.shop.sql.ask("SELECT round(avg(size)) FROM tmtp.message");
	const limitUsed = stage.cpu();
	const insert = (rows) => stage.run("bench_store_inserts",
		[`host=${stage.shop.dir}/run dbname=tmtp user=tmtp_owner`, 11, 1, 1, 5, rows, 2, octets]);
	const limit = await insert(128);
	say("accept", load.per_second, "pushes/s", { target: 30000, connections: 64, octets: Number(octets), p50_us: load.p50_us,
		p99_us: load.p99_us, pushes: load.answered, cpu_us_each: cpu });
	say("accept_limit", limit.per_second, "rows/s", { group: limit.group, connections: limit.connections,
		cpu_us_each: stage.cpuSince(limitUsed, limit.rows) });
	const ratio = load.per_second / limit.per_second;
	// What the ratio could be at most here: a request that carries a body, waits and is answered, by the HTTP room alone with
	// nobody behind it, and the raw row on top of that; the same processors do both.
	const http = await stage.run("bench_web", [64, 3]);
	say("accept_bound", http.value / (http.value + limit.per_second), "of accept_limit", { requests_per_second: http.value });
	// Groups of 128 have 512 rows under way; 64 connections never have more than 64, which is four groups of 16.
	const few = await insert(16);
	say("accept_limit_64", few.per_second, "rows/s", { group: few.group, connections: few.connections, ratio: load.per_second / few.per_second });
	say("accept_ratio", ratio, "of accept_limit", { floor: 0.5 }, ratio >= 0.5);
}

// --- relay ----------------------------------------------------------------------------------------------------

const arrived = (stage) => stage.home.sql.number("SELECT sum(recipients) FROM tmtp.arrival_count");
const READABLE = `SELECT count(*) FROM tmtp.inbox JOIN tmtp.notification n USING (notification_id) WHERE n.state = 1`;

// The moment (seen at most a look late) when so many more have arrived and nothing waits to be verified. Looking costs
// little until they have arrived.
async function readable(stage, before, n, seconds) {
	let more;
	await until(() => `${n} entries (${more} arrived)`, async () => {
		more = await arrived(stage) - before;
		return more >= n && (await stage.home.sql.number("SELECT count(*) FROM tmtp.notification WHERE state = 0")) === 0;
	}, seconds, 10);
	return now();
}

async function relay(stage) {
	const count = 20000, members = 1000;
	await stage.start({ shop: {}, home: {} });
	await stage.accounts(members);
	await stage.hold("orders", "home.test", members);
	const tokens = await stage.logins(members);
	await stage.settle();
	const args = ["--channel", "orders", "--to", stage.file("to", addresses(members))];
	const warm = members;
	await stage.push([...args, "--count", warm]);
	await readable(stage, 0, warm, 60);
	const before = await arrived(stage), used = stage.cpu();
	const [load, last] = await Promise.all([stage.push([...args, "--count", count]), readable(stage, before, count, 120)]);
	check("pushes", load.answered, count);
	const cpu = { ...stage.cpuSince(used, count), client: Math.round(load.cpu_us / count * 100) / 100 };
	check("verified entries", await stage.home.sql.number(READABLE), count + warm);
	for (const i of [1, 500, members]) {
		const answer = await stage.home.get("home", "/v1/inbox?limit=100", { token: tokens[i - 1] });
		check(`entries that ${member(i)} sees`, answer.json.entries.length, (count + warm) / members);
		check("entries with a subject", answer.json.entries.every((entry) => /^Order \d+ is on its way$/.test(entry.subject)), true);
	}
	const seconds = (last - load.first_us) / 1e6;
	say("relay", count / seconds, "messages/s", { target: 10000, floor: 3950, messages: count, seconds,
		pushed_per_second: load.per_second, cpu_us_each: cpu }, count / seconds >= 3950);
}

// --- broadcasts -----------------------------------------------------------------------------------------------

const pushAll = (stage, channel) => stage.push(["--channel", channel, "--to", stage.file("all", "*\n"), "--connections", 1, "--count", 1]);

async function broadcast(stage) {
	const n = 100000;
	const expected = Array.from({ length: n }, (_, i) => `${grant("sink.test", "sink", i + 1)}\n`).join("");
	await stage.start({ shop: {}, sink: ["--expect", stage.file("expected", expected)] });
	await stage.hold("sink", "sink.test", n);
	await stage.settle();
	const rates = [], accepted = [], used = stage.cpu();
	for (let i = 0; i < 5; i++) {
		stage.sink.say("reset");
		stage.sink.say(`wait ${n}`);
		const load = await pushAll(stage, "sink");
		const got = await stage.sink.line();
		check("recipients reached twice", got.again, 0);
		check("recipients nobody expected", got.unexpected, 0);
		check("recipients not reached", got.missing, 0);
		check("recipients", got.distinct, n);
		rates.push(n / ((got.last_us - load.last_us) / 1e6));
		accepted.push(load.p50_us / 1000);
		await until("its end", async () =>
			(await stage.shop.sql.number("SELECT count(*) FROM tmtp.batch WHERE state = 0")) === 0, 30);
	}
	const rate = median(rates.slice(1));
	say("broadcast", rate, "recipients/s", { target: 500000, floor: 50000, recipients: n, runs: rates.map(Math.round),
		accepted_ms: median(accepted), cpu_us_each: stage.cpuSince(used, n * rates.length) }, rate >= 50000);
}

async function broadcastInbox(stage) {
	const n = 100000;
	await stage.start({ shop: {}, home: {} });
	await stage.accounts(n);
	await stage.hold("news", "home.test", n);
	await stage.settle();
	const rates = [], used = stage.cpu();
	for (let i = 0; i < 4; i++) {
		const before = await arrived(stage);
		const [load, last] = await Promise.all([pushAll(stage, "news"), readable(stage, before, n, 120)]);
		check("verified entries", await stage.home.sql.number(READABLE), n * (i + 1));
		rates.push(n / ((last - load.last_us) / 1e6));
	}
	const rate = median(rates.slice(1));
	say("broadcast_inbox", rate, "recipients/s", { target: 60000, recipients: n, runs: rates.map(Math.round),
		cpu_us_each: stage.cpuSince(used, n * rates.length) });
}

// --- memory -----------------------------------------------------------------------------------------------------

const kib = (pid, field) => Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]);
const mib = (n) => Math.round(n / 102.4) / 10;

// Peak and present resident memory of every role, in KiB, over one broadcast.
async function peaks(stage, channel, n) {
	const roles = [stage.shop, stage.home].flatMap((appliance) =>
		Object.entries(appliance.processes()).map(([role, pid]) => ({ name: `${appliance.name}.${role}`, pid })));
	for (const { pid } of roles)
		fs.writeFileSync(`/proc/${pid}/clear_refs`, "5"); // the peak begins anew
	const idle = Object.fromEntries(roles.map(({ name, pid }) => [name, kib(pid, "VmRSS")]));
	const before = await arrived(stage);
	await Promise.all([pushAll(stage, channel), readable(stage, before, n, 300)]);
	await until("the batches' end", async () =>
		(await stage.shop.sql.number("SELECT count(*) FROM tmtp.batch WHERE state = 0")) === 0, 30);
	return Object.fromEntries(roles.map(({ name, pid }) =>
		[name, { before: idle[name], peak: kib(pid, "VmHWM"), after: kib(pid, "VmRSS") }]));
}

async function memory(stage) {
	await stage.start({ shop: {}, home: {} });
	await stage.accounts(400000);
	await stage.hold("news", "home.test", 100000);
	await stage.hold("crowd", "home.test", 400000);
	await stage.settle();
	const small = await peaks(stage, "news", 100000), large = await peaks(stage, "crowd", 400000);
	const detail = {}, growth = [];
	let flat = true;
	for (const name of Object.keys(small)) {
		const more = large[name].peak - small[name].peak;
		growth.push(more);
		flat &&= more <= 8192 || large[name].peak <= small[name].peak * 1.2;
		detail[name] = { before: mib(small[name].before), peak_100k: mib(small[name].peak), after_100k: mib(small[name].after),
			peak_400k: mib(large[name].peak), after_400k: mib(large[name].after) };
	}
	say("memory", mib(Math.max(...growth)), "MiB of growth", { floor: "8 MiB or 20 %", ...detail }, flat);
}

// --- live ---------------------------------------------------------------------------------------------------------

async function latency(stage) {
	const rounds = 200;
	await stage.start({ shop: {}, home: {} });
	await stage.accounts(1000);
	await stage.hold("orders", "home.test", 1000);
	const [token] = await stage.logins(1);
	await stage.settle();
	const args = ["--channel", "orders", "--to", stage.file("to", addresses(1)), "--pause-ms", 25];
	await stage.watch([token], [...args, "--rounds", 20]);
	const got = await stage.watch([token], [...args, "--rounds", rounds]);
	const all = got.rounds.map(([sent, , , last]) => (last - sent) / 1000);
	const answered = got.rounds.map(([sent, answer]) => (answer - sent) / 1000);
	say("latency", median(all), "ms", { target_p50: 5, target_p99: 20, p50: median(all), p99: at(all, 0.99), max: at(all, 1),
		accepted_p50: median(answered), accepted_p99: at(answered, 0.99), rounds });
}

// From the time that the home server wrote into the entries (or their verification, if later), which is before the
// commit, to the last stream's end of the line.
async function watchersOver(stage, tls) {
	const n = 1000, rounds = 9;
	await stage.start({ shop: {}, home: { homeTls: tls } });
	await stage.accounts(n);
	await stage.hold("crowd", "home.test", n);
	const tokens = await stage.logins(n);
	await stage.settle();
	const got = await stage.watch(tokens, ["--channel", "crowd", "--to", stage.file("all", "*\n"), "--lane", "normal",
		"--expect", n, "--rounds", rounds, "--pause-ms", 300]);
	const visible = await stage.home.sql.ask(`SELECT (extract(epoch FROM greatest(max(i.arrived_at), n.verified_at)) * 1e6)::bigint
		FROM tmtp.notification n JOIN tmtp.inbox i USING (notification_id) WHERE n.state = 1
		GROUP BY n.notification_id, n.verified_at ORDER BY n.notification_id`);
	check("notices", visible.length, rounds);
	return got.rounds.map(([sent, , first, last], i) => ({ all: (last - Number(visible[i][0])) / 1000,
		first: (first - Number(visible[i][0])) / 1000, push: (last - sent) / 1000 })).slice(1);
}

const watching = (name, tls) => async (stage) => {
	const got = await watchersOver(stage, tls);
	say(name, median(got.map((round) => round.all)), "ms", { ...(tls ? {} : { target: 15 }), streams: 1000,
		first: median(got.map((round) => round.first)), from_push: median(got.map((round) => round.push)),
		rounds: got.map((round) => round.all) });
};

// --- all of them ----------------------------------------------------------------------------------------------------

const benches = { accept, relay, broadcast, broadcast_inbox: broadcastInbox, memory, latency, watchers: watching("watchers", false),
	watchers_tls: watching("watchers_tls", true) };
const LIMIT_S = 300;

async function perform(name) {
	const stage = new Stage();
	let timer;
	const end = () => stage.close().finally(() => process.exit(130));
	process.once("SIGINT", end).once("SIGTERM", end);
	try {
		await Promise.race([benches[name](stage), new Promise((_, reject) => {
			timer = setTimeout(() => reject(new Error(`not done in ${LIMIT_S} s`)), LIMIT_S * 1000);
		})]);
	} catch (error) {
		failed = true;
		console.error(`bench ${name}: ${error.message}`, ...stage.complaints().map((line) => `\n  ${line}`));
	} finally {
		clearTimeout(timer);
		await stage.close();
		process.off("SIGINT", end).off("SIGTERM", end);
	}
}

const chosen = process.argv.slice(2);
for (const name of chosen)
	if (!benches[name]) {
		console.error(`bench: there is ${Object.keys(benches).join(", ")}; not ${name}`);
		process.exit(2);
	}
for (const name of chosen.length > 0 ? chosen : Object.keys(benches))
	await perform(name);
process.exit(failed ? 1 : 0);
