// The certificates with which the suite comes as a client: <form>.pem and <form>.key in a directory. Those that are missing
// are issued by ca.pem with ca.key; without ca.key a form that isn't there can't be had, and its checks are skipped.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const srvId = (name) => `otherName:1.3.6.1.5.5.7.8.7;IA5STRING:${name}`;

// What each form says; a and b are the two senders' domains, c the guest's.
function formsOf(a, b, c) {
	const parent = a.split(".").slice(1).join(".");
	return {
		sender: { names: `DNS:${a}` },
		other: { names: `DNS:${b}` },
		both: { names: `DNS:${a},DNS:${b}` },
		guest: { names: `DNS:${c}` },
		srv: { names: srvId(`_dmtps.${a}`) },
		"srv-plain": { names: srvId(`_dmtp.${a}`) },
		"srv-foreign": { names: srvId(`_xmpp-server.${a}`) },
		wildcard: { names: `DNS:*.${parent}` },
		parent: { names: `DNS:${parent}` },
		child: { names: `DNS:www.${a}` },
		mail: { names: `email:shop@${a}` },
		"common-name": { subject: a },
		"client-auth": { names: `DNS:${a}`, usage: "clientAuth" },
		"server-auth": { names: `DNS:${a}`, usage: "serverAuth" },
		"code-signing": { names: `DNS:${a}`, usage: "codeSigning" },
		expired: { names: `DNS:${a}`, days: -1 },
		"self-signed": { names: `DNS:${a}`, self: true },
		"foreign-authority": { names: `DNS:${a}`, foreign: true },
	};
}

export class Authority {
	constructor(dir, a, b, c) {
		Object.assign(this, { dir, forms: formsOf(a, b, c), cache: new Map() });
		this.scratch = fs.mkdtempSync(path.join(os.tmpdir(), "certificates-"));
		this.ca = fs.readFileSync(path.join(dir, "ca.pem"));
	}

	static openssl(cwd, ...args) {
		execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"], cwd });
	}

	// ca.pem and ca.key in a directory.
	static make(dir, name = "ca") {
		Authority.openssl(dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", `${name}.key`,
			"-out", `${name}.pem`, "-days", "2", "-subj", `/CN=Conformance ${name}`, "-addext", "keyUsage=critical,keyCertSign");
	}

	static issue(dir, name, { names, subject = "Conformance", usage = "serverAuth,clientAuth", days = 2, self = false }, ca) {
		const file = (ending) => path.join(dir, `${name}.${ending}`);
		fs.writeFileSync(file("ext"), `basicConstraints=CA:FALSE\nextendedKeyUsage=${usage}\n${names ? `subjectAltName=${names}\n` : ""}`);
		Authority.openssl(dir, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file("key"),
			"-out", file("csr"), "-subj", `/CN=${subject}`);
		Authority.openssl(dir, "x509", "-req", "-in", file("csr"), "-days", String(days), "-extfile", file("ext"), "-out", file("pem"),
			"-set_serial", String(Date.now() * 1000 + Math.floor(Math.random() * 1000)),
			...(self ? ["-signkey", file("key")] : ["-CA", `${ca}.pem`, "-CAkey", `${ca}.key`]));
	}

	// {cert, key} of a form, null when it can't be had.
	get(form) {
		if (!this.cache.has(form))
			this.cache.set(form, this.find(form));
		return this.cache.get(form);
	}

	find(form) {
		const read = (dir) => ({ cert: fs.readFileSync(path.join(dir, `${form}.pem`)), key: fs.readFileSync(path.join(dir, `${form}.key`)) });
		if (fs.existsSync(path.join(this.dir, `${form}.pem`)))
			return read(this.dir);
		const what = this.forms[form];
		let ca = path.join(this.dir, "ca");
		if (what.foreign) {
			Authority.make(this.scratch, "foreign");
			ca = path.join(this.scratch, "foreign");
		} else if (!what.self && !fs.existsSync(`${ca}.key`)) {
			return null;
		}
		Authority.issue(this.scratch, form, what, ca);
		return read(this.scratch);
	}

	remove() {
		fs.rmSync(this.scratch, { recursive: true, force: true });
	}
}
