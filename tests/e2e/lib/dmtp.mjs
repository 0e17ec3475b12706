// DMTP/1 by hand: bencoding, a client that says what it is told to, and messages to be posted.
import crypto from "node:crypto";
import net from "node:net";
import tls from "node:tls";

// --- bencoding: strings are octets, read as latin1 ------------------------------------

const raw = (value) => Buffer.isBuffer(value) ? value : Buffer.from(value);
const str = (value) => Buffer.concat([Buffer.from(`${raw(value).length}:`), raw(value)]);

export function encode(value) {
	if (typeof value === "number" || typeof value === "bigint")
		return Buffer.from(`i${value}e`);
	if (typeof value === "string" || Buffer.isBuffer(value))
		return str(value);
	if (Array.isArray(value))
		return Buffer.concat([Buffer.from("l"), ...value.map(encode), Buffer.from("e")]);
	const keys = Object.keys(value).filter((key) => value[key] !== undefined).sort();
	return Buffer.concat([Buffer.from("d"), ...keys.flatMap((key) => [str(key), encode(value[key])]), Buffer.from("e")]);
}

// [value, where it ends], or null when it isn't all there.
export function decode(octets, at = 0) {
	const c = String.fromCharCode(octets[at] ?? 0);
	if (c === "i") {
		const end = octets.indexOf("e", at);
		return end < 0 ? null : [Number(octets.subarray(at + 1, end).toString()), end + 1];
	}
	if (c === "l" || c === "d") {
		const items = [];
		for (at++; octets[at] !== 0x65;) {
			const item = decode(octets, at);
			if (item === null)
				return null;
			items.push(item[0]);
			at = item[1];
		}
		if (c === "l")
			return [items, at + 1];
		const pairs = [];
		for (let i = 0; i < items.length; i += 2)
			pairs.push([items[i], items[i + 1]]);
		return [Object.fromEntries(pairs), at + 1];
	}
	const colon = octets.indexOf(":", at);
	if (colon < 0)
		return null;
	const end = colon + 1 + Number(octets.subarray(at, colon).toString());
	return end > octets.length ? null : [octets.subarray(colon + 1, end).toString("latin1"), end];
}

// --- a session ---------------------------------------------------------------------------

export class Session {
	// options: port, domain (SNI), ca, and of oneself cert and key; plain: without TLS; more: further options of tls.connect.
	constructor({ port, domain, ca, cert, key, plain = false, more = {} }) {
		this.input = Buffer.alloc(0);
		this.replies = [];
		this.waiting = [];
		this.socket = plain ? net.connect(port, "127.0.0.1") :
			tls.connect({ host: "127.0.0.1", port, servername: domain, ca, cert, key, ALPNProtocols: ["dmtp/1"], ...more });
		this.greeting = this.read();
		this.ended = new Promise((resolve) => this.socket.on("close", resolve));
		this.socket.on("data", (octets) => this.take(octets));
		this.socket.on("error", () => {});
		this.socket.on("close", () => this.waiting.splice(0).forEach(({ reject }) => reject(new Error("the session ended"))));
		this.greeting.catch(() => {});
	}

	take(octets) {
		this.input = Buffer.concat([this.input, octets]);
		for (let found; (found = decode(this.input)) !== null; this.input = this.input.subarray(found[1])) {
			const waiting = this.waiting.shift();
			if (waiting)
				waiting.resolve(found[0]);
			else
				this.replies.push(found[0]);
		}
	}

	// The next element that the server says.
	read() {
		if (this.replies.length > 0)
			return Promise.resolve(this.replies.shift());
		return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
	}

	async ask(...command) {
		await this.greeting;
		this.socket.write(encode(command));
		return this.read();
	}

	close() {
		this.socket.destroy();
		return this.ended;
	}
}

// --- messages -------------------------------------------------------------------------------

export const seconds = () => Math.floor(Date.now() / 1000);

// A message's octets and the arguments of the POST that announces it.
export function compose({ from, to, subject = "Hello", uris, rcpts, id = crypto.randomUUID(), date = seconds(), salt = crypto.randomBytes(16) }) {
	const octets = encode({ from, to, date, salt, fields: [{ name: "subject", type: "text/plain", data: subject }] });
	const digest = crypto.createHash("sha256").update(octets).digest();
	return { octets, post: { from, id, date, size: octets.length, digest, uris, rcpts } };
}
