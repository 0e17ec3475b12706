// Our own home server for somebody else's tester, until it is interrupted: `make conformance-server`. What is given in the
// environment (README.md) is taken, the rest is made; what the tester must know is printed, one NAME=value a line.
import { Own } from "./lib/own.mjs";

const own = await Own.start(process.env);
for (const [name, value] of Object.entries(own.tell()))
	console.log(`${name}=${value}`);
await Promise.race([own.ended, ...["SIGINT", "SIGTERM"].map((signal) => new Promise((resolve) => process.once(signal, resolve)))]);
process.exitCode = await own.stop();
