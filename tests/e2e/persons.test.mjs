// Person to person (the seed IMTP): invited, accepted, written to, read live and after absence; between two
// appliances and within one. Neither runs a website: `relay` and `home` are all that persons need.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Homes } from "./lib/persons.mjs";
import { until } from "./lib/wait.mjs";

describe("persons of two homes", () => {
	let homes;
	before(async () => { homes = await new Homes().start(); });
	after(() => homes?.stop());

	it("ann invites bob, he accepts, both write and read it live", async () => {
		const ann = await homes.person("a", "ann"), bob = await homes.person("b", "bob");
		const invited = await ann.invite(bob, "We met at the fair");
		assert.equal(invited.state, "invited");
		assert.equal(invited.can_write, false);
		await bob.asked(ann);
		const opened = await bob.get(`/v1/invitations/${ann.address}/inbox`);
		await until("the words", async () => (await bob.get(`/v1/invitations/${ann.address}/inbox`)).words === "We met at the fair");
		assert.equal(opened.from, ann.address);
		await bob.say(ann, "accept");
		await ann.state(bob, "contact");
		await bob.state(ann, "contact");

		const watch = await bob.watch();
		const id = await ann.write(bob, "Hello {{bob}}, are you there?");
		const event = await until("the event", () => watch.events.find((e) => e.event === "entry"));
		assert.equal(event.data.from, ann.address);
		assert.equal(event.data.channel, "inbox");
		assert.equal(event.data.text, "Hello {{bob}}, are you there?");
		await ann.becomes(bob, id, "delivered");
		await bob.write(ann, "Yes.");
		await ann.has(bob, "Yes.");
		for (const [who, other] of [[ann, bob], [bob, ann]])
			assert.deepEqual(await who.texts(other), ["Hello {{bob}}, are you there?", "Yes."]);
		watch.close();
	});
});
