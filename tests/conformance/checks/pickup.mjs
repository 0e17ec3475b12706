// PROTOCOL.md, section 11, as far as a sender's web server sees it. Needs PICKUP_PORT.
import assert from "node:assert/strict";
import { expectPlain } from "../lib/expect.mjs";
import { compose } from "../lib/origin.mjs";
import { check } from "../lib/tap.mjs";

// The origin, a session, and a message to the channel.
async function prepare(t) {
	const origin = t.need(t.target.origin, "PICKUP_PORT"), [name, domain] = t.target.sender.split("@");
	return { origin, session: await t.verified(), message: compose({ from: t.target.sender, to: `${t.target.channel}.${name}@${domain}` }) };
}

const post = async (t, session, message, uris, rcpts) => expectPlain(await session.ask("POST", await t.post({ ...message.about, uris, ...(rcpts ? { rcpts } : {}) })));

check("11", "a message is picked up, unasked, from where the notification says: by GET, with the sender's name as Host", async (t) => {
	const { origin, session, message } = await prepare(t), uri = origin.serve(message.octets);
	await post(t, session, message, [uri]);
	await origin.until(uri);
	assert.equal(origin.asked.find(({ path }) => uri.endsWith(path)).method, "GET");
});

check("11", "once for all its members, however many notifications name it", async (t) => {
	const { origin, session, message } = await prepare(t), uri = origin.serve(message.octets);
	await post(t, session, message, [uri], [await t.grant(0), await t.grant(1)]);
	await post(t, session, message, [uri], [await t.grant(0)]);
	await origin.until(uri);
	await post(t, session, message, [uri], [await t.grant(2)]);
	await post(t, session, message, [uri], [await t.grant(1)]);
	const second = compose({ from: t.target.sender, to: "orders.shop@shop.test" }), last = origin.serve(second.octets);
	await post(t, session, second, [last]);
	await origin.until(last);
	assert.equal(origin.count(uri), 1);
});

// The first of these is tried, or passed over; the second, a good one, is picked up.
function thenTheNext(name, first, asked) {
	check("11", name, async (t) => {
		const { origin, session, message } = await prepare(t), bad = first(origin, message), good = origin.serve(message.octets);
		await post(t, session, message, [bad, good]);
		await origin.until(good);
		if (asked)
			assert.ok(origin.count(bad) > 0, "the first one was not tried");
	});
}

const status = (code, headers = {}) => (request, response) => response.writeHead(code, headers).end();

thenTheNext("URIs in order: after 404 the next one", (origin) => origin.serve(status(404)), true);
thenTheNext("after 500 the next one", (origin) => origin.serve(status(500)), true);
thenTheNext("after a connection that breaks the next one", (origin) => origin.serve((request, response) => response.destroy()), true);
thenTheNext("after fewer octets than `size` the next one", (origin, { octets }) => origin.serve(octets.subarray(1)), true);
thenTheNext("after other octets than `digest` says the next one", (origin, { octets }) => origin.serve(Buffer.concat([octets.subarray(1), Buffer.from("x")])), true);

check("11", "a redirect is not followed", async (t) => {
	const { origin, session, message } = await prepare(t), elsewhere = origin.serve(message.octets), good = origin.serve(message.octets);
	const bad = origin.serve(status(302, { location: elsewhere }));
	await post(t, session, message, [bad, good]);
	await origin.until(good);
	assert.deepEqual([origin.count(bad) > 0, origin.count(elsewhere)], [true, 0]);
});

check("11", "reading ends at `size`, however much is sent", async (t) => {
	const { origin, session, message } = await prepare(t), good = origin.serve(message.octets);
	let written = 0;
	const endless = origin.serve((request, response) => {
		const more = () => {
			while (!response.destroyed && written < 256 << 20) {
				written += 1 << 16;
				if (!response.write(Buffer.alloc(1 << 16)))
					return response.once("drain", more);
			}
			return response.end();
		};
		response.writeHead(200);
		more();
	});
	await post(t, session, message, [endless, good]);
	await origin.until(good);
	assert.ok(written > 0 && written < 64 << 20, `${written} octets were taken`);
});

for (const [name, uri] of Object.entries({
	"another scheme": "http://shop.test/m/x", "no scheme": "shop.test/m/x", "a user part": "https://shop@shop.test/m/x", "a fragment": "https://shop.test/m/x#y",
	"an IP address": "https://127.0.0.1/m/x", "an IPv6 address": "https://[::1]/m/x", "an octal address": "https://0177.0.0.1/m/x", "an empty host": "https:///m/x",
	"port 0": "https://shop.test:0/m/x", "no port": "https://shop.test:/m/x", "a port too great": "https://shop.test:65536/m/x", "upper-case letters": "https://SHOP.TEST/m/x",
	"a path to a file": "file:///etc/passwd",
}))
	thenTheNext(`a URI with ${name} is passed over`, () => uri, false);

check("11", "a host that is neither the sender's domain nor one of its `hosts` is passed over", async (t) => {
	const { origin, session, message } = await prepare(t), [, other] = t.target.other.split("@");
	const theirs = origin.serve(message.octets, other), child = origin.serve(message.octets, `www.${origin.domain}`), good = origin.serve(message.octets);
	await post(t, session, message, [theirs, child, good]);
	await origin.until(good);
	assert.deepEqual([origin.count(theirs), origin.count(child)], [0, 0]);
});
