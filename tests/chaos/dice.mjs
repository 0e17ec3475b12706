// A generator of its own for each who throws, so that a seed plays the same plan again whatever else happens (mulberry32).
import crypto from "node:crypto";

export class Dice {
	constructor(seed, name) {
		this.state = crypto.createHash("sha256").update(`${seed} ${name}`).digest().readUInt32LE(0);
	}

	random() {
		this.state = (this.state + 0x6d2b79f5) >>> 0;
		let t = this.state;
		t = Math.imul(t ^ (t >>> 15), t | 1);
		t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
		return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
	}

	below(n) {
		return Math.floor(this.random() * n);
	}

	one(list) {
		return list[this.below(list.length)];
	}

	shuffled(list) {
		return list.map((item) => [this.random(), item]).sort(([a], [b]) => a - b).map(([, item]) => item);
	}
}
