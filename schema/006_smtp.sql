-- The channel smtp: mail that the local mail server hands over, for members who opened it.

-- Whether a member takes mail. No row: never opened, which is closed.
CREATE TABLE tmtp.mail_channel (
	account_id bigint PRIMARY KEY REFERENCES tmtp.account,
	open       boolean NOT NULL,
	changed_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON tmtp.mail_channel TO tmtp_home;
GRANT SELECT ON tmtp.mail_channel TO tmtp_panel, tmtp_ctl;

-- Mail addresses that a member wants nothing from; kept while the channel is closed.
CREATE TABLE tmtp.mail_block (
	account_id bigint NOT NULL REFERENCES tmtp.account,
	address    text COLLATE "C" NOT NULL, -- normalised
	blocked_at timestamptz NOT NULL,
	PRIMARY KEY (account_id, address)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.mail_block TO tmtp_home;
GRANT SELECT ON tmtp.mail_block TO tmtp_panel, tmtp_ctl;

-- Mail that arrived, by the SHA-256 of its gateway, its envelope's sender and its octets: what
-- is delivered again after a lost reply is the same notification.
CREATE TABLE tmtp.mail_seen (
	digest          bytea PRIMARY KEY,
	notification_id uuid NOT NULL,
	kept_until      timestamptz NOT NULL
);
CREATE INDEX mail_seen_old ON tmtp.mail_seen (kept_until);
GRANT SELECT, INSERT, DELETE ON tmtp.mail_seen TO tmtp_home;

-- A notification that came as mail. Its sender is our own gateway: nobody verified the others.
ALTER TABLE tmtp.notification
	ADD COLUMN mail_sender  text COLLATE "C", -- the envelope's, '' for <>; NULL: not mail
	ADD COLUMN mail_from    text,             -- the header From, decoded
	ADD COLUMN mail_address text COLLATE "C"; -- of its first mailbox, as it stood
