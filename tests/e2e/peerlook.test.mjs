// tmtpctl dmtp DOMAIN: what another domain's servers say and whether they can be reached, in words that tell what to do.
// The domains are told of by a real name server; one real appliance answers for some of them, and servers of the tests' own,
// each with a fault, for others.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import tls from "node:tls";
import { after, before, describe, test } from "node:test";
import { Appliance, Authority, build } from "./lib/appliance.mjs";
import { encode } from "./lib/dmtp.mjs";
import { NameServer } from "./lib/nameserver.mjs";
import { freePorts } from "./lib/wait.mjs";

const tmtpctl = path.join(process.env.TMTPD ? path.dirname(path.resolve(process.env.TMTPD)) : build, "tmtpctl");

describe("tmtpctl dmtp", () => {
	const ends = [];
	let dir, authority, dns, home, looker, dead;

	before(async () => {
		dir = fs.mkdtempSync(path.join(os.tmpdir(), "tl-"));
		fs.chmodSync(dir, 0o755);
		ends.push(() => fs.rmSync(dir, { recursive: true, force: true }));
		authority = new Authority(dir);
		authority.issue("home.test");
		authority.issue("ours.test");
		const names = ["site", "members", "dmtps", "dmtp", "siteMetrics", "homeMetrics", "relayMetrics"];
		const numbers = await freePorts(2 * names.length + 2);
		const ports = () => Object.fromEntries(names.map((name) => [name, numbers.pop()]));
		dead = numbers.pop();
		const dnsPort = numbers.pop();
		dns = await NameServer.start(path.join(dir, "dns"), dnsPort);
		ends.push(() => dns.stop());
		home = new Appliance(dir, "home.test", authority, ports());
		home.configure({ home: "rcpts = 321" });
		await home.start();
		ends.push(async () => {
			await home.stop();
			home.agent.destroy();
			fs.rmSync(home.socket, { recursive: true, force: true });
		});
		// The looker runs no daemon and has no database: the configuration is all that the command needs.
		looker = new Appliance(dir, "ours.test", authority, ports());
		const trusted = ["home", "pair", "name", "plain", "mute", "muted", "half", "web"].map((name) => [`${name}.test`, {}]);
		looker.configure({ relay: `nameservers = {"127.0.0.1:${dnsPort}"}`, routes: { ...Object.fromEntries(trusted),
			"pinned.test": { dmtp: home.ports.dmtps }, "open.test": { public: true },
			"home.test": { pickup: home.ports.site } } });
	});
	after(async () => {
		for (const end of ends.reverse())
			await end();
	});

	// Runs it; resolves to its exit status and what it said.
	const run = (args) => new Promise((resolve) => execFile(tmtpctl, ["--config", looker.conf, "dmtp", ...args], { cwd: "/" },
		(error, stdout, stderr) => resolve({ code: error === null ? 0 : error.code, stdout, stderr })));
	// The same, both as words and as JSON, which say the same.
	async function look(domain, ...options) {
		const [words, document] = await Promise.all([run([domain, ...options]), run([domain, "--json", ...options])]);
		const json = JSON.parse(document.stdout);
		assert.equal(words.code, document.code);
		assert.equal(json.reachable, words.code === 0);
		assert.equal(json.domain, domain);
		assert.ok(words.stdout.includes(json.verdict), words.stdout);
		assert.ok(json.advice === null || words.stdout.includes(json.advice), words.stdout);
		assert.equal(words.stderr, "");
		if (process.env.VERBOSE)
			process.stderr.write(`${words.stdout}\n`);
		return { ...json, code: words.code, words: words.stdout };
	}
	const zone = (...records) => dns.set("host A 127.0.0.1", ...records);
	async function listen(server) {
		const sockets = new Set();
		server.on("connection", (socket) => sockets.add(socket));
		ends.push(() => new Promise((resolve) => {
			server.close(resolve);
			for (const socket of sockets)
				socket.destroy();
		}));
		return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
	}
	const only = (seen) => {
		assert.equal(seen.servers.length, 1);
		assert.equal(seen.servers[0].addresses.length, 1);
		return seen.servers[0].addresses[0];
	};

	test("a domain that can be reached: records, TLS, certificate, limits, site card, and a verdict", async () => {
		await home.ctl(["domain-key", "make", "home.test", "--id", "k2026"]);
		await zone(`_dmtps._tcp.home SRV 7 5 ${home.ports.dmtps} host`);
		const seen = await look("home.test");
		assert.equal(seen.code, 0);
		assert.deepEqual(seen.dns, { "_dmtps._tcp": { answer: "found", records: [{ priority: 7, weight: 5, port: home.ports.dmtps, target: "host.test" }] },
			"_dmtp._tcp": { answer: "none", records: [] }, fallback: false });
		const { tls: secured, certificate, greeting, address, works } = only(seen);
		assert.equal(works, true);
		assert.equal(address, `127.0.0.1:${home.ports.dmtps}`);
		assert.deepEqual([secured.version, secured.alpn], ["TLSv1.3", "dmtp/1"]);
		assert.deepEqual([certificate.names, certificate.valid, certificate.rule, certificate.ca], [["DNS:home.test"], true, "dNSName", authority.file("ca.pem")]);
		assert.match(certificate.issuer, /Test CA/);
		assert.ok(Date.parse(certificate.from) < Date.now() && Date.parse(certificate.until) > Date.now());
		assert.equal(greeting.limits.rcpts, 321);
		assert.ok(greeting.extensions.includes("AUTH"));
		assert.deepEqual(seen.card.keys.map(({ id }) => id), ["k2026"], JSON.stringify(seen.card));
		assert.match(seen.verdict, /^home\.test can be reached: by host\.test /);
		assert.match(seen.words, /priority 7, weight 5/);
		assert.match(seen.words, /good: it names the domain as dNSName/);
		// It takes its leave, and the server saw nothing but that.
		await home.line(/^event=dmtp-session-ended .*reason=quit/);
	});

	test("STARTTLS only: the _dmtp record leads there, and TLS comes before all else", async () => {
		await zone(`_dmtp._tcp.home SRV 0 0 ${home.ports.dmtp} host`);
		const seen = await look("home.test");
		assert.equal(seen.code, 0);
		assert.equal(seen.servers[0].way, "STARTTLS");
		assert.equal(only(seen).certificate.valid, true);
	});

	test("one dead target of two: it can be reached, and the dead one is told", async () => {
		await zone(`_dmtps._tcp.home SRV 0 0 ${dead} host`, `_dmtps._tcp.home SRV 1 0 ${home.ports.dmtps} host`);
		const seen = await look("home.test");
		assert.equal(seen.code, 0);
		assert.deepEqual(seen.servers.map((server) => server.addresses[0].works), [false, true]);
		assert.match(seen.advice, /Of 2 addresses 1 works/);
	});

	test("a dead target alone: cannot be reached, and what to look at", async () => {
		await zone(`_dmtps._tcp.home SRV 0 0 ${dead} host`);
		const seen = await look("home.test");
		assert.equal(seen.code, 1);
		assert.match(only(seen).reason, /refused/i);
		assert.match(seen.verdict, /^home\.test cannot be reached: host\.test .* fails: connection refused/i);
		assert.match(seen.advice, new RegExp(`firewall.* port ${dead}`));
	});

	test("no such domain", async () => {
		await zone();
		const seen = await look("nobody.test");
		assert.equal(seen.code, 1);
		assert.equal(seen.verdict, "nobody.test cannot be reached: there is no such domain in DNS.");
		assert.match(seen.advice, /written right/);
	});

	test("\".\" for both kinds: the domain does not want any", async () => {
		await zone("_dmtps._tcp.home SRV 0 0 0 .", "_dmtp._tcp.home SRV 0 0 0 .");
		const seen = await look("home.test");
		assert.equal(seen.code, 1);
		assert.match(seen.verdict, /takes no DMTP/);
		assert.deepEqual(seen.servers, []);
	});

	test("silent name servers end within the limit of time", async () => {
		await zone(`_dmtps._tcp.home SRV 0 0 ${home.ports.dmtps} host`);
		dns.pause();
		try {
			const seen = await look("home.test", "--timeout", "1s");
			assert.equal(seen.code, 1);
			assert.match(seen.verdict, /name servers/);
		} finally {
			dns.resume();
		}
	});

	test("a certificate of another name: shown, with the names that it has, and refused", async () => {
		const { cert, key } = authority.issue("host.test", "target");
		const port = await listen(tls.createServer({ cert, key, ALPNProtocols: ["dmtp/1"] }, (socket) => {
			socket.on("error", () => {});
			socket.end(encode({ dmtp: 1, host: "host.test" }));
		}));
		await zone(`_dmtps._tcp.name SRV 0 0 ${port} host`);
		const seen = await look("name.test");
		assert.equal(seen.code, 1);
		const { certificate, works } = only(seen);
		assert.deepEqual([works, certificate.valid, certificate.rule, certificate.names], [false, false, null, ["DNS:host.test"]]);
		assert.match(certificate.problem, /hostname mismatch/i);
		assert.match(seen.verdict, /does not stand the check/);
		assert.match(seen.advice, /a certificate that names name\.test/);
	});

	test("STARTTLS that is stripped: plaintext is never gone on with", async () => {
		const heard = [];
		const port = await listen(net.createServer((socket) => {
			socket.on("error", () => {});
			socket.on("data", (octets) => heard.push(octets.toString()));
			socket.write(encode({ dmtp: 1, host: "host.test" }));
		}));
		await zone(`_dmtp._tcp.plain SRV 0 0 ${port} host`);
		const seen = await look("plain.test");
		assert.equal(seen.code, 1);
		assert.match(only(seen).reason, /does not offer STARTTLS/);
		assert.match(seen.advice, /Plaintext is never used/);
		assert.deepEqual(heard.filter((text) => !/QUIT/.test(text)), []);
	});

	test("silent servers, with TLS and without, end within the limit of time", async () => {
		const port = await listen(net.createServer((socket) => socket.on("error", () => {})));
		const { cert, key } = authority.issue("muted.test");
		const secured = await listen(tls.createServer({ cert, key, ALPNProtocols: ["dmtp/1"] }, (socket) => socket.on("error", () => {})));
		await zone(`_dmtps._tcp.mute SRV 0 0 ${port} host`, `_dmtp._tcp.mute SRV 0 0 ${port} host`, `_dmtps._tcp.muted SRV 0 0 ${secured} host`);
		const began = Date.now();
		const [mute, muted] = await Promise.all([look("mute.test", "--timeout", "1s"), look("muted.test", "--timeout", "1s")]);
		assert.ok(Date.now() - began < 8000, `${Date.now() - began} ms`);
		assert.deepEqual([mute.code, muted.code], [1, 1]);
		assert.match(mute.servers[0].addresses[0].reason, /handshake did not come to its end within 1 s/);
		assert.match(mute.servers[1].addresses[0].reason, /said nothing within 1 s/);
		assert.match(only(muted).reason, /TLS is there, then it said nothing within 1 s/);
		assert.equal(only(muted).certificate.valid, true);
	});

	test("TLS of another protocol is no DMTP", async () => {
		const { cert, key } = authority.issue("web.test");
		const port = await listen(tls.createServer({ cert, key }, (socket) => {
			socket.on("error", () => {});
			socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
		}));
		await zone(`_dmtps._tcp.web SRV 0 0 ${port} host`);
		const seen = await look("web.test");
		assert.equal(seen.code, 1);
		assert.match(only(seen).reason, /not the protocol dmtp\/1/);
	});

	test("what a server says cannot steer the terminal", async () => {
		const { cert, key } = authority.issue("half.test");
		const port = await listen(tls.createServer({ cert, key, ALPNProtocols: ["dmtp/1"] }, (socket) => {
			socket.on("error", () => {});
			socket.end(encode(["Z", { code: "shutting-down", text: "\u001b[2Jgone\u0007", retry: 60 }]));
		}));
		await zone(`_dmtps._tcp.half SRV 0 0 ${port} host`);
		const { code, stdout } = await run(["half.test"]);
		assert.equal(code, 1);
		assert.match(stdout, /it takes no session now: \?\[2Jgone\?/);
		// eslint-disable-next-line no-control-regex
		assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f\u007f]/);
	});

	test("a pinned route: DNS is not asked, and its CA is named", async () => {
		await zone();
		const seen = await look("pinned.test");
		assert.equal(seen.dns, null);
		assert.equal(seen.route.dmtp, `127.0.0.1:${home.ports.dmtps}`);
		assert.match(only(seen).certificate.problem, /hostname mismatch/i);
		assert.match(seen.words, new RegExp(`CA +${authority.file("ca.pem")}`));
	});

	test("a private address is not connected to, unless a route allows it", async () => {
		let seen = 0;
		const port = await listen(net.createServer((socket) => { seen++; socket.destroy(); }));
		await zone(`_dmtps._tcp.open SRV 0 0 ${port} host`);
		const { code, advice } = await look("open.test");
		assert.equal(code, 1);
		assert.match(advice, /allow_private/);
		assert.equal(seen, 0);
	});

	test("--help, a domain that is none, and a limit of time that is none", async () => {
		const help = await run(["--help"]);
		assert.equal(help.code, 0);
		assert.match(help.stdout, /--timeout/);
		for (const [code, ...args] of [[1, "no domain"], [2], [2, "a.test", "--timeout", "2h"], [2, "a.test", "--timeout", "0s"], [2, "a.test", "b.test"]]) {
			const seen = await run(args);
			assert.equal(seen.code, code, args.join(" "));
			assert.match(seen.stderr, /^tmtpctl: /);
		}
	});
});
