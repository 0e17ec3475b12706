// tmtpctl, every command, against a real database: what people read, what --json says, what is
// stored and audited, and how it fails. Programs come from BUILD (build); needs openssl and python3.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash, createHmac, createPublicKey, generateKeyPairSync, verify } from 'node:crypto';
import { mkdirSync, chmodSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir, userInfo } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { patience } from './lib/wait.mjs';

const top = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const program = resolve(top, process.env.BUILD ?? 'build', 'tmtpctl');
const dir = mkdtempSync(join(tmpdir(), 'ctl-'));
const cluster = join(dir, 'pg');
const site = 'shop@shop.test';

const config = (database) => `
roles = {"site"}
user = "${process.getuid() === 0 ? 'nobody' : userInfo().username}"
database = "${database}"
domain "shop.test" { }
domain "home.test" { }
home { dmtp_listen = {} dmtps_listen = {} }
`;

const file = (name, content) => {
	const path = join(dir, name);
	writeFileSync(path, content);
	return path;
};

// Runs tmtpctl; options: input for standard input, env, conf for another configuration.
const ctl = (args, options = {}) => {
	const { input = '', env = {}, conf = 'tmtp.conf', stdout = 'pipe' } = options;
	const r = spawnSync(program, ['--config', join(dir, conf), ...args], {
		input, encoding: 'utf8', env: { PATH: process.env.PATH, ASAN_OPTIONS: process.env.ASAN_OPTIONS ?? '', ...env }, stdio: ['pipe', stdout, 'pipe'],
	});
	return { code: r.status, out: r.stdout ?? '', err: r.stderr };
};

const ok = (args, options) => {
	const r = ctl(args, options);
	assert.equal(r.code, 0, `${args.join(' ')}: ${r.err}`);
	return r.out;
};
const json = (args, options) => JSON.parse(ok([...args, '--json'], options));

// A failure in both forms: the code, a sentence, and nothing but one document on standard output.
const fails = (args, code, pattern, options) => {
	const plain = ctl(args, options);
	assert.equal(plain.code, code, `${args.join(' ')}: ${plain.out}${plain.err}`);
	assert.match(plain.err, /^tmtpctl: /m);
	assert.match(plain.err, pattern);
	const asked = ctl(['--json', ...args], options);
	assert.equal(asked.code, code);
	assert.match(JSON.parse(asked.out).error.message, pattern);
	return JSON.parse(asked.out).error.code;
};

const sql = (text) => {
	const r = spawnSync('psql', ['-qXAt', '-v', 'ON_ERROR_STOP=1', '-h', cluster, '-U', 'postgres', '-d', 'tmtp'],
		{ input: text, encoding: 'utf8' });
	assert.equal(r.status, 0, r.stderr);
	return r.stdout.trim();
};

const children = []; // ended behind the tests, whatever became of them

// A session that holds what the statements take until the returned function is called.
const holding = async (statements) => {
	const psql = spawn('psql', ['-qXAt', '-h', cluster, '-U', 'postgres', '-d', 'tmtp'],
		{ stdio: ['pipe', 'ignore', 'ignore'], env: { ...process.env, PGAPPNAME: 'holder' } });
	psql.stdin.write(`BEGIN; ${statements};\n`);
	await until(() => sql(`SELECT count(*) FROM pg_stat_activity
		WHERE application_name = 'holder' AND state = 'idle in transaction'`) === '1');
	children.push(psql);
	psql.stdin.on('error', () => { }); // it may be gone with its server
	return () => psql.stdin.end('COMMIT;\n');
};

const until = async (condition) => {
	const end = Date.now() + 20000;
	while (!condition()) {
		assert.ok(Date.now() < end, `timed out: ${condition}`);
		await new Promise((done) => setTimeout(done, 10));
	}
};

const audited = () => json(['audit', 'list', '--limit', '1']).audit[0];

const commands = () => [...ctl(['--help']).out.matchAll(/^  ([a-z]+(?:-[a-z]+)?(?: [a-z]+)?)  +[A-Z]/gm)].map((m) => m[1]);

// A program on a terminal of its own; ends as a shell would tell. script(1) now and then misses the end of one that a ^C ended.
const pseudoterminal = `import os, pty, sys
code = os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:]))
sys.exit(128 - code if code < 0 else code)`;

// A terminal for the program: steps are [what to wait for, what to type or do].
// Told with what was said when a step is waited for in vain.
const onTerminal = (args, steps) => new Promise((done, fail) => {
	const child = spawn('python3', ['-c', pseudoterminal, program, '--config', join(dir, 'tmtp.conf'), ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
	children.push(child);
	let out = '', seen = 0;
	child.stdout.on('data', (data) => {
		out += data;
		while (steps.length > 0 && out.indexOf(steps[0][0], seen) >= 0) {
			seen = out.indexOf(steps[0][0], seen) + steps[0][0].length;
			const step = steps.shift()[1];
			if (typeof step === 'function')
				step();
			else
				child.stdin.write(step);
		}
	});
	const vain = setTimeout(() => {
		child.kill('SIGKILL');
		fail(new Error(`tmtpctl on a terminal, ${steps.length} steps to go: ${JSON.stringify(out)}`));
	}, patience);
	child.on('close', (code) => {
		clearTimeout(vain);
		done({ code, out });
	});
});

before(() => {
	chmodSync(dir, 0o755);
	const r = spawnSync('sh', [join(top, 'tests/cluster.sh'), 'start', cluster], { encoding: 'utf8' });
	assert.equal(r.status, 0, r.stdout + r.stderr);
	file('tmtp.conf', config(`host=${cluster} dbname=tmtp`));
	file('down.conf', config(`host=${join(dir, 'nowhere')} dbname=tmtp`));
	file('embedded.conf', config('embedded').replace('roles', `state_directory = "${dir}/state"\nroles`));
	file('nope.conf', config('embedded').replace('roles', `state_directory = "${dir}/state"\npostgres_directory = "/nope"\nroles`));
	file('bad.conf', 'no_such_option = 1\n');
	file('password', 'correct horse\n');
});

after(() => {
	for (const child of children)
		child.kill('SIGKILL');
	spawnSync('sh', [join(top, 'tests/cluster.sh'), 'stop', cluster]);
	rmSync(dir, { recursive: true, force: true });
});

describe('the command line', () => {
	test('every command has help with an example, a place in the manual and in the completion', () => {
		const manual = readFileSync(join(top, 'deploy/tmtpctl.1'), 'utf8').replaceAll('\\', '');
		const all = commands();
		assert.ok(all.length >= 35, `${all.length} commands`);
		for (const command of all) {
			const r = ctl([...command.split(' '), '--help']);
			assert.equal(r.code, 0, command);
			assert.match(r.out, new RegExp(`^Usage: tmtpctl ${command}( |$)`, 'm'));
			assert.match(r.out, new RegExp(`^Example:\\n(.|\\n)*tmtpctl[^\\n]* ${command}`, 'm'));
			for (const line of r.out.split('\n'))
				assert.ok(line.length <= 100, `${command}: ${line}`);
			const word = command.split(' ').pop();
			assert.ok(manual.includes(command) || (command.startsWith('queue ') && manual.includes(word)),
				`${command} in tmtpctl.1`);
			for (const [, option] of r.out.matchAll(/^  --([a-z-]+)/gm))
				assert.ok(manual.includes(`--${option}`), `--${option} in tmtpctl.1`);
		}
	});

	test('no option takes a secret itself', () => {
		for (const command of commands())
			for (const [line, option] of ctl([...command.split(' '), '--help']).out.matchAll(/^  --([a-z-]+).*/gm))
				if (/pass|secret|key$/.test(option))
					assert.match(line, /--[a-z-]+ FILE/);
	});

	test('completion offers what the program has', () => {
		const complete = (...words) => spawnSync('bash', ['-c', `
			. "$0"; PATH=$1:$PATH; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tmtpctl
			echo "\${COMPREPLY[*]}"`, join(top, 'deploy/tmtpctl.bash'), dirname(program), 'tmtpctl', ...words],
		{ encoding: 'utf8' }).stdout.trim().split(' ');
		for (const command of commands()) {
			const [first, second] = command.split(' ');
			assert.ok(complete('').includes(first), first);
			if (second !== undefined)
				assert.ok(complete(first, second.slice(0, 2)).includes(second), command);
		}
		assert.deepEqual(complete('key', 'add', site, '--algorithm', 'E'), ['ES256']);
		assert.ok(complete('--json', 'token', 'create', site, '--sc').includes('--scope'));
	});

	test('wrong usage is told and exits with 2', () => {
		for (const args of [
			[], ['sites'], ['site'], ['site', 'frobnicate'], ['site', 'list', 'surplus'], ['site', 'show'],
			['site', 'create', site], ['site', 'create', site, '--title'], ['site', 'create', site, '--title', ''],
			['site', 'create', site, '--title', 'a', '--title', 'b'], ['site', 'list', '--frobnicate'],
			['site', 'list', '-x'], ['site', 'list', '--json=yes'], ['--frobnicate'],
			['site', 'create', site, '--tit', 'abbreviated'], ['migrate', 'now'],
		])
			assert.equal(fails(args, 2, /./), 'usage', args.join(' '));
	});

	test('a secret that was put behind an option by mistake is not repeated', () => {
		for (const args of [['--password=hunter2'], ['--secret=hunter2']]) {
			const r = ctl(['account', 'create', 'ann@home.test', ...args]);
			assert.equal(r.code, 2);
			assert.ok(!(r.out + r.err).includes('hunter2'));
		}
	});

	test('options stand before or behind the command; -- ends them', () => {
		assert.deepEqual(JSON.parse(ctl(['check-config', '--json']).out), JSON.parse(ctl(['--json', 'check-config']).out));
		assert.equal(ctl(['check-config', '--', '--json']).code, 2);
		assert.match(ctl(['--version']).out, /^tmtpctl \d/);
		assert.equal(ctl(['site', '--help']).code, 0);
	});
});

describe('configuration and schema', () => {
	test('check-config says what stands there or what is wrong', () => {
		assert.match(ok(['check-config']), /^Domains: +shop\.test,home\.test$/m);
		const c = json(['check-config']);
		assert.deepEqual([c.ok, c.domains, c.database], [true, ['shop.test', 'home.test'], 'external']);
		assert.equal(fails(['check-config'], 1, /no_such_option/, { conf: 'bad.conf' }), 'config-invalid');
		assert.equal(fails(['check-config'], 1, /none\.conf/, { conf: 'none.conf' }), 'config-unreadable');
		assert.equal(fails(['check-config'], 1, /no initdb and postgres in \/nope$/m, { conf: 'nope.conf' }), 'config-invalid');
	});

	test('without tables every command says to migrate', () => {
		assert.equal(fails(['site', 'list'], 1, /tmtpctl migrate/), 'schema');
	});

	test('migrate shows each migration, once, and is audited', () => {
		const names = spawnSync('sh', ['-c', 'ls schema/[0-9]*.sql'], { cwd: top, encoding: 'utf8' }).stdout
			.trim().split('\n').map((f) => f.slice('schema/'.length, -'.sql'.length));
		const out = ok(['migrate']);
		for (const [i, name] of names.entries())
			assert.ok(out.includes(`Applying ${name} (${i + 1} of ${names.length})`), out);
		assert.match(ok(['migrate']), /nothing was to be done/);
		assert.deepEqual(json(['migrate']), { applied: [], migrations: names.length, state: 'current' });
		const { audit } = json(['audit', 'list']);
		assert.deepEqual(audit.map((a) => [a.action, a.subject]), [...names].reverse().map((name) => ['migrate', name]));
	});

	test('migrate as JSON names what it applied', () => {
		sql('DROP SCHEMA tmtp CASCADE');
		const m = json(['migrate']);
		assert.equal(m.applied.length, m.migrations);
	});

	test('the bar is drawn on a terminal only, when it takes long', async () => {
		sql('DROP SCHEMA tmtp CASCADE');
		const release = await holding('SELECT pg_advisory_xact_lock(7309940831)');
		const { code, out } = await onTerminal(['migrate'], [['[....', release]]);
		assert.equal(code, 0);
		assert.match(out, /\[\.+\] 0 of \d/);
		assert.match(out, /The schema is current/);
		assert.ok(!ctl(['migrate']).err.includes('['));
	});
});

describe('sites', () => {
	test('create, list, show, suspend, resume', () => {
		assert.match(ok(['site', 'create', site, '--title', 'The shop']), /shop@shop\.test was created/);
		assert.deepEqual((({ actor, action, subject }) => [actor, action, subject])(audited()),
			[`${userInfo().username}@${hostname()}`, 'site-create', site]);
		const made = json(['site', 'create', 'News@SHOP.test', '--title', '日本語の新聞']);
		assert.deepEqual([made.address, made.title, made.state], ['news@shop.test', '日本語の新聞', 'active']);
		assert.equal(sql(`SELECT title FROM tmtp.site WHERE site_id = ${made.id}`), '日本語の新聞');
		const { sites } = json(['site', 'list']);
		assert.deepEqual(sites.map((s) => s.address), ['news@shop.test', site]);
		assert.match(sites[0].created, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
		ok(['site', 'suspend', 'news@shop.test']);
		assert.equal(audited().action, 'site-suspend');
		assert.notEqual(json(['site', 'show', 'news@shop.test']).suspended, null);
		assert.match(ok(['site', 'show', 'news@shop.test']), /^State: +suspended$/m);
		assert.equal(json(['site', 'resume', 'news@shop.test']).state, 'active');
		assert.equal(audited().action, 'site-resume');
		assert.equal(json(['site', 'show', 'news@shop.test']).suspended, null);
	});

	test('the table is aligned, wide characters included', () => {
		const lines = ok(['site', 'list']).trimEnd().split('\n');
		const width = (s) => [...s].reduce((n, c) => n + (c.codePointAt(0) >= 0x3000 ? 2 : 1), 0);
		const column = width(lines[0].slice(0, lines[0].indexOf('STATE')));
		for (const line of lines.slice(1))
			assert.equal(width(line.slice(0, line.indexOf('active'))), column);
	});

	test('a name that is taken, absent, foreign or malformed', () => {
		const rows = sql('SELECT count(*) FROM tmtp.audit');
		assert.equal(fails(['site', 'create', site, '--title', 'x'], 1, /taken/), 'conflict');
		assert.equal(fails(['site', 'create', 'a@else.test', '--title', 'x'], 1, /domain "else\.test"/), 'unknown-domain');
		assert.equal(fails(['site', 'create', 'a b@shop.test', '--title', 'x'], 1, /not an address/), 'invalid-address');
		assert.equal(fails(['site', 'create', 'a.b@shop.test', '--title', 'x'], 1, /site's name/), 'invalid-name');
		assert.equal(fails(['site', 'create', 'c@shop.test', '--title', 'a\nb'], 1, /--title/), 'invalid-title');
		assert.equal(fails(['site', 'create', 'c@shop.test', '--title', 'x'.repeat(101)], 1, /--title/), 'invalid-title');
		assert.equal(fails(['site', 'show', 'none@shop.test'], 1, /site list/), 'not-found');
		assert.equal(fails(['site', 'suspend', 'none@shop.test'], 1, /site list/), 'not-found');
		assert.equal(fails(['site', 'resume', 'none@shop.test'], 1, /site list/), 'not-found');
		assert.equal(sql('SELECT count(*) FROM tmtp.audit'), rows, 'what fails is not audited as done');
	});
});

describe('keys', () => {
	const pems = (type, options) => {
		const { publicKey, privateKey } = generateKeyPairSync(type, options);
		return { pub: publicKey.export({ type: 'spki', format: 'pem' }), key: privateKey.export({ type: 'pkcs8', format: 'pem' }) };
	};
	const ec = pems('ec', { namedCurve: 'P-256' });
	const rsa = pems('rsa', { modulusLength: 2048 });
	const add = (kid, algorithm, ...rest) => ['key', 'add', site, '--kid', kid, '--algorithm', algorithm, ...rest];

	test('ES256 and RS256 store the public key, without what stood around it', () => {
		ok(add('ec1', 'ES256', '--public-key', file('ec.pub', `a comment\n${ec.pub}`)));
		assert.deepEqual([audited().action, audited().subject], ['key-add', site]);
		assert.equal(json(add('rsa1', 'RS256', '--public-key', '-'), { input: rsa.pub }).kid, 'rsa1');
		assert.equal(sql(`SELECT convert_from(material, 'UTF8') FROM tmtp.site_key WHERE kid = 'ec1'`), ec.pub.trim());
	});

	test('weak, foreign and private keys are refused', () => {
		const p384 = pems('ec', { namedCurve: 'P-384' }), small = pems('rsa', { modulusLength: 1024 }), ed = pems('ed25519');
		for (const [algorithm, pem, pattern] of [
			['ES256', p384.pub, /P-256.*384 bits/], ['ES256', rsa.pub, /P-256/], ['RS256', small.pub, /1024 bits/],
			['RS256', ec.pub, /RSA/], ['RS256', ed.pub, /ED25519/], ['ES256', ec.key, /private key.*-pubout/],
			['ES256', 'nothing', /no public key/], ['ES256', '', /no public key/],
			['ES256', 'x'.repeat(70000), /longer than/],
		])
			fails(add('bad', algorithm, '--public-key', '-'), 1, pattern, { input: pem });
		fails(add('bad', 'ES256', '--public-key', join(dir, 'none')), 1, /can't be read/);
		assert.equal(sql(`SELECT count(*) FROM tmtp.site_key WHERE kid = 'bad'`), '0');
	});

	test('HS256: a secret of a file, or one that is made and shown once', () => {
		const secret = '0123456789abcdef0123456789abcdef';
		ok(add('hs1', 'HS256', '--secret-file', '-'), { input: `${secret}\n` });
		assert.equal(sql(`SELECT convert_from(material, 'UTF8') FROM tmtp.site_key WHERE kid = 'hs1'`), secret);
		const r = ctl(add('hs2', 'HS256', '--generate'));
		assert.match(r.out, /^[A-Za-z0-9_-]{43}\n$/, 'nothing else on standard output');
		assert.match(r.err, /once/);
		assert.equal(sql(`SELECT convert_from(material, 'UTF8') FROM tmtp.site_key WHERE kid = 'hs2'`), r.out.trim());
		const made = json(add('hs3', 'HS256', '--generate'));
		assert.notEqual(made.secret, r.out.trim());
		fails(add('bad', 'HS256', '--secret-file', '-'), 1, /32 to 1024/, { input: 'short' });
		fails(add('bad', 'HS256', '--secret-file', '-'), 1, /32 to 1024/, { input: 'x'.repeat(1025) });
		fails(add('bad', 'HS256', '--secret-file', '-'), 1, /PEM/, { input: ec.pub });
		assert.ok(!ok(['key', 'list', site, '--json']).includes(made.secret));
		assert.ok(!ok(['audit', 'list', '--json']).includes(made.secret));
	});

	test('options that don’t fit together', () => {
		fails(add('bad', 'none', '--generate'), 2, /ES256, RS256 or HS256/);
		fails(add('bad', 'HS256'), 2, /--secret-file or --generate/);
		fails(add('bad', 'HS256', '--generate', '--secret-file', '-'), 2, /--generate/);
		fails(add('bad', 'HS256', '--public-key', '-'), 2, /--secret-file/);
		fails(add('bad', 'ES256', '--generate'), 2, /--public-key/);
		fails(add('a b', 'HS256', '--generate'), 1, /--kid/);
	});

	test('list, revoke, and a name that was used', () => {
		assert.equal(fails(add('ec1', 'HS256', '--generate'), 1, /already/), 'conflict');
		assert.match(ok(['key', 'revoke', site, '--kid', 'ec1']), /revoked/);
		assert.deepEqual([audited().action, audited().detail], ['key-revoke', 'ec1']);
		assert.equal(fails(add('ec1', 'HS256', '--generate'), 1, /already/), 'conflict');
		assert.equal(fails(['key', 'revoke', site, '--kid', 'none'], 1, /key list/), 'not-found');
		assert.equal(fails(['key', 'list', 'none@shop.test'], 1, /site list/), 'not-found');
		const { keys } = json(['key', 'list', site]);
		assert.deepEqual(keys.map((k) => [k.kid, k.algorithm, k.state]).sort(), [['ec1', 'ES256', 'revoked'],
			['hs1', 'HS256', 'valid'], ['hs2', 'HS256', 'valid'], ['hs3', 'HS256', 'valid'], ['rsa1', 'RS256', 'valid']]);
		assert.match(ok(['key', 'list', site]), /^rsa1 +RS256 +valid/m);
		assert.match(ok(['key', 'list', 'news@shop.test']), /no keys/);
	});

	test('token jwt signs what the site’s key verifies', () => {
		const jwt = (args, options) => {
			const token = ok(['token', 'jwt', site, '--kid', 'k', ...args], options).trim();
			const [header, claims, signature] = token.split('.');
			return { header: JSON.parse(Buffer.from(header, 'base64url')), claims: JSON.parse(Buffer.from(claims, 'base64url')),
				data: Buffer.from(`${header}.${claims}`), signature: Buffer.from(signature, 'base64url') };
		};
		const e = jwt(['--key', file('ec.key', ec.key), '--expires', '1h', '--scope', 'read,push']);
		assert.deepEqual(e.header, { typ: 'JWT', alg: 'ES256', kid: 'k' });
		assert.deepEqual([e.claims.iss, e.claims.aud, e.claims.scope], [site, 'shop.test', 'push read']);
		assert.equal(e.claims.exp - e.claims.iat, 3600);
		assert.ok(Math.abs(e.claims.iat - Date.now() / 1000) < 60);
		assert.ok(verify('sha256', e.data, { key: createPublicKey(ec.pub), dsaEncoding: 'ieee-p1363' }, e.signature));
		const r = jwt(['--key', '-'], { input: rsa.key });
		assert.equal(r.header.alg, 'RS256');
		assert.equal(r.claims.exp - r.claims.iat, 600);
		assert.ok(verify('sha256', r.data, createPublicKey(rsa.pub), r.signature));
		const secret = 'x'.repeat(40);
		const h = jwt(['--secret-file', '-'], { input: secret });
		assert.deepEqual(h.signature, createHmac('sha256', secret).update(h.data).digest());
		fails(['token', 'jwt', site, '--kid', 'k', '--key', '-', '--expires', '61m'], 2, /1h/, { input: ec.key });
		fails(['token', 'jwt', site, '--kid', 'k'], 2, /--key or --secret-file/);
		fails(['token', 'jwt', site, '--kid', 'k', '--key', '-'], 1, /no private key/, { input: ec.pub });
		assert.equal(ctl(['token', 'jwt', site, '--kid', 'k', '--key', join(dir, 'ec.key')], { conf: 'none.conf' }).code, 0);
		assert.match(json(['token', 'jwt', site, '--kid', 'k', '--key', join(dir, 'ec.key')]).token, /^ey/);
	});
});

describe('tokens', () => {
	const base32 = (octets) => {
		const bits = [...octets].map((o) => o.toString(2).padStart(8, '0')).join('');
		return bits.match(/.{1,5}/g).map((b) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(b.padEnd(5, '0'), 2)]).join('');
	};

	test('a token carries the site’s number, and works as a hash only', () => {
		const r = ctl(['token', 'create', site, '--name', 'backend', '--scope', 'read,push,push', '--expires', '90d']);
		assert.match(r.out, /^tmtp_s_[a-z2-7]{13}_[a-z2-7]{32}\n$/);
		const token = r.out.trim();
		const id = Buffer.alloc(8);
		id.writeBigInt64BE(BigInt(json(['site', 'show', site]).id));
		assert.equal(token.split('_')[2], base32(id));
		const hash = createHash('sha256').update(token).digest('hex');
		assert.equal(sql(`SELECT name || ' ' || array_to_string(scopes, ',') FROM tmtp.site_token
			WHERE token_hash = '\\x${hash}' AND expires_at BETWEEN now() + '89 days' AND now() + '91 days'`), 'backend push,read');
		assert.deepEqual([audited().action, audited().subject], ['token-add', site]);
		const random = token.split('_')[3];
		for (const table of ['site_token', 'audit'])
			assert.ok(!sql(`SELECT t::text FROM tmtp.${table} t`).includes(random), 'the token itself is nowhere');
		const made = json(['token', 'create', site, '--name', 'second', '--scope', 'members']);
		assert.deepEqual([made.scopes, made.expires], [['members'], null]);
		assert.notEqual(made.token, token);
	});

	test('list, revoke, expired ones, and errors', () => {
		assert.equal(fails(['token', 'create', site, '--name', 'backend', '--scope', 'push'], 1, /already/), 'conflict');
		assert.equal(fails(['token', 'create', 'none@shop.test', '--name', 'x', '--scope', 'push'], 1, /site list/), 'not-found');
		fails(['token', 'create', site, '--name', 'x', '--scope', 'push,root'], 2, /push, members and read/);
		fails(['token', 'create', site, '--name', 'x', '--scope', 'push,'], 2, /push, members and read/);
		for (const time of ['90', 'd', '0d', '-1d', '1y', '1.5d', '99999999d'])
			fails(['token', 'create', site, '--name', 'x', '--scope', 'push', '--expires', time], 2, /--expires/);
		ok(['token', 'revoke', site, '--name', 'second']);
		assert.deepEqual([audited().action, audited().detail], ['token-revoke', 'second']);
		assert.equal(fails(['token', 'revoke', site, '--name', 'none'], 1, /token list/), 'not-found');
		ok(['token', 'create', site, '--name', 'old', '--scope', 'push', '--expires', '1s']);
		sql(`UPDATE tmtp.site_token SET expires_at = now() - interval '1 second' WHERE name = 'old'`);
		const { tokens } = json(['token', 'list', site]);
		assert.deepEqual(Object.fromEntries(tokens.map((t) => [t.name, t.state])), { backend: 'valid', old: 'expired', second: 'revoked' });
		assert.match(ok(['token', 'list', site]), /^backend +push,read +valid/m);
		assert.match(ok(['token', 'list', 'news@shop.test']), /no tokens/);
	});

	test('a token that could not be shown is told to be lost', () => {
		const r = ctl(['token', 'create', site, '--name', 'lost', '--scope', 'push'], { stdout: openSync('/dev/full', 'w') });
		assert.equal(r.code, 1);
		assert.match(r.err, /revoke it/);
	});
});

describe('channels and members', () => {
	test('create, list, close', () => {
		assert.match(ok(['channel', 'create', site, 'orders', '--title', 'Your orders']), /orders\.shop@shop\.test/);
		assert.deepEqual([audited().action, audited().detail], ['channel-create', 'orders']);
		assert.equal(json(['channel', 'create', site, 'offers', '--title', 'Offers']).state, 'open');
		ok(['channel', 'close', site, 'offers']);
		assert.deepEqual([audited().action, audited().detail], ['channel-close', 'offers']);
		assert.deepEqual(json(['channel', 'list', site]).channels.map((c) => [c.name, c.title, c.state, c.members]),
			[['offers', 'Offers', 'closed', 0], ['orders', 'Your orders', 'open', 0]]);
		assert.match(ok(['channel', 'list', site]), /^orders +Your orders +open +0 /m);
		assert.match(ok(['channel', 'list', 'news@shop.test']), /no channels/);
		assert.equal(fails(['channel', 'create', site, 'offers', '--title', 'x'], 1, /already/), 'conflict');
		assert.equal(fails(['channel', 'create', site, 'Offers', '--title', 'x'], 1, /channel's name/), 'invalid-name');
		for (const name of ['inbox', 'invite', 'smtp'])
			assert.equal(fails(['channel', 'create', site, name, '--title', 'x'], 1, /every member has/), 'invalid-name');
		assert.equal(fails(['channel', 'create', 'none@shop.test', 'x', '--title', 'x'], 1, /site list/), 'not-found');
		assert.equal(fails(['channel', 'close', site, 'none'], 1, /channel list/), 'not-found');
		assert.equal(fails(['channel', 'list', 'none@shop.test'], 1, /site list/), 'not-found');
	});

	test('member list pages in order', () => {
		const channel = json(['channel', 'list', site]).channels.find((c) => c.name === 'orders').id;
		const id = json(['site', 'show', site]).id;
		assert.match(ok(['member', 'list', site, 'orders']), /Nobody/);
		sql(`INSERT INTO tmtp.domain (domain_id, name, created_at) VALUES (7, 'home.test', now());
			INSERT INTO tmtp.subscription (site_id, channel_id, domain_id, member, state, joined_at, invited_at)
			SELECT ${id}, ${channel}, 7, 'm' || i, i % 2, CASE WHEN i % 2 = 1 THEN now() END, now() FROM generate_series(1, 5) i`);
		assert.deepEqual(json(['member', 'list', site, 'orders']).members.map((m) => [m.address, m.state]), [
			['m1@home.test', 'granted'], ['m2@home.test', 'invited'], ['m3@home.test', 'granted'],
			['m4@home.test', 'invited'], ['m5@home.test', 'granted']]);
		const page = json(['member', 'list', site, 'orders', '--limit', '2', '--after', 'm2@home.test']);
		assert.deepEqual([page.members.map((m) => m.address), page.next], [['m3@home.test', 'm4@home.test'], 'm4@home.test']);
		assert.match(ctl(['member', 'list', site, 'orders', '--limit', '2']).err, /--after m2@home\.test/);
		assert.equal(json(['member', 'list', site, 'orders', '--state', 'invited']).members.length, 2);
		fails(['member', 'list', site, 'orders', '--state', 'gone'], 2, /--state/);
		fails(['member', 'list', site, 'orders', '--limit', '0'], 2, /--limit/);
		assert.equal(fails(['member', 'list', site, 'none'], 1, /channel list/), 'not-found');
	});
});

describe('accounts', () => {
	const create = (address, ...rest) => ['account', 'create', address, ...rest];
	const hash = (name) => sql(`SELECT password_hash FROM tmtp.account WHERE name = '${name}'`);

	test('create stores an argon2id hash and nothing else', () => {
		ok(create('Ann@Home.test', '--password-file', join(dir, 'password')));
		assert.deepEqual([audited().action, audited().subject], ['account-create', 'ann@home.test']);
		assert.match(hash('ann'), /^\$argon2id\$v=19\$m=65536,t=\d,p=1\$/);
		assert.equal(json(create('bob@home.test', '--password-file', '-'), { input: 'correct horse' }).address, 'bob@home.test');
		assert.notEqual(hash('ann').split('$').at(-1), hash('bob').split('$').at(-1), 'each has its salt');
		assert.ok(!sql('SELECT a::text FROM tmtp.account a; SELECT a::text FROM tmtp.audit a').includes('correct'));
	});

	test('what is no password or no address of ours is refused', () => {
		for (const input of ['', 'short', 'two\nlines of it', 'x'.repeat(257), 'x'.repeat(5000), Buffer.from([0xff].concat(Array(9).fill(0x61)))])
			fails(create('zoe@home.test', '--password-file', '-'), 1, /password|longer/, { input });
		fails(create('zoe@home.test', '--password-file', join(dir, 'none')), 1, /can't be read/);
		fails(create('zoe@home.test'), 2, /no terminal/);
		assert.equal(fails(create('ann@home.test', '--password-file', join(dir, 'password')), 1, /taken/), 'conflict');
		assert.equal(fails(create(site, '--password-file', join(dir, 'password')), 1, /taken/), 'conflict');
		assert.equal(fails(create('a@else.test', '--password-file', join(dir, 'password')), 1, /else\.test/), 'unknown-domain');
		assert.equal(fails(create('nobody', '--password-file', join(dir, 'password')), 1, /not an address/), 'invalid-address');
		assert.equal(sql(`SELECT count(*) FROM tmtp.account WHERE name = 'zoe'`), '0');
	});

	test('password, disable, enable, list', () => {
		const old = hash('ann');
		ok(['account', 'password', 'ann@home.test', '--password-file', '-'], { input: 'another one\r\n' });
		assert.equal(audited().action, 'account-password');
		assert.notEqual(hash('ann'), old);
		assert.equal(json(['account', 'disable', 'ann@home.test']).state, 'disabled');
		assert.equal(audited().action, 'account-disable');
		assert.deepEqual(json(['account', 'list']).accounts.map((a) => [a.address, a.state]),
			[['ann@home.test', 'disabled'], ['bob@home.test', 'active']]);
		ok(['account', 'enable', 'ann@home.test']);
		assert.equal(audited().action, 'account-enable');
		assert.match(ok(['account', 'list', '--domain', 'HOME.test']), /^ann@home\.test +active/m);
		const page = json(['account', 'list', '--limit', '1']);
		assert.deepEqual([page.accounts.length, page.next], [1, 'ann@home.test']);
		assert.deepEqual(json(['account', 'list', '--after', page.next]).accounts.map((a) => a.address), ['bob@home.test']);
		assert.match(ok(['account', 'list', '--domain', 'shop.test']), /no accounts/);
		for (const verb of ['disable', 'enable'])
			assert.equal(fails(['account', verb, 'none@home.test'], 1, /account list/), 'not-found');
		fails(['account', 'password', 'none@home.test', '--password-file', join(dir, 'password')], 1, /account list/);
		fails(['account', 'list', '--domain', 'a b'], 1, /not a domain/);
		assert.equal(fails(['account', 'list', '--domain', 'nope.test'], 1, /nope\.test is not a domain of this appliance/), 'unknown-domain');
	});

	test('a terminal is asked twice, without echo', async () => {
		const good = await onTerminal(create('term@home.test'), [['New password: ', 'battery staple\n'], ['again: ', 'battery staple\n']]);
		assert.equal(good.code, 0, good.out);
		assert.ok(!good.out.includes('battery'));
		const bad = await onTerminal(['account', 'password', 'term@home.test'], [['New password: ', 'battery staple\n'], ['again: ', 'battery stable\n']]);
		assert.equal(bad.code, 1);
		assert.match(bad.out, /differ/);
		const stopped = await onTerminal(['account', 'password', 'term@home.test'], [['New password: ', '\x03']]);
		assert.equal(stopped.code, 130);
	});

	test('a password stands neither in the arguments nor in the environment', async () => {
		const child = spawn(program, ['--config', join(dir, 'tmtp.conf'), ...create('ps@home.test', '--password-file', '-')],
			{ stdio: ['pipe', 'ignore', 'inherit'] });
		child.stdin.write('tell nobody');
		const seen = readFileSync(`/proc/${child.pid}/cmdline`, 'utf8') + readFileSync(`/proc/${child.pid}/environ`, 'utf8');
		assert.ok(!seen.includes('tell nobody'));
		child.stdin.end();
		assert.equal(await new Promise((done) => child.on('close', done)), 0);
	});
});

describe('messages, queue and peers', () => {
	const ids = [1, 2, 3].map((n) => `0${(Date.now() + n).toString(16)}`.slice(-12).replace(/(.{8})(.{4})/, '$1-$2-7000-8000-00000000000') + n);
	const state = (id) => sql(`SELECT state FROM tmtp.batch WHERE message_id = '${id}'`);

	before(() => {
		const id = json(['site', 'show', site]).id;
		const channel = json(['channel', 'list', site]).channels.find((c) => c.name === 'orders').id;
		sql(`SELECT tmtp.ensure_partitions(current_date - 1, current_date + 1);`);
		for (const [i, m] of ids.entries())
			sql(`INSERT INTO tmtp.message (site_id, message_id, channel_id, audience, lane, accepted_at, date_s, size, digest, body)
				VALUES (${id}, '${m}', ${channel}, 1, 0, now(), 0, 3, '\\x00', 'abc');
				INSERT INTO tmtp.batch (site_id, message_id, batch_no, channel_id, domain_id, lane, state, members, recipients)
				VALUES (${id}, '${m}', 1, ${channel}, 7, 0, ${i === 0 ? 1 : 0}, '{m1,m3}', 2);`);
		sql(`INSERT INTO tmtp.failure (site_id, message_id, domain_id, member, code, failed_at)
			VALUES (${id}, '${ids[0]}', 7, 'm3', 'channel-closed', now());
			INSERT INTO tmtp.domain (domain_id, name, created_at) VALUES (8, 'gone.test', now());
			INSERT INTO tmtp.peer (domain_id, failures, failing_since, retry_at, reason, sent_at)
			VALUES (7, 0, NULL, NULL, NULL, now()), (8, 3, now(), now() + '1 hour', E'no route \\x1b[31m to it', NULL)`);
	});

	test('message list is newest first and pages', () => {
		assert.deepEqual(json(['message', 'list', site]).messages.map((m) => m.id), [...ids].reverse());
		const page = json(['message', 'list', site, '--limit', '2']);
		assert.equal(page.next, ids[1]);
		assert.deepEqual(json(['message', 'list', site, '--before', page.next]).messages.map((m) => m.id), [ids[0]]);
		assert.match(ok(['message', 'list', site]), new RegExp(`^${ids[2]} +\\S+Z +orders +list +urgent +3 +-$`, 'm'));
		assert.match(ok(['message', 'list', 'news@shop.test']), /No messages/);
		assert.equal(fails(['message', 'list', site, '--before', 'x'], 1, /not an id/), 'invalid-id');
		assert.equal(fails(['message', 'list', 'none@shop.test'], 1, /site list/), 'not-found');
	});

	test('message show and recipients', () => {
		const m = json(['message', 'show', site, ids[0]]);
		assert.deepEqual([m.channel, m.audience, m.lane, m.waiting, m.delivered, m.failed, m.dead, m.rejected],
			['orders', 'list', 'urgent', 0, 1, 1, 0, 0]);
		assert.match(ok(['message', 'show', site, ids[1]]), /^Waiting: +2$/m);
		assert.deepEqual(json(['message', 'recipients', site, ids[0]]).recipients, [
			{ address: 'm1@home.test', state: 'delivered', reason: null },
			{ address: 'm3@home.test', state: 'failed', reason: 'channel-closed' }]);
		assert.deepEqual(json(['message', 'recipients', site, ids[0], '--state', 'failed']).recipients.map((r) => r.address), ['m3@home.test']);
		assert.match(ok(['message', 'recipients', site, ids[0], '--after', 'm1@home.test']), /^m3@home\.test +failed +channel-closed$/m);
		assert.equal(fails(['message', 'show', 'news@shop.test', ids[0]], 1, /message list/), 'not-found');
		assert.equal(fails(['message', 'recipients', 'news@shop.test', ids[0]], 1, /message list/), 'not-found');
		fails(['message', 'recipients', site, ids[0], '--state', 'lost'], 2, /--state/);
	});

	test('peer list, show, hold and release', () => {
		const { peers } = json(['peer', 'list']);
		assert.deepEqual(peers.map((p) => [p.domain, p.state, p.failures]), [['gone.test', 'failing', 3], ['home.test', 'well', 0]]);
		const out = ok(['peer', 'show', 'gone.test']);
		assert.match(out, /^Failures in a row: +3$/m);
		assert.ok(!out.includes('\x1b'), 'another server’s words don’t steer the terminal');
		ok(['peer', 'hold', 'gone.test']);
		assert.deepEqual([audited().action, audited().subject], ['peer-hold', 'gone.test']);
		assert.equal(json(['peer', 'show', 'gone.test']).state, 'held');
		assert.equal(json(['peer', 'release', 'gone.test']).held, false);
		assert.equal(audited().action, 'peer-release');
		assert.equal(json(['peer', 'show', 'gone.test']).state, 'well');
		for (const verb of ['show', 'hold', 'release'])
			assert.equal(fails(['peer', verb, 'never.test'], 1, /peer list/), 'not-found');
	});

	test('queue list shows what waits', () => {
		const { batches } = json(['queue', 'list']);
		assert.deepEqual(batches.map((b) => [b.message, b.domain, b.site, b.state, b.recipients]).sort(),
			ids.slice(1).map((id) => [id, 'home.test', site, 'waiting', 2]));
		assert.match(ok(['queue', 'list', '--domain', 'home.test']), new RegExp(`^${ids[1]} +1 +${site} +orders`, 'm'));
		assert.match(ok(['queue', 'list', '--domain', 'gone.test']), /Nothing waits/);
		assert.match(ok(['queue', 'list', '--dead']), /Nothing was given up/);
		assert.match(ctl(['queue', 'list', '--limit', '1']).err, /may be more/);
		sql(`INSERT INTO tmtp.peer AS p (domain_id, held) SELECT domain_id, true FROM tmtp.domain WHERE name = 'home.test'
			ON CONFLICT (domain_id) DO UPDATE SET held = true`);
		assert.match(json(['queue', 'list']).batches[0].reason, /^the domain is held: tmtpctl peer release home\.test/);
		sql(`UPDATE tmtp.peer SET held = false, failures = 0, reason = 'no such name', retry_at = now() - interval '1 s'`);
		for (const peer of json(['peer', 'list']).peers)
			assert.deepEqual([peer.state, peer.reason], ['well', null], 'an old reason is none');
		sql(`UPDATE tmtp.peer SET reason = NULL`);
	});

	test('queue retry, hold, release and drop', () => {
		assert.equal(json(['queue', 'hold', '--message', ids[1]]).changed, 1);
		assert.equal(state(ids[1]), '3');
		assert.match(audited().action, /hold/);
		ok(['queue', 'release', '--all']);
		assert.equal(state(ids[1]), '0');
		assert.match(audited().action, /resume|release/);
		sql(`UPDATE tmtp.batch SET not_before = now() + '1 hour' WHERE message_id = '${ids[1]}'`);
		assert.match(ok(['queue', 'retry', '--domain', 'home.test']), /tried at once/);
		assert.equal(sql(`SELECT count(*) FROM tmtp.batch WHERE not_before > now()`), '0');
		assert.equal(json(['queue', 'drop', '--message', ids[2]]).changed, 1);
		assert.equal(state(ids[2]), '4');
		assert.equal(state(ids[1]), '0', 'only what was named');
		const before_ = sql('SELECT count(*) FROM tmtp.audit');
		assert.match(ok(['queue', 'drop', '--domain', 'gone.test']), /No batch/);
		assert.match(ok(['queue', 'drop', '--message', ids[2]]), /No batch.* Nothing of it waits, is held or was given up/);
		assert.match(ok(['queue', 'release', '--message', ids[1]]), /No batch.* isn't held: it waits/);
		assert.match(ok(['queue', 'retry', '--message', ids[2]]), /No batch.* was dropped/);
		const lease = (end) => sql(`UPDATE tmtp.batch SET leased_until = ${end} WHERE message_id = '${ids[1]}'`);
		lease(`now() + '1 hour'`);
		assert.match(ok(['queue', 'retry', '--message', ids[1], '--domain', 'home.test']), /No batch.* is being sent, and tried again by itself/);
		lease('NULL');
		assert.equal(sql('SELECT count(*) FROM tmtp.audit'), before_, 'what changes nothing is not audited');
		ok(['queue', 'hold', '--message', ids[1]]);
		assert.match(ok(['queue', 'hold', '--message', ids[1]]), /No batch.* is held already/);
		ok(['queue', 'release', '--message', ids[1]]);
		const { batches: dead } = json(['queue', 'list', '--dead']);
		assert.deepEqual(dead.map((b) => [b.message, b.state, b.reason]), [[ids[2], 'dropped', 'dropped by an administrator']]);
		assert.equal(json(['message', 'show', site, ids[2]]).dead, dead[0].recipients, 'as its message counts it');
		for (const verb of ['retry', 'hold', 'release', 'drop']) {
			fails(['queue', verb], 2, /--domain, --message or both, or else --all/);
			fails(['queue', verb, '--all', '--domain', 'home.test'], 2, /--all and --domain exclude each other/);
			fails(['queue', verb, '--message', 'x'], 1, /not an id/);
		}
	});
});

describe('the audit log', () => {
	test('root’s SUDO_USER is who did it; nobody else’s is', () => {
		ok(['site', 'suspend', 'news@shop.test'], { env: { SUDO_USER: 'alice' } });
		assert.equal(audited().actor, process.getuid() === 0 ? `alice@${hostname()}` : `${userInfo().username}@${hostname()}`);
		ok(['site', 'resume', 'news@shop.test'], { env: { SUDO_USER: 'al ice@x' } });
		assert.equal(audited().actor, `${userInfo().username}@${hostname()}`);
	});

	test('since and before', () => {
		const all = json(['audit', 'list']).audit;
		assert.ok(all.length > 15);
		const page = json(['audit', 'list', '--limit', '5', '--before', all[4].id]).audit;
		assert.deepEqual(page, all.slice(5, 10));
		assert.equal(json(['audit', 'list', '--since', '1h']).audit.length, all.length);
		assert.equal(json(['audit', 'list', '--since', new Date().toISOString().slice(0, 4) + '-01-01']).audit.length, all.length);
		assert.equal(json(['audit', 'list', '--since', '2100-01-01T00:00:00Z']).audit.length, 0);
		assert.match(ok(['audit', 'list', '--since', '2100-01-01']), /Nothing/);
		for (const time of ['yesterday', '2026-13-01', '2026-11-21x', '2026-11-21T23:00:00+02:00'])
			fails(['audit', 'list', '--since', time], 2, /--since/);
	});
});

describe('what goes wrong around it', () => {
	test('a database that isn’t there', () => {
		for (const args of [['site', 'list'], ['migrate'], ['queue', 'drop', '--all']])
			assert.equal(fails(args, 3, /nowhere/, { conf: 'down.conf' }), 'database-down');
		assert.equal(fails(['site', 'list'], 3, /start tmtpd/, { conf: 'embedded.conf' }), 'database-down');
		mkdirSync(join(dir, 'state/postgres'), { recursive: true });
		for (const args of [['site', 'list'], ['migrate']])
			assert.equal(fails(args, 3, /\(is tmtpd running\?\)/, { conf: 'embedded.conf' }), 'database-down');
	});

	test('a database that hangs is not waited for without end', () => {
		const verb = (name) => assert.equal(spawnSync('sh', [join(top, 'tests/cluster.sh'), name, cluster]).status, 0);
		verb('freeze');
		const r = ctl(['site', 'list']);
		verb('thaw');
		assert.equal(r.code, 3, r.err);
		assert.match(r.err, /^tmtpctl: (cannot connect to the database: .*timeout expired|the database does not answer)/);
	});

	test('a reader that went away, and a full disk', () => {
		// A fifo that nobody reads any more, as standard output.
		const closed = (...args) => spawnSync('bash', ['-c', `rm -f "$0"; mkfifo "$0"; exec 3<>"$0"; exec 4>"$0"; exec 3<&-
			"$@" >&4`, join(dir, 'fifo'), program, '--config', join(dir, 'tmtp.conf'), ...args], { encoding: 'utf8' });
		const list = closed('audit', 'list');
		assert.deepEqual([list.status, list.stderr], [0, '']);
		const made = closed('token', 'create', site, '--name', 'unread', '--scope', 'push');
		assert.equal(made.status, 1);
		assert.match(made.stderr, /revoke it/);
		const full = ctl(['site', 'list'], { stdout: openSync('/dev/full', 'w') });
		assert.equal(full.code, 1);
		assert.match(full.err, /could not be written/);
	});

	test('it connects as tmtp_ctl; a database that dies meanwhile exits with 3', async () => {
		const release = await holding('LOCK tmtp.site');
		const child = spawn(program, ['--config', join(dir, 'tmtp.conf'), 'site', 'create', 'late@shop.test', '--title', 'x']);
		children.push(child);
		let err = '';
		child.stderr.on('data', (data) => { err += data; });
		const ended = new Promise((done) => child.on('close', done));
		const blocked = `SELECT usename FROM pg_stat_activity WHERE application_name = 'tmtpctl' AND wait_event_type = 'Lock'`;
		await until(() => sql(blocked) !== '');
		assert.equal(sql(blocked), 'tmtp_ctl');
		spawnSync('sh', [join(top, 'tests/cluster.sh'), 'stop', cluster]);
		release();
		assert.equal(await ended, 3, err);
		assert.match(err, /went away|not known/);
	});
});
