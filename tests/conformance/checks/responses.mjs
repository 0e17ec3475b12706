// PROTOCOL.md, section 7, of everything that the server said in this run.
import assert from "node:assert/strict";
import { faults, seen } from "../lib/session.mjs";
import { check } from "../lib/tap.mjs";

check("7", "every response was a letter and a dictionary of the right form, with known codes and bounded texts", () => {
	assert.ok([...seen.values()].reduce((a, b) => a + b, 0) > 0);
	assert.deepEqual(faults, []);
}, { last: true });

// What every server has been given reason to say by the other checks; I and Z it says when it has reasons of its own.
check("7", "the letters K, E and X were said", (t) => {
	if (t.target.partial)
		t.skip("only some of the checks ran");
	const letters = new Set([...seen.keys()].map((response) => response[0]));
	assert.deepEqual(["K", "E", "X"].filter((letter) => !letters.has(letter)), [], "never said");
}, { last: true });
