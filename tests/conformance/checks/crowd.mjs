// Many connections at once: those that are served already stay served, and everybody is afterwards.
import assert from "node:assert/strict";
import net from "node:net";
import { decode } from "../lib/bencode.mjs";
import { expectAlive } from "../lib/expect.mjs";
import { faultsOfResponse } from "../lib/form.mjs";
import { check } from "../lib/tap.mjs";

const crowd = Number(process.env.CROWD ?? 300);

// Resolves to {socket, octets} when the server has said something, closed, or neither for a while.
function knock(host, port) {
	return new Promise((resolve) => {
		const socket = net.connect(port, host), all = [];
		const tell = () => resolve({ socket, octets: Buffer.concat(all) });
		const timer = setTimeout(tell, 1000);
		socket.on("error", () => {}).on("close", tell).on("data", (octets) => {
			all.push(octets);
			clearTimeout(timer);
			setTimeout(tell, 50);
		});
	});
}

check("5.1", `${crowd} connections that never begin their handshake: who was there is served, and so is everybody afterwards`, async (t) => {
	const session = await t.verified();
	const all = await Promise.all(Array.from({ length: crowd }, () => knock(t.target.host, t.target.port)));
	await expectAlive(session);
	for (const { socket } of all)
		socket.destroy();
	for (let i = 0; ; i++)
		try {
			await expectAlive(await t.open());
			break;
		} catch (error) {
			if (i === 100)
				throw error;
			await new Promise((resolve) => setTimeout(resolve, 100));
		}
}, { last: true });

check("5.1", `${crowd} connections in plaintext: each gets a greeting, or Z in its place and the end, or nothing`, async (t) => {
	t.need(t.target.starttlsPort, "STARTTLS_PORT");
	const all = await Promise.all(Array.from({ length: crowd }, () => knock(t.target.host, t.target.starttlsPort)));
	for (const { socket, octets } of all) {
		socket.destroy();
		const found = octets.length === 0 ? null : decode(octets);
		if (found !== null && !(found.value instanceof Map)) {
			assert.equal(found.value[0].toString(), "Z");
			assert.deepEqual(faultsOfResponse(found.value), []);
		}
	}
	assert.ok(all.some(({ octets }) => octets.length > 0 && decode(octets)?.value instanceof Map));
}, { last: true });
