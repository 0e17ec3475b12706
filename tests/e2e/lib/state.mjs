// A state directory to begin with. To make a database and its tables costs seconds of processor time, which most tests
// aren't about: one is made for each build of tmtpd, by tmtpd, and then copied.
import { execFileSync, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { alive, until } from "./wait.mjs";

function maker(lock) {
	try {
		return Number(fs.readFileSync(lock, "utf8")) || null;
	} catch {
		return null;
	}
}

// True: this process has it. One left by a process that is gone is taken over.
function take(lock) {
	try {
		fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
		return true;
	} catch {
		const pid = maker(lock);
		if (pid !== null && !alive(pid))
			fs.rmSync(lock, { force: true });
		return false;
	}
}

// In a place that the database's account reaches, which the build directory need not be.
async function make(tmtpd, account, target) {
	const dir = fs.mkdtempSync(path.join(os.tmpdir(), "tm-")), conf = path.join(dir, "tmtp.conf"), state = path.join(dir, "state");
	fs.chmodSync(dir, 0o755);
	fs.writeFileSync(conf, `roles = {"relay"}\nstate_directory = "${state}"\nuser = "${account}"\nembedded_memory_mb = 128\n` +
		`domain "first.test" { }\n`);
	try {
		const child = spawn(tmtpd, ["-c", conf], { stdio: ["ignore", "ignore", "pipe"], cwd: "/" });
		let log = "";
		child.stderr.setEncoding("utf8").on("data", (part) => {
			log += part;
			if (/^event=ready configuration=/m.test(log))
				child.kill("SIGTERM");
		});
		const code = await new Promise((resolve) => child.on("exit", resolve));
		if (code !== 0 || !/^event=ready configuration=/m.test(log))
			throw new Error(`no state to begin with was made: ${code}\n${log}`);
		fs.rmSync(`${target}.part`, { recursive: true, force: true });
		execFileSync("cp", ["-a", state, `${target}.part`]);
		fs.renameSync(`${target}.part`, target);
	} finally {
		fs.rmSync(dir, { recursive: true, force: true });
	}
}

// tmtpd: the program; account: the roles' user; state: where the directory is to stand.
export async function beginState(build, tmtpd, account, state) {
	const { mtimeMs, size } = fs.statSync(tmtpd);
	const name = crypto.createHash("sha256").update(`${tmtpd} ${mtimeMs} ${size} ${account}`).digest("hex").slice(0, 12);
	const made = path.join(build, `state-${name}`), lock = `${made}.lock`;
	await until("a state to begin with", async () => {
		if (!fs.existsSync(made) && take(lock))
			try {
				for (const old of fs.readdirSync(build).filter((each) => /^state-[0-9a-f]{12}$/.test(each)))
					fs.rmSync(path.join(build, old), { recursive: true, force: true });
				await make(tmtpd, account, made);
			} finally {
				fs.rmSync(lock, { force: true });
			}
		return fs.existsSync(made);
	}, { every: 50 });
	execFileSync("cp", ["-a", made, state]);
}
