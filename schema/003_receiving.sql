-- The receiving side: accounts, consent, notifications, inboxes. What belongs to one member
-- goes by account_id first; shared rows go by their own id.

CREATE TABLE tmtp.account (
	account_id    bigint PRIMARY KEY,
	domain        text COLLATE "C" NOT NULL,
	name          text COLLATE "C" NOT NULL,
	password_hash text NOT NULL, -- argon2id
	created_at    timestamptz NOT NULL,
	disabled_at   timestamptz,
	UNIQUE (domain, name)
);
GRANT SELECT ON tmtp.account TO tmtp_home, tmtp_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.account TO tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.account_token (
	account_id bigint NOT NULL REFERENCES tmtp.account,
	token_hash bytea NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	PRIMARY KEY (account_id, token_hash)
);
GRANT SELECT, INSERT, DELETE ON tmtp.account_token TO tmtp_home;
GRANT SELECT, DELETE ON tmtp.account_token TO tmtp_panel, tmtp_ctl;

-- Sites and persons of other domains who may write to somebody here, or asked to.
CREATE TABLE tmtp.sender (
	sender_id   bigint PRIMARY KEY,
	address     text COLLATE "C" NOT NULL UNIQUE,
	domain_id   bigint NOT NULL REFERENCES tmtp.domain,
	registrable text COLLATE "C" NOT NULL, -- the registrable domain (public suffix list)
	created_at  timestamptz NOT NULL
);
GRANT SELECT, INSERT ON tmtp.sender TO tmtp_home;
GRANT SELECT ON tmtp.sender TO tmtp_relay, tmtp_panel, tmtp_ctl;

-- What a member said to a sender about a channel.
CREATE TABLE tmtp.consent (
	account_id  bigint NOT NULL REFERENCES tmtp.account,
	sender_id   bigint NOT NULL REFERENCES tmtp.sender,
	channel     text COLLATE "C" NOT NULL,
	state       smallint NOT NULL, -- 0 asked, 1 granted, 2 refused, 3 revoked
	grant_id    bytea,
	receipts    boolean NOT NULL DEFAULT false,
	asked_at    timestamptz,
	invitation  uuid,            -- the notification with the sender's own words
	changed_id  uuid NOT NULL,   -- UUIDv7 of the last change: the order of CHANNELS since
	grant_date  bigint NOT NULL, -- seconds; what GRANT says
	PRIMARY KEY (account_id, sender_id, channel)
);
CREATE INDEX consent_changes ON tmtp.consent (sender_id, changed_id) WHERE state > 0;
GRANT SELECT, INSERT, UPDATE ON tmtp.consent TO tmtp_home;
GRANT SELECT ON tmtp.consent TO tmtp_relay, tmtp_panel, tmtp_ctl;

-- Grants that are open, by the 20 octets that a sender shows. A revoked one is not here: it
-- looks like one that never was.
CREATE TABLE tmtp.open_grant (
	grant_id   bytea PRIMARY KEY,
	account_id bigint NOT NULL,
	sender_id  bigint NOT NULL,
	channel    text COLLATE "C" NOT NULL
);
GRANT SELECT, INSERT, DELETE ON tmtp.open_grant TO tmtp_home;

-- GRANT commands that wait to be sent: the newest state of each consent, not its history.
CREATE TABLE tmtp.grant_outbox (
	account_id   bigint NOT NULL,
	sender_id    bigint NOT NULL,
	channel      text COLLATE "C" NOT NULL,
	domain_id    bigint NOT NULL, -- the sender's
	changed_id   uuid NOT NULL,
	attempts     smallint NOT NULL DEFAULT 0,
	leased_until timestamptz,
	PRIMARY KEY (account_id, sender_id, channel)
);
CREATE INDEX grant_outbox_domain ON tmtp.grant_outbox (domain_id, changed_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.grant_outbox TO tmtp_home;
GRANT SELECT, UPDATE, DELETE ON tmtp.grant_outbox TO tmtp_relay;
GRANT SELECT ON tmtp.grant_outbox TO tmtp_panel, tmtp_ctl;

-- The ids that a domain has used, with an accepted recipient: resends and conflicts are told by it.
CREATE TABLE tmtp.posted (
	domain_id       bigint NOT NULL,
	id              text COLLATE "C" NOT NULL,
	sender_id       bigint NOT NULL,
	notification_id uuid NOT NULL,
	digest          bytea NOT NULL,
	size            bigint NOT NULL,
	kept_until      timestamptz NOT NULL,
	PRIMARY KEY (domain_id, id)
);
GRANT SELECT, INSERT, DELETE ON tmtp.posted TO tmtp_home;

-- One message of one sender is one notification, whatever ids it was posted under. This row
-- is also the lock that lets a message be picked up once.
CREATE TABLE tmtp.notification_digest (
	digest          bytea NOT NULL,
	sender_id       bigint NOT NULL,
	notification_id uuid NOT NULL,
	PRIMARY KEY (digest, sender_id)
);
GRANT SELECT, INSERT, DELETE ON tmtp.notification_digest TO tmtp_home;

CREATE TABLE tmtp.notification (
	notification_id uuid PRIMARY KEY,
	sender_id       bigint NOT NULL,
	channel         text COLLATE "C" NOT NULL,
	recipient       text COLLATE "C", -- the member's address when it went to one alone; the message's "to" may be it
	digest          bytea NOT NULL,
	size            bigint NOT NULL,
	date_s          bigint NOT NULL,
	expires_at      timestamptz,
	uris            text NOT NULL, -- in order of preference, a line each
	signing_key     text,
	signature       bytea,
	state           smallint NOT NULL DEFAULT 0, -- 0 to be picked up, 1 verified, 2 failed, 3 withdrawn
	verified_at     timestamptz,
	only_account    bigint, -- the message is to this member alone, not to the channel: nobody else sees it
	body            bytea,
	attempts        smallint NOT NULL DEFAULT 0,
	not_before      timestamptz,
	leased_until    timestamptz,
	reason          text
) PARTITION BY RANGE (notification_id);
ALTER TABLE tmtp.notification ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX notification_pending ON tmtp.notification (notification_id) WHERE state = 0;
GRANT SELECT, INSERT, UPDATE ON tmtp.notification TO tmtp_home;
GRANT SELECT ON tmtp.notification TO tmtp_panel, tmtp_ctl;

-- The inbox: one narrow row a member. Visible once its notification is verified. The primary
-- key is the deduplication, so what a member dropped stays as dropped.
CREATE TABLE tmtp.inbox (
	account_id      bigint NOT NULL,
	notification_id uuid NOT NULL,
	arrived_at      timestamptz NOT NULL,
	read_at         timestamptz,
	dropped_at      timestamptz,
	variables       bytea,
	PRIMARY KEY (account_id, notification_id)
) PARTITION BY RANGE (notification_id);
GRANT SELECT, INSERT, UPDATE ON tmtp.inbox TO tmtp_home;

-- Each process of `home` counts what arrives in a row of its own, in the same statement as it
-- stores it: so a POST to nobody writes and commits as one to somebody does.
CREATE TABLE tmtp.arrival_count (
	slot       integer PRIMARY KEY,
	recipients bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO tmtp.arrival_count SELECT n, 0 FROM generate_series(0, 15) AS n;
GRANT SELECT, UPDATE ON tmtp.arrival_count TO tmtp_home;
GRANT SELECT ON tmtp.arrival_count TO tmtp_panel, tmtp_ctl;

-- Two processes met at the same key, unseen by each other's statement: the transaction is run
-- again (40001), and then sees.
CREATE FUNCTION tmtp.race() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'met another process at the same key' USING ERRCODE = '40001';
END
$$;
REVOKE ALL ON FUNCTION tmtp.race() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tmtp.race() TO tmtp_site, tmtp_home;

INSERT INTO tmtp.partitioned (name, settings) VALUES
	('notification', 'WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.1)'),
	('inbox', 'WITH (fillfactor = 95)');
-- From the beginning of what may still arrive (a date at most 30 days old) to a week ahead.
SELECT tmtp.ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + 7);
