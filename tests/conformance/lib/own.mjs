// Our own appliance as the server under test: a tmtpd of its own, with accounts, grants and small limits.
import { execFile, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import https from "node:https";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Authority } from "./authority.mjs";
import { Target } from "./target.mjs";

const top = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../..");
const build = path.resolve(top, process.env.BUILD ?? "build");
const tmtpd = path.resolve(process.env.TMTPD ?? path.join(build, "tmtpd"));
const tmtpctl = path.join(path.dirname(tmtpd), "tmtpctl");
const account = process.getuid() === 0 ? "nobody" : os.userInfo().username;

const domain = "home.test", shop = "shop@shop.test", rival = "shop@rival.test", friend = "fay@shop.test";
const members = ["ann", "ben", "cleo"].map((name) => `${name}@${domain}`);

// Ports that are free now, below those that the system gives to outgoing connections.
async function freePorts(count) {
	const first = Number(fs.readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split("\t")[0]), servers = [];
	while (servers.length < count) {
		const server = net.createServer();
		const port = first - 1 - Math.floor(Math.random() * 12_000);
		if (await new Promise((resolve) => server.on("error", () => resolve(false)).listen(port, "127.0.0.1", () => resolve(true))))
			servers.push(server);
	}
	const ports = servers.map((server) => server.address().port);
	await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
	return ports;
}

export class Own {
	static async start() {
		const own = new Own();
		own.dir = fs.mkdtempSync(path.join(os.tmpdir(), "tc-"));
		fs.chmodSync(own.dir, 0o755);
		try {
			await own.configure();
			await own.spawn();
			await own.populate();
		} catch (error) {
			await own.stop();
			throw error;
		}
		return own;
	}

	async configure() {
		const certificates = path.join(this.dir, "certificates");
		const ports = await freePorts(5);
		fs.mkdirSync(certificates);
		Authority.make(certificates);
		Authority.issue(certificates, "server", { names: `DNS:${domain}` }, path.join(certificates, "ca"));
		fs.chmodSync(path.join(certificates, "server.key"), 0o644);
		this.ports = { dmtps: ports[0], dmtp: ports[1], members: ports[2], site: ports[3], pickup: ports[4] };
		this.certificates = certificates;
		this.conf = path.join(this.dir, "tmtp.conf");
		this.state = path.join(this.dir, "state");
		const route = (to) => `route "${to}" { dmtp = "127.0.0.1:1" pickup = "127.0.0.1:${this.ports.pickup}" ca = "${certificates}/ca.pem" allow_private = true }\n`;
		fs.writeFileSync(this.conf, `roles = {"site", "home"}\nstate_directory = "${this.state}"\nuser = "${account}"\n` +
			`embedded_memory_mb = 128\ndrain_timeout_s = 5\n` +
			`domain "${domain}" { certificate = "${certificates}/server.pem" key = "${certificates}/server.key" }\n` +
			`site { listen = {"127.0.0.1:${this.ports.site}"} }\n` +
			`home { listen = {"127.0.0.1:${this.ports.members}"} tls = true dmtps_listen = {"127.0.0.1:${this.ports.dmtps}"} ` +
			`dmtp_listen = {"127.0.0.1:${this.ports.dmtp}"} command_octets = 65536 idle_s = 10 message_octets = 100000 noops = 3 ` +
			`pipeline = 8 rcpts = 100 uris = 4 }\n${route("shop.test")}${route("rival.test")}`);
	}

	spawn() {
		this.log = "";
		this.child = spawn(tmtpd, ["-c", this.conf], { stdio: ["ignore", "ignore", "pipe"], cwd: "/" });
		this.ended = new Promise((resolve) => this.child.on("exit", resolve));
		return new Promise((resolve, reject) => {
			this.child.on("error", reject);
			this.child.on("exit", () => reject(new Error(`tmtpd ended:\n${this.log}`)));
			this.child.stderr.setEncoding("utf8").on("data", (part) => {
				this.log += part;
				if (/^event=ready /m.test(this.log))
					resolve();
			});
		});
	}

	ctl(args, input = "") {
		return new Promise((resolve, reject) => {
			const child = execFile(tmtpctl, ["--config", this.conf, "--json", ...args], { cwd: "/" }, (error, stdout, stderr) =>
				error ? reject(new Error(`tmtpctl ${args.join(" ")}: ${stdout}${stderr}`)) : resolve());
			child.stdin.end(input);
		});
	}

	// A call of the members' API; its JSON.
	call(method, target, token, body) {
		const octets = body === undefined ? "" : JSON.stringify(body);
		return new Promise((resolve, reject) => {
			const request = https.request({
				host: "127.0.0.1", port: this.ports.members, servername: domain, ca: fs.readFileSync(`${this.certificates}/ca.pem`), method, path: target,
				headers: {
					...(token ? { authorization: `Bearer ${token}` } : {}),
					...(body === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(octets) }),
				},
			}, (response) => {
				let text = "";
				response.setEncoding("utf8").on("data", (part) => text += part).on("end", () => response.statusCode < 300 ?
					resolve(text === "" ? null : JSON.parse(text)) : reject(new Error(`${method} ${target}: ${response.statusCode} ${text}`)));
			}).on("error", reject);
			request.end(octets);
		});
	}

	async populate() {
		const password = crypto.randomBytes(12).toString("hex");
		await this.ctl(["site", "create", `news@${domain}`, "--title", "The news"]);
		await this.ctl(["channel", "create", `news@${domain}`, "daily", "--title", "Every day"]);
		for (const address of [...members, `zoe@${domain}`])
			await this.ctl(["account", "create", address, "--password-file", "-"], `${password}\n`);
		for (const [index, address] of members.entries()) {
			const { token } = await this.call("POST", "/v1/login", null, { address, password });
			await this.call("PUT", `/v1/channels/${shop}/orders`, token, {});
			await this.call("PUT", `/v1/channels/${rival}/orders`, token, {});
			if (index === 0) {
				await this.call("PUT", `/v1/channels/${shop}/gone`, token, {});
				await this.call("PUT", `/v1/channels/${friend}/inbox`, token, {});
				this.revoke = () => this.call("DELETE", `/v1/channels/${shop}/gone`, token);
			}
		}
	}

	async target(environment) {
		const authority = new Authority(this.certificates, "shop.test", "rival.test");
		const target = new Target({
			HOST: "127.0.0.1", PORT: this.ports.dmtps, STARTTLS_PORT: this.ports.dmtp, PICKUP_PORT: this.ports.pickup, DOMAIN: domain, SENDER: shop,
			OTHER: rival, FRIEND: friend, SITE: `news@${domain}`, MEMBERS: members.join(","), CLOSED: `zoe@${domain}`, LONG: environment.LONG,
		}, authority);
		target.revoked = await this.revokedGrant(target);
		return target;
	}

	// A grant that was known to the sender, and is revoked.
	async revokedGrant(target) {
		const sessions = target.sessions(), session = await sessions.verified();
		const reply = await session.ask("CHANNELS", { from: shop, users: [members[0]] });
		await this.revoke();
		sessions.closeAll();
		return reply[1].get("channels").get(members[0]).find((channel) => channel.get("name").toString() === "gone").get("id");
	}

	async stop() {
		if (this.child?.exitCode === null) {
			this.child.kill("SIGTERM");
			await this.ended;
		}
		const noted = path.join(this.state, "socket-directory");
		if (fs.existsSync(noted))
			fs.rmSync(fs.readFileSync(noted, "utf8").trim(), { recursive: true, force: true });
		fs.rmSync(this.dir, { recursive: true, force: true });
		return this.child?.exitCode;
	}
}
