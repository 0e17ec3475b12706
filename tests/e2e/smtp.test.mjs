// The channel smtp: a real Postfix takes mail over SMTP, asks over LMTP whether a member wants it, and hands it over;
// the member sees it live. What LMTP itself has to keep is tried against the listener directly.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Appliance, Authority } from "./lib/appliance.mjs";
import { metric, request } from "./lib/http.mjs";
import { Dialogue, noPostfix, openLmtp, Postfix } from "./lib/postfix.mjs";
import { freePorts, until } from "./lib/wait.mjs";

const names = ["site", "members", "dmtps", "dmtp", "siteMetrics", "homeMetrics", "relayMetrics"];
let dir, home, ann, ben, eve, postfix, postfixPort, file;

async function startHome() {
	const from = home.now;
	await home.start();
	await home.line(/^event=role-ready role=home /, from);
}

before(async () => {
	dir = fs.mkdtempSync(path.join(os.tmpdir(), "ts-"));
	fs.chmodSync(dir, 0o755);
	fs.mkdirSync(path.join(dir, "p/queue/tmtp"), { recursive: true });
	fs.chmodSync(path.join(dir, "p/queue/tmtp"), 0o777);
	file = path.join(dir, "p/queue/tmtp/lmtp");
	const authority = new Authority(dir);
	authority.issue("home.test");
	const ports = await freePorts(names.length + 1);
	postfixPort = ports.pop();
	home = new Appliance(dir, "home.test", authority, Object.fromEntries(names.map((name) => [name, ports.pop()])));
	home.configure({ home: `lmtp_listen = {"unix:${file}"} lmtp_octets = 1048576 lmtp_rcpts = 5 lmtp_connections = 12` });
	await startHome();
	[ann, ben, eve] = await Promise.all(["ann", "ben", "eve"].map((name) => home.makeAccount(name)));
	await ann.do("PUT", "/v1/channels/smtp");
	await ben.do("PUT", "/v1/channels/smtp");
});

after(async () => {
	await postfix?.stop();
	await home?.stop();
	fs.rmSync(dir, { recursive: true, force: true });
});

const text = (subject, body = "Hello.", headers = "") => `From: Writer <writer@out.test>\nTo: somebody\nSubject: ${subject}\n` +
	`Message-ID: <${crypto.randomUUID()}@out.test>\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n${headers}\n${body}\n`;
const one = async (member, subject) => member.get(`/v1/inbox/${(await member.has(subject)).id}`);

// One mail over LMTP; the reply of each recipient who wasn't refused at once.
async function deliver(rcpts, content, from = "writer@out.test") {
	const d = await openLmtp(file);
	try {
		return await d.mail(from, [rcpts].flat(), content);
	} finally {
		d.close();
	}
}

async function delivered(rcpts, content, from) {
	const { asked, done } = await deliver(rcpts, content, from);
	assert.deepEqual([...asked, ...done].map((r) => r.code), Array(asked.length * 2).fill(250), JSON.stringify({ asked, done }));
}

const nobody = "5.1.1 no mail is taken for this address";

// --- LMTP ----------------------------------------------------------------------------------

describe("the members' API", () => {
	test("the channel is closed until it is opened, and closed again", async () => {
		assert.deepEqual(await eve.get("/v1/channels/smtp"), { open: false, since: null, blocked: [] });
		await eve.do("PUT", "/v1/channels/smtp");
		const { open, since } = await eve.get("/v1/channels/smtp");
		assert.equal(open, true);
		await eve.do("PUT", "/v1/channels/smtp");
		assert.equal((await eve.get("/v1/channels/smtp")).since, since); // the same again changes nothing
		await eve.do("DELETE", "/v1/channels/smtp");
		await eve.do("DELETE", "/v1/channels/smtp");
		assert.equal((await eve.get("/v1/channels/smtp")).open, false);
	});

	test("addresses are blocked in their normal form", async () => {
		await eve.do("PUT", "/v1/channels/smtp/blocked/Spam@B%C3%BCcher.test");
		await eve.do("PUT", "/v1/channels/smtp/blocked/spam@xn--bcher-kva.test");
		assert.deepEqual((await eve.get("/v1/channels/smtp")).blocked.map((b) => b.address), ["spam@xn--bcher-kva.test"]);
		await eve.do("DELETE", "/v1/channels/smtp/blocked/spam@b%C3%BCcher.test");
		assert.equal((await eve.call("DELETE", "/v1/channels/smtp/blocked/spam@xn--bcher-kva.test")).status, 404);
		for (const wrong of ["spam", "@b.test", "a%20b@b.test"])
			assert.equal((await eve.call("PUT", `/v1/channels/smtp/blocked/${wrong}`)).status, 400);
		assert.deepEqual((await eve.get("/v1/channels/smtp")).blocked, []);
	});

	test("only her own, and nobody's without a log-in", async () => {
		for (const [method, target] of [["GET", "/v1/channels/smtp"], ["PUT", "/v1/channels/smtp"],
			["DELETE", "/v1/channels/smtp"], ["PUT", "/v1/channels/smtp/blocked/a@b.test"]])
			assert.equal((await request(home.members, method, target, { agent: home.agent })).status, 401);
		assert.equal((await ann.get("/v1/channels/smtp")).open, true);
	});

	test("the gateway's name is nobody else's, and tmtpctl shows who takes mail", async () => {
		await assert.rejects(home.ctl(["account", "create", "smtp@home.test", "--password-file", "-"], "a long password\n"), /taken/);
		await assert.rejects(home.ctl(["site", "create", "smtp@home.test", "--title", "x"]), /taken/);
		const { accounts } = await home.ctl(["account", "list"]);
		assert.deepEqual(accounts.map((a) => [a.address, a.smtp]),
			[["ann@home.test", "open"], ["ben@home.test", "open"], ["eve@home.test", "closed"]]);
	});
});

describe("LMTP", () => {
	test("unknown, closed and blocked are refused with one text, before any mail", async () => {
		await ben.do("PUT", "/v1/channels/smtp/blocked/bad@out.test");
		const { asked } = await deliver(["nobody@home.test", "eve@home.test", "ben@home.test", "ann@other.test", "no address@home.test"],
			text("refused"), "bad@out.test");
		assert.deepEqual(asked.slice(0, 4), Array(4).fill({ code: 550, text: nobody }));
		assert.equal(asked[4].code, 501);
		const quoted = await deliver(["\"no address\"@home.test", "BEN@HOME.test"], text("refused"), "BAD@Out.Test");
		assert.deepEqual(quoted.asked, Array(2).fill({ code: 550, text: nobody }));
		await delivered("ben@home.test", text("not the blocked one"));
		await ben.do("DELETE", "/v1/channels/smtp/blocked/bad@out.test");
		await delivered("Ben@Home.Test", text("no longer blocked"), "bad@out.test");
		await ben.has("no longer blocked");
		assert.ok(!(await ben.subjects()).includes("refused"));
	});

	test("a blocked author is accepted and not kept: there is nobody left to refuse it to", async () => {
		await ben.do("PUT", "/v1/channels/smtp/blocked/writer@out.test");
		const unwanted = await metric(home.ports.homeMetrics, "tmtp_mail_recipients_total{result=\"unwanted\"}");
		await delivered(["ben@home.test", "ann@home.test"], text("from a list"), "list-bounces@out.test");
		await ann.has("from a list");
		assert.equal(await metric(home.ports.homeMetrics, "tmtp_mail_recipients_total{result=\"unwanted\"}"), unwanted + 1);
		assert.ok(!(await ben.subjects()).includes("from a list"));
		await ben.do("DELETE", "/v1/channels/smtp/blocked/writer@out.test");
	});

	test("closed between RCPT and the end of the mail: a reply for each", async () => {
		const d = await openLmtp(file);
		await d.expect(250, "MAIL FROM:<writer@out.test>");
		for (const name of ["ann", "ben", "ann"])
			await d.expect(250, `RCPT TO:<${name}@home.test>`);
		await d.expect(354, "DATA");
		await ben.do("DELETE", "/v1/channels/smtp");
		d.socket.write(`${text("too late for ben").replace(/\n/g, "\r\n")}.\r\n`);
		assert.deepEqual([await d.reply(), await d.reply(), await d.reply()].map((r) => r.code), [250, 550, 250]);
		d.close();
		await ben.do("PUT", "/v1/channels/smtp");
		assert.equal((await ann.subjects()).filter((s) => s === "too late for ben").length, 1);
		assert.ok(!(await ben.subjects()).includes("too late for ben"));
	});

	test("the same mail again shows once; another envelope is another mail", async () => {
		const content = text("delivered again");
		const watch = await ann.watch();
		await delivered("ann@home.test", content);
		await delivered("ann@home.test", content);
		await delivered(["ben@home.test", "ann@home.test"], content);
		await delivered("ann@home.test", text("behind it"));
		await watch.has("behind it");
		assert.deepEqual(watch.entries, ["delivered again", "behind it"]);
		watch.close();
		for (const member of [ann, ben])
			assert.equal((await member.subjects()).filter((s) => s === "delivered again").length, 1);
		assert.equal((await ann.has("delivered again")).id, (await ben.has("delivered again")).id); // one message for both
		await delivered("ann@home.test", content, "other@out.test");
		assert.equal((await ann.subjects()).filter((s) => s === "delivered again").length, 2);
	});

	test("what was dropped doesn't come back", async () => {
		const content = text("dropped");
		await delivered("ann@home.test", content);
		await ann.do("DELETE", `/v1/inbox/${(await ann.has("dropped")).id}`);
		await delivered("ann@home.test", content);
		assert.ok(!(await ann.subjects()).includes("dropped"));
	});

	test("limits: size, recipients, connections", async () => {
		const d = await openLmtp(file);
		assert.match(d.hello.text, /SIZE 1048576/);
		await d.expect(552, "MAIL FROM:<writer@out.test> SIZE=1048577");
		const large = await d.mail("writer@out.test", ["ann@home.test", "ben@home.test"], text("large", "x".repeat(60) + "\n".repeat(2) + "0123456789\n".repeat(100000)));
		assert.deepEqual(large.done.map((r) => r.code), [552, 552]);
		const many = await d.mail("writer@out.test", Array(6).fill("ann@home.test"), text("many"));
		assert.deepEqual(many.asked.map((r) => r.code), [250, 250, 250, 250, 250, 452]);
		assert.equal(many.done.length, 5);
		const more = [];
		for (let i = 0; i < 11; i++)
			more.push(await openLmtp(file));
		assert.equal((await Dialogue.open({ path: file })).greeting.code, 421);
		for (const other of [...more, d])
			other.close();
		await until("a free place", async () => {
			const again = await Dialogue.open({ path: file });
			again.close();
			return again.greeting.code === 220;
		});
	});

	test("no smuggling: a bare LF ends neither a mail nor a line", async () => {
		const d = await openLmtp(file);
		await d.expect(250, "MAIL FROM:<writer@out.test>");
		await d.expect(250, "RCPT TO:<ann@home.test>");
		await d.expect(354, "DATA");
		d.socket.write("Subject: outer\r\n\r\nx\n.\r\nMAIL FROM:<writer@out.test>\r\nRCPT TO:<ann@home.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n");
		assert.equal((await d.reply()).code, 550);
		await d.expect(250, "NOOP");
		d.socket.write("NOOP\nRSET\r\n");
		assert.equal((await d.reply()).code, 521);
		d.close();
		const subjects = await ann.subjects();
		assert.ok(!subjects.includes("outer") && !subjects.includes("smuggled"));
	});

	test("a peer that goes in the middle leaves nothing", async () => {
		for (const cut of ["MAIL FROM:<a@b.test>\r\n", "MAIL FROM:<a@b.test>\r\nRCPT TO:<ann@home.test>\r\nDATA\r\nSubject: cut off\r\n\r\nx\r\n."]) {
			const d = await openLmtp(file), from = home.now;
			d.socket.end(cut);
			await home.line(/^event=lmtp-session-ended .*reason=eof/, from);
		}
		assert.ok(!(await ann.subjects()).includes("cut off"));
	});
});

// --- what a mail becomes ------------------------------------------------------------------------

describe("a mail in the inbox", () => {
	test("text, HTML and attachments; nobody verified who wrote it", async () => {
		const watch = await ann.watch();
		await delivered("ann@home.test", `From: =?utf-8?q?J=C3=BCrgen?= <juergen@out.test>, Second <b@out.test>
Subject: =?iso-8859-1?q?Gr=FC=DFe_{{name}}?=
Date: Tue, 24 Nov 2026 10:00:00 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Gr=FC=DFe, {{name}}
--inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

${Buffer.from("<p>Grüße, <b>{{name}}</b></p>").toString("base64")}
--inner--
--outer
Content-Type: application/pdf
Content-Disposition: attachment; filename="a \\"b\\".pdf"
Content-Transfer-Encoding: base64

${Buffer.from([0, 1, 2, 253, 254, 255]).toString("base64")}
--outer
Content-Type: image/png; name*=utf-8''%C3%BC.png
Content-Disposition: inline
Content-Transfer-Encoding: base64

${Buffer.from("png").toString("base64")}
--outer
Content-Type: message/rfc822

Subject: inner

Inside.
--outer--
`, "bounce+1@lists.out.test");
		await watch.has("Grüße {{name}}");
		const seen = watch.events.find((e) => e.event === "entry").data;
		watch.close();
		const entry = await one(ann, "Grüße {{name}}");
		const { fields, ...head } = entry;
		assert.deepEqual(seen, head);
		assert.equal(entry.from, "smtp@home.test");
		assert.equal(entry.channel, "smtp");
		assert.equal(entry.verified, false);
		assert.deepEqual(entry.mail, { from: "Jürgen <juergen@out.test>, Second <b@out.test>", address: "juergen@out.test", sender: "bounce+1@lists.out.test" });
		assert.equal(entry.date, "2026-11-24T10:00:00Z");
		assert.deepEqual(fields.message, [{ type: "text/plain", text: "Grüße, {{name}}" },
			{ type: "text/html", text: "<p>Grüße, <b>{{name}}</b></p>" }]);
		assert.deepEqual(fields.attachments.map((a) => a.type), ["application/pdf; name=\"a \\\"b\\\".pdf\"",
			"image/png; name*=UTF-8''%C3%BC.png", "message/rfc822"]);
		const { status, headers, text: octets } = await ann.call("GET", fields.attachments[2].url);
		assert.equal(status, 200);
		assert.equal(headers["content-type"], "application/octet-stream");
		assert.match(octets, /^Subject: inner\r?\n\r?\nInside\.$/);
		assert.equal(fields.attachments[0].size, 6);
		const page = await ann.get("/v1/inbox");
		assert.deepEqual(page.entries.find((e) => e.id === entry.id), head);
	});

	test("a forged author gains nothing", async () => {
		await delivered("ann@home.test", text("forged").replace(/writer@out/, "shop@shop"), "shop@shop.test");
		const entry = await one(ann, "forged");
		assert.equal(entry.from, "smtp@home.test");
		assert.equal(entry.mail.sender, "shop@shop.test");
		assert.equal(await home.number("SELECT count(*) FROM tmtp.sender WHERE address <> 'smtp@home.test'"), 0);
		assert.equal(await home.number("SELECT count(*) FROM tmtp.domain WHERE name = 'shop.test'"), 0);
		for (const table of ["open_grant", "consent", "posted", "notification_digest"])
			assert.equal(await home.number(`SELECT count(*) FROM tmtp.${table}`), 0, table);
	});

	test("an empty sender, no subject, no date, nothing at all", async () => {
		await delivered("ann@home.test", "\r\n", "");
		const [newest] = await ann.entries();
		assert.equal(newest.subject, null);
		assert.deepEqual(newest.mail, { from: "", address: "", sender: "" });
		const entry = await ann.get(`/v1/inbox/${newest.id}`);
		assert.deepEqual(entry.fields.message, [{ type: "text/plain", text: "" }]);
	});

	test("a date that can't be is the arrival's", async () => {
		const start = Date.now() - 1000;
		await delivered("ann@home.test", text("from the future").replace("2026", "2226"));
		assert.ok(new Date((await ann.has("from the future")).date) >= start);
	});

	// Memory, stack and time are bounded whatever the mail asks for; each of them arrives as something.
	test("a flood of bad MIME", async () => {
		const nested = (n) => Array.from({ length: n }, (_, i) => `Content-Type: multipart/mixed; boundary=b${i}\n\n--b${i}\n`).join("");
		const floods = {
			nested: nested(3000),
			"deep as allowed": nested(99),
			"messages in messages": `${"Content-Type: message/rfc822\n\n".repeat(5000)}end`,
			parts: `Content-Type: multipart/mixed; boundary=x\n\n${"--x\n\n".repeat(120000)}`,
			"parts as allowed": `Content-Type: multipart/mixed; boundary=x\n\n${"--x\n\n".repeat(9000)}`,
			headers: "a:\n".repeat(200000),
			"a long header": `X: ${`${"y".repeat(900)}\n `.repeat(1000)}\n`,
			recipients: `To: ${"a@b.test, \n ".repeat(15000)}x@y.test\n`,
			"no end": `Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/html`,
			charset: "Content-Type: text/plain; charset=utf-7;x=\"\n\n+ADw-script\xff\n",
			"unknown charset": "Content-Type: text/plain; charset=x-none\n\n\xe4\xf6\xfc\n",
			encoding: "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n====@@@@\x01\x00\n",
			"words that never end": `Subject: ${"=?utf-8?q?".repeat(5000)}\n`,
			"a group": `From: ${"g:".repeat(2000)}a@b.test\n`,
			brackets: `From: ${"(".repeat(50000)}\n`,
			type: `Content-Type: ${"/".repeat(20000)}\n\nx`,
			parameters: `Content-Type: text/plain${Array.from({ length: 3000 }, (_, i) => `; a*${i}*=x`).join("\n ")}\n\nx`,
			controls: "Subject: a\x00b\x1bc\r\nFrom: \x7f\x01 <\x02@b.test>\n\n\x00\x1b\x7f\n",
			digest: `Content-Type: multipart/digest; boundary=x\n\n${"--x\n\n".repeat(2000)}`,
		};
		const pid = home.role("home");
		for (const [name, mail] of Object.entries(floods)) {
			const content = Buffer.from(`X-Name: ${name}\n${/^Subject/.test(mail) ? "" : `Subject: ${name}\n`}${mail}`.replace(/\r?\n/g, "\r\n"), "latin1");
			await delivered("ben@home.test", content);
		}
		const entries = await ben.entries();
		for (const entry of entries.slice(0, Object.keys(floods).length)) {
			const { status, json } = await ben.call("GET", `/v1/inbox/${entry.id}`);
			assert.equal(status, 200);
			assert.ok(json.fields.message.length + json.fields.attachments.length > 0 || json.fields.subject !== null);
		}
		const whole = await one(ben, "nested");
		assert.deepEqual(whole.fields.attachments.map((a) => a.type), ["message/rfc822"]);
		assert.equal((await one(ben, "deep as allowed")).fields.message.length, 0);
		assert.equal((await one(ben, "unknown charset")).fields.message[0].text, "äöü\n");
		assert.match((await one(ben, "parts as allowed")).fields.attachments[0].type, /^message\/rfc822/);
		assert.equal(home.role("home"), pid);
		const octets = await metric(home.ports.homeMetrics, "process_resident_memory_bytes");
		const kept = process.env.ASAN_OPTIONS ? 500e6 : 0; // a sanitizer keeps what was freed for a while
		assert.ok(octets < 400e6 + kept, `${octets} octets`);
	});
});

// --- Postfix ----------------------------------------------------------------------------------------

describe("with a real Postfix", { skip: noPostfix }, () => {
	before(async () => {
		postfix = await new Postfix(path.join(dir, "p"), postfixPort, `virtual_mailbox_domains = home.test
virtual_transport = lmtp:unix:tmtp/lmtp
smtpd_recipient_restrictions = reject_unauth_destination, reject_unverified_recipient
unverified_recipient_reject_code = 550
address_verify_map =
address_verify_poll_delay = 1s
address_verify_poll_count = 20
address_verify_negative_refresh_time = 1s
address_verify_negative_expire_time = 2s
`).start();
	});

	async function send(rcpt, content, from = "writer@out.test") {
		const d = await Dialogue.open(postfixPort);
		try {
			const { asked, done } = await d.mail(from, [rcpt], content);
			return done[0] ?? asked[0];
		} finally {
			d.close();
		}
	}

	test("a mail arrives and is seen live", async () => {
		const watch = await ann.watch();
		const boundary = crypto.randomUUID();
		assert.equal((await send("ann@home.test", text("by Postfix", `--${boundary}
Content-Type: text/html; charset=utf-8

<p>Grüße</p>
.a line with a dot
--${boundary}
Content-Type: text/csv
Content-Disposition: attachment; filename=a.csv

1,2
--${boundary}--`, `MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="${boundary}"\n`))).code, 250);
		await watch.has("by Postfix");
		watch.close();
		const { mail, fields } = await one(ann, "by Postfix");
		assert.deepEqual(mail, { from: "Writer <writer@out.test>", address: "writer@out.test", sender: "writer@out.test" });
		assert.deepEqual(fields.message, [{ type: "text/html", text: "<p>Grüße</p>\n.a line with a dot" }]);
		assert.deepEqual(fields.attachments.map((a) => [a.type, a.size]), [["text/csv; name=\"a.csv\"", 3]]);
		await postfix.empty();
	});

	test("closed and unknown are refused in the SMTP dialogue, with one text", async () => {
		const refusals = await Promise.all(["eve", "nobody"].map((name) => send(`${name}@home.test`, text("never"))));
		for (const { code, text: said } of refusals) {
			assert.equal(code, 550);
			assert.match(said, /no mail is taken for this address/);
		}
		await eve.do("PUT", "/v1/channels/smtp");
		await until("the channel to be seen as open", async () => (await send("eve@home.test", text("now open"))).code === 250);
		await eve.has("now open");
		assert.ok(!(await eve.subjects()).includes("never"));
		assert.deepEqual(postfix.lines().filter((line) => /status=bounced/.test(line) && !/double-bounce|eve@|nobody@/.test(line)), []);
	});

	test("the database is down: Postfix keeps the mail, and delivers it once", async () => {
		const back = await home.loseDatabase();
		const from = postfix.lines().length;
		const answer = await send("ann@home.test", text("kept")); // ann was verified before
		assert.equal(answer.code, 250, answer.text);
		await postfix.line(/to=<ann@home\.test>.*status=deferred.*451 4\.3\.0/, from);
		assert.equal(postfix.queue().length >= 1, true);
		back();
		await until("the mail to arrive", async () => (await ann.subjects().catch(() => [])).includes("kept"));
		await postfix.empty();
		assert.equal((await ann.subjects()).filter((s) => s === "kept").length, 1);
	});

	test("the role dies at any moment: every mail that Postfix took arrives once", async () => {
		const subjects = Array.from({ length: 30 }, (_, i) => `through a crash ${i}`);
		const sending = (async () => {
			for (const subject of subjects)
				assert.equal((await send("ann@home.test", text(subject))).code, 250);
		})();
		for (let i = 0; i < 3; i++) {
			await until("some of them", async () => (await ann.subjects().catch(() => [])).filter((s) => s?.startsWith("through a crash")).length > i * 8);
			await home.killRole("home");
		}
		await sending;
		for (const subject of subjects)
			await ann.has(subject);
		await postfix.empty();
		const seen = (await ann.subjects()).filter((s) => s?.startsWith("through a crash"));
		assert.deepEqual([...seen].sort(), [...subjects].sort());
	});

	test("a restart drains: sessions are told 421, and mail goes on", async () => {
		const d = await openLmtp(file);
		const stopping = home.stop();
		assert.equal((await d.reply()).code, 421);
		await stopping;
		assert.equal(fs.existsSync(file), false);
		assert.equal((await send("ann@home.test", text("over a restart"))).code, 250);
		await startHome();
		await ann.has("over a restart");
		await postfix.empty();
	});
});
