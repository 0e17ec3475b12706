// The suite's own reading, held against tests/vectors: what is wrong here is the suite, a vector or the specification, never
// the server under test.
import assert from "node:assert/strict";
import fs from "node:fs";
import { decode, Malformed, TooLong } from "../lib/bencode.mjs";
import { cardOf, judgeSignature } from "../lib/card.mjs";
import { faultsOfGreeting, faultsOfResponse, limitsDefault, limitsOf } from "../lib/form.mjs";
import { grantOf, textOf } from "../lib/grant.mjs";
import { judge } from "../lib/judge.mjs";
import { Machine } from "../lib/machine.mjs";
import { authSigned, digestOf, expand, messageOf, messageSigned } from "../lib/message.mjs";
import { addressOf, isUri, placeOf } from "../lib/names.mjs";
import { check } from "../lib/tap.mjs";

const unescaped = (text) => Buffer.from(text.replace(/\\x([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16))), "latin1");
const hex = (octets) => Buffer.from(octets.toString(), "hex");

// The blocks of a file: lists of [key, octets].
function blocks(file) {
	const text = fs.readFileSync(new URL(`../../vectors/${file}`, import.meta.url), "latin1");
	return text.split(/\n\n+/).map((block) => block.split("\n").filter((line) => line !== "" && !line.startsWith("#"))
		.map((line) => [line.slice(0, line.indexOf(":")), unescaped(line.slice(line.indexOf(":") + 1).replace(/^ /, ""))])).filter((block) => block.length > 0);
}

// judge: (block's values by key, the block in order) throws what is wrong.
function file(clause, name, run) {
	check(clause, `the suite itself reads tests/vectors/${name} as it says`, () => {
		const all = blocks(name);
		assert.ok(all.length > 0);
		for (const block of all) {
			const values = Object.fromEntries(block), title = (values.name ?? values.octets ?? values.text ?? "").toString("latin1");
			try {
				run(values, block);
			} catch (error) {
				error.message = `${title}: ${error.message}`;
				throw error;
			}
		}
	});
}

const number = (octets) => octets === undefined ? undefined : Number(octets.toString());

// The value, or what is wrong with the octets.
function reading(octets, limit = 1000) {
	try {
		const found = decode(octets, { limit });
		return found === null ? "more" : found.value;
	} catch (error) {
		if (error instanceof Malformed)
			return "bad";
		if (error instanceof TooLong)
			return "limit";
		throw error;
	}
}

file("3", "elements.txt", ({ octets, limit, answer }) => {
	const value = reading(octets, number(limit));
	assert.equal(typeof value === "string" ? value : "ok", answer.toString());
});

file("6", "commands.txt", ({ octets, now, verified, verb, rcpts, answer }) => {
	const command = decode(octets, { limit: limitsDefault.command }).value;
	assert.equal(judge(command, { limits: limitsDefault, now: number(now), verified: verified?.toString() !== "no" }), answer.toString());
	if (verb)
		assert.equal(command[0].toString(), verb.toString());
	if (rcpts)
		assert.equal(command[1].get("rcpts").length, number(rcpts));
});

// As a client reads it: codes of the future are taken, a retry is brought within its bounds.
const tolerated = (fault) => /with code "|^retry is/.test(fault);

file("7", "responses.txt", ({ octets, answer, letter, code, retry, failed, channels, events, rcpts }) => {
	const response = reading(octets, 1 << 20), wrong = faultsOfResponse(response).filter((fault) => !tolerated(fault));
	assert.equal(wrong.length > 0, answer !== undefined, wrong.join("; "));
	if (answer !== undefined)
		return;
	const more = response[1] ?? new Map();
	assert.equal(response[0].toString(), letter.toString());
	assert.equal(more.get("code")?.toString(), code?.toString());
	assert.equal(more.has("retry") ? Math.min(86400, Math.max(1, more.get("retry"))) : undefined, number(retry));
	assert.equal(more.get("failed")?.length, number(failed));
	assert.equal(more.get("channels")?.size, number(channels));
	assert.equal(more.get("events")?.length, number(events));
	assert.equal(more.has("limits") ? limitsOf(more.get("limits")).rcpts : undefined, number(rcpts));
});

file("5.1", "greetings.txt", ({ octets, answer, version, rcpts, tls }) => {
	const greeting = reading(octets, 1 << 20), other = greeting instanceof Map && typeof greeting.get("dmtp") === "number" && greeting.get("dmtp") !== 1;
	assert.equal(!other && faultsOfGreeting(greeting).length > 0, answer !== undefined);
	if (answer !== undefined)
		return;
	assert.equal(greeting.get("dmtp"), number(version));
	if (rcpts)
		assert.equal(limitsOf(greeting.get("limits")).rcpts, number(rcpts));
	if (tls)
		assert.equal(greeting.get("tls") === 1, tls.toString() === "yes");
});

file("4", "addresses.txt", ({ octets, is, answer }) => {
	assert.equal(addressOf(octets), answer === undefined ? is.toString() : null);
});

file("11", "uris.txt", ({ octets, host, port, answer }) => {
	assert.equal(isUri(octets), answer?.toString() !== "bad");
	assert.deepEqual(placeOf(octets), answer ? null : { host: host.toString(), port: number(port) });
});

file("4", "grants.txt", ({ hex: octets, text, answer }) => {
	if (answer)
		return assert.throws(() => grantOf(text.toString()));
	assert.equal(grantOf(text.toString()).toString("hex"), octets.toString());
	return assert.equal(textOf(hex(octets)), text.toString());
});

file("10", "messages.txt", ({ octets, answer, fields, digest, key, signature }) => {
	const message = messageOf(octets);
	assert.equal(message === null, answer !== undefined);
	if (message === null)
		return;
	assert.equal(message.get("fields").length, number(fields));
	assert.equal(digestOf(octets).toString("hex"), digest.toString());
	assert.ok(messageSigned(hex(digest), hex(signature), hex(key)), "the signature");
	assert.ok(!messageSigned(Buffer.alloc(32), hex(signature), hex(key)), "any signature");
});

file("6.4", "auth.txt", ({ exporter, client, server, key, signature, answer }) => {
	assert.equal(authSigned(hex(exporter), client, server, hex(signature), hex(key)), answer === undefined);
});

file("9.2", "cards.txt", ({ octets, is, keys, hosts, signed, digest, date, key, signature, judged }) => {
	const card = cardOf(octets);
	assert.equal(typeof card === "string" ? card : "card", is.toString());
	if (keys)
		assert.equal(card.keys.size, number(keys));
	if (hosts)
		assert.equal(card.hosts.length, number(hosts));
	if (signed)
		assert.equal(card.signed, number(signed));
	if (judged)
		assert.equal(judgeSignature(card, hex(digest), number(date), key?.toString(), signature && hex(signature)), judged.toString());
});

file("10.3", "variables.txt", ({ type, text, variables, shown }) => {
	assert.equal(expand(text, type, decode(variables).value).toString("latin1"), shown.toString("latin1"));
});

file("5", "sessions.txt", (values, block) => {
	const machine = new Machine({ host: "mx.b.example", ext: ["GRANT", "RECEIPT"], rcpts: 2000 });
	for (const [key, octets] of block) {
		if (key === "C")
			machine.feed(octets);
		if (key === "S")
			assert.equal(machine.taken().toString("latin1"), octets.toString("latin1"));
	}
	assert.equal(machine.closed, values.close.toString() === "yes");
});
