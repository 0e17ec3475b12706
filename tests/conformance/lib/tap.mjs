// The list of checks, and running it: TAP, version 13, in the order in which checks end. Several run at the same time, all
// that only wait from the beginning.
import { faults } from "./session.mjs";

const checks = [], lanes = 6;

export class Skip extends Error {}

// clause: the section of PROTOCOL.md that the check holds the server against; run: (target) => …, throws what is wrong.
// slow: it waits for a deadline. last: it runs when all others are done, alone.
export function check(clause, name, run, { slow = false, last = false } = {}) {
	checks.push({ clause, name, run, slow, last });
}

// Every check's name, as it is printed.
export const names = () => checks.map(({ clause, name }) => `${clause}: ${name}`);

const indent = (text) => text.split("\n").map((line) => `    ${line}`).join("\n");

function judge(error) {
	if (error === null)
		return { ok: true, more: "" };
	if (error instanceof Skip)
		return { ok: true, more: ` # SKIP ${error.message}` };
	return { ok: false, more: `\n  ---\n  message: |\n${indent(error.message)}\n  at: |\n${indent((error.stack ?? "").split("\n").filter((l) => l.includes("/checks/")).join("\n"))}\n  ...` };
}

async function attempt(one, target) {
	const sessions = target.sessions(), began = Date.now();
	try {
		await one.run(sessions);
		return null;
	} catch (error) {
		return error;
	} finally {
		sessions.closeAll();
		one.ms = Date.now() - began;
	}
}

// Resolves to {passed, failed, skipped}. only: a pattern for names and clauses.
export async function run(target, { only = null, write = console.log } = {}) {
	const count = { passed: 0, failed: 0, skipped: 0 }, wanted = checks.filter(({ clause, name }) => only === null || only.test(`${clause} ${name}`));
	let number = 0;
	const tell = (one, error) => {
		const { ok, more } = judge(error);
		count[error instanceof Skip ? "skipped" : ok ? "passed" : "failed"]++;
		write(`${ok ? "ok" : "not ok"} ${++number} - ${one.clause}: ${one.name.replaceAll("#", "\\#")}${more}`);
	};
	write(`TAP version 13\n1..${wanted.length}`);
	const slow = wanted.filter((one) => one.slow).map(async (one) => tell(one, await attempt(one, target)));
	const queue = wanted.filter((each) => !each.slow && !each.last);
	await Promise.all([...slow, ...Array.from({ length: lanes }, async () => {
		for (let one; (one = queue.shift()) !== undefined;)
			tell(one, await attempt(one, target));
	})]);
	for (const one of wanted.filter((each) => each.last))
		tell(one, await attempt(one, target));
	if (process.env.TIMES)
		for (const { name, ms } of wanted.filter((one) => one.ms > 200).sort((a, b) => b.ms - a.ms))
			write(`# ${ms} ms: ${name}`);
	write(`# ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
	return { ...count, faults };
}
