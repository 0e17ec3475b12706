// HTTPS to an appliance by its domain's name on a port of this machine; tokens; server-sent events.
import crypto from "node:crypto";
import http from "node:http";
import https from "node:https";
import { until } from "./wait.mjs";

// origin: {domain, port, ca, host}; host: this machine's when not given. Resolves to {status, headers, text, json} whatever the status.
export function request(origin, method, target, { body, headers = {}, bearer, agent, signal } = {}) {
	return new Promise((resolve, reject) => {
		const req = https.request({ host: origin.host ?? "127.0.0.1", port: origin.port, servername: origin.domain, ca: origin.ca, agent, signal,
			method, path: target, headers: { Host: `${origin.domain}:${origin.port}`, ...(bearer ? { Authorization: `Bearer ${bearer}` } : {}),
				...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers } }, (res) => {
			const parts = [];
			res.on("data", (part) => parts.push(part));
			res.on("error", reject);
			res.on("end", () => {
				const text = Buffer.concat(parts).toString();
				const json = text !== "" && /json/.test(res.headers["content-type"] ?? "") ? JSON.parse(text) : undefined;
				resolve({ status: res.statusCode, headers: res.headers, text, json });
			});
		});
		req.on("error", reject);
		req.end(body === undefined || typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body));
	});
}

const b64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

// An ES256 token of a site, for ten minutes.
export function jwt(site, kid, privateKey, more = {}) {
	const claims = { iss: site, aud: site.split("@")[1], exp: Math.floor(Date.now() / 1000) + 600, ...more };
	const text = `${b64({ alg: "ES256", typ: "JWT", kid })}.${b64(claims)}`;
	const signature = crypto.sign("sha256", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" });
	return `${text}.${signature.toString("base64url")}`;
}

// A metric's value by its name and labels as they stand there; 0 when it isn't there yet.
export async function metric(port, name) {
	const text = await new Promise((resolve, reject) => {
		http.get({ host: "127.0.0.1", port, path: "/metrics", agent: false }, (res) => {
			let all = "";
			res.on("data", (part) => { all += part; });
			res.on("end", () => resolve(all));
		}).on("error", reject);
	});
	const line = text.split("\n").find((l) => l.startsWith(`${name} `));
	return line === undefined ? 0 : Number(line.slice(name.length + 1));
}

// An open event stream. events: {id, event, data} in the order of their coming.
export class Watch {
	static open(origin, target, bearer, lastEventId) {
		return new Promise((resolve, reject) => {
			const watch = new Watch();
			watch.req = https.get({ host: "127.0.0.1", port: origin.port, servername: origin.domain, ca: origin.ca, agent: false, path: target,
				headers: { Host: `${origin.domain}:${origin.port}`, Authorization: `Bearer ${bearer}`,
					...(lastEventId ? { "Last-Event-ID": lastEventId } : {}) } }, (res) => {
				if (res.statusCode !== 200) {
					res.resume();
					reject(new Error(`the event stream was answered with ${res.statusCode}`));
					return;
				}
				res.setEncoding("utf8");
				res.on("data", (part) => watch.take(part));
				res.on("error", () => {});
				res.on("close", () => { watch.ended = true; });
				resolve(watch);
			});
			watch.req.on("error", reject);
		});
	}

	constructor() {
		this.events = [];
		this.rest = "";
		this.ended = false;
	}

	take(part) {
		const blocks = (this.rest + part).split("\n\n");
		this.rest = blocks.pop();
		for (const block of blocks) {
			const field = (name) => block.split("\n").filter((l) => l.startsWith(`${name}: `)).map((l) => l.slice(name.length + 2)).join("\n");
			if (field("event") !== "")
				this.events.push({ id: field("id"), event: field("event"), data: JSON.parse(field("data")) });
		}
	}

	get entries() {
		return this.events.filter((e) => e.event === "entry").map((e) => e.data.subject);
	}

	get lastId() {
		return this.events.filter((e) => e.id !== "").at(-1)?.id;
	}

	has(subject) {
		return until(() => `${subject} among ${this.entries}`, () => this.entries.includes(subject));
	}

	close() {
		this.req.destroy();
	}
}
