// Site cards (PROTOCOL.md, section 9.2).
import { isDomain, isId, utf8 } from "./names.mjs";
import { messageSigned } from "./message.mjs";

class NoJson extends Error {}

// JSON in which no member stands twice; objects become Maps.
function parse(text) {
	let at = 0;
	const blank = () => {
		while (" \t\n\r".includes(text[at] ?? "x"))
			at++;
	};
	const take = (what) => {
		blank();
		if (!text.startsWith(what, at))
			throw new NoJson(`no ${what} at ${at}`);
		at += what.length;
	};
	const peek = () => (blank(), text[at]);
	const scalar = () => {
		const found = /^("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)/.exec(text.slice(at))?.[0];
		try {
			at += found.length;
			return JSON.parse(found);
		} catch {
			throw new NoJson(`nothing at ${at}`);
		}
	};
	const several = (open, close, one) => {
		take(open);
		while (peek() !== close) {
			one();
			if (peek() !== close) {
				take(",");
				if (peek() === close)
					throw new NoJson("a comma too many");
			}
		}
		take(close);
	};
	const value = () => {
		if (peek() === "{") {
			const map = new Map();
			several("{", "}", () => {
				blank();
				const name = scalar();
				take(":");
				if (typeof name !== "string" || map.has(name))
					throw new NoJson(`the member ${name}`);
				map.set(name, value());
			});
			return map;
		}
		if (peek() === "[") {
			const list = [];
			several("[", "]", () => list.push(value()));
			return list;
		}
		return scalar();
	};
	const whole = value();
	if (peek() !== undefined)
		throw new NoJson("something behind it");
	return whole;
}

function keyOf(item) {
	if (!(item instanceof Map))
		return null;
	const [id, text, from, until] = ["id", "ed25519", "from", "until"].map((name) => item.get(name));
	const fits = typeof id === "string" && isId(Buffer.from(id)) && typeof text === "string" && /^[A-Za-z0-9_-]{43}$/.test(text) &&
		Buffer.from(text, "base64url").toString("base64url") === text && Number.isInteger(from) && Number.isInteger(until);
	return fits ? { id, key: Buffer.from(text, "base64url"), from, until } : null;
}

// "none", "bad", or {keys, hosts, signed}.
export function cardOf(octets) {
	let card = null;
	try {
		card = parse(utf8(octets) ?? "");
	} catch (error) {
		if (!(error instanceof NoJson))
			throw error;
	}
	if (!(card instanceof Map) || card.get("dmtp") !== 1)
		return "none";
	const signed = card.get("signed") ?? 0, hosts = card.get("hosts") ?? [], listed = card.get("keys") ?? [];
	if (![0, 1].includes(signed) || !Array.isArray(hosts) || !Array.isArray(listed))
		return "bad";
	const keys = new Map();
	for (const key of listed.map(keyOf))
		if (key !== null && !keys.has(key.id))
			keys.set(key.id, key);
	return { keys, hosts: hosts.filter((host) => typeof host === "string" && isDomain(Buffer.from(host))), signed };
}

// What a card says of a message that is signed by the key of that id, or not at all.
export function judgeSignature(card, digest, date, id, signature) {
	if (signature === undefined)
		return card.signed === 1 ? "unsigned" : "good";
	const key = card.keys.get(id);
	if (key === undefined)
		return "no-key";
	if (date < key.from || date >= key.until)
		return "key-ended";
	return messageSigned(digest, signature, key.key) ? "good" : "forged";
}
