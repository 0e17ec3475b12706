-- What may go wrong with a time that was written: its writer ended, or its clock was wrong.

-- A probe, a receipt and a word of presence under way end with the process that has them in hand.
ALTER TABLE tmtp.peer ADD COLUMN probe_owner uuid;
ALTER TABLE tmtp.receipt_outbox ADD COLUMN lease_owner uuid;
ALTER TABLE tmtp.presence_outbox ADD COLUMN lease_owner uuid;

-- The latest time that a role's processes saw. A process that finds it ahead of its own clock knows
-- that the clock was set back, by how much, and that what waits for a time was told the wrong one.
CREATE TABLE tmtp.clock (
	role     text PRIMARY KEY,
	seen_at  timestamptz NOT NULL,
	set_back bigint NOT NULL DEFAULT 0 -- how often that was found
);
INSERT INTO tmtp.clock VALUES ('relay', 'epoch'), ('home', 'epoch');
GRANT SELECT, UPDATE ON tmtp.clock TO tmtp_relay, tmtp_home;
GRANT SELECT ON tmtp.clock TO tmtp_panel, tmtp_ctl;
