// A grant as text: base32 (RFC 4648), lower case, unpadded (PROTOCOL.md, section 4).

const alphabet = "abcdefghijklmnopqrstuvwxyz234567";

export function grantOf(text) {
	if (!/^[a-z2-7]{32}$/.test(text))
		throw new Error(`no grant: ${text}`);
	const bits = [...text].map((c) => alphabet.indexOf(c).toString(2).padStart(5, "0")).join("");
	return Buffer.from(bits.match(/.{8}/g).map((octet) => parseInt(octet, 2)));
}

export function textOf(grant) {
	const bits = [...grant].map((octet) => octet.toString(2).padStart(8, "0")).join("");
	return bits.match(/.{5}/g).map((five) => alphabet[parseInt(five, 2)]).join("");
}
