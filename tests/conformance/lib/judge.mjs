// What a server says of a command before it asks its database (PROTOCOL.md, sections 5.3, 5.4 and 6): "pass", "K", or a
// letter and a code.
import { encode } from "./bencode.mjs";
import { addressOf, isDomain, isId, isName, isUri, utf8 } from "./names.mjs";

const isString = Buffer.isBuffer, isInteger = (value) => ["number", "bigint"].includes(typeof value), isList = Array.isArray, isDictionary = (value) => value instanceof Map;

// --- shapes ------------------------------------------------------------------------------------------

// Each key with the type of its value; those with "?" may be absent.
const shapes = {
	POST: {
		from: isString, id: isString, date: isInteger, size: isInteger, digest: isString, rcpts: (value) => isList(value) && value.every(isRecipient), "uris?": isStrings,
		"key?": isString, "signature?": isString, "channel?": isString, "expires?": isInteger, "replaces?": isString, "recall?": isString,
	},
	CHANNELS: { from: isString, "users?": isStrings, "since?": isString },
	AUTH: { domain: isString, key: isString, signature: isString },
	GRANT: { from: isString, to: isString, channel: isString, state: isString, date: isInteger, "grant?": isString, "receipts?": isInteger, "presence?": isInteger },
	RECEIPT: { from: isString, to: isString, events: (value) => isList(value) && value.every(isRow) },
	PRESENCE: { from: isString, rcpts: isStrings, since: isInteger, state: isString, "until?": isInteger },
};

function isStrings(value) {
	return isList(value) && value.every(isString);
}

function isRecipient(value) {
	return isString(value) || (isList(value) && isString(value[0]) && (isString(value[1]) || isDictionary(value[1])));
}

function isRow(value) {
	return isList(value) && isString(value[0]) && isString(value[1]) && isString(value[2]) && isInteger(value[3]);
}

function hasShape(verb, value) {
	if (!isDictionary(value))
		return false;
	for (const [name, fits] of Object.entries(shapes[verb])) {
		const key = name.replace("?", "");
		if (value.has(key) ? !fits(value.get(key)) : !name.endsWith("?"))
			return false;
	}
	if (verb === "POST" && !value.has("uris") && !value.has("recall"))
		return false;
	return verb !== "CHANNELS" || value.has("users") !== value.has("since");
}

// --- values ----------------------------------------------------------------------------------------------

const inTime = (date, now) => BigInt(date) >= BigInt(now) - 2_592_000n && BigInt(date) <= BigInt(now) + 3600n;

function areVariables(dictionary) {
	return encode(dictionary).length <= 1024 && [...dictionary].every(([name, value]) => /^[a-z0-9_]{1,30}$/.test(name) && isString(value) && utf8(value) !== null);
}

const recipientFits = (rcpt) => isString(rcpt) ? rcpt.length === 20 : isString(rcpt[1]) || (rcpt[0].length === 20 && areVariables(rcpt[1]));

function postFits(post, now) {
	const get = (key) => post.get(key), has = (key) => post.has(key), rcpts = get("rcpts"), uris = get("uris") ?? [];
	const addresses = rcpts.filter((rcpt) => isList(rcpt) && isString(rcpt[1]));
	const earlier = ["recall", "replaces"].filter(has).map(get);
	return addressOf(get("from")) !== null && isId(get("id")) && inTime(get("date"), now) && get("size") >= 1 && get("digest").length === 32 &&
		uris.every(isUri) && (uris.length === 0) === has("recall") && rcpts.length >= 1 && rcpts.every(recipientFits) &&
		new Set(addresses.map(([address]) => address.toString("latin1").replace(/[A-Z]/g, (c) => c.toLowerCase()))).size <= 1 &&
		has("key") === has("signature") && (!has("key") || (isId(get("key")) && get("signature").length === 64)) &&
		(addresses.every(([, channel]) => channel.toString() !== "invite") || (has("channel") && isName(get("channel")))) &&
		(!has("channel") || get("channel").length > 0) && earlier.length <= 1 && earlier.every((id) => isId(id) && !id.equals(get("id")));
}

function grantFits(grant, now) {
	const state = grant.get("state").toString();
	return addressOf(grant.get("from")) !== null && addressOf(grant.get("to")) !== null && isName(grant.get("channel")) &&
		["granted", "refused", "revoked"].includes(state) && (state === "refused" ? !grant.has("grant") : grant.get("grant")?.length === 20) &&
		[0, 1].includes(grant.get("receipts") ?? 0) && [0, 1].includes(grant.get("presence") ?? 0) && inTime(grant.get("date"), now);
}

const rowFits = ([id, grant, kind]) => isId(id) && grant.length === 20 && ["read", "withdrawn"].includes(kind.toString());

function presenceFits(presence, now) {
	const get = (key) => presence.get(key), state = get("state").toString();
	return addressOf(get("from")) !== null && get("rcpts").length >= 1 && get("rcpts").every((grant) => grant.length === 20) &&
		["online", "away", "offline"].includes(state) && (state === "offline") !== presence.has("until") &&
		BigInt(get("since")) >= 0n && [get("since"), get("until") ?? 0].every((time) => BigInt(time) <= BigInt(now) + 3600n);
}

const values = {
	POST: (post, limits, now) => {
		if (post.get("rcpts").length > limits.rcpts || (post.get("uris") ?? []).length > limits.uris)
			return "E limit";
		if (!postFits(post, now))
			return "E malformed";
		if (post.get("size") > limits.message)
			return "E too-large";
		return post.has("expires") && post.get("expires") < now ? "K" : "pass";
	},
	CHANNELS: (channels, limits) => {
		if ((channels.get("users") ?? []).length > limits.rcpts)
			return "E limit";
		return addressOf(channels.get("from")) !== null && (channels.get("since") ?? "").length <= 64 ? "pass" : "E malformed";
	},
	GRANT: (grant, limits, now) => grantFits(grant, now) ? "pass" : "E malformed",
	RECEIPT: (receipt, limits) => {
		if (receipt.get("events").length > limits.rcpts)
			return "E limit";
		return addressOf(receipt.get("from")) !== null && addressOf(receipt.get("to")) !== null && receipt.get("events").every(rowFits) ? "pass" : "E malformed";
	},
	PRESENCE: (presence, limits, now) => {
		if (presence.get("rcpts").length > limits.rcpts)
			return "E limit";
		return presenceFits(presence, now) ? "pass" : "E malformed";
	},
	AUTH: (auth) => isDomain(auth.get("domain")) && isId(auth.get("key")) && auth.get("signature").length === 64 ? "pass" : "E malformed",
};

// secured: on TLS. verified: for the domain of `from`. ext: the extension verbs that are offered.
export function judge(command, { limits, now, verified = true, secured = true, ext = ["AUTH", "GRANT", "RECEIPT", "PRESENCE"] }) {
	if (!isList(command) || !isString(command[0]))
		return "E malformed";
	const verb = command[0].toString("latin1");
	if (["NOOP", "QUIT", "STARTTLS"].includes(verb))
		return "pass";
	if (!["POST", "CHANNELS", ...ext].includes(verb))
		return "E unknown-command";
	if (!hasShape(verb, command[1]))
		return "E malformed";
	if (!secured)
		return "E tls-required";
	if (verb !== "AUTH" && !verified)
		return "E unverified-sender";
	return values[verb](command[1], limits, now);
}

