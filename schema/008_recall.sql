-- Recall, replacement, recipients' values, receipts.

-- --- Sending ---------------------------------------------------------------

ALTER TABLE tmtp.message
	ADD COLUMN recalls    uuid,  -- the row is no message: it tells the home servers that this one is recalled
	ADD COLUMN recall_id  uuid,  -- of a recalled message: the row that tells it; there is none when nobody is to be told
	ADD COLUMN replaces   uuid,  -- the first message of the chain of replacements that this one is part of
	ADD COLUMN has_values boolean NOT NULL DEFAULT false; -- recipients have values for its variables
GRANT INSERT, UPDATE ON tmtp.message TO tmtp_panel, tmtp_ctl;

-- Something of the batch may have reached its home server, whatever was answered.
ALTER TABLE tmtp.batch ADD COLUMN tried boolean NOT NULL DEFAULT false;
UPDATE tmtp.batch SET tried = true
	WHERE state IN (0, 3) AND (attempts > 0 OR leased_until IS NOT NULL OR reason IS NOT NULL);
GRANT UPDATE ON tmtp.batch TO tmtp_site;
GRANT INSERT ON tmtp.batch TO tmtp_panel, tmtp_ctl;

-- Of each chain of replacements the date of the newest message: the next one's is later, so that
-- home servers can tell their order whatever way they come.
CREATE TABLE tmtp.replacement (
	site_id     bigint NOT NULL,
	first_id    uuid NOT NULL,
	last_date_s bigint NOT NULL,
	PRIMARY KEY (site_id, first_id)
) PARTITION BY RANGE (first_id);
GRANT SELECT, INSERT, UPDATE ON tmtp.replacement TO tmtp_site;

-- A recipient's own values for a shared message's variables: only of pushes that have any.
CREATE TABLE tmtp.recipient_values (
	site_id    bigint NOT NULL,
	message_id uuid NOT NULL,
	domain_id  bigint NOT NULL,
	member     text COLLATE "C" NOT NULL,
	variables  bytea NOT NULL, -- a canonical dictionary, as it stands in the POST
	PRIMARY KEY (site_id, message_id, domain_id, member)
) PARTITION BY RANGE (message_id);
GRANT SELECT, INSERT ON tmtp.recipient_values TO tmtp_site;
GRANT SELECT ON tmtp.recipient_values TO tmtp_relay;

-- What members who allow it let the site know.
CREATE TABLE tmtp.receipt (
	site_id      bigint NOT NULL,
	message_id   uuid NOT NULL,
	domain_id    bigint NOT NULL,
	member       text COLLATE "C" NOT NULL,
	read_at      timestamptz,
	withdrawn_at timestamptz, -- the recall came before it was read
	PRIMARY KEY (site_id, message_id, domain_id, member)
) PARTITION BY RANGE (message_id);
GRANT SELECT, INSERT, UPDATE ON tmtp.receipt TO tmtp_home;
GRANT SELECT ON tmtp.receipt TO tmtp_site, tmtp_panel, tmtp_ctl;

-- Whose grant a receipt shows.
CREATE INDEX subscription_receipts ON tmtp.subscription (site_id, grant_id) WHERE receipts;
GRANT SELECT ON tmtp.message, tmtp.batch TO tmtp_home;

-- --- Receiving -------------------------------------------------------------

-- The id it was posted under first: what a receipt names.
-- Awaited: what replaces it came before it. With size 0 it hasn't come yet.
ALTER TABLE tmtp.posted ADD COLUMN awaited boolean NOT NULL DEFAULT false;
GRANT UPDATE ON tmtp.posted TO tmtp_home;
ALTER TABLE tmtp.notification ADD COLUMN id text COLLATE "C";

ALTER TABLE tmtp.inbox
	ADD COLUMN withdrawn_at timestamptz, -- not later than it arrived: it never was to be seen
	ADD COLUMN thread       uuid;        -- shared by entries that replace each other; of them the newest is seen
CREATE INDEX inbox_thread ON tmtp.inbox (account_id, thread) WHERE thread IS NOT NULL;

-- Receipts that wait to be sent.
CREATE TABLE tmtp.receipt_outbox (
	account_id      bigint NOT NULL,
	notification_id uuid NOT NULL,
	kind            smallint NOT NULL, -- 1 read, 2 withdrawn
	sender_id       bigint NOT NULL,
	domain_id       bigint NOT NULL,   -- the sender's
	channel         text COLLATE "C" NOT NULL,
	happened_at     timestamptz NOT NULL,
	attempts        smallint NOT NULL DEFAULT 0,
	leased_until    timestamptz,
	PRIMARY KEY (account_id, notification_id, kind)
);
CREATE INDEX receipt_outbox_sender ON tmtp.receipt_outbox (domain_id, sender_id, happened_at);
GRANT SELECT, INSERT ON tmtp.receipt_outbox TO tmtp_home;
GRANT SELECT, UPDATE, DELETE ON tmtp.receipt_outbox TO tmtp_relay;
GRANT SELECT ON tmtp.notification TO tmtp_relay;

INSERT INTO tmtp.partitioned (name, settings) VALUES
	('replacement', ''),
	('recipient_values', ''),
	('receipt', '');
-- Also for the days that are there: what was sent then can be replaced and read now.
SELECT tmtp.ensure_partitions(
	greatest((SELECT min(to_date(right(c.relname, 8), 'YYYYMMDD')) FROM pg_catalog.pg_inherits i
		JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'tmtp.message'::regclass),
		(now() AT TIME ZONE 'UTC')::date - 390),
	(now() AT TIME ZONE 'UTC')::date + 7);
