-- A domain that DNS says takes no DMTP: since when it has been saying so, and when it last did.
-- What has stayed so for long enough is final (PROTOCOL.md, section 2).
ALTER TABLE tmtp.peer
	ADD COLUMN refused_since timestamptz,
	ADD COLUMN refused_at    timestamptz;
CREATE INDEX peer_refused ON tmtp.peer (refused_since) WHERE refused_since IS NOT NULL;
