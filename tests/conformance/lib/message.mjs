// Messages, signatures and variables (PROTOCOL.md, sections 6.4 and 10).
import crypto from "node:crypto";
import { decode, Malformed } from "./bencode.mjs";
import { addressOf, isUri, utf8 } from "./names.mjs";

const isString = Buffer.isBuffer;
const isInteger = (value) => ["number", "bigint"].includes(typeof value);
const isMediaType = (octets) => octets.length <= 255 && /^[A-Za-z0-9!#$&^_.+-]+\/[A-Za-z0-9!#$&^_.+-]+(;[\x20-\x7e]*)?$/.test(octets.toString("latin1"));
const contents = ["subject", "message", "attachment"];

// --- fields -----------------------------------------------------------------------------------------

const types = { name: isString, type: isString, data: isString, lang: isString, size: isInteger, digest: isString, uris: Array.isArray };

function fieldFits(field) {
	if (!(field instanceof Map) || !field.has("name") || !field.has("type") || Object.entries(types).some(([key, fits]) => field.has(key) && !fits(field.get(key))))
		return false;
	const large = ["size", "digest", "uris"].filter((key) => field.has(key)).length, name = field.get("name").toString(), type = field.get("type").toString("latin1");
	if ((large !== 0 && large !== 3) || (field.has("lang") && !/^[A-Za-z0-9-]{1,35}$/.test(field.get("lang").toString("latin1"))))
		return false;
	if (![...contents, "action"].includes(name))
		return true;
	if (!isMediaType(field.get("type")) || field.has("data") === (large === 3))
		return false;
	if (large === 3)
		return name === "attachment" && field.get("size") >= 1 && field.get("digest").length === 32 && field.get("uris").length >= 1 &&
			field.get("uris").every((uri) => isString(uri) && isUri(uri));
	return !(name === "subject" || (name === "message" && /^text\//i.test(type))) || utf8(field.get("data")) !== null;
}

// The message as a Map, or null when the octets are none.
export function messageOf(octets) {
	let found = null;
	try {
		found = decode(octets);
	} catch (error) {
		if (!(error instanceof Malformed))
			throw error;
	}
	if (found === null || found.end !== octets.length || !(found.value instanceof Map))
		return null;
	const message = found.value, fields = message.get("fields");
	const fits = isInteger(message.get("date")) && isString(message.get("salt")) && message.get("salt").length === 16 &&
		["from", "to"].every((key) => isString(message.get(key)) && addressOf(message.get(key)) !== null) &&
		Array.isArray(fields) && fields.every(fieldFits) && fields.some((field) => contents.includes(field.get("name").toString()));
	return fits ? message : null;
}

// --- signatures --------------------------------------------------------------------------------------

const publicKey = (raw) => crypto.createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });

export const digestOf = (octets) => crypto.createHash("sha256").update(octets).digest();

export function messageSigned(digest, signature, key) {
	return crypto.verify(null, Buffer.concat([Buffer.from("DMTP/1 message\0"), digest]), publicKey(key), signature);
}

export function authSigned(exporter, client, server, signature, key) {
	return crypto.verify(null, Buffer.concat([Buffer.from("DMTP/1 auth\0"), exporter, client, Buffer.from("\0"), server]), publicKey(key), signature);
}

// --- variables ------------------------------------------------------------------------------------------

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;" };
const noText = ["script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "noscript", "plaintext"];

// Where the piece of markup that begins at `at` ends: a comment, a declaration, or a tag; 0 when it is none.
function markup(html, at) {
	const rest = html.slice(at);
	const comment = rest.startsWith("<!--") && /^<![^]*?(-->|$)/.exec(rest);
	if (comment)
		return at + comment[0].length;
	const tag = /^<\/?[a-z][^\s/>]*(?:[\s/]+|[^\s/>=]+(?:\s*=\s*(?:"[^"]*(?:"|$)|'[^']*(?:'|$)|[^\s>"'][^\s>]*)?)?)*(?:>|$)/i.exec(rest);
	if (tag)
		return at + tag[0].length;
	const declaration = /^<[!?/][^>]*(?:>|$)/.exec(rest);
	return declaration ? at + declaration[0].length : 0;
}

// Behind the start tag of an element whose content is no text: where its end tag begins.
function endOfRaw(html, tag, end) {
	const name = /^<([a-z]+)[\s/>]/i.exec(tag)?.[1].toLowerCase();
	if (!noText.includes(name))
		return end;
	const close = new RegExp(`</${name}[\\s/>]`, "i").exec(html.slice(end));
	return close === null ? html.length : end + close.index;
}

// A value as text of that kind: in Markdown every ASCII punctuation mark that is no entity is escaped.
function escaped(value, markdown) {
	return value.replace(/[!-/:-@[-`{-~]/g, (c) => escapes[c] ?? (markdown ? `\\${c}` : c));
}

// What ends the link's destination that begins with the character at `at`, or "" when none does.
const destination = (text, at) => text[at - 1] !== "]" ? "" : { "(": ")", ":": "\n" }[text[at]] ?? "";

// The text with the recipient's variables (a Map of Buffers) in it. All are Buffers.
export function expand(text, type, variables) {
	const kind = type.toString("latin1"), all = text.toString("latin1");
	const html = /^(text\/html|application\/xhtml\+xml)\s*(;|$)/i.test(kind), markdown = /^text\/markdown\s*(;|$)/i.test(kind);
	const value = (name) => (variables.get(name) ?? Buffer.alloc(0)).toString("latin1");
	if (!html && !markdown)
		return Buffer.from(all.replace(/\{\{([a-z0-9_]{1,30})\}\}/g, (_, name) => value(name)), "latin1");
	let out = "", until = "";
	for (let at = 0; at < all.length;) {
		const end = all[at] === "<" ? markup(all, at) : 0;
		const found = all[at - 1] === "<" || until !== "" ? null : /^\{\{([a-z0-9_]{1,30})\}\}/.exec(all.slice(at, at + 34));
		const next = end > 0 ? endOfRaw(all, all.slice(at, end), end) : at + (found?.[0].length ?? 1);
		out += found && end === 0 ? escaped(value(found[1]), markdown) : all.slice(at, next);
		for (; markdown && !(found && end === 0) && at < next; at++) {
			if (until === "")
				until = destination(all, at);
			else if (all[at] === until || all[at] === "\n")
				until = "";
		}
		at = next;
	}
	return Buffer.from(out, "latin1");
}
