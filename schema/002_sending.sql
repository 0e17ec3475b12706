-- The sending side: sites, who may speak for them, channels, subscriptions, messages,
-- batches. site_id stands first in every key.

CREATE TABLE tmtp.site (
	site_id      bigint PRIMARY KEY,
	domain       text COLLATE "C" NOT NULL,
	name         text COLLATE "C" NOT NULL,
	title        text NOT NULL,
	created_at   timestamptz NOT NULL,
	suspended_at timestamptz,
	UNIQUE (domain, name)
);
GRANT SELECT ON tmtp.site TO tmtp_site, tmtp_relay, tmtp_home;
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.site TO tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.site_key (
	site_id    bigint NOT NULL REFERENCES tmtp.site,
	kid        text COLLATE "C" NOT NULL,
	algorithm  text NOT NULL CHECK (algorithm IN ('ES256', 'RS256', 'HS256')),
	material   bytea NOT NULL, -- the public key as PEM, or HS256's secret
	created_at timestamptz NOT NULL,
	revoked_at timestamptz,
	PRIMARY KEY (site_id, kid)
);
GRANT SELECT ON tmtp.site_key TO tmtp_site;
GRANT SELECT, INSERT, UPDATE ON tmtp.site_key TO tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.site_token (
	site_id    bigint NOT NULL REFERENCES tmtp.site,
	token_hash bytea NOT NULL, -- SHA-256; the token itself is nowhere
	name       text NOT NULL,
	scopes     text[] NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz,
	revoked_at timestamptz,
	PRIMARY KEY (site_id, token_hash),
	UNIQUE (site_id, name)
);
GRANT SELECT ON tmtp.site_token TO tmtp_site;
GRANT SELECT, INSERT, UPDATE ON tmtp.site_token TO tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.channel (
	site_id    bigint NOT NULL REFERENCES tmtp.site,
	channel_id bigint NOT NULL,
	name       text COLLATE "C" NOT NULL,
	title      text NOT NULL,
	created_at timestamptz NOT NULL,
	closed_at  timestamptz,
	PRIMARY KEY (site_id, channel_id),
	UNIQUE (site_id, name)
);
GRANT SELECT ON tmtp.channel TO tmtp_site, tmtp_relay, tmtp_home;
GRANT SELECT, INSERT, UPDATE ON tmtp.channel TO tmtp_panel, tmtp_ctl;

-- One row a (channel, member): one ordered key space. A member who left stays as such; each
-- period that ended is in subscription_past too (the row itself holds the newest), so that the
-- audience of any past message can be told of members who came back.
CREATE TABLE tmtp.subscription (
	site_id    bigint NOT NULL,
	channel_id bigint NOT NULL,
	domain_id  bigint NOT NULL,
	member     text COLLATE "C" NOT NULL,
	state      smallint NOT NULL, -- 0 invited, 1 granted, 2 refused, 3 revoked by the member, 4 removed by the site
	grant_id   bytea,
	receipts   boolean NOT NULL DEFAULT false,
	invited_at timestamptz,
	joined_at  timestamptz,
	left_at    timestamptz, -- or, without joined_at, when it was refused or removed
	grant_date bigint NOT NULL DEFAULT 0, -- of the GRANT that made the state: of two the later wins
	PRIMARY KEY (site_id, channel_id, domain_id, member)
);
GRANT SELECT, INSERT, UPDATE ON tmtp.subscription TO tmtp_site, tmtp_home;
GRANT SELECT ON tmtp.subscription TO tmtp_relay, tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.subscription_past (
	site_id    bigint NOT NULL,
	channel_id bigint NOT NULL,
	domain_id  bigint NOT NULL,
	member     text COLLATE "C" NOT NULL,
	joined_at  timestamptz NOT NULL,
	left_at    timestamptz NOT NULL,
	grant_id   bytea,
	PRIMARY KEY (site_id, channel_id, domain_id, member, joined_at)
);
GRANT SELECT, INSERT ON tmtp.subscription_past TO tmtp_site, tmtp_home;
GRANT SELECT ON tmtp.subscription_past TO tmtp_relay, tmtp_panel, tmtp_ctl;

-- All periods in which members held a channel; one that goes on ends in infinity. The newest
-- that ended is here twice.
CREATE VIEW tmtp.period AS
	SELECT site_id, channel_id, domain_id, member, joined_at,
		coalesce(left_at, 'infinity'::timestamptz) AS left_at
	FROM tmtp.subscription WHERE joined_at IS NOT NULL
	UNION ALL
	SELECT site_id, channel_id, domain_id, member, joined_at, left_at
	FROM tmtp.subscription_past;
GRANT SELECT ON tmtp.period TO tmtp_site, tmtp_panel, tmtp_ctl;

-- Half-open intervals [first_member, next_member) that tile a channel's members of a domain
-- without a gap; '' begins, NULL ends. To broadcast is to copy these rows.
CREATE TABLE tmtp.chunk (
	site_id      bigint NOT NULL,
	channel_id   bigint NOT NULL,
	domain_id    bigint NOT NULL,
	first_member text COLLATE "C" NOT NULL,
	next_member  text COLLATE "C",
	members      integer NOT NULL, -- as last counted; a size, never a truth
	PRIMARY KEY (site_id, channel_id, domain_id, first_member)
);
GRANT SELECT, INSERT ON tmtp.chunk TO tmtp_site, tmtp_home;
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.chunk TO tmtp_relay;
GRANT SELECT ON tmtp.chunk TO tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.message (
	site_id     bigint NOT NULL,
	message_id  uuid NOT NULL,
	channel_id  bigint NOT NULL,
	audience    smallint NOT NULL, -- 0 one member, 1 a list, 2 the channel, 3 an invitation
	lane        smallint NOT NULL, -- 0 urgent, 1 normal, 2 bulk
	accepted_at timestamptz NOT NULL,
	date_s      bigint NOT NULL, -- the date inside the message
	expires_at  timestamptz,
	recalled_at timestamptz,
	size        integer NOT NULL,
	digest      bytea NOT NULL,
	body        bytea NOT NULL, -- the canonical message
	rejected    text[],         -- addresses named in the push that did not hold the channel
	PRIMARY KEY (site_id, message_id)
) PARTITION BY RANGE (message_id);
ALTER TABLE tmtp.message ALTER COLUMN body SET STORAGE EXTERNAL;
GRANT SELECT, INSERT, UPDATE ON tmtp.message TO tmtp_site;
GRANT SELECT ON tmtp.message TO tmtp_relay, tmtp_panel, tmtp_ctl;

-- The idempotency keys, narrow and unpartitioned: a partitioned table's unique key would
-- have to hold the message's id.
CREATE TABLE tmtp.push_key (
	site_id    bigint NOT NULL,
	key        text COLLATE "C" NOT NULL,
	body_hash  bytea NOT NULL,
	message_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	PRIMARY KEY (site_id, key)
);
GRANT SELECT, INSERT, DELETE ON tmtp.push_key TO tmtp_site;

-- What is to be sent: a list of members or a range of a channel's, of one domain. Done means
-- delivered to all of them but those in failure.
CREATE TABLE tmtp.batch (
	site_id      bigint NOT NULL,
	message_id   uuid NOT NULL,
	batch_no     integer NOT NULL,
	channel_id   bigint NOT NULL,
	domain_id    bigint NOT NULL,
	lane         smallint NOT NULL,
	state        smallint NOT NULL DEFAULT 0, -- 0 waiting, 1 done, 2 dead, 3 held, 4 dropped
	members      text[] COLLATE "C", -- NULL: the range
	first_member text COLLATE "C",
	next_member  text COLLATE "C",
	recipients   integer NOT NULL, -- planned; when done, those it was sent to
	attempts     smallint NOT NULL DEFAULT 0,
	not_before   timestamptz,
	leased_until timestamptz,
	lease_owner  uuid,
	done_at      timestamptz,
	reason       text,
	PRIMARY KEY (site_id, message_id, batch_no)
) PARTITION BY RANGE (message_id);
CREATE INDEX batch_waiting ON tmtp.batch (site_id, domain_id, lane, message_id, batch_no) WHERE state = 0;
GRANT SELECT, INSERT, UPDATE ON tmtp.batch TO tmtp_relay;
GRANT SELECT, INSERT ON tmtp.batch TO tmtp_site, tmtp_home;
GRANT SELECT, UPDATE ON tmtp.batch TO tmtp_panel, tmtp_ctl;

-- The exceptions, one by one: recipients of a done batch who did not get it.
CREATE TABLE tmtp.failure (
	site_id    bigint NOT NULL,
	message_id uuid NOT NULL,
	domain_id  bigint NOT NULL,
	member     text COLLATE "C" NOT NULL,
	code       text NOT NULL,
	reason     text,
	failed_at  timestamptz NOT NULL,
	PRIMARY KEY (site_id, message_id, domain_id, member)
) PARTITION BY RANGE (message_id);
GRANT SELECT, INSERT ON tmtp.failure TO tmtp_relay, tmtp_site;
GRANT SELECT ON tmtp.failure TO tmtp_panel, tmtp_ctl;

INSERT INTO tmtp.partitioned (name, settings) VALUES
	('message', 'WITH (autovacuum_vacuum_insert_scale_factor = 0.5)'),
	('batch', 'WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)'),
	('failure', '');
