// What was accepted, against what became of it: from both databases, and from the website's API for what failed.
export class Ledger {
	accepted = new Map(); // message id -> { subject, to: Set of addresses }
	byKey = new Map();    // idempotency key -> message id
	givenUp = new Set(); // "address id", with a reason
	unanswered = 0;
	repeated = 0;

	add(key, id, subject, to) {
		const before = this.byKey.get(key);
		if (before !== undefined && before !== id)
			throw new Error(`key ${key} made two messages: ${before} and ${id}`);
		this.byKey.set(key, id);
		this.accepted.set(id, { subject, to: new Set(to) });
	}

	get deliveries() {
		return [...this.accepted.values()].reduce((sum, m) => sum + m.to.size, 0);
	}

	// { accepted, deliveries, arrived, dead: {reason: n}, missing: [..], doubles: [..], strangers: [..] }
	async balance(site, shop, home) {
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
		return { accepted: this.accepted.size, deliveries: this.deliveries, arrived, dead, missing, doubles, strangers, unverified };
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
