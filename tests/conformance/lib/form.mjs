// What a greeting and a response must look like (PROTOCOL.md, sections 5.1 and 7). Each function gives a list of what is wrong.
import { show } from "./bencode.mjs";

const isText = (value) => Buffer.isBuffer(value) && Buffer.from(value.toString()).equals(value);
const isNumber = (value) => typeof value === "number";
const ascii = (value) => Buffer.isBuffer(value) ? value.toString("latin1") : value;

export const limitsDefault = { command: 262144, idle: 300, message: 26214400, noops: 10, pipeline: 64, rcpts: 1000, uris: 8 };
export const limitsLeast = { command: 65536, idle: 1, message: 1, noops: 0, pipeline: 8, rcpts: 100, uris: 4 };

// The limits that a dictionary means, absent keys being the defaults.
export function limitsOf(dictionary) {
	const limits = { ...limitsDefault };
	for (const key of Object.keys(limits))
		if (dictionary?.has(key))
			limits[key] = dictionary.get(key);
	return limits;
}

export function faultsOfLimits(dictionary) {
	if (!(dictionary instanceof Map))
		return ["limits is no dictionary"];
	return Object.entries(limitsLeast).filter(([key]) => dictionary.has(key)).flatMap(([key, floor]) => {
		const value = dictionary.get(key);
		return isNumber(value) && value >= floor ? [] : [`limits.${key} is ${show(value)}, the least is ${floor}`];
	});
}

export function faultsOfGreeting(greeting) {
	if (!(greeting instanceof Map))
		return [`the greeting is no dictionary: ${show(greeting)}`];
	const faults = [];
	if (greeting.get("dmtp") !== 1)
		faults.push(`dmtp is ${show(greeting.get("dmtp"))}`);
	if (greeting.has("ext") && !(Array.isArray(greeting.get("ext")) && greeting.get("ext").every(Buffer.isBuffer)))
		faults.push("ext is no list of strings");
	const host = greeting.get("host");
	if (!Buffer.isBuffer(host) || host.length > 253 || host.includes(0))
		faults.push(`host is ${show(host)}`);
	if (greeting.has("limits"))
		faults.push(...faultsOfLimits(greeting.get("limits")));
	if (greeting.has("tls") && ![0, 1].includes(greeting.get("tls")))
		faults.push(`tls is ${show(greeting.get("tls"))}`);
	return faults;
}

// The codes and the letters that they come with.
export const codes = {
	"channel-closed": "E", throttled: "Z", storage: "Z", "too-large": "E", "duplicate-conflict": "E", malformed: "E",
	"tls-required": "E", "unverified-sender": "EZ", "not-now": "E", limit: "E", "unknown-command": "E", "shutting-down": "Z",
};

const isCode = (letter, code) => codes[ascii(code)]?.includes(letter) ?? false;

function faultsOfFailed(failed) {
	if (!Array.isArray(failed) || failed.length === 0)
		return ["failed is no list, or empty"];
	return failed.filter((row) => !(Array.isArray(row) && isNumber(row[0]) && row[0] >= 0 && isCode(ascii(row[1]), row[2])))
		.map((row) => `failed has ${show(row)}`);
}

function faultsOfChannels(channels) {
	if (!(channels instanceof Map))
		return ["channels is no dictionary"];
	return [...channels].filter(([, list]) => !(Array.isArray(list) && list.every((channel) => channel instanceof Map &&
		Buffer.isBuffer(channel.get("id")) && Buffer.isBuffer(channel.get("name"))))).map(([user]) => `channels of ${user}`);
}

function faultsOfEvents(events, next) {
	const faults = Array.isArray(events) && events.length <= 1000 && events.every((event) => event instanceof Map) ? [] : ["events is no list of up to 1000 dictionaries"];
	return Buffer.isBuffer(next) && next.length <= 64 ? faults : [...faults, `next is ${show(next)}`];
}

function faultsOfMore(letter, more) {
	const faults = [];
	if (letter === "K" && more.has("events"))
		faults.push(...faultsOfEvents(more.get("events"), more.get("next")));
	if (more.has("text") && !(isText(more.get("text")) && more.get("text").length <= 200))
		faults.push(`text is ${show(more.get("text"))}`);
	if (more.has("text") && /<\/?[a-z]/i.test(more.get("text").toString()))
		faults.push(`text has markup: ${show(more.get("text"))}`);
	if (more.has("retry") && !(isNumber(more.get("retry")) && more.get("retry") >= 1 && more.get("retry") <= 86400))
		faults.push(`retry is ${show(more.get("retry"))}`);
	if ("EZ".includes(letter) && !(more.has("code") && more.has("text")))
		faults.push(`${letter} without code or text`);
	if ("EZ".includes(letter) && !isCode(letter, more.get("code")))
		faults.push(`${letter} with code ${show(more.get("code"))}`);
	if (letter === "Z" && !more.has("retry"))
		faults.push("Z without retry");
	if (more.has("failed"))
		faults.push(...faultsOfFailed(more.get("failed")));
	if (more.has("channels"))
		faults.push(...faultsOfChannels(more.get("channels")));
	if (more.has("limits"))
		faults.push(...faultsOfLimits(more.get("limits")));
	return faults;
}

export function faultsOfResponse(response) {
	const letter = Array.isArray(response) ? ascii(response[0]) : undefined;
	if (!["I", "X", "K", "E", "Z"].includes(letter))
		return [`no response: ${show(response)}`];
	if (response.length > 1 && !(response[1] instanceof Map))
		return [`${letter} with ${show(response[1])}`];
	if (response.length === 1)
		return "EZ".includes(letter) ? [`${letter} without a dictionary`] : [];
	return faultsOfMore(letter, response[1]);
}

// "K", "E malformed": a response in short.
export function brief(response) {
	const code = response[1]?.get?.("code");
	return ascii(response[0]) + (code === undefined ? "" : ` ${ascii(code)}`);
}
