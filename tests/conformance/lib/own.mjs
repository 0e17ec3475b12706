// Our own appliance as the server under test, here or for somebody else's suite: a tmtpd of its own, with accounts, grants
// and small limits. What is in it are the same settings that the suite takes; README.md has them.
import { execFile, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import https from "node:https";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Authority } from "./authority.mjs";
import { grantOf, textOf } from "./grant.mjs";

const top = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../..");
const build = path.resolve(top, process.env.BUILD || "build");
const tmtpd = path.resolve(process.env.TMTPD ?? path.join(build, "tmtpd"));
const tmtpctl = path.join(path.dirname(tmtpd), "tmtpctl");
const account = process.getuid() === 0 ? "nobody" : os.userInfo().username;

const defaults = {
	DOMAIN: "home.test", SENDER: "shop@shop.test", OTHER: "shop@rival.test", FRIEND: "fay@shop.test", GUEST: "visitor@guest.test", CHANNEL: "orders",
	COMMAND: "65536", IDLE: "10", MESSAGE: "100000", NOOPS: "3", PIPELINE: "8", RCPTS: "100", URIS: "4",
};
const domainOf = (address) => address.split("@")[1];

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
	// Settings that are absent or empty are ours.
	static async start(settings = {}) {
		const own = new Own();
		own.settings = { ...defaults, ...Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined && value !== "")) };
		own.settings.MEMBERS ??= ["ann", "ben", "cleo"].map((name) => `${name}@${own.settings.DOMAIN}`).join(",");
		own.settings.CLOSED ??= `zoe@${own.settings.DOMAIN}`;
		own.settings.SITE ??= `news@${own.settings.DOMAIN}`;
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

	// The given authority and server certificate, or new ones, where tmtpd's account can read them.
	makeCertificates() {
		const { CERTS, DOMAIN } = this.settings, dir = path.join(this.dir, "certificates");
		fs.mkdirSync(dir);
		if (CERTS)
			for (const name of fs.readdirSync(CERTS).filter((file) => /\.(pem|key)$/.test(file)))
				fs.copyFileSync(path.join(CERTS, name), path.join(dir, name));
		else
			Authority.make(dir);
		if (!fs.existsSync(path.join(dir, "server.pem")))
			Authority.issue(dir, "server", { names: `DNS:${DOMAIN}` }, path.join(dir, "ca"));
		fs.chmodSync(path.join(dir, "server.key"), 0o644);
		return dir;
	}

	async configure() {
		const free = await freePorts(5), { settings } = this, certificates = this.certificates = this.makeCertificates();
		this.settings.PORT ??= String(free[0]);
		this.settings.STARTTLS_PORT ??= String(free[1]);
		this.settings.PICKUP_PORT ??= String(free[2]);
		this.membersPort = free[3];
		this.conf = path.join(this.dir, "tmtp.conf");
		this.state = path.join(this.dir, "state");
		const senders = [...new Set([settings.SENDER, settings.OTHER, settings.FRIEND].map(domainOf))];
		fs.writeFileSync(this.conf, `roles = {"site", "home"}
state_directory = "${this.state}"
user = "${account}"
embedded_memory_mb = 128
drain_timeout_s = 5
domain "${settings.DOMAIN}" {
	certificate = "${certificates}/server.pem"
	key = "${certificates}/server.key"
}
site { listen = {"127.0.0.1:${free[4]}"} }
home {
	listen = {"127.0.0.1:${this.membersPort}"}
	tls = true
	dmtps_listen = {"127.0.0.1:${settings.PORT}"}
	dmtp_listen = {"127.0.0.1:${settings.STARTTLS_PORT}"}
	command_octets = ${settings.COMMAND}
	idle_s = ${settings.IDLE}
	message_octets = ${settings.MESSAGE}
	noops = ${settings.NOOPS}
	pipeline = ${settings.PIPELINE}
	rcpts = ${settings.RCPTS}
	uris = ${settings.URIS}
}
${senders.map((sender) => `route "${sender}" {
	dmtp = "127.0.0.1:1"
	pickup = "127.0.0.1:${settings.PICKUP_PORT}"
	ca = "${certificates}/ca.pem"
	allow_private = true
}
`).join("")}`);
	}

	spawn() {
		this.log = "";
		// No route pins the guest's authority: it is one of the system's trust roots.
		const env = { ...process.env, SSL_CERT_FILE: path.join(this.certificates, "ca.pem") };
		this.child = spawn(tmtpd, ["-c", this.conf], { stdio: ["ignore", "ignore", "pipe"], cwd: "/", env });
		this.ended = new Promise((resolve) => this.child.on("exit", resolve));
		return new Promise((resolve, reject) => {
			this.child.on("error", reject);
			this.child.on("exit", () => reject(new Error(`tmtpd ended:\n${this.log}`)));
			this.child.stderr.setEncoding("utf8").on("data", (part) => {
				this.log += part;
				if (/^event=ready configuration=/m.test(this.log))
					resolve();
			});
		});
	}

	// Starts anew with that value of an option of the section home.
	async restart(option, value) {
		const text = fs.readFileSync(this.conf, "utf8").replace(new RegExp(`\n\t${option} = .*`), "");
		fs.writeFileSync(this.conf, text.replace("\nhome {", `\nhome {\n\t${option} = ${value}`));
		this.child.kill("SIGTERM");
		const code = await this.ended, told = this.log;
		if (code !== 0)
			throw new Error(`tmtpd ended with ${code}:\n${told}`);
		await this.spawn();
		this.earlier = (this.earlier ?? "") + told;
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
				host: "127.0.0.1", port: this.membersPort, servername: this.settings.DOMAIN, ca: fs.readFileSync(`${this.certificates}/ca.pem`), method, path: target,
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
		const { settings } = this, members = settings.MEMBERS.split(","), grants = settings.GRANTS?.split(",") ?? [];
		const password = crypto.randomBytes(12).toString("hex");
		await this.ctl(["site", "create", settings.SITE, "--title", "The news"]);
		await this.ctl(["channel", "create", settings.SITE, "daily", "--title", "Every day"]);
		for (const address of [...members, settings.CLOSED])
			await this.ctl(["account", "create", address, "--password-file", "-"], `${password}\n`);
		for (const [index, address] of members.entries()) {
			const { token } = await this.call("POST", "/v1/login", null, { address, password });
			for (const sender of [settings.SENDER, settings.OTHER])
				await this.call("PUT", `/v1/channels/${sender}/${settings.CHANNEL}`, token, {});
			if (grants[index])
				await this.giveGrant(address, grantOf(grants[index]));
			if (index === 0) {
				await this.call("PUT", `/v1/channels/${settings.SENDER}/extra`, token, {});
				await this.call("PUT", `/v1/channels/${settings.SENDER}/gone`, token, {});
				await this.call("PUT", `/v1/channels/${settings.FRIEND}/inbox`, token, {});
				this.settings.INBOX = address;
				this.settings.REVOKED = textOf(Buffer.from(await this.sql("SELECT encode(grant_id, 'hex') FROM tmtp.open_grant WHERE channel = 'gone'"), "hex"));
				await this.call("DELETE", `/v1/channels/${settings.SENDER}/gone`, token);
			}
		}
	}

	// The member's grant to the sender is to be this one, not the random one that was made.
	giveGrant(address, grant) {
		const [name, domain] = address.split("@"), whose = `sender_id = (SELECT sender_id FROM tmtp.sender WHERE address = '${this.settings.SENDER}')
			AND account_id = (SELECT account_id FROM tmtp.account WHERE name = '${name}' AND domain = '${domain}') AND channel = '${this.settings.CHANNEL}'`;
		return this.sql(["open_grant", "consent"].map((table) =>
			`UPDATE tmtp.${table} SET grant_id = decode('${grant.toString("hex")}', 'hex') WHERE ${whose};`).join("\n"));
	}

	sql(text) {
		const noted = path.join(this.state, "socket-directory");
		const socket = fs.existsSync(noted) ? fs.readFileSync(noted, "utf8").trim() : path.join(this.state, "run");
		return new Promise((resolve, reject) => {
			const child = execFile("psql", ["-qXAt", "-v", "ON_ERROR_STOP=1", `host=${socket} dbname=tmtp user=tmtp_owner`], { cwd: "/" },
				(error, stdout, stderr) => error ? reject(new Error(`${text}\n${stderr}`)) : resolve(stdout.trim()));
			child.stdin.end(text);
		});
	}

	// What a suite has to know of it, by its names.
	tell() {
		const names = ["PORT", "STARTTLS_PORT", "PICKUP_PORT", "DOMAIN", "SENDER", "OTHER", "FRIEND", "GUEST", "INBOX", "SITE", "MEMBERS", "CLOSED", "CHANNEL", "GRANTS", "REVOKED"];
		return { HOST: "127.0.0.1", CERTS: this.certificates, ...Object.fromEntries(names.filter((name) => this.settings[name]).map((name) => [name, this.settings[name]])) };
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
