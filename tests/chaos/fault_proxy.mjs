// What can go wrong with connections between two appliances, besides that they are cut and refused.
import { Proxy } from "../e2e/lib/proxy.mjs";

export class FaultProxy extends Proxy {
	mute = new Set();
	waiting = [];

	take(client) {
		if (this.halfOpen) { // accepted by the system, and nobody speaks
			this.accepted++;
			client.on("error", () => {}).on("close", () => this.mute.delete(client));
			this.mute.add(client);
		} else if (this.shuffled) {
			client.on("error", () => {});
			this.waiting.push(client);
		} else {
			super.take(client);
		}
	}

	silence() {
		this.halfOpen = true;
	}

	// Connections that begin wait for each other, and reach the target in another order.
	shuffle() {
		this.shuffled = true;
	}

	// Octets stop and go, both ways.
	stutter(ms) {
		let held = false;
		this.beat = setInterval(() => {
			held = !held;
			for (const way of ["up", "down"])
				if (held)
					this.hold(way);
			if (!held)
				this.release();
		}, ms);
	}

	// Those that are open now: no octet passes that way, and nothing is closed. end(cut): lost for good, or heard again.
	mutePairs(way) {
		const pairs = [...this.pairs];
		for (const pair of pairs)
			pair.held = { [way]: true };
		this.apply();
		return { end: (cut) => {
			for (const pair of pairs) {
				pair.held = {};
				if (cut)
					pair.client.resetAndDestroy();
			}
			this.apply();
		} };
	}

	// Those that are open now fall silent, and each is heard again after a time of its own: ms().
	holdApart(ms) {
		for (const pair of this.pairs) {
			pair.held = { up: true, down: true };
			setTimeout(() => {
				pair.held = {};
				this.apply();
			}, ms());
		}
		this.apply();
	}

	restore() {
		clearInterval(this.beat);
		this.halfOpen = this.shuffled = false;
		for (const client of this.mute)
			client.destroy();
		super.restore();
		for (const client of this.waiting.splice(0).reverse())
			if (!client.destroyed)
				super.take(client);
	}
}
