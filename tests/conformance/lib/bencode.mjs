// Bencoding in its canonical form (PROTOCOL.md, section 3). Strings are Buffers, integers are Numbers where these are
// exact and BigInts otherwise, lists are arrays, dictionaries are Maps whose keys are latin1 strings, one character an octet.

export class Malformed extends Error {}
export class TooLong extends Error {}

const least = -(2n ** 63n), greatest = 2n ** 63n - 1n;
const [I, L, D, E, COLON, MINUS, ZERO, NINE] = [..."ilde:-09"].map((c) => c.charCodeAt(0));
const isDigit = (octet) => octet >= ZERO && octet <= NINE;

// --- writing ---------------------------------------------------------------------------

const octets = (text) => Buffer.isBuffer(text) ? text : Buffer.from(text);
const string = (text) => Buffer.concat([Buffer.from(`${octets(text).length}:`), octets(text)]);

// What is written already: it is put into its place as it stands, canonical or not.
export class Raw {
	constructor(text) {
		this.octets = Buffer.isBuffer(text) ? text : Buffer.from(text, "latin1");
	}
}

// Objects and Maps become dictionaries; what is undefined in them is left out. Text is written as UTF-8.
export function encode(value) {
	if (value instanceof Raw)
		return value.octets;
	if (typeof value === "number" || typeof value === "bigint")
		return Buffer.from(`i${value}e`);
	if (typeof value === "string" || Buffer.isBuffer(value))
		return string(value);
	if (Array.isArray(value))
		return Buffer.concat([Buffer.from("l"), ...value.map(encode), Buffer.from("e")]);
	const pairs = [...(value instanceof Map ? value : Object.entries(value))].filter(([, item]) => item !== undefined)
		.map(([key, item]) => [value instanceof Map ? Buffer.from(key, "latin1") : Buffer.from(key), item])
		.sort(([a], [b]) => Buffer.compare(a, b));
	return Buffer.concat([Buffer.from("d"), ...pairs.flatMap(([key, item]) => [string(key), encode(item)]), Buffer.from("e")]);
}

// --- reading ---------------------------------------------------------------------------

class Reader {
	constructor(octets, at, limit) {
		Object.assign(this, { octets, at, start: at, limit, open: 0 });
	}

	// A length was read: the element has at least the octets so far, the string, and the ends of what is open.
	reaches(length) {
		if (this.at - this.start + length + this.open > this.limit)
			throw new TooLong(`more than ${this.limit} octets`);
	}

	// The octet that comes next, undefined at the end.
	peek() {
		if (this.at - this.start >= this.limit)
			throw new TooLong(`more than ${this.limit} octets`);
		return this.octets[this.at];
	}

	integer() {
		this.at++;
		const from = this.at;
		if (this.peek() === MINUS)
			this.at++;
		const first = this.at;
		while (isDigit(this.peek())) {
			this.at++;
			if (this.at - first > 19)
				throw new Malformed("an integer out of range");
		}
		if (this.at - first > 1 && this.octets[first] === ZERO)
			throw new Malformed("an integer with a leading zero");
		if (first > from && this.octets[first] === ZERO)
			throw new Malformed("minus zero");
		if (this.peek() === undefined)
			return undefined;
		if (this.peek() !== E || this.at === first)
			throw new Malformed("an integer that is none");
		const value = BigInt(this.octets.toString("latin1", from, this.at));
		if (value < least || value > greatest)
			throw new Malformed("an integer out of range");
		this.at++;
		return Number.isSafeInteger(Number(value)) ? Number(value) : value;
	}

	string() {
		const first = this.at;
		let length = 0;
		while (isDigit(this.peek())) {
			length = length * 10 + this.peek() - ZERO;
			this.at++;
			if (this.at - first > 1 && this.octets[first] === ZERO)
				throw new Malformed("a length with a leading zero");
			this.reaches(length);
		}
		if (this.peek() === undefined)
			return undefined;
		if (this.peek() !== COLON)
			throw new Malformed("a length without its colon");
		this.at++;
		this.reaches(length);
		if (this.octets.length - this.at < length)
			return undefined;
		this.at += length;
		return this.octets.subarray(this.at - length, this.at);
	}

	list() {
		const items = [];
		for (this.at++; this.peek() !== E;) {
			const item = this.value();
			if (item === undefined)
				return undefined;
			items.push(item);
		}
		this.at++;
		return items;
	}

	dictionary() {
		const map = new Map();
		let last = null;
		for (this.at++; this.peek() !== E;) {
			if (this.peek() !== undefined && !isDigit(this.peek()))
				throw new Malformed("a key that is no string");
			const key = this.string();
			if (key === undefined)
				return undefined;
			if (last !== null && Buffer.compare(last, key) >= 0)
				throw new Malformed("keys out of order");
			last = key;
			if (this.peek() === E)
				throw new Malformed("a key without a value");
			const item = this.value();
			if (item === undefined)
				return undefined;
			map.set(key.toString("latin1"), item);
		}
		this.at++;
		return map;
	}

	// undefined: a valid start.
	value() {
		const c = this.peek();
		if (c === undefined)
			return undefined;
		if (c === I)
			return this.integer();
		if (isDigit(c))
			return this.string();
		if (c !== L && c !== D)
			throw new Malformed(`nothing begins with octet ${c}`);
		if (++this.open > 8)
			throw new Malformed("more than 8 containers");
		const value = c === L ? this.list() : this.dictionary();
		this.open--;
		return value;
	}
}

// {value, end} of the element that begins at `at`; null while it isn't all there. Throws Malformed, or TooLong as soon as
// it is sure that it will be longer than `limit`.
export function decode(octets, { at = 0, limit = Infinity } = {}) {
	const reader = new Reader(octets, at, limit);
	const value = reader.value();
	return value === undefined ? null : { value, end: reader.at };
}

// A value as a person reads it: strings that are text as text, others in hex.
export function show(value) {
	if (Buffer.isBuffer(value))
		return /^[\x20-\x7e]*$/.test(value.toString("latin1")) ? JSON.stringify(value.toString("latin1")) : `<${value.toString("hex")}>`;
	if (Array.isArray(value))
		return `[${value.map(show).join(", ")}]`;
	if (value instanceof Map)
		return `{${[...value].map(([key, item]) => `${show(Buffer.from(key, "latin1"))}: ${show(item)}`).join(", ")}}`;
	return String(value);
}
