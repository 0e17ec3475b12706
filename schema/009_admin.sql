-- Administrators' tokens: who calls the role panel's API.

CREATE TABLE tmtp.admin_token (
	token_hash bytea PRIMARY KEY, -- SHA-256; the token itself is nowhere
	name       text NOT NULL UNIQUE, -- stands in the audit log
	scopes     text[] NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz,
	revoked_at timestamptz
);
GRANT SELECT ON tmtp.admin_token TO tmtp_panel;
GRANT SELECT, INSERT, UPDATE ON tmtp.admin_token TO tmtp_ctl;
