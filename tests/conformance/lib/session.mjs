// A client's session: it says what it is told to, right or wrong, and reads what the server answers.
import net from "node:net";
import tls from "node:tls";
import { decode, encode, Raw, show } from "./bencode.mjs";
import { brief, faultsOfResponse, limitsOf } from "./form.mjs";

export const patience = 20_000;

// Faults of form in any response of the whole run; checks/responses.mjs looks at them in the end.
export const faults = [];
export const seen = new Map();

export class Session {
	// target: of lib/target.mjs. mode: "tls" (from the first octet), "starttls" or "plain". as: the name of a certificate.
	// more: further options of tls.connect.
	constructor(target, { mode = "tls", as = null, alpn = ["dmtp/1"], sni = target.domain, more = {} } = {}) {
		Object.assign(this, { target, mode, input: Buffer.alloc(0), elements: [], notes: [], waiting: null, closed: false, error: null });
		this.secure = {
			servername: sni, ca: target.ca, ALPNProtocols: alpn ?? undefined, ...target.certificate(as),
			checkServerIdentity: () => undefined, allowHalfOpen: true, ...more,
		};
		this.socket = net.connect({ host: target.host, port: mode === "tls" ? target.port : target.starttlsPort, allowHalfOpen: true });
		this.socket.setNoDelay(true);
		this.ended = new Promise((resolve) => {
			this.end = resolve;
		});
		if (mode === "tls")
			this.wrap();
		else
			this.listen();
	}

	wrap() {
		for (const event of ["data", "end", "close", "error"])
			this.socket.removeAllListeners(event);
		this.socket.on("error", (error) => this.finish(error));
		this.socket = tls.connect({ socket: this.socket, ...this.secure });
		this.listen();
		this.handshake = new Promise((resolve, reject) => {
			this.socket.once("secureConnect", resolve);
			this.socket.once("error", reject);
			this.socket.once("close", () => reject(new Error("closed within the handshake")));
		});
		this.handshake.catch(() => {});
	}

	listen() {
		this.socket.on("data", (octets) => this.take(octets));
		this.socket.on("end", () => this.finish(null));
		this.socket.on("close", () => this.finish(null));
		this.socket.on("error", (error) => this.finish(error));
	}

	// The server says nothing more.
	finish(error) {
		this.error ??= error;
		if (this.closed)
			return;
		this.closed = true;
		this.socket.end();
		this.waiting?.();
		this.end();
	}

	take(octets) {
		this.input = Buffer.concat([this.input, octets]);
		let at = 0;
		try {
			for (let found; (found = decode(this.input, { at, limit: 1 << 20 })) !== null; at = found.end)
				this.elements.push(found.value);
		} catch (error) {
			faults.push(`octets that are no element: ${error.message}: ${show(this.input.subarray(at, at + 60))}`);
			this.socket.destroy(error);
		}
		this.input = this.input.subarray(at);
		this.waiting?.();
	}

	// The next element, of any kind; undefined when the server has ended.
	async element(ms = patience) {
		const until = Date.now() + ms;
		while (this.elements.length === 0) {
			if (this.closed)
				return undefined;
			const left = until - Date.now();
			if (left <= 0)
				throw new Error(`nothing came for ${ms} ms`);
			await new Promise((resolve) => {
				const timer = setTimeout(resolve, left);
				this.waiting = () => {
					clearTimeout(timer);
					resolve();
				};
			});
			this.waiting = null;
		}
		return this.elements.shift();
	}

	// The next response of any letter; undefined at the end. Its form is judged.
	async response(ms) {
		const element = await this.element(ms);
		if (element === undefined)
			return undefined;
		const wrong = faultsOfResponse(element);
		faults.push(...wrong);
		if (wrong.length === 0)
			seen.set(brief(element), (seen.get(brief(element)) ?? 0) + 1);
		return element;
	}

	// The next answer to a command; what stands between, I and X, becomes a note.
	async reply(ms) {
		for (;;) {
			const response = await this.response(ms);
			if (response === undefined)
				throw new Error(`the session ended without a reply${this.error ? `: ${this.error.message}` : ""}`);
			if (!["I", "X"].includes(response[0].toString()))
				return response;
			this.notes.push(response);
		}
	}

	async replies(count) {
		const all = [];
		while (all.length < count)
			all.push(await this.reply());
		return all;
	}

	// Reads on to the end: all responses, in short.
	async rest(ms = patience) {
		const all = [];
		const until = Date.now() + ms;
		for (let response; (response = await this.response(Math.max(1, until - Date.now()))) !== undefined;)
			all.push(brief(response));
		return all;
	}

	async greet() {
		this.greeting = await this.element();
		if (this.greeting === undefined)
			throw new Error(`no greeting${this.error ? `: ${this.error.message}` : ""}`);
		if (!(this.greeting instanceof Map))
			throw new Error(`instead of a greeting: ${show(this.greeting)}`);
		this.limits = limitsOf(this.greeting.get("limits"));
		return this;
	}

	async upgrade() {
		this.send(["STARTTLS"]);
		const reply = await this.reply();
		if (brief(reply) !== "K")
			throw new Error(`STARTTLS was answered ${show(reply)}`);
		this.wrap();
		await this.handshake;
	}

	// Commands as lists, or octets as they are, in one piece.
	send(...parts) {
		this.socket.write(Buffer.concat(parts.map((part) => typeof part === "string" ? Buffer.from(part, "latin1") :
			part instanceof Raw ? part.octets : Buffer.isBuffer(part) ? part : encode(part))));
	}

	async ask(...command) {
		this.send(command);
		return this.reply();
	}

	// Sends the end of the stream; what comes is still read.
	halfClose() {
		this.socket.end();
	}

	close() {
		this.socket.destroy();
		this.finish(null);
	}
}
