// What a check expects, told in short when it isn't so.
import assert from "node:assert/strict";
import { show } from "./bencode.mjs";
import { brief } from "./form.mjs";

export function expect(reply, wanted) {
	if (brief(reply) !== wanted)
		assert.fail(`${show(reply)} instead of ${wanted}`);
}

export function expectAll(replies, wanted) {
	assert.deepEqual(replies.map(brief), wanted);
}

// K that names no failure.
export function expectPlain(reply) {
	expect(reply, "K");
	assert.ok(!reply[1]?.has("failed"), `${show(reply)} instead of a K without failures`);
}

// K whose "failed" is exactly [[index, "E channel-closed"]…].
export function expectFailed(reply, wanted) {
	expect(reply, "K");
	const failed = (reply[1]?.get("failed") ?? []).map(([index, letter, code]) => [index, `${letter} ${code}`]);
	assert.deepEqual(failed.sort((a, b) => a[0] - b[0]), wanted, show(reply));
}

// The session still takes commands.
export async function expectAlive(session) {
	expect(await session.ask("NOOP"), "K");
}

// Everything that the server still says, and then its end.
export async function expectRest(session, wanted, ms) {
	assert.deepEqual(await session.rest(ms), wanted);
}
