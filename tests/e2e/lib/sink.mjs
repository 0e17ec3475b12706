// dmtp-sink as the home server of a domain of its own: it notes every recipient in a file before it answers.
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { build } from "./appliance.mjs";
import { until } from "./wait.mjs";

export class Sink {
	// pair: knows a way to the domain, which leads to the sink from now on. faults: more of its options.
	// secure: with a certificate of the domain; else --plain has to be among the faults.
	static async start(pair, domain, faults = [], { secure = true } = {}) {
		const sink = new Sink(), { authority } = pair;
		authority.issue(domain);
		sink.file = authority.file(`${domain}.record`);
		sink.child = spawn(path.join(build, "bench/dmtp-sink"), ["--domain", domain, "--record", sink.file, ...faults,
			...(secure ? ["--certificate", authority.file(`${domain}.pem`), "--key", authority.file(`${domain}.key`), "--ca", authority.file("ca.pem")] : [])], { stdio: ["pipe", "pipe", "inherit"] });
		sink.ended = new Promise((resolve) => sink.child.on("close", resolve));
		sink.lines = [];
		let text = "", failed;
		sink.child.on("error", (error) => { failed = error; });
		sink.child.stdout.on("data", (part) => {
			text += part;
			sink.lines = text.split("\n").slice(0, -1);
		});
		const first = await until("the sink", () => {
			if (failed)
				throw failed;
			return /"listening": "127\.0\.0\.1:(\d+)"/.exec(text);
		});
		pair.ways[domain].target = Number(first[1]);
		return sink;
	}

	// The grants under this id, in base32, as often as they came.
	record(id) {
		return fs.readFileSync(this.file, "utf8").split("\n").filter((line) => line.startsWith(`${id} `)).map((line) => line.split(" ")[1]);
	}

	// What it counts, now.
	async stats() {
		const from = this.lines.length;
		this.child.stdin.write("stats\n");
		return JSON.parse(await until("the sink's counts", () => this.lines[from]));
	}

	async stop() {
		this.child.kill("SIGTERM");
		await this.ended;
	}
}
