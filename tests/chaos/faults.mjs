// What goes wrong, each by its name. Each ends what it began, and resolves when its victim is there again. They stand in
// lists that are played beside each other; within one, one after the other.
import fs from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { gone, until } from "../e2e/lib/wait.mjs";

const ROLES = ["site", "relay", "home"];
const ready = (appliance, role, from) => appliance.line(new RegExp(`^event=role-ready role=${role} `), from);
const answers = (appliance) => until(`${appliance.name}'s database`, () => appliance.sql("SELECT 1").then(() => true, () => false), { every: 100 });

// One after the other, whoever comes: an appliance whose disk is full is not to be started anew, for one.
class Turn {
	last = Promise.resolve();

	take(work) {
		const mine = this.last.then(work);
		this.last = mine.catch(() => {});
		return mine;
	}
}

async function endRole(appliance, role, signal) {
	const from = appliance.now, pid = appliance.role(role);
	process.kill(pid, signal);
	await gone(pid);
	await ready(appliance, role, from);
}

async function endPostgres(appliance) {
	const pid = appliance.postmaster;
	process.kill(pid, "SIGKILL");
	await gone(pid);
	await answers(appliance);
}

async function freeze(appliance, role) {
	const pid = appliance.role(role);
	process.kill(pid, "SIGSTOP");
	await pause(1500);
	process.kill(pid, "SIGCONT");
}

// The supervisor and its roles at once; with it its database, or that one is left to its parent's end.
async function killAll(appliance, database) {
	const pids = [appliance.child.pid, ...ROLES.map((role) => appliance.role(role)), ...(database ? [appliance.postmaster] : [])];
	for (const pid of pids)
		process.kill(pid, "SIGKILL");
	await gone(...pids);
	await appliance.ended;
	await appliance.start();
}

async function stopAndStart(appliance) {
	await appliance.stop();
	await appliance.start();
}

// A file that takes all the room there is, for a while. Resolves to whether PostgreSQL saw it.
async function fill(appliance, dir, seconds) {
	const from = appliance.now, file = path.join(dir, "filler"), fd = fs.openSync(file, "w");
	try {
		for (const part = Buffer.alloc(1 << 20); ;)
			fs.writeSync(fd, part);
	} catch (error) {
		if (error.code !== "ENOSPC")
			throw error;
	} finally {
		fs.closeSync(fd);
	}
	await pause(seconds * 1000);
	fs.rmSync(file);
	await answers(appliance);
	return appliance.lines.slice(from).some((line) => /No space left/.test(line));
}

// its: the pair. disks: {shop, home}, file systems of their own. clocks: {shop, home}, each sets one, by seconds from the true
// time. hosts: Hosts, or undefined. dice: for each list. note(what): of what was seen.
export function faultsOf({ its, disks, clocks, hosts, dice, note }) {
	const turns = new Map([[its.shop, new Turn()], [its.home, new Turn()]]);
	const { processes: p, connections: n, links: l } = dice;
	const side = (d) => d.one([its.shop, its.home]);
	const with_ = (appliance, work) => turns.get(appliance).take(() => work(appliance));
	const on = (choose, work) => () => with_(choose(), work);
	const trouble = (begin, seconds) => async () => {
		const proxy = n.one([its.toHome, its.pickup, its.toShop]);
		begin(proxy);
		await pause(seconds * 1000);
		proxy.restore();
	};
	// Of connections that are open: those to the home, which stay so.
	const open = async () => {
		const busy = () => its.proxies.filter((proxy) => proxy.pairs.size > 0);
		await until("an open connection", () => busy().length > 0);
		return n.one(busy());
	};
	// Each time is left when both roles that write times have noted it in the database: so a process that is killed meanwhile,
	// and saw neither jump itself, has to find out too.
	const jumps = (name) => async () => {
		for (const [seconds, noted] of [[3600, "> 3000"], [-420, "< -300"], [0, "> -60"]]) {
			clocks[name](seconds);
			await until(`${name}'s clock to be ${noted} s from the true time`, () => its[name].sql(`SELECT every(extract(epoch FROM seen_at) - ${Date.now() / 1000} ${noted})
				FROM tmtp.clock`).then((all) => all === "t", () => false), { every: 200 });
		}
	};
	const full = (name) => on(() => its[name], async (appliance) => note(`disk full seen by ${name}'s PostgreSQL`, await fill(appliance, disks[name], 2.5)));

	const linked = hosts === undefined ? {} : {
		"link down": async () => {
			const host = l.one([hosts.shop, hosts.home]);
			for (let times = l.one([1, 8]), each = 2000 / times; times > 0; times--) { // for long, or again and again
				host.down();
				await pause(each / 2 + (times === 1 ? 1000 : 0));
				host.up();
				await pause(each / 2);
			}
		},
		"narrow link": async () => {
			const host = l.one([hosts.shop, hosts.home]);
			host.shape("tbf", "rate", "200kbit", "burst", "3000", "latency", "30ms"); // what it has no room for is lost
			await pause(2500);
			host.plain();
		},
		"lossy link": async () => {
			const host = l.one([hosts.shop, hosts.home]);
			host.shape("netem", "delay", "40ms", "30ms", "loss", "4%", "reorder", "25%");
			await pause(2500);
			host.plain();
		},
		"address changes": async () => {
			const host = l.one([hosts.shop, hosts.home]), proxies = host === hosts.home ? [its.toHome] : [its.toShop, its.pickup, its.card];
			const moved = await hosts.move(host, proxies);
			await pause(2500);
			moved.forget();
			await pause(500);
		},
	};

	return {
		processes: {
			"kill site": on(() => its.shop, (appliance) => endRole(appliance, "site", "SIGKILL")),
			"kill relay": on(() => side(p), (appliance) => endRole(appliance, "relay", "SIGKILL")),
			"kill home": on(() => its.home, (appliance) => endRole(appliance, "home", "SIGKILL")),
			"restart a role": on(() => side(p), (appliance) => endRole(appliance, p.one(ROLES), "SIGTERM")),
			"freeze a role": on(() => side(p), (appliance) => freeze(appliance, p.one(ROLES))),
			"kill PostgreSQL": on(() => side(p), endPostgres),
			"restart all": on(() => side(p), stopAndStart),
			"kill all": on(() => side(p), (appliance) => killAll(appliance, p.one([true, false]))),
		},
		connections: {
			"cut": async () => {
				for (let i = 0; i < 5; i++) {
					n.one(its.proxies).cut();
					await pause(100 + n.below(200));
				}
			},
			"cut at an octet": trouble((proxy) => {
				proxy.pass(n.below(20_000));
				setTimeout(() => proxy.cut(), 700);
			}, 1),
			"refuse": trouble((proxy) => proxy.refuse(), 2),
			"half-open": trouble((proxy) => {
				proxy.silence();
				proxy.cut();
			}, 3),
			"reorder": trouble((proxy) => {
				proxy.shuffle();
				proxy.cut();
			}, 1),
			"delay": trouble((proxy) => proxy.stutter(50 + n.below(250)), 3),
			"one side silent": async () => {
				const proxy = await open(), voices = proxy.mutePairs(n.one(["up", "down"])), cut = n.one([true, false]);
				await pause(2500);
				voices.end(cut); // heard again after all, or lost
			},
			"held apart": async () => {
				(await open()).holdApart(() => n.below(2000));
				await pause(2000);
			},
		},
		links: linked,
		disks: {
			"shop's disk full": full("shop"),
			"home's disk full": full("home"),
		},
		"shop's clock": { "shop's clock jumps": jumps("shop") },
		"home's clock": { "home's clock jumps": jumps("home") },
	};
}
