// Two appliances, strangers to each other: what a website says at one reaches members at the other, once, whatever dies on
// the way. Real processes, databases, DMTP over TLS; between them proxies that can fail. BUILD names the programs (build).
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Pair } from "./lib/appliance.mjs";
import { Crowd } from "./lib/crowd.mjs";
import { metric } from "./lib/http.mjs";
import { until } from "./lib/wait.mjs";

const key = () => crypto.randomUUID();

describe("fair weather", () => {
	let pair, shop, home, site, ann;

	before(async () => {
		pair = await Pair.start();
		({ shop, home } = pair);
	});
	after(() => pair?.stop());

	test("tmtpctl makes a site with channels and a key, and an account at the other appliance", async () => {
		site = await shop.makeSite("shop", ["orders", "news"]);
		ann = await home.makeAccount("ann");
		assert.deepEqual((await site.get("/v1/channels")).channels.map((c) => c.name).sort(), ["news", "orders"]);
		assert.deepEqual((await ann.get("/v1/inbox")).entries, []);
	});
});
