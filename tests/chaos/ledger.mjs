// What was accepted, against what became of it: from both databases, and from the website's API for what failed.
export class Ledger {
	accepted = new Map(); // message id -> { subject, to: Set of addresses }
	deliveries = 0;       // one for each address of each
	byKey = new Map();    // idempotency key -> message id
	givenUp = new Set(); // "address id", with a reason
	abandoned = new Map(); // idempotency key -> { subject, to }: nobody waited for the answer
	unanswered = 0;
	repeated = 0;

	add(key, id, subject, to) {
		const before = this.byKey.get(key);
		if (before !== undefined && before !== id)
			throw new Error(`key ${key} made two messages: ${before} and ${id}`);
		this.byKey.set(key, id);
		this.abandoned.delete(key); // the answer came first
		if (!this.accepted.has(id))
			this.deliveries += to.length;
		this.accepted.set(id, { subject, to: new Set(to) });
	}

	// Stored or not, either is right; what is stored is as what was answered.
	gaveUp(key, subject, to) {
		this.abandoned.set(key, { subject, to });
	}

	// Of the pushes that were given up, those that the site stored count as accepted from here on. How many, and how many not;
	// and what is stored that nobody knows of.
	async settleAbandoned(shop) {
		const stored = new Map((await shop.sql("SELECT key, message_id FROM tmtp.push_key")).split("\n").filter(Boolean).map((row) => row.split("|")));
		const found = { stored: 0, not_stored: 0 };
		for (const [key, { subject, to }] of [...this.abandoned]) {
			found[stored.has(key) ? "stored" : "not_stored"]++;
			if (stored.has(key))
				this.add(key, stored.get(key), subject, to);
		}
		const ids = (await shop.sql("SELECT message_id FROM tmtp.message WHERE audience < 3 AND recalls IS NULL")).split("\n").filter(Boolean);
		return { found, unknown: ids.filter((id) => !this.accepted.has(id)).map((id) => `${id} is stored, and nobody pushed it`) };
	}

	// { accepted, deliveries, arrived, dead: {reason: n}, given_up: {stored, not_stored}, and lists of what is wrong }
	async balance(site, shop, home) {
		const { found, unknown } = await this.settleAbandoned(shop);
		const digests = new Map((await shop.sql(`SELECT message_id, encode(digest, 'hex') FROM tmtp.message WHERE audience < 3 AND recalls IS NULL`))
			.split("\n").filter(Boolean).map((row) => row.split("|").reverse()));
		const entries = (await home.sql(`SELECT encode(n.digest, 'hex'), a.name || '@' || a.domain, n.state FROM tmtp.inbox i
			JOIN tmtp.notification n USING (notification_id) JOIN tmtp.account a USING (account_id)`)).split("\n").filter(Boolean).map((row) => row.split("|"));
		const seen = new Map(), doubles = [], strangers = [], unverified = [];
		for (const [digest, address, state] of entries) {
			const id = digests.get(digest), wanted = this.accepted.get(id)?.to;
			if (!wanted?.has(address)) {
				strangers.push(`${address} has ${id ?? digest}`);
			} else if (state !== "1") {
				unverified.push(`${address} has ${id} in state ${state}`);
			} else {
				const members = seen.get(id) ?? new Set();
				if (members.has(address))
					doubles.push(`${address} has ${id} twice`);
				seen.set(id, members.add(address));
			}
		}
		const missing = [], dead = {};
		let arrived = 0;
		for (const [id, { to }] of this.accepted) {
			const has = seen.get(id) ?? new Set();
			arrived += has.size;
			if (has.size === to.size)
				continue;
			const failed = await this.failures(site, id);
			for (const address of to) {
				if (has.has(address))
					continue;
				if (failed.get(address)) {
					dead[failed.get(address)] = (dead[failed.get(address)] ?? 0) + 1;
					this.givenUp.add(`${address} ${id}`);
				} else {
					missing.push(`${address} lacks ${id}`);
				}
			}
		}
		return { accepted: this.accepted.size, deliveries: this.deliveries, arrived, dead, given_up: found, missing, doubles, strangers, unverified, unknown };
	}

	// Who won't get it, and why: what the website is told.
	async failures(site, id) {
		const failed = new Map();
		for (let target = `/v1/messages/${id}/recipients?limit=1000`; target;) {
			const page = await site.get(target);
			for (const { address, state, reason } of page.recipients)
				if (state === "dead" || state === "failed")
					failed.set(address, reason);
			target = page.next?.replace(/^https:\/\/[^/]*/, "");
		}
		return failed;
	}
}
