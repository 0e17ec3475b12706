// The website: it pushes as a careful one does, with a key and again until there is an answer; and now and then it gives up
// before it hears one.
import crypto from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { jwt, request } from "../e2e/lib/http.mjs";

const PATIENCE_MS = 10_000;

export class Website {
	// site: a Site whose private key it has. channels: {name: addresses of all who hold it}.
	constructor(site, privateKey, channels, ledger) {
		Object.assign(this, { site, privateKey, channels, ledger, running: true });
	}

	// By the server's clock, as its answers tell it.
	renewToken(now = new Date()) {
		this.site.token = jwt(this.site.address, "k1", this.privateKey, { exp: Math.floor(now.getTime() / 1000) + 600 });
	}

	// One client of it, until done().
	async client(dice, done) {
		while (!done())
			await this.push(...this.something(dice));
	}

	something(dice) {
		const channel = dice.one(Object.keys(this.channels)), all = this.channels[channel], throwing = dice.random();
		const several = () => [...new Set(Array.from({ length: 2 + dice.below(20) }, () => dice.one(all)))];
		const addresses = throwing < 0.9 ? [dice.one(all)] : throwing < 0.99 ? several() : all;
		const body = { to: addresses === all ? "*" : addresses.length === 1 ? addresses[0] : addresses, message: "x".repeat(1 + dice.below(2000)),
			...(addresses === all ? {} : { lane: dice.one(["urgent", "normal", "bulk"]) }) };
		return [channel, addresses, body, dice.random() < 0.03 ? dice.below(25) : undefined];
	}

	// gaveUpAfter: milliseconds after which the website doesn't want the answer any more, and never asks again.
	async push(channel, addresses, body, gaveUpAfter) {
		const key = crypto.randomUUID(), subject = `Message ${key}`, { ledger, site } = this;
		if (gaveUpAfter !== undefined)
			ledger.gaveUp(key, subject, addresses);
		for (;;) {
			const answer = await this.ask(channel, { ...body, subject }, key, gaveUpAfter ?? PATIENCE_MS);
			if (answer?.status === 202) {
				if (answer.headers["idempotency-replayed"])
					ledger.repeated++;
				ledger.add(key, answer.json.id, subject, addresses);
				return;
			}
			if (gaveUpAfter !== undefined)
				return;
			if (answer === undefined)
				ledger.unanswered++;
			else if (answer.status === 401) // one of the two clocks is wrong
				this.renewToken(new Date(answer.headers.date));
			else if (![429, 503].includes(answer.status))
				throw new Error(`a push to ${site.address} was answered with ${answer.status}: ${answer.text}`);
			await pause(answer === undefined ? 50 : 100);
		}
	}

	ask(channel, body, key, patience) {
		const { site } = this, signal = AbortSignal.timeout(patience);
		return request(site.appliance.site, "POST", `/v1/channels/${channel}/messages`,
			{ body, bearer: site.token, headers: { "Idempotency-Key": key, Connection: "close" }, agent: site.appliance.agent, signal }).catch(() => undefined);
	}
}
