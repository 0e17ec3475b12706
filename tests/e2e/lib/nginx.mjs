// A real nginx of a test's own, with deploy/nginx.conf.sample as its configuration: that file as it stands, but for ports,
// names, certificates and paths. Debian's package nginx-light; the machine's own nginx, if it runs one, is left alone.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { root } from "./appliance.mjs";
import { until } from "./wait.mjs";

const sample = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../../deploy/nginx.conf.sample");
const program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].find((file) => fs.existsSync(file));

export class Nginx {
	// dir: an empty folder of its own. set: pairs of what stands in the sample and what is to stand there instead; each must
	// be in it, "listen 443" and the like everywhere.
	constructor(dir, port, set) {
		Object.assign(this, { dir, port, output: "" });
		this.cache = path.join(dir, "cache");
		fs.mkdirSync(path.join(dir, "temp"), { recursive: true });
		let text = fs.readFileSync(sample, "utf8");
		for (const [from, to] of [["/var/cache/nginx/tmtp", this.cache], ["listen [::]:443 ssl http2;", ""], ["listen 443 ", `listen 127.0.0.1:${port} `], ...set]) {
			assert.ok(text.includes(from), `${from} is not in nginx.conf.sample`);
			text = text.replaceAll(from, to);
		}
		assert.doesNotMatch(text.replace(/#.*/g, ""), /example\.org|letsencrypt|\b443\b|:80\d\d;/);
		const temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir}/temp/${name};\n`).join("");
		this.conf = path.join(dir, "nginx.conf");
		fs.writeFileSync(path.join(dir, "tmtp.conf"), text);
		fs.writeFileSync(this.conf, `daemon off;\n${root ? "user nobody nogroup;\n" : ""}worker_processes 2;\npid ${dir}/nginx.pid;\nerror_log stderr warn;\n` +
			`events { worker_connections 2048; }\nhttp {\naccess_log off;\n${temp}include ${dir}/tmtp.conf;\n}\n`);
	}

	async start() {
		assert.ok(program, "nginx is not installed: sh deploy/packages.sh test");
		this.child = spawn(program, ["-e", "stderr", "-p", this.dir, "-c", this.conf], { stdio: ["ignore", "ignore", "pipe"] });
		this.ended = new Promise((resolve) => this.child.on("exit", resolve));
		this.child.stderr.on("data", (text) => { this.output += text; });
		await until(() => `nginx to listen: ${this.output}`, () => {
			if (this.child.exitCode !== null)
				throw new Error(`nginx ended: ${this.output}`);
			return new Promise((resolve) => {
				const socket = net.connect(this.port, "127.0.0.1", () => { socket.destroy(); resolve(true); });
				socket.on("error", () => resolve(false));
			});
		});
		return this;
	}

	// The file of a cached message.
	copy(pathname) {
		const name = crypto.createHash("md5").update(pathname).digest("hex");
		return path.join(this.cache, name.slice(31), name.slice(29, 31), name);
	}

	// From now on the copy has outlived its time: nginx keeps the end of it in the second word of the file.
	expire(pathname) {
		const file = fs.openSync(this.copy(pathname), "r+"), past = Buffer.alloc(8);
		past.writeBigInt64LE(BigInt(Math.floor(Date.now() / 1000) - 1));
		fs.writeSync(file, past, 0, 8, 8);
		fs.closeSync(file);
	}

	// As deploy/README.md tells an operator to.
	purge(id) {
		execFileSync("sh", ["-c", `grep -rlaE '^KEY: /m/[a-z2-7]+/${id}/' ${this.cache} | xargs -r rm`]);
	}

	async stop() {
		if (this.child?.exitCode === null) {
			this.child.kill("SIGTERM");
			await this.ended;
		}
	}
}
