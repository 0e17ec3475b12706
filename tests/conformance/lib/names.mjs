// Names (PROTOCOL.md, section 4). All take Buffers.

// The text, or null when the octets are no UTF-8.
export function utf8(octets) {
	try {
		return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets);
	} catch {
		return null;
	}
}

const ascii = (octets) => octets.toString("latin1");
const lower = (text) => text.replace(/[A-Z]/g, (c) => c.toLowerCase());

export function isDomain(octets) {
	const labels = ascii(octets).split(".");
	return octets.length <= 253 && labels.every((label) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(label)) && !/^[0-9]+$/.test(labels.at(-1));
}

const isLocal = (octets) => {
	const text = utf8(octets);
	return octets.length >= 1 && octets.length <= 64 && text !== null && !/[\p{Cc}\p{Zs}\p{Zl}\p{Zp}@]/u.test(text) &&
		text.normalize("NFC") === text && lower(text).normalize("NFC") === lower(text);
};

// The address as it is compared, or null when it is none.
export function addressOf(octets) {
	const at = octets.lastIndexOf("@");
	if (at < 0 || !isLocal(octets.subarray(0, at)) || !isDomain(octets.subarray(at + 1)))
		return null;
	return lower(octets.toString());
}

export const isId = (octets) => /^[\x20-\x7e]{1,64}$/.test(ascii(octets));
export const isName = (octets) => /^[a-z0-9-]{1,30}$/.test(ascii(octets));
export const isUri = (octets) => /^[\x21-\x7e]{1,2048}$/.test(ascii(octets));

// {host, port} of a URI that can be used as far as its form goes (section 11), or null.
export function placeOf(octets) {
	const found = /^https:\/\/([^/:]*)(?::([0-9]+))?(\/[^#]*)?$/.exec(octets.toString("latin1"));
	if (!isUri(octets) || found === null || !isDomain(Buffer.from(found[1])))
		return null;
	const port = Number(found[2] ?? 443);
	return port >= 1 && port <= 65535 ? { host: found[1], port } : null;
}
