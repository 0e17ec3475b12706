// A name server of the tests' own: Knot DNS on a loopback port, with one zone that the test writes and changes.
import { execFile, spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { until } from "./wait.mjs";

const run = promisify(execFile);
const BIN = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];

function program(name) {
	const found = BIN.map((dir) => path.join(dir, name)).find((file) => fs.existsSync(file));
	if (found === undefined)
		throw new Error(`${name} is not installed: sh deploy/packages.sh test`);
	return found;
}

export class NameServer {
	// dir: an empty folder of its own. zone: "test". port: of the address, UDP and TCP.
	static async start(dir, port, zone = "test", address = "127.0.0.1") {
		const server = new NameServer();
		Object.assign(server, { dir, port, zone, serial: 0, output: "" });
		fs.mkdirSync(dir, { recursive: true });
		server.conf = path.join(dir, "knot.conf");
		server.text = `server:
    listen: ${address}@${port}
    rundir: "${dir}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "${dir}"
control:
    listen: "${dir}/ctl"
log:
  - target: stderr
    any: warning
template:
  - id: default
    storage: "${dir}"
    journal-content: none
    zonefile-load: whole
    zonefile-sync: -1
`;
		server.configure();
		server.write([]);
		await server.run();
		return server;
	}

	async run() {
		this.child = spawn(program("knotd"), ["-c", this.conf], { stdio: ["ignore", "ignore", "pipe"] });
		this.ended = new Promise((resolve) => this.child.on("exit", resolve));
		this.child.stderr.on("data", (text) => { this.output += text; });
		await until(() => `the name server: ${this.output}`, () => {
			if (this.child.exitCode !== null)
				throw new Error(`knotd ended: ${this.output}`);
			return this.control("zone-status", this.zone).then(({ stdout }) => /serial: \d/.test(stdout), () => false);
		}, { every: 50 });
	}

	configure({ lame = false } = {}) {
		fs.writeFileSync(this.conf, this.text + (lame ? "" : `zone:\n  - domain: ${this.zone}\n`));
	}

	// It answers, but not for the zone, until set.
	async lame() {
		this.configure({ lame: true });
		await this.control("reload");
	}

	control(...args) {
		return run(program("knotc"), ["-s", path.join(this.dir, "ctl"), "-b", ...args]);
	}

	// records: lines of a zone file, names relative to the zone.
	write(records) {
		fs.writeFileSync(path.join(this.dir, `${this.zone}.zone`), [
			`$ORIGIN ${this.zone}.`, "$TTL 1", `@ SOA ns hostmaster ${++this.serial} 3600 600 86400 1`, "@ NS ns", "ns A 127.0.0.1",
			...records, ""].join("\n"));
	}

	// From the answer on, the zone has these records and no others.
	async set(...records) {
		this.write(records);
		this.configure();
		await this.control("reload");
		await this.control("zone-reload", this.zone);
	}

	// Alive, and silent: as a name server behind a lost network.
	pause() {
		process.kill(this.child.pid, "SIGSTOP");
	}

	resume() {
		process.kill(this.child.pid, "SIGCONT");
	}

	async stop() {
		if (this.child.exitCode === null) {
			this.resume();
			this.child.kill("SIGTERM");
			await this.ended;
		}
	}
}
