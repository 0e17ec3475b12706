// A fault proxy for TCP: forwards octets unseen, and can hold back either direction, cut all connections, and turn new ones away.
import net from "node:net";

export class Proxy {
	// port: where to listen; target: the port where to connect; host, to: the addresses of both.
	static async listen(port, target, { host = "127.0.0.1", to = "127.0.0.1" } = {}) {
		const proxy = new this();
		proxy.port = port;
		proxy.target = target;
		proxy.to = to;
		proxy.pairs = new Set();
		proxy.held = { up: false, down: false };
		proxy.closed = false;
		proxy.accepted = 0;
		proxy.octets = { up: 0, down: 0 };
		proxy.holdUpAt = Infinity;
		proxy.server = net.createServer({ pauseOnConnect: true }, (client) => proxy.take(client));
		await new Promise((resolve, reject) => {
			proxy.server.on("error", reject);
			proxy.server.listen(port, host, resolve);
		});
		return proxy;
	}

	take(client) {
		this.accepted++;
		client.on("error", () => {});
		if (this.closed) {
			client.destroy();
			return;
		}
		const server = net.connect(this.target, this.to);
		const pair = { client, server, held: {} }; // held: as the proxy's, of these two alone
		this.pairs.add(pair);
		server.on("error", () => client.destroy());
		server.on("connect", () => this.apply());
		this.join(client, server, "up");
		this.join(server, client, "down");
		for (const socket of [client, server])
			socket.on("close", () => this.pairs.delete(pair));
		client.on("close", () => server.destroy());
		server.on("close", () => client.destroy());
	}

	join(from, to, way) {
		from.on("data", (octets) => {
			let pass = octets;
			if (way === "up" && this.octets.up + octets.length >= this.holdUpAt) {
				pass = octets.subarray(0, Math.max(0, this.holdUpAt - this.octets.up));
				this.hold("up");
				if (pass.length < octets.length)
					from.unshift(octets.subarray(pass.length));
			}
			this.octets[way] += pass.length;
			if (pass.length > 0 && !to.write(pass))
				from.pause();
		});
		to.on("drain", () => this.apply());
		from.on("end", () => to.end());
	}

	apply() {
		for (const { client, server, held } of this.pairs) {
			if (this.held.up || held.up || server.connecting)
				client.pause();
			else
				client.resume();
			if (this.held.down || held.down)
				server.pause();
			else
				server.resume();
		}
	}

	// way: "up" (towards the target) or "down"; no octet passes until release.
	hold(way) {
		this.held[way] = true;
		this.apply();
	}

	// Lets that many more octets go up, and holds back what follows.
	pass(octets) {
		this.octets.up = 0;
		this.holdUpAt = octets;
		this.held.up = false;
		this.apply();
	}

	release() {
		this.holdUpAt = Infinity;
		this.held = { up: false, down: false };
		for (const pair of this.pairs)
			pair.held = {};
		this.apply();
	}

	cut() {
		for (const { client, server } of this.pairs) {
			client.resetAndDestroy();
			server.resetAndDestroy();
		}
	}

	// From now on connections end as they begin, and those that are open end.
	refuse() {
		this.closed = true;
		this.cut();
	}

	restore() {
		this.closed = false;
		this.release();
	}

	async close() {
		this.refuse();
		await new Promise((resolve) => this.server.close(resolve));
	}
}
