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

// That many, all different: they are open at the same time for a moment. They lie below those that the system gives to
// outgoing connections, which come and go and would take them before they are listened on.
export async function freePorts(count) {
	const first = Number(fs.readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split("\t")[0]), servers = [];
	while (servers.length < count) {
		const server = await listening(first - 1 - Math.floor(Math.random() * 12_000));
		if (server !== null)
			servers.push(server);
	}
	const ports = servers.map((server) => server.address().port);
	await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
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
