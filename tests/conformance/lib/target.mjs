// The server under test, and what its tester knows of it: see README.md for each setting.
import crypto from "node:crypto";
import { Authority } from "./authority.mjs";
import { grantOf } from "./grant.mjs";
import { Session } from "./session.mjs";
import { brief } from "./form.mjs";
import { Skip } from "./tap.mjs";
import { show } from "./bencode.mjs";

export const seconds = () => Math.floor(Date.now() / 1000);

export class Target {
	// settings: strings by name, as in the environment.
	constructor(settings) {
		const number = (text) => text === undefined || text === "" ? null : Number(text);
		const list = (text) => (text ?? "").split(",").map((item) => item.trim()).filter((item) => item !== "");
		this.host = settings.HOST;
		this.port = number(settings.PORT);
		this.starttlsPort = number(settings.STARTTLS_PORT);
		this.pickupPort = number(settings.PICKUP_PORT);
		this.domain = settings.DOMAIN ?? settings.HOST;
		this.sender = settings.SENDER ?? "shop@shop.test";
		this.other = settings.OTHER ?? "shop@rival.test";
		this.friend = settings.FRIEND || null;
		this.inbox = settings.INBOX || null;
		this.site = settings.SITE || `nobody-at-all@${this.domain}`;
		this.members = list(settings.MEMBERS);
		this.closed = settings.CLOSED || null;
		this.channel = settings.CHANNEL ?? "orders";
		this.givenGrants = list(settings.GRANTS).map(grantOf);
		this.revoked = settings.REVOKED ? grantOf(settings.REVOKED) : null;
		this.invitations = settings.INVITATIONS !== "off";
		this.switchInvitations = null; // (on) => …, where the suite may change the server's configuration
		this.guest = settings.GUEST || null;
		this.partial = false; // only some of the checks run
		this.long = settings.LONG === "1";
		this.origin = null;
		this.authority = new Authority(settings.CERTS, ...[this.sender, this.other, this.guest ?? this.sender].map((address) => address.split("@")[1]));
		this.ca = this.authority.ca;
	}

	certificate(form) {
		if (form === null)
			return {};
		const pair = this.authority.get(form);
		if (pair === null)
			throw new Skip(`no certificate ${form}.pem, and no ca.key to make it`);
		return pair;
	}

	sessions() {
		return new Sessions(this);
	}

	// The senders' grants, asked for once: {mine: [Buffer], others: [Buffer]}.
	grants(sessions) {
		this.asked ??= this.askGrants(sessions);
		return this.asked;
	}

	async askGrants(sessions) {
		const ask = async (form, from) => {
			const session = await sessions.open({ as: form });
			const reply = await session.ask("CHANNELS", { from, users: this.members });
			session.close();
			if (brief(reply) !== "K")
				throw new Error(`CHANNELS was answered ${show(reply)}`);
			return this.members.map((member) => reply[1].get("channels").get(member)
				.find((channel) => channel.get("name").toString() === this.channel && channel.get("id").length === 20)?.get("id"));
		};
		if (this.members.length === 0 && this.givenGrants.length === 0)
			return { mine: [], others: [] };
		const mine = this.givenGrants.length > 0 ? this.givenGrants : await ask("sender", this.sender);
		const others = this.authority.get("other") === null || this.members.length === 0 ? [] : await ask("other", this.other);
		return { mine: mine.filter(Boolean), others: others.filter(Boolean) };
	}
}

// The sessions that one check opens, and what it needs to say something sensible in them.
export class Sessions {
	constructor(target) {
		Object.assign(this, { target, all: [] });
	}

	skip(reason) {
		throw new Skip(reason);
	}

	need(value, what) {
		if (value === null || value === undefined)
			throw new Skip(`${what} is not given`);
		return value;
	}

	// A session whose greeting was read; with mode "starttls" the handshake is done and the second greeting read too.
	async open(options = {}) {
		const session = await this.connect(options).greet();
		if (options.mode === "starttls") {
			await session.upgrade();
			await session.greet();
		}
		return session;
	}

	connect(options = {}) {
		if (options.mode === "starttls" || options.mode === "plain")
			this.need(this.target.starttlsPort, "STARTTLS_PORT");
		const session = new Session(this.target, options);
		this.all.push(session);
		return session;
	}

	closeAll() {
		for (const session of this.all)
			session.close();
	}

	// A session that is verified for the sender's domain.
	verified(options = {}) {
		return this.open({ as: "sender", ...options });
	}

	async grant(index = 0) {
		const grant = (await this.target.grants(this)).mine[index];
		return this.need(grant, `a grant for ${this.target.sender} number ${index + 1}`);
	}

	async otherGrant() {
		return this.need((await this.target.grants(this)).others[0], `a grant for ${this.target.other}`);
	}

	// A POST's arguments, right but for what `change` makes of them. Its message can't be picked up anywhere.
	async post(change = {}) {
		const rcpts = change.rcpts ?? [await this.grant()];
		return {
			from: this.target.sender, id: crypto.randomUUID(), date: seconds(), size: 100, digest: crypto.randomBytes(32),
			uris: [`https://${this.target.sender.split("@")[1]}/m/conformance`], ...change, rcpts,
		};
	}
}
