// A server's half of a session on TLS, as small as the test vectors of sessions need it (PROTOCOL.md, section 5): its store
// says K to everything.
import { decode, encode, Malformed, TooLong } from "./bencode.mjs";
import { limitsDefault } from "./form.mjs";
import { judge } from "./judge.mjs";

const refusal = (code) => ["E", { code, text: "" }];

export class Machine {
	constructor({ host, ext, rcpts }) {
		this.limits = { ...limitsDefault, rcpts };
		Object.assign(this, { ext, input: Buffer.alloc(0), output: encode({ dmtp: 1, ext, host, limits: this.limits }), closed: false, bad: 0, noops: 0 });
	}

	say(response) {
		this.output = Buffer.concat([this.output, encode(response)]);
	}

	close() {
		this.say(["X"]);
		this.closed = true;
	}

	feed(octets) {
		this.input = Buffer.concat([this.input, octets]);
		while (!this.closed) {
			let found = null;
			try {
				found = decode(this.input, { limit: this.limits.command });
			} catch (error) {
				this.say(refusal(error instanceof TooLong ? "too-large" : error instanceof Malformed ? "malformed" : undefined));
				return this.close();
			}
			if (found === null)
				return undefined;
			this.input = this.input.subarray(found.end);
			this.take(found.value);
		}
		return undefined;
	}

	take(command) {
		const verdict = judge(command, { limits: this.limits, now: 1_800_000_000, ext: this.ext }), verb = verdict === "pass" ? command[0].toString() : null;
		this.noops = verb === "NOOP" ? this.noops + 1 : 0;
		if (verb === "STARTTLS")
			return this.input.length > 0 ? void (this.closed = true) : this.say(refusal("not-now"));
		if (verb === "NOOP" && this.noops > this.limits.noops)
			return this.say(refusal("limit"));
		if (verdict === "pass" || verdict === "K") {
			this.say(["K"]);
			this.closed = verb === "QUIT";
			return undefined;
		}
		this.say(refusal(verdict.slice(2)));
		if (["E malformed", "E unknown-command"].includes(verdict) && ++this.bad === 20)
			this.close();
		return undefined;
	}

	// What was said since the last time.
	taken() {
		const output = this.output;
		this.output = Buffer.alloc(0);
		return output;
	}
}
