-- Keys of our domains: what signs their messages and proves them by AUTH. Public parts stand in
-- the site card; private ones are read by the relay alone.

CREATE TABLE tmtp.domain_key (
	domain      text COLLATE "C" NOT NULL,
	key_id      text COLLATE "C" NOT NULL,
	public_key  bytea NOT NULL CHECK (octet_length(public_key) = 32), -- Ed25519
	created_at  timestamptz NOT NULL,
	valid_from  timestamptz NOT NULL,
	valid_until timestamptz NOT NULL,
	retired_at  timestamptz,
	revoked_at  timestamptz, -- leaked: in no card any more
	PRIMARY KEY (domain, key_id)
);
GRANT SELECT ON tmtp.domain_key TO tmtp_site, tmtp_relay;
GRANT SELECT, INSERT, UPDATE ON tmtp.domain_key TO tmtp_panel, tmtp_ctl;

-- Deleted when the key is revoked, and when no message can wait for it any more.
CREATE TABLE tmtp.domain_key_secret (
	domain text COLLATE "C" NOT NULL,
	key_id text COLLATE "C" NOT NULL,
	seed   bytea NOT NULL CHECK (octet_length(seed) = 32),
	PRIMARY KEY (domain, key_id),
	FOREIGN KEY (domain, key_id) REFERENCES tmtp.domain_key
);
GRANT SELECT, DELETE ON tmtp.domain_key_secret TO tmtp_relay;
GRANT INSERT, DELETE ON tmtp.domain_key_secret TO tmtp_panel, tmtp_ctl;
GRANT SELECT (domain, key_id) ON tmtp.domain_key_secret TO tmtp_panel, tmtp_ctl;
