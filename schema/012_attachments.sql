-- Large attachments: uploaded by sites, named by messages with digest and URIs, fetched by
-- home servers. Octets lie in parts of 256 KiB, so that nobody ever holds a whole one.

-- --- Sending ---------------------------------------------------------------

CREATE TABLE tmtp.attachment (
	site_id       bigint NOT NULL REFERENCES tmtp.site,
	attachment_id uuid NOT NULL,
	state         smallint NOT NULL DEFAULT 0, -- 0 being uploaded, 1 complete
	type          text NOT NULL,
	size          bigint NOT NULL, -- being uploaded: what the quota has set aside for it
	digest        bytea,
	created_at    timestamptz NOT NULL,
	keep_until    timestamptz NOT NULL, -- being uploaded: moved on by every part
	PRIMARY KEY (site_id, attachment_id)
);
CREATE UNIQUE INDEX attachment_digest ON tmtp.attachment (site_id, digest) WHERE state = 1;
CREATE INDEX attachment_under_way ON tmtp.attachment (site_id) WHERE state = 0;
CREATE INDEX attachment_keep ON tmtp.attachment (keep_until);
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.attachment TO tmtp_site;
GRANT SELECT ON tmtp.attachment TO tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.attachment_part (
	site_id       bigint NOT NULL,
	attachment_id uuid NOT NULL,
	part_no       integer NOT NULL, -- from 0
	data          bytea NOT NULL,
	PRIMARY KEY (site_id, attachment_id, part_no),
	FOREIGN KEY (site_id, attachment_id) REFERENCES tmtp.attachment ON DELETE CASCADE
);
ALTER TABLE tmtp.attachment_part ALTER COLUMN data SET STORAGE EXTERNAL;
GRANT SELECT, INSERT ON tmtp.attachment_part TO tmtp_site;

-- Octets that a site's attachments take, those being uploaded too: what the quota is held against.
CREATE TABLE tmtp.attachment_usage (
	site_id bigint PRIMARY KEY,
	octets  bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON tmtp.attachment_usage TO tmtp_site;
GRANT SELECT ON tmtp.attachment_usage TO tmtp_panel, tmtp_ctl;

-- Which messages name an attachment. Written just before the message, which may then not come.
CREATE TABLE tmtp.message_attachment (
	site_id       bigint NOT NULL,
	attachment_id uuid NOT NULL,
	message_id    uuid NOT NULL,
	PRIMARY KEY (site_id, attachment_id, message_id),
	FOREIGN KEY (site_id, attachment_id) REFERENCES tmtp.attachment ON DELETE CASCADE
);
GRANT SELECT, INSERT ON tmtp.message_attachment TO tmtp_site;

-- --- Receiving -------------------------------------------------------------

-- One attachment of one sender is here once, whatever messages name it. Not shared among senders:
-- who knows a digest would get what somebody else's members got.
CREATE TABLE tmtp.copy (
	copy_id      uuid PRIMARY KEY,
	sender_id    bigint NOT NULL,
	digest       bytea NOT NULL,
	size         bigint NOT NULL,
	state        smallint NOT NULL, -- 0 to be fetched, 1 here, 2 failed, 3 fetched when somebody opens it
	octets       bigint NOT NULL DEFAULT 0, -- fetched so far: whole parts
	running      bytea,                     -- SHA-256's state after them
	attempts     smallint NOT NULL DEFAULT 0, -- since octets last grew
	wrong        smallint NOT NULL DEFAULT 0, -- times that all of it was something else
	not_before   timestamptz,
	leased_until timestamptz,
	lease_owner  uuid,
	reason       text,
	created_at   timestamptz NOT NULL,
	UNIQUE (sender_id, digest, size)
);
CREATE INDEX copy_waiting ON tmtp.copy (copy_id) WHERE state = 0;
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.copy TO tmtp_home;
GRANT SELECT ON tmtp.copy TO tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.copy_part (
	copy_id uuid NOT NULL REFERENCES tmtp.copy ON DELETE CASCADE,
	part_no integer NOT NULL, -- from 0
	data    bytea NOT NULL,
	PRIMARY KEY (copy_id, part_no)
);
ALTER TABLE tmtp.copy_part ALTER COLUMN data SET STORAGE EXTERNAL;
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.copy_part TO tmtp_home;

-- The large attachments of a message, and where its sender says that they are.
CREATE TABLE tmtp.copy_source (
	copy_id         uuid NOT NULL REFERENCES tmtp.copy ON DELETE CASCADE,
	notification_id uuid NOT NULL,
	number          integer NOT NULL, -- among the message's attachments, from 0
	uris            text NOT NULL,    -- in order of preference, a line each
	PRIMARY KEY (copy_id, notification_id, number)
);
CREATE INDEX copy_source_notification ON tmtp.copy_source (notification_id);
GRANT SELECT, INSERT ON tmtp.copy_source TO tmtp_home;

-- Whose room a copy takes: the members for whom it is fetched at once, and those who opened it.
CREATE TABLE tmtp.copy_holder (
	account_id bigint NOT NULL,
	copy_id    uuid NOT NULL REFERENCES tmtp.copy ON DELETE CASCADE,
	size       bigint NOT NULL,
	PRIMARY KEY (account_id, copy_id)
);
CREATE INDEX copy_holder_copy ON tmtp.copy_holder (copy_id);
GRANT SELECT, INSERT, DELETE ON tmtp.copy_holder TO tmtp_home;
