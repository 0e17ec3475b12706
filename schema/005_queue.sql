-- The queue after things went wrong: leases end with the process that holds them, attempts that
-- prove nothing are counted apart, messages expire while nobody can be reached, and what a site
-- knows of consent is compared with what home servers know.

-- A process that leases rows. As long as it is connected it holds the advisory lock of its key,
-- shared: whoever gets that lock knows that it is gone, and gives its leases back.
CREATE TABLE tmtp.worker (
	worker_id  uuid PRIMARY KEY,
	role       text NOT NULL,
	lock_key   bigint NOT NULL,
	entered_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON tmtp.worker TO tmtp_relay, tmtp_home;
GRANT SELECT ON tmtp.worker TO tmtp_panel, tmtp_ctl;

-- Which process this connection belongs to (the store sets it), or NULL.
CREATE FUNCTION tmtp.this_worker() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE AS $$
	SELECT nullif(current_setting('tmtp.worker', true), '')::uuid
$$;

ALTER TABLE tmtp.notification ADD COLUMN lease_owner uuid;
ALTER TABLE tmtp.notification ALTER COLUMN lease_owner SET DEFAULT tmtp.this_worker();
ALTER TABLE tmtp.grant_outbox ADD COLUMN lease_owner uuid;

ALTER TABLE tmtp.batch
	ADD COLUMN lost_alone smallint NOT NULL DEFAULT 0, -- sessions lost with nothing but it unanswered
	ADD COLUMN revived_at timestamptz; -- an administrator's retry: the operator's limit counts from here

CREATE INDEX message_expiring ON tmtp.message (site_id, expires_at) WHERE expires_at IS NOT NULL;

-- How far a site has asked a home domain what its members said (CHANNELS since).
CREATE TABLE tmtp.catchup (
	site_id      bigint NOT NULL,
	domain_id    bigint NOT NULL,
	cursor       text COLLATE "C" NOT NULL DEFAULT '', -- the other side's, as it gave it
	next_at      timestamptz NOT NULL,
	asked_at     timestamptz, -- the last time that it was answered to the end
	changed      bigint NOT NULL DEFAULT 0, -- what was learnt by it and by no GRANT
	attempts     smallint NOT NULL DEFAULT 0, -- claims without an end
	leased_until timestamptz,
	lease_owner  uuid,
	reason       text, -- why the last one didn't come to its end
	PRIMARY KEY (site_id, domain_id)
);
CREATE INDEX catchup_due ON tmtp.catchup (next_at);
CREATE INDEX catchup_domain ON tmtp.catchup (domain_id);
GRANT SELECT, INSERT, UPDATE ON tmtp.catchup TO tmtp_relay;
GRANT SELECT, UPDATE ON tmtp.catchup TO tmtp_panel, tmtp_ctl;

-- What catching up changes is what a GRANT changes.
GRANT INSERT, UPDATE ON tmtp.subscription TO tmtp_relay;
GRANT INSERT ON tmtp.subscription_past, tmtp.domain TO tmtp_relay;
GRANT EXECUTE ON FUNCTION tmtp.race() TO tmtp_relay;
