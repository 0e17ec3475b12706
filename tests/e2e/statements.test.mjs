// Tables that name tests: STATEMENTS.md and ADVERSARY.md. Every row names one that there is.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { names } from "../conformance/lib/tap.mjs";

const tests = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");
const checks = path.join(tests, "conformance/checks");
for (const file of fs.readdirSync(checks))
	await import(path.join(checks, file));
const printed = names();

// The titles in a source, each `${…}` as "…".
const titles = new Map();
function titlesOf(file) {
	if (!titles.has(file)) {
		const source = fs.readFileSync(path.join(tests, file), "utf8");
		titles.set(file, new Set([...source.matchAll(/^\s*(?:test|it)\((["'`])((?:\\.|(?!\1).)*)\1/gm)]
			.map(([, , text]) => text.replace(/\$\{[^}]*\}/g, "…").replace(/\\(.)/g, "$1"))));
	}
	return titles.get(file);
}

const literally = (text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

function has(file, title) {
	if (file === "conformance" || file.startsWith("conformance/checks/")) {
		const whole = (file === "conformance" ? "" : "[^:]*: ") + title.split("…").map(literally).join(".*");
		return printed.some((name) => new RegExp(`^${whole}$`, "s").test(name));
	}
	if (!fs.existsSync(path.join(tests, file)))
		return false;
	if (file.endsWith(".c")) // registered, by cmocka's macro or one of the file's own
		return new RegExp(`\\w\\(\\s*${title}[,)]`).test(fs.readFileSync(path.join(tests, file), "utf8"));
	return titlesOf(file).has(title);
}

// `file`: "title", "title"; … In what is left nothing is quoted.
const titlesByFile = /`([\w./-]+)`: ("(?:[^"\\]|\\.)*"(?:, "(?:[^"\\]|\\.)*")*)/g;
function namedIn(cell) {
	assert.ok(!cell.replace(titlesByFile, "").includes('"'), cell);
	return [...cell.matchAll(titlesByFile)]
		.flatMap(([, file, list]) => [...list.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, title]) => [file, title.replace(/\\(.)/g, "$1")]));
}

describe("tables that name tests", () => {
	for (const [file, least] of [["e2e/ADVERSARY.md", 18], ["STATEMENTS.md", 200]])
		test(`${file} names tests that there are, in every row`, () => {
			const rows = fs.readFileSync(path.join(tests, file), "utf8").split("\n").filter((line) => line.startsWith("|"))
				.filter((line, i, all) => !line.startsWith("|---") && !all[i + 1]?.startsWith("|---"));
			assert.ok(rows.length >= least, `${rows.length} rows`);
			const wrong = rows.flatMap((row) => {
				const cell = row.split("|").at(-2).trim(), named = namedIn(cell);
				if (named.length === 0)
					return /^no test: /.test(cell) ? [] : [`no test is named: ${row}`];
				return named.filter(([where, title]) => !has(where, title)).map(([where, title]) => `${where} has no test "${title}"`);
			});
			assert.deepEqual(wrong, []);
		});
});
