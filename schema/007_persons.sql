-- Persons write to persons with the machinery that sites have, not beside it.
--
--   account            is a sender too: it has a row in site (kind 1) whose site_id is its
--                      account_id, and one channel of the same number, the well-known `inbox`.
--                      What one member writes and what she gets is distributed by one number.
--   contact            is a subscription of that channel (may I write to them?) and a consent
--                      to their `inbox` (may they write to me?). Both say yes, or nobody writes.
--   inviting           is registering a member with a channel: message, batch, POST to `invite`.
--   writing            is a push to one member: push_key, message, batch, relay, POST to the
--                      grant, pickup, inbox. Only message.recipient is new, for the conversation.
--   accepting, ending  is consent and GRANT, in both directions.
--
-- local_name has an account once, as such: a site can't take its name, nor it a site's. A
-- person has no chunks: nobody broadcasts to her contacts. `home` accepts what persons write,
-- so it may now do with message and push_key what `site` may, but for recalling.

ALTER TABLE tmtp.site ADD COLUMN kind smallint NOT NULL DEFAULT 0; -- 0 a website, 1 a person

INSERT INTO tmtp.site (site_id, domain, name, title, created_at, kind)
	SELECT account_id, domain, name, '', created_at, 1 FROM tmtp.account;
INSERT INTO tmtp.channel (site_id, channel_id, name, title, created_at)
	SELECT account_id, account_id, 'inbox', '', created_at FROM tmtp.account;

-- Whom a person wrote to: with an index of the conversations, which sites' messages aren't in.
ALTER TABLE tmtp.message ADD COLUMN recipient text COLLATE "C";
CREATE INDEX message_conversation ON tmtp.message (site_id, recipient, message_id)
	WHERE recipient IS NOT NULL;
CREATE INDEX notification_conversation ON tmtp.notification (only_account, sender_id, notification_id)
	WHERE channel = 'inbox' AND only_account IS NOT NULL;

-- The member's own settings of a contact. blocked: she said so; else she merely let it go.
ALTER TABLE tmtp.consent ADD COLUMN muted boolean NOT NULL DEFAULT false;
ALTER TABLE tmtp.consent ADD COLUMN blocked boolean NOT NULL DEFAULT false;
-- Presence is shown to a contact while both agreed: this side, and the other (by its GRANT).
ALTER TABLE tmtp.consent ADD COLUMN presence boolean NOT NULL DEFAULT false;
ALTER TABLE tmtp.subscription ADD COLUMN presence boolean NOT NULL DEFAULT false;
CREATE INDEX consent_presence ON tmtp.consent (account_id) WHERE presence;

GRANT SELECT, INSERT ON tmtp.message TO tmtp_home;
GRANT SELECT, INSERT, DELETE ON tmtp.push_key TO tmtp_home;
GRANT SELECT ON tmtp.failure TO tmtp_home;

-- The milliseconds of a UUIDv7.
CREATE FUNCTION tmtp.uuid_ms(id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT AS $$
	SELECT ('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint
$$;

-- Presence. What a process of `home` sees of its own members, and what other servers told of
-- contacts: true for minutes, so no row of it survives a crash, and none costs WAL.
CREATE UNLOGGED TABLE tmtp.presence_process (
	account_id bigint NOT NULL,
	process    uuid NOT NULL,
	until      timestamptz NOT NULL, -- a process that died is forgotten then
	PRIMARY KEY (account_id, process)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.presence_process TO tmtp_home;

-- Only of members who show it to somebody.
CREATE UNLOGGED TABLE tmtp.presence (
	account_id bigint PRIMARY KEY,
	state      smallint NOT NULL, -- 0 offline, 1 online, 2 away
	away       boolean NOT NULL DEFAULT false, -- she says so herself
	since      timestamptz NOT NULL,
	told_at    timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON tmtp.presence TO tmtp_home;
GRANT SELECT ON tmtp.presence TO tmtp_relay;

-- PRESENCE commands that wait: the newest state goes to each domain once, however often it changed.
CREATE UNLOGGED TABLE tmtp.presence_outbox (
	account_id   bigint NOT NULL,
	domain_id    bigint NOT NULL,
	changed_at   timestamptz NOT NULL,
	leased_until timestamptz,
	PRIMARY KEY (account_id, domain_id)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.presence_outbox TO tmtp_home;
GRANT SELECT, UPDATE, DELETE ON tmtp.presence_outbox TO tmtp_relay;

CREATE UNLOGGED TABLE tmtp.contact_presence (
	account_id bigint NOT NULL,
	sender_id  bigint NOT NULL,
	state      smallint NOT NULL,
	since      timestamptz NOT NULL,
	until      timestamptz, -- not when offline
	PRIMARY KEY (account_id, sender_id)
);
GRANT SELECT, INSERT, UPDATE ON tmtp.contact_presence TO tmtp_home;

-- Contacts who both agreed to see each other's presence. grant_id is what she shows to their server.
CREATE VIEW tmtp.presence_contact AS
	SELECT c.account_id, c.sender_id, s.address, s.domain_id, b.grant_id
	FROM tmtp.consent c
	JOIN tmtp.sender s ON s.sender_id = c.sender_id
	CROSS JOIN LATERAL (SELECT k.grant_id FROM tmtp.subscription k WHERE k.site_id = c.account_id
		AND k.channel_id = c.account_id AND k.domain_id = s.domain_id
		AND k.member = split_part(s.address, '@', 1) AND k.state = 1 AND k.presence LIMIT 1) b
	WHERE c.channel = 'inbox' AND c.state = 1 AND c.presence;
GRANT SELECT ON tmtp.presence_contact TO tmtp_home, tmtp_relay;
