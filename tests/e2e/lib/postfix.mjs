// A Postfix of a test's own: configuration, queue and ports apart from the machine's, started in the foreground and
// stopped by its process id. Needs root, as Postfix does, and Debian's package postfix. And a client that speaks to
// it, or LMTP to us, line by line.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { gone, until } from "./wait.mjs";

const daemons = "/usr/lib/postfix/sbin";

// Why there can be none here; undefined when there can.
export const noPostfix = process.getuid() !== 0 ? "Postfix needs root"
	: fs.existsSync(path.join(daemons, "master")) ? undefined : "the package postfix is missing";

const master = (port) => `127.0.0.1:${port} inet n - n - - smtpd
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - y - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`;

export class Postfix {
	// more: lines of main.cf.
	constructor(dir, port, more) {
		Object.assign(this, { dir, port });
		const { uid, gid } = Postfix.account;
		for (const name of ["conf", "queue", "data"])
			fs.mkdirSync(path.join(dir, name), { recursive: true, mode: 0o755 });
		fs.chownSync(path.join(dir, "data"), uid, gid);
		for (const name of ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop",
			"private", "public", "saved", "trace"]) {
			fs.mkdirSync(path.join(dir, "queue", name), { mode: 0o700 });
			fs.chownSync(path.join(dir, "queue", name), uid, gid);
		}
		fs.mkdirSync(path.join(dir, "queue/pid"), { mode: 0o755 });
		this.log = path.join(dir, "mail.log");
		fs.writeFileSync(path.join(dir, "conf/master.cf"), master(port));
		fs.writeFileSync(path.join(dir, "conf/main.cf"), `compatibility_level = 3.6
queue_directory = ${dir}/queue
data_directory = ${dir}/data
daemon_directory = ${daemons}
maillog_file = ${this.log}
maillog_file_prefixes = ${dir}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.home.test
mydestination =
mynetworks =
alias_maps =
local_recipient_maps =
notify_classes =
smtp_dns_support_level = disabled
default_transport = discard:
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
transport_retry_time = 1s
${more}
`);
	}

	static get account() {
		const [, , uid, gid] = execFileSync("getent", ["passwd", "postfix"], { encoding: "utf8" }).split(":");
		return { uid: Number(uid), gid: Number(gid) };
	}

	async start() {
		this.child = spawn(path.join(daemons, "master"), ["-c", path.join(this.dir, "conf"), "-d"],
			{ stdio: ["ignore", "ignore", "pipe"], detached: true });
		this.errors = "";
		this.child.stderr.on("data", (part) => { this.errors += part; });
		this.ended = new Promise((resolve) => this.child.on("exit", resolve));
		await until(() => `Postfix to listen: ${this.errors}${this.lines().slice(-20).join("\n")}`, () => new Promise((resolve) => {
			const socket = net.connect(this.port, "127.0.0.1");
			socket.on("error", () => resolve(false));
			socket.on("data", () => { socket.destroy(); resolve(true); });
		}));
		return this;
	}

	lines() {
		return fs.existsSync(this.log) ? fs.readFileSync(this.log, "utf8").split("\n") : [];
	}

	// Waits for a line of its log.
	line(pattern, from = 0) {
		return until(() => `${pattern} in Postfix's log:\n${this.lines().slice(from).slice(-30).join("\n")}`,
			() => this.lines().slice(from).find((line) => pattern.test(line)));
	}

	// The names of the mails that it has.
	queue() {
		const found = [];
		for (const name of ["incoming", "active", "deferred", "hold", "corrupt"])
			for (const entry of fs.readdirSync(path.join(this.dir, "queue", name), { recursive: true, withFileTypes: true }))
				if (entry.isFile())
					found.push(entry.name);
		return found;
	}

	empty() {
		return until(() => `Postfix to have nothing left: ${this.queue()}`, () => this.queue().length === 0);
	}

	// master tells its children when it ends.
	async stop() {
		if (this.child === undefined)
			return;
		this.child.kill("SIGTERM");
		await this.ended;
		await gone(this.child.pid);
		this.child = undefined;
	}
}

// A dialogue of lines over SMTP (port) or LMTP (path). Replies are {code, text}, text without its code.
export class Dialogue {
	static async open(to, hello = to.path || to.lmtp ? "LHLO client.test" : "EHLO client.test") {
		const d = new Dialogue();
		d.socket = net.connect(to.path ? { path: to.path } : { port: to.port ?? to, host: "127.0.0.1" });
		d.replies = [];
		d.waiting = [];
		d.rest = "";
		d.socket.setEncoding("utf8");
		d.socket.on("data", (part) => d.take(part));
		d.socket.on("error", (error) => d.fail(error));
		d.socket.on("close", () => d.fail(new Error("the session was closed")));
		d.greeting = await d.reply();
		if (hello !== null && d.greeting.code === 220)
			d.hello = await d.say(hello);
		return d;
	}

	take(part) {
		const lines = (this.rest + part).split("\r\n");
		this.rest = lines.pop();
		for (const line of lines) {
			this.text = (this.text === undefined ? "" : `${this.text}\n`) + line.slice(4);
			if (line[3] !== " ")
				continue;
			this.replies.push({ code: Number(line.slice(0, 3)), text: this.text });
			this.text = undefined;
			this.waiting.shift()?.resolve(this.replies.shift());
		}
	}

	fail(error) {
		this.closed = true;
		for (const { reject } of this.waiting.splice(0))
			reject(error);
	}

	reply() {
		if (this.replies.length > 0)
			return Promise.resolve(this.replies.shift());
		if (this.closed)
			return Promise.reject(new Error("the session was closed"));
		return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
	}

	say(line) {
		this.socket.write(`${line}\r\n`);
		return this.reply();
	}

	async expect(code, line) {
		const answer = await this.say(line);
		assert.equal(answer.code, code, `${line}: ${answer.code} ${answer.text}`);
		return answer;
	}

	// The whole of a mail; rcpts that are refused are left out. Resolves to the replies of RCPTs and after DATA.
	async mail(from, rcpts, content) {
		await this.expect(250, `MAIL FROM:<${from}>`);
		const asked = [];
		for (const rcpt of rcpts)
			asked.push(await this.say(`RCPT TO:<${rcpt}>`));
		const good = asked.filter((r) => r.code === 250).length;
		if (good === 0) {
			await this.expect(250, "RSET");
			return { asked, done: [] };
		}
		await this.expect(354, "DATA");
		const octets = Buffer.isBuffer(content) ? content : Buffer.from(content.replace(/\r?\n/g, "\r\n"));
		this.socket.write(Buffer.concat([stuff(octets), Buffer.from(octets.subarray(-2).toString() === "\r\n" ? ".\r\n" : "\r\n.\r\n")]));
		const done = [];
		for (let i = 0; i < (this.lmtp ? good : 1); i++)
			done.push(await this.reply());
		return { asked, done };
	}

	close() {
		this.socket.destroy();
	}
}

function stuff(octets) {
	return Buffer.from(octets.toString("latin1").replace(/(^|\r\n)\./g, "$1.."), "latin1");
}

export async function openLmtp(file) {
	const d = await Dialogue.open({ path: file });
	d.lmtp = true;
	return d;
}
