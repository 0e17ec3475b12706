// PROTOCOL.md, section 5.5, on a server whose greeting says a short `idle`. All of these run at the same time.
import assert from "node:assert/strict";
import net from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { encode } from "../lib/bencode.mjs";
import { expect, expectAlive, expectAll, expectPlain, expectRest } from "../lib/expect.mjs";
import { brief } from "../lib/form.mjs";
import { check } from "../lib/tap.mjs";

const longest = 15, slack = 15_000;

// A session, and its idle time in milliseconds; skipped when waiting for it would take too long.
async function opened(t, options) {
	const session = await t.open(options), { idle } = session.limits;
	if (idle > longest && !t.target.long)
		t.skip(`idle is ${idle} s; more than ${longest} s are waited for only with LONG=1`);
	return { session, idle: idle * 1000 };
}

function timed(name, run) {
	check("5.5", name, run, { slow: true });
}

timed("an idle session is sent X after `idle`, and closed 10 seconds later", async (t) => {
	const { session, idle } = await opened(t);
	const began = Date.now();
	const response = await session.response(idle + slack);
	assert.equal(brief(response), "X");
	assert.ok(Date.now() - began > idle * 0.8, "too early");
	assert.equal(await session.response(10_000 + slack), undefined);
	assert.ok(Date.now() - began > idle + 8000, "closed too early");
});

timed("after X commands are answered still, STARTTLS with E not-now, and QUIT", async (t) => {
	const { session, idle } = await opened(t, { mode: "plain" });
	assert.equal(brief(await session.response(idle + slack)), "X");
	session.send(["STARTTLS"]);
	expect(await session.reply(), "E not-now");
	session.send(["NOOP"], ["QUIT"]);
	await expectRest(session, ["K", "K"]);
});

// Nothing but NOOPs, no more in a row than are allowed, over a time that is longer than `idle`.
timed("NOOP keeps a session alive", async (t) => {
	const { session, idle } = await opened(t), count = Math.min(session.limits.noops, 3), share = count === 1 ? 0.6 : 0.4;
	if (count === 0)
		t.skip("the greeting allows no NOOP");
	for (let i = 0; i < count; i++) {
		await pause(idle * share);
		await expectAlive(session);
	}
	await pause(idle * share);
	expect(await session.ask("HELLO"), "E unknown-command");
	assert.deepEqual(session.notes, []);
});

timed("a command must be complete `idle` after its first octet, however its octets trickle; what was complete is answered", async (t) => {
	const { session, idle } = await opened(t, { as: "sender" });
	session.send(["POST", await t.post()]);
	const octets = encode(["NOOP", "x".repeat(1000)]);
	let at = 0, over = false;
	const trickle = (async () => {
		while (!over && at < octets.length - 1) {
			session.send(octets.subarray(at, ++at));
			await pause(idle / 50);
		}
	})();
	const began = Date.now();
	await expectRest(session, ["K", "X"], idle + 10_000 + slack);
	over = true;
	assert.ok(Date.now() - began > idle * 0.8, "too early");
	await trickle;
});

timed("many commands, each of them in time, may take longer than `idle` together", async (t) => {
	const { session, idle } = await opened(t), until = Date.now() + idle * 1.5;
	const octets = encode(["HELLO"]);
	for (let i = 0; i < 15 && Date.now() < until; i++) {
		session.send(octets.subarray(0, 3));
		await pause(idle / 12);
		session.send(octets.subarray(3));
		expect(await session.reply(), "E unknown-command");
	}
	assert.deepEqual(session.notes, []);
});

timed("a client that takes no octet of what waits for it is closed", async (t) => {
	const { session, idle } = await opened(t, { as: "sender" });
	const users = Array.from({ length: 100 }, (_, i) => `${String(i).padStart(60, "x")}@${t.target.domain}`);
	const command = encode(["CHANNELS", { from: t.target.sender, users }]), count = Math.ceil((24 << 20) / command.length);
	session.socket.pause();
	for (let i = 0; i < count; i++)
		session.send(command);
	await pause(idle * 1.5 + 3000);
	session.socket.resume();
	let answered = 0;
	for (let reply; (reply = await session.response(idle + 10_000 + slack)) !== undefined;)
		answered += brief(reply) === "K";
	assert.ok(answered < count, `all ${count} were answered`);
});

timed("a handshake that doesn't begin, or doesn't end, is closed after 30 seconds", async (t) => {
	if (!t.target.long)
		t.skip("only with LONG=1");
	const began = Date.now();
	await Promise.all([Buffer.alloc(0), Buffer.from([22, 3, 1, 2, 0, 1])].map((octets) => new Promise((resolve) => {
		const socket = net.connect(t.target.port, t.target.host);
		socket.on("error", () => {}).on("close", resolve);
		socket.resume();
		socket.write(octets);
	})));
	const took = Date.now() - began;
	assert.ok(took > 25_000 && took < 30_000 + slack, `${took} ms`);
});

timed("a session that waits for its answers is not idle: a window of commands that is read late", async (t) => {
	const { session, idle } = await opened(t, { as: "sender" }), count = session.limits.pipeline;
	for (let i = 0; i < count; i++) {
		session.send(["POST", await t.post()]);
		await pause(idle / count);
	}
	(await session.replies(count)).forEach(expectPlain);
	await expectAlive(session);
	expectAll(session.notes, []);
});
