// PROTOCOL.md, section 9.1: which certificates verify a session, and for whom.
import assert from "node:assert/strict";
import { expect, expectAlive, expectAll, expectPlain } from "../lib/expect.mjs";
import { check } from "../lib/tap.mjs";

const good = {
	sender: "a dNSName equal to the domain", srv: "an SRV-ID of the domain (_dmtps)", "srv-plain": "an SRV-ID of the domain (_dmtp)",
	"client-auth": "a certificate for clientAuth only", "server-auth": "a certificate for serverAuth only", both: "one of several names",
};
for (const [form, name] of Object.entries(good))
	check("9.1", `${name}: verified`, async (t) => {
		const session = await t.open({ as: form });
		expectPlain(await session.ask("POST", await t.post()));
	});

const bad = {
	wildcard: "a wildcard", parent: "the parent's name", child: "a child's name", "common-name": "a common name alone", mail: "an address in place of a name",
	"srv-foreign": "an SRV-ID of another service", "code-signing": "a certificate for neither clientAuth nor serverAuth", expired: "an expired certificate",
	"self-signed": "a certificate that signed itself", "foreign-authority": "an authority that nobody trusts", other: "another domain's certificate",
};
for (const [form, name] of Object.entries(bad))
	check("9.1", `${name}: the handshake is not refused, the session stays unverified`, async (t) => {
		const session = await t.open({ as: form });
		await expectAlive(session);
		expect(await session.ask("POST", await t.post()), "E unverified-sender");
		await expectAlive(session);
	});

check("9.1", "no certificate: the session stays unverified; NOOP and QUIT are answered", async (t) => {
	const session = await t.open();
	session.send(["POST", await t.post()], ["CHANNELS", { from: t.target.sender, users: [] }], ["NOOP"], ["QUIT"]);
	expectAll(await session.replies(4), ["E unverified-sender", "E unverified-sender", "K", "K"]);
});

check("9.1", "several names: verified for each of them", async (t) => {
	const session = await t.open({ as: "both" });
	session.send(["CHANNELS", { from: t.target.sender, users: [] }], ["CHANNELS", { from: t.target.other, users: [] }]);
	expectAll(await session.replies(2), ["K", "K"]);
});

check("9.1", "under TLS 1.2 too", async (t) => {
	const session = await t.verified({ more: { maxVersion: "TLSv1.2" } });
	expectPlain(await session.ask("POST", await t.post()));
});

// --- resumption -----------------------------------------------------------------------------------------

// A second session, by the ticket of a first one that showed `as`; it may show another certificate, `then`. A server need not
// resume, but one that does for the guest must have done so.
async function resumed(t, version, as, then = as) {
	const more = { minVersion: version, maxVersion: version }, must = t.target.guest !== null;
	const first = t.connect({ as, more });
	const ticket = new Promise((resolve) => first.socket.on("session", resolve));
	await first.greet();
	await expectAlive(first);
	const session = await Promise.race([ticket, new Promise((resolve) => setTimeout(resolve, 1000, null))]);
	if (session === null && !must)
		t.skip("the server gives no tickets");
	assert.ok(session !== null, "no ticket came");
	const second = await t.open({ as: then, more: { ...more, session } });
	if (!second.socket.isSessionReused() && !must)
		t.skip("the server did not resume the session, which it need not: GUEST is not given");
	assert.ok(second.socket.isSessionReused(), "the session was not resumed");
	return second;
}

// Who comes, and by which certificate: the guest, whose sessions are resumed, or the sender, whose may be.
const visitor = (target) => target.guest === null ? { from: target.sender, form: "sender" } : { from: target.guest, form: "guest" };

for (const version of ["TLSv1.2", "TLSv1.3"]) {
	check("9.1", `a resumed session has the certificate's identity still, and no other (${version})`, async (t) => {
		const { from, form } = visitor(t.target), session = await resumed(t, version, form);
		session.send(["CHANNELS", { from, users: [] }], ["CHANNELS", { from: t.target.other, users: [] }]);
		expectAll(await session.replies(2), ["K", "E unverified-sender"]);
	});

	check("9.1", `a resumed session without a certificate at first has none afterwards (${version})`, async (t) => {
		const { from, form } = visitor(t.target), session = await resumed(t, version, null, form);
		expect(await session.ask("CHANNELS", { from, users: [] }), "E unverified-sender");
	});
}

check("9", "who is verified for one domain is not for another", async (t) => {
	const session = await t.verified();
	expect(await session.ask("CHANNELS", { from: t.target.other, users: [] }), "E unverified-sender");
});
