// PROTOCOL.md, section 7, of everything that the server said in this run.
import assert from "node:assert/strict";
import { faults, seen } from "../lib/session.mjs";
import { check } from "../lib/tap.mjs";

check("7", "every response was a letter and a dictionary of the right form, with known codes and bounded texts", () => {
	assert.ok([...seen.values()].reduce((a, b) => a + b, 0) > 0);
	assert.deepEqual(faults, []);
}, { last: true });
