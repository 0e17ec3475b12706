// The web server of senders that are made up: it serves their site cards and messages over HTTPS, as a test wants them, and
// remembers who asked for what.
import crypto from "node:crypto";
import https from "node:https";

export class Origin {
	// domains: all it answers for; authority issues its certificate. Where: a free port of 127.0.0.1, unless told.
	static async listen(authority, domains, { host = "127.0.0.1", port = 0 } = {}) {
		const origin = new Origin(), name = `origin-${domains[0]}`;
		origin.cards = {}; // domain: a card, a function that answers, or nothing: 404
		origin.messages = new Map(); // path: octets
		origin.asked = []; // "domain path"
		const { cert, key } = authority.issue(domains.join(",DNS:"), name);
		origin.server = https.createServer({ cert, key }, (req, res) => origin.answer(req, res));
		await new Promise((resolve) => origin.server.listen(port, host, resolve));
		origin.port = origin.server.address().port;
		return origin;
	}

	answer(req, res) {
		const domain = req.headers.host.split(":")[0];
		this.asked.push(`${domain} ${req.url}`);
		const card = this.cards[domain];
		if (req.url !== "/.well-known/dmtp") {
			const octets = this.messages.get(req.url);
			res.writeHead(octets ? 200 : 404).end(octets);
		} else if (typeof card === "function") {
			card(res);
		} else {
			res.writeHead(card ? 200 : 404, { "Content-Type": "application/json" }).end(card ? JSON.stringify({ dmtp: 1, ...card }) : "");
		}
	}

	count(domain, path = "/.well-known/dmtp") {
		return this.asked.filter((line) => line === `${domain} ${path}`).length;
	}

	// Puts a message there and answers its URI.
	put(domain, octets) {
		const path = `/m/${crypto.randomUUID()}`;
		this.messages.set(path, octets);
		return `https://${domain}${path}`;
	}

	close() {
		this.server.closeAllConnections();
		return new Promise((resolve) => this.server.close(resolve));
	}
}

// An Ed25519 key as a card publishes it, and what is signed with it.
export class DomainKey {
	constructor(id, { from = 0, until = 4102444800 } = {}) {
		const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
		this.id = id;
		this.privateKey = privateKey;
		this.entry = { id, ed25519: publicKey.export({ format: "jwk" }).x, from, until };
	}

	sign(octets) {
		return crypto.sign(null, octets, this.privateKey);
	}

	// POST's arguments, signed.
	signed(post) {
		return { ...post, key: this.id, signature: this.sign(Buffer.concat([Buffer.from("DMTP/1 message\0"), post.digest])) };
	}

	// AUTH's argument for a session of lib/dmtp.mjs, to be sent once it is greeted.
	proof(session, client, server) {
		const exporter = session.socket.exportKeyingMaterial(32, "EXPORTER-dmtp");
		const text = Buffer.concat([Buffer.from("DMTP/1 auth\0"), exporter, Buffer.from(`${client}\0${server}`)]);
		return { domain: client, key: this.id, signature: this.sign(text) };
	}
}

const names = ["plain", "signs", "unsigned", "nocard", "broken", "silent", "redirects", "large", "hosts", "cdn.hosts", "rotates", "ended", "future", "proves", "late",
	"slow1", "slow2", "quick", "ends", "hangs", "busy", "down", "closed", "waits", "forever", ...Array.from({ length: 9 }, (_, i) => `many${i}`)];
export const wild = names.map((name) => `${name}.test`);

// For Pair.start: a home server, and many senders that are made up, whose web server is pair.origin.
export async function prepareWild(pair) {
	pair.origin = await Origin.listen(pair.authority, wild);
	pair.also(() => pair.origin.close());
	const routes = Object.fromEntries(wild.map((domain) => [domain, { pickup: pair.origin.port }]));
	routes["proves.test"].more = "rcpts = 2000 pipeline = 128";
	return { home: { routes } };
}
