// One address for many hosts, as a pinned route leads to: TLS is passed on unopened to the port of the name that the client
// asks for. No port: the connection is ended.
import net from "node:net";

export class Fork {
	// ports: {name: port}; a longer name before one that it contains.
	static async listen(ports) {
		const fork = new Fork();
		fork.ports = ports;
		fork.sockets = new Set();
		fork.server = net.createServer((client) => fork.take(client));
		await new Promise((resolve) => fork.server.listen(0, "127.0.0.1", resolve));
		fork.port = fork.server.address().port;
		return fork;
	}

	take(client) {
		this.keep(client);
		client.once("data", (hello) => { // the name stands in it in clear
			const name = Object.keys(this.ports).find((n) => hello.includes(n));
			if (!this.ports[name]) {
				client.destroy();
				return;
			}
			const server = net.connect(this.ports[name], "127.0.0.1");
			this.keep(server);
			server.write(hello);
			client.pipe(server).pipe(client);
			client.on("close", () => server.destroy());
			server.on("close", () => client.destroy());
		});
	}

	keep(socket) {
		this.sockets.add(socket);
		socket.on("error", () => socket.destroy());
		socket.on("close", () => this.sockets.delete(socket));
	}

	// From now on; connections that are open end.
	lead(ports) {
		this.ports = ports;
		for (const socket of this.sockets)
			socket.destroy();
	}

	close() {
		this.lead({});
		return new Promise((resolve) => this.server.close(resolve));
	}
}
