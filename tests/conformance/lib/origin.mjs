// The senders' web server: messages to be picked up, and the senders' site cards. It listens where the tested server looks
// for both of their domains (PICKUP_PORT), and notes what was asked of it.
import crypto from "node:crypto";
import https from "node:https";
import { encode } from "./bencode.mjs";

export class Origin {
	static async listen(port, target) {
		const origin = new Origin();
		Object.assign(origin, { asked: [], pages: new Map(), waiting: [], domain: target.sender.split("@")[1], port });
		origin.keys = Object.fromEntries(["current", "retired", "coming"].map((id) => [id, crypto.generateKeyPairSync("ed25519")]));
		origin.pages.set("/.well-known/dmtp", (request, response) => origin.card(response));
		origin.server = https.createServer(target.certificate("both"), (request, response) => origin.answer(request, response));
		await new Promise((resolve, reject) => origin.server.on("error", reject).listen(port, "127.0.0.1", resolve));
		return origin;
	}

	answer(request, response) {
		const host = (request.headers.host ?? "").replace(/:\d+$/, "");
		this.asked.push({ host, path: request.url, method: request.method });
		this.waiting.splice(0).forEach((wake) => wake());
		const page = this.pages.get(request.url);
		if (page === undefined)
			response.writeHead(404).end();
		else
			page(request, response);
	}

	// Both domains' card.
	card(response) {
		const now = Math.floor(Date.now() / 1000), times = { current: [now - 1000, now + 100_000], retired: [now - 2000, now - 1000], coming: [now + 50_000, now + 100_000] };
		const keys = Object.entries(this.keys).map(([id, { publicKey }]) => ({ id, ed25519: publicKey.export({ format: "jwk" }).x, from: times[id][0], until: times[id][1] }));
		response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ dmtp: 1, name: "Conformance", hosts: [], signed: 0, keys }));
	}

	// Serves something under a path of its own; the URI. answer: octets, or a function that answers.
	serve(answer, host = this.domain) {
		const path = `/m/${crypto.randomUUID()}`;
		this.pages.set(path, typeof answer === "function" ? answer : (request, response) =>
			response.writeHead(200, { "content-type": "application/octet-stream", "content-length": answer.length, "cache-control": "public, max-age=3600" }).end(answer));
		return `https://${host}${path}`;
	}

	count(uri) {
		const { hostname, pathname } = new URL(uri);
		return this.asked.filter(({ host, path }) => path === pathname && host === hostname).length;
	}

	async until(uri, ms = 20_000) {
		const end = Date.now() + ms;
		while (this.count(uri) === 0) {
			const left = end - Date.now();
			if (left <= 0)
				throw new Error(`${uri} was not picked up within ${ms} ms; asked were ${JSON.stringify(this.asked.slice(-5))}`);
			await new Promise((resolve) => {
				const timer = setTimeout(resolve, left);
				this.waiting.push(() => {
					clearTimeout(timer);
					resolve();
				});
			});
		}
	}

	close() {
		this.server.closeAllConnections?.();
		return new Promise((resolve) => this.server.close(resolve));
	}
}

// A message (section 10.1), with what a POST says of it.
export function compose({ from, to, subject = "Conformance", date = Math.floor(Date.now() / 1000) }) {
	const octets = encode({ date, fields: [{ data: subject, name: "subject", type: "text/plain" }], from, salt: crypto.randomBytes(16), to });
	return { octets, about: { date, size: octets.length, digest: crypto.createHash("sha256").update(octets).digest() } };
}
