// Waiting for what is to happen, by asking again until a deadline; free ports; processes by their pid.
import fs from "node:fs";
import net from "node:net";
import { setTimeout as pause } from "node:timers/promises";

// How long anything is waited for; a machine that is busy with other things needs more.
export const patience = Number(process.env.PATIENCE_S ?? 60) * 1000;

// The first answer that isn't falsy. what: a name, or a function that tells it when it has been in vain.
export async function until(what, ask, { ms = patience, every = 10 } = {}) {
	const end = Date.now() + ms;
	for (;;) {
		const answer = await ask();
		if (answer)
			return answer;
		if (Date.now() > end)
			throw new Error(`waited in vain for ${typeof what === "function" ? await what() : what}`);
		await pause(every);
	}
}

const listening = (port) => new Promise((resolve) => {
	const server = net.createServer();
	server.on("error", () => resolve(null));
	server.listen(port, "127.0.0.1", () => resolve(server));
});

// Test files run beside each other, and what one has found free is listened on only seconds later: so each process has
// blocks of ports to itself, and who listens on a block's first port, as long as the process lives, has it. They lie
// below the ports that the system gives to outgoing connections, which come and go.
const BLOCK = 64, BLOCKS = 180;
const mine = { next: 0, end: 0 };

async function takeBlock() {
	const first = Number(fs.readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split("\t")[0]);
	for (let tries = 0; tries < 10 * BLOCKS; tries++) {
		const base = first - BLOCK * (1 + Math.floor(Math.random() * BLOCKS)), server = await listening(base);
		if (server !== null) {
			server.unref();
			return Object.assign(mine, { next: base + 1, end: base + BLOCK });
		}
	}
	throw new Error("no block of ports is free");
}

// That many, all different, never given twice by this process.
export async function freePorts(count) {
	const ports = [];
	while (ports.length < count) {
		if (mine.next === mine.end)
			await takeBlock();
		const server = await listening(mine.next++);
		if (server !== null) {
			ports.push(server.address().port);
			await new Promise((resolve) => server.close(resolve));
		}
	}
	return ports;
}

// Alive and not merely unreaped.
export function alive(pid) {
	try {
		return !/^State:\s*[ZX]/m.test(fs.readFileSync(`/proc/${pid}/status`, "utf8"));
	} catch {
		return false;
	}
}

export const gone = (...pids) => until(`the end of ${pids}`, () => pids.every((pid) => !alive(pid)));

export async function kill(...pids) {
	for (const pid of pids)
		process.kill(pid, "SIGKILL");
	await gone(...pids);
}
