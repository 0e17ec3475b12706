// Many members at once, made by SQL on both sides as if each had been invited and had said yes; and the ledgers that must
// agree about them when all is over.
import crypto from "node:crypto";
import { Member } from "./appliance.mjs";
import { until } from "./wait.mjs";

let next = 1n;

export function base32(octets) {
	let bits = BigInt(`0x${octets.toString("hex")}`), text = "";
	const length = Math.ceil((octets.length * 8) / 5);
	bits <<= BigInt(length * 5 - octets.length * 8);
	for (let i = length - 1; i >= 0; i--)
		text += "abcdefghijklmnopqrstuvwxyz234567"[Number((bits >> BigInt(i * 5)) & 31n)];
	return text;
}

// The least UUIDv7 of a moment: those made since are greater.
function uuid(ms) {
	const text = ms.toString(16).padStart(12, "0");
	return `${text.slice(0, 8)}-${text.slice(8)}-7000-8000-000000000000`;
}

// A grant of the crowd's member n, in SQL.
const grantOf = () => `substr(sha256(convert_to('${crypto.randomUUID()}' || n, 'UTF8')), 1, 20)`;

export class Crowd {
	// count members of home (an appliance, or the name of a domain where nobody is) who hold a site's channel.
	static async make(site, channel, home, name, count) {
		const crowd = new Crowd(), domain = typeof home === "string" ? home : home.domain;
		Object.assign(crowd, { site, channel, home, domain, name, count, first: 1_000_000n * next++ });
		crowd.grant = grantOf();
		if (typeof home !== "string") {
			await crowd.makeAccounts();
			await crowd.makeConsents();
		}
		await crowd.makeSubscriptions();
		return crowd;
	}

	// The first so many of them hold another channel of the site as well.
	async also(channel, count = this.count) {
		const crowd = Object.assign(new Crowd(), this, { channel, count });
		crowd.grant = grantOf();
		await crowd.makeConsents();
		await crowd.makeSubscriptions();
		return crowd;
	}

	member(n) {
		return `${this.name}${String(n).padStart(6, "0")}`;
	}

	makeAccounts() {
		const { site, domain, first, count, name } = this, shop = site.appliance.domain;
		const member = `'${name}' || lpad(n::text, 6, '0')`;
		return this.home.sql(`BEGIN;
			INSERT INTO tmtp.domain VALUES (${first}, '${shop}', now()) ON CONFLICT DO NOTHING;
			INSERT INTO tmtp.sender SELECT ${first}, '${site.address}', domain_id, '${shop}', now() FROM tmtp.domain WHERE name = '${shop}'
				ON CONFLICT DO NOTHING;
			CREATE TEMP TABLE crowd ON COMMIT DROP AS SELECT ${first} + n AS account, ${member} AS member FROM generate_series(1, ${count}) AS n;
			INSERT INTO tmtp.account SELECT account, '${domain}', member, '!', now(), NULL FROM crowd;
			INSERT INTO tmtp.local_name SELECT '${domain}', member, 'account', account FROM crowd;
			COMMIT; ANALYZE tmtp.account;`);
	}

	makeConsents() {
		const { site, first, count, channel, grant } = this;
		return this.home.sql(`BEGIN;
			CREATE TEMP TABLE crowd ON COMMIT DROP AS SELECT ${first} + n AS account, ${grant} AS grant_id,
				(SELECT sender_id FROM tmtp.sender WHERE address = '${site.address}') AS sender FROM generate_series(1, ${count}) AS n;
			INSERT INTO tmtp.consent (account_id, sender_id, channel, state, grant_id, changed_id, grant_date)
				SELECT account, sender, '${channel}', 1, grant_id, '${uuid(Date.now())}', extract(epoch FROM now())::int8 FROM crowd;
			INSERT INTO tmtp.open_grant SELECT grant_id, account, sender, '${channel}' FROM crowd;
			COMMIT; ANALYZE tmtp.open_grant, tmtp.consent;`);
	}

	// Until the channel's chunks are cut as they would be after so many had come.
	async makeSubscriptions() {
		const { site, domain, first, count, name, channel, grant } = this, shop = site.appliance;
		await shop.sql(`BEGIN; INSERT INTO tmtp.domain VALUES (${first}, '${domain}', now()) ON CONFLICT DO NOTHING;
			INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, grant_id, joined_at, grant_date)
				SELECT c.site_id, c.channel_id, d.domain_id, '${name}' || lpad(n::text, 6, '0'), 1, ${grant}, now(), extract(epoch FROM now())::int8
				FROM generate_series(1, ${count}) AS n, tmtp.channel c, tmtp.domain d
				WHERE c.site_id = ${site.id} AND c.name = '${channel}' AND d.name = '${domain}';
			INSERT INTO tmtp.chunk SELECT c.site_id, c.channel_id, d.domain_id, '', NULL, 0 FROM tmtp.channel c, tmtp.domain d
				WHERE c.site_id = ${site.id} AND c.name = '${channel}' AND d.name = '${domain}' ON CONFLICT DO NOTHING;
			COMMIT; ANALYZE tmtp.subscription;`);
		this.channelId = await shop.sql(`SELECT channel_id FROM tmtp.channel WHERE site_id = ${site.id} AND name = '${channel}'`);
		await shop.sqlUntil(`(SELECT sum(members) >= ${count} AND max(members) <= 1000 FROM tmtp.chunk WHERE channel_id = ${this.channelId})`);
	}

	// One of them, logged in.
	async logIn(n) {
		const account = this.first + BigInt(n), number = Buffer.alloc(8);
		number.writeBigUInt64BE(account);
		const token = `tmtp_m_${base32(number)}_${base32(crypto.randomBytes(20))}`;
		const hash = crypto.createHash("sha256").update(token).digest("hex");
		await this.home.sql(`INSERT INTO tmtp.account_token VALUES (${account}, '\\x${hash}', now(), now() + interval '1 hour')`);
		return new Member(this.home, `${this.member(n)}@${this.domain}`, token);
	}

	// How many of the crowd see a message with this id at the shop, and how often they see it all together.
	async seen(messageId) {
		const digest = await this.site.appliance.sql(`SELECT digest FROM tmtp.message WHERE message_id = '${messageId}'`);
		const [members, entries] = (await this.home.sql(`SELECT count(DISTINCT i.account_id), count(i.account_id) FROM tmtp.notification n
			JOIN tmtp.inbox i ON i.notification_id = n.notification_id WHERE n.digest = '${digest}' AND n.state = 1
			AND i.account_id BETWEEN ${this.first} AND ${this.first + BigInt(this.count)}`)).split("|").map(Number);
		return { members, entries };
	}

	untilSeen(messageId, count = this.count, more = {}) {
		return until(async () => `${count} to see it: ${JSON.stringify(await this.seen(messageId))}`, async () =>
			(await this.seen(messageId)).members >= count, { every: 100, ...more });
	}
}
