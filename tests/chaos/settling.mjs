// How long it takes until nothing waits any more, and what was waited for last: what a slow settling is explained by.
import { setTimeout as pause } from "node:timers/promises";

const seconds = (column) => `round(extract(epoch FROM ${column} - clock_timestamp())::numeric, 1)`;

// Each asks for what still waits; times are seconds from now on.
const phases = {
	batches: (its) => its.shop.sql(`SELECT json_build_object('message', message_id, 'batch', batch_no, 'state', state, 'attempts', attempts,
		'not_before', ${seconds("not_before")}, 'leased_until', ${seconds("leased_until")}, 'leased', lease_owner IS NOT NULL, 'reason', reason)
		FROM tmtp.batch WHERE state IN (0, 3) ORDER BY message_id LIMIT 200`),
	notifications: (its) => its.home.sql(`SELECT json_build_object('notification', notification_id, 'attempts', attempts,
		'not_before', ${seconds("not_before")}, 'leased_until', ${seconds("leased_until")}, 'reason', reason)
		FROM tmtp.notification WHERE state = 0 ORDER BY notification_id LIMIT 200`),
};

const peers = (its) => its.shop.sql(`SELECT json_build_object('domain', d.name, 'failures', failures, 'retry_at', ${seconds("retry_at")},
	'probe_until', ${seconds("probe_until")}, 'reason', reason) FROM tmtp.peer JOIN tmtp.domain d USING (domain_id)`);

const rows = (text) => text.split("\n").filter(Boolean).map((line) => JSON.parse(line));

export class Settling {
	constructor(its) {
		Object.assign(this, { its, began: performance.now(), seconds: {}, last: null });
	}

	get elapsed() {
		return Math.round((performance.now() - this.began) / 100) / 10;
	}

	// What waits first, or null. A phase is over when nothing of it waits, and again if something came back.
	async look() {
		for (const [phase, ask] of Object.entries(phases)) {
			const waiting = await ask(this.its).then(rows, (error) => [{ database: error.message.split("\n").at(-2) }]);
			if (waiting.length > 0) {
				delete this.seconds[phase];
				return { phase, after: this.elapsed, waiting: waiting.length, first: waiting.slice(0, 3), peers: await peers(this.its).then(rows, () => []) };
			}
			this.seconds[phase] ??= this.elapsed;
		}
		return null;
	}

	async end(limit_s, say) {
		for (let told = 0;;) {
			const found = await this.look();
			if (found === null)
				return;
			this.last = found;
			if (this.elapsed > limit_s)
				throw new Error(`waited in vain for everything to settle: ${JSON.stringify(found)}`);
			if (this.elapsed >= told + 5) {
				told = this.elapsed;
				say(`settling for ${told} s: ${JSON.stringify(found)}`);
			}
			await pause(200);
		}
	}
}
