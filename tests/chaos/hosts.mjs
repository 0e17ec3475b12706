// Two machines and the network between them, made of network namespaces. The run itself is inside a namespace of its own, the
// hub, where its proxies and its name server are; shop and home are one each, joined with it by a link. Nothing of it has a
// name: all ends with the processes inside, so that two runs never meet and nothing is left, however a run ends.
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { NameServer } from "../e2e/lib/nameserver.mjs";
import { alive, freePorts, until } from "../e2e/lib/wait.mjs";

const INSIDE = "CHAOS_INSIDE";
// What is killed leaves its shared memory behind, and mounts: here they are the run's own, and end with it.
const OWN_MEMORY = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm";
const NAMESERVER = "192.0.2.53";

function told(error) {
	return String(error.stderr ?? "").trim().split("\n").at(-1) || error.message.split("\n")[0];
}

function run(program, ...args) {
	return execFileSync(program, args, { stdio: ["ignore", "pipe", "pipe"], encoding: "utf8" });
}

// Why this machine lets nobody make such hosts; undefined when it does.
function refusal() {
	if (process.env.HOSTS === "loopback")
		return "HOSTS=loopback";
	if (process.getuid() !== 0)
		return "it needs root";
	try {
		run("unshare", "--net", "--mount", "sh", "-ec", `${OWN_MEMORY}; ip link set lo up; ip link add name a type veth peer name b`);
		return undefined;
	} catch (error) {
		return told(error);
	}
}

// Runs the same program again, in the hub: resolves to its exit code. What ends us ends it.
function again() {
	const child = spawn("unshare", ["--net", "--mount", "sh", "-ec", `${OWN_MEMORY}; exec "$0" "$@"`, process.execPath, ...process.argv.slice(1)], { stdio: "inherit", env: { ...process.env, [INSIDE]: "1" } });
	for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
		process.on(signal, () => child.kill(signal));
	return new Promise((resolve, reject) => child.on("error", reject).on("exit", (code) => resolve(code ?? 1)));
}

// Where a run may be in the hub, it goes there, and this process ends with it. Else resolves to the reason.
export async function enterHub() {
	if (process.env[INSIDE])
		return undefined;
	const why = refusal();
	if (why === undefined)
		process.exit(await again());
	return why;
}

class Host {
	// Each is known to the other by an address of the hub's, which its proxies listen on, and its name leads to.
	constructor(name, n) {
		Object.assign(this, { name, link: `to-${name}`, hub: `10.0.${n}.1`, address: `10.0.${n}.2`, fronts: `198.51.${99 + n}`, front: 10 });
	}

	async start() {
		this.holder = spawn("unshare", ["--net", "cat"], { stdio: ["pipe", "ignore", "ignore"] }); // ends with us
		const of = (pid) => fs.readlinkSync(`/proc/${pid}/ns/net`), ours = of("self");
		await until(`the namespace of ${this.name}`, () => of(this.holder.pid) !== ours);
		this.namespace = of(this.holder.pid);
		this.within = ["nsenter", "-t", String(this.holder.pid), "--net", "--"];
		run("ip", "link", "add", "name", this.link, "type", "veth", "peer", "name", "eth0", "netns", String(this.holder.pid));
		run("ip", "addr", "add", `${this.hub}/24`, "dev", this.link);
		run("ip", "link", "set", this.link, "up");
		run("ip", "addr", "add", this.at, "dev", "lo");
		for (const line of ["link set lo up", `addr add ${this.address}/24 dev eth0`, "link set eth0 up", `route add default via ${this.hub}`])
			run(...this.within, "ip", ...line.split(" "));
	}

	get at() {
		return `${this.fronts}.${this.front}/32`;
	}

	get way() {
		return { host: "0.0.0.0", to: this.address };
	}

	down() {
		run("ip", "link", "set", this.link, "down");
	}

	up() {
		run("ip", "link", "set", this.link, "up");
	}

	// What passes on the link's way to the host: a discipline of the kernel's, until plain().
	shape(...discipline) {
		run("tc", "qdisc", "add", "dev", this.link, "root", ...discipline);
	}

	plain() {
		try {
			run("tc", "qdisc", "del", "dev", this.link, "root");
		} catch { /* there was none */ }
	}

	shapeable(...discipline) {
		try {
			this.shape(...discipline);
			return undefined;
		} catch (error) {
			return told(error);
		} finally {
			this.plain();
		}
	}

	// Whoever is still inside is ours.
	end() {
		for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number))
			try {
				if (alive(pid) && fs.readlinkSync(`/proc/${pid}/ns/net`) === this.namespace)
					process.kill(pid, "SIGKILL");
			} catch { /* it has ended */ }
	}
}

export class Hosts {
	constructor() {
		this.shop = new Host("shop", 1);
		this.home = new Host("home", 2);
	}

	async start() {
		run("ip", "link", "set", "lo", "up");
		run("ip", "addr", "add", `${NAMESERVER}/32`, "dev", "lo");
		await Promise.all([this.shop.start(), this.home.start()]);
	}

	// The name server of both, which says where they are.
	async name(dir, ports) {
		const [port] = await freePorts(1);
		this.ports = ports;
		this.nameserver = `${NAMESERVER}:${port}`;
		this.dns = await NameServer.start(path.join(dir, "dns"), port, "test", NAMESERVER);
		await this.publish();
	}

	publish() {
		return this.dns.set(...[this.shop, this.home].flatMap((host) => [`${host.name} A ${host.at.split("/")[0]}`,
			`_dmtps._tcp.${host.name} SRV 1 1 ${this.ports[host.name]} ${host.name}`]));
	}

	// From one moment to the next it is at another address: who has a connection to the old one hears nothing any more, until
	// forget(): then whoever is at the old address resets what it doesn't know.
	async move(host, proxies) {
		const before = host.at;
		host.front = 10 + (host.front - 9) % 100;
		run("ip", "addr", "add", host.at, "dev", "lo");
		run("ip", "addr", "del", before, "dev", "lo");
		await this.publish();
		return { forget: () => {
			run("ip", "addr", "add", before, "dev", "lo");
			for (const proxy of proxies)
				proxy.cut();
			setTimeout(() => run("ip", "addr", "del", before, "dev", "lo"), 200);
		} };
	}

	restore() {
		for (const host of [this.shop, this.home]) {
			host.plain();
			host.up();
		}
	}

	async end() {
		await this.dns?.stop();
		for (const host of [this.shop, this.home])
			if (host.namespace !== undefined)
				host.end();
	}
}
