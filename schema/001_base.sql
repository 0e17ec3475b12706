-- What both sides share: versions, revisions, names, domains, peers, audit, partitions.
-- The database roles exist before (schema/roles.sql, or the embedded cluster makes them).

CREATE SCHEMA tmtp;
GRANT USAGE ON SCHEMA tmtp TO tmtp_site, tmtp_relay, tmtp_home, tmtp_panel, tmtp_ctl;

CREATE TABLE tmtp.schema_migration (
	number      integer PRIMARY KEY,
	name        text NOT NULL,
	fingerprint text NOT NULL,
	applied_at  timestamptz NOT NULL
);
GRANT SELECT ON tmtp.schema_migration TO tmtp_site, tmtp_relay, tmtp_home, tmtp_panel, tmtp_ctl;

-- Raised in the same transaction as any change of keys, tokens, sites or accounts that
-- processes keep in memory: they look at it twice a second and forget what they had.
CREATE TABLE tmtp.revision (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	number   bigint NOT NULL
);
INSERT INTO tmtp.revision (number) VALUES (1);
GRANT SELECT ON tmtp.revision TO tmtp_site, tmtp_relay, tmtp_home;
GRANT SELECT, UPDATE ON tmtp.revision TO tmtp_panel, tmtp_ctl;

-- The sites and accounts of a domain share one namespace.
CREATE TABLE tmtp.local_name (
	domain text COLLATE "C" NOT NULL,
	name   text COLLATE "C" NOT NULL,
	kind   text NOT NULL CHECK (kind IN ('site', 'account')),
	id     bigint NOT NULL,
	PRIMARY KEY (domain, name)
);
GRANT SELECT ON tmtp.local_name TO tmtp_site, tmtp_relay, tmtp_home;
GRANT SELECT, INSERT, UPDATE, DELETE ON tmtp.local_name TO tmtp_panel, tmtp_ctl;

-- Other domains, by a number of ours. A small reference table.
CREATE TABLE tmtp.domain (
	domain_id  bigint PRIMARY KEY,
	name       text COLLATE "C" NOT NULL UNIQUE,
	created_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON tmtp.domain TO tmtp_site, tmtp_home, tmtp_panel, tmtp_ctl;
GRANT SELECT ON tmtp.domain TO tmtp_relay;

-- Retry state belongs to the peer: one backoff a domain, cleared only by outbound success.
CREATE TABLE tmtp.peer (
	domain_id       bigint PRIMARY KEY REFERENCES tmtp.domain,
	failures        integer NOT NULL DEFAULT 0,
	failing_since   timestamptz,
	retry_at        timestamptz,
	reason          text,
	window_commands integer NOT NULL DEFAULT 0, -- 0: the peer's own limit
	held            boolean NOT NULL DEFAULT false,
	probe_until     timestamptz, -- one worker probes a peer that is down
	sent_at         timestamptz
);
GRANT SELECT, INSERT, UPDATE ON tmtp.peer TO tmtp_relay, tmtp_panel, tmtp_ctl;
GRANT SELECT ON tmtp.peer TO tmtp_site;

CREATE TABLE tmtp.audit (
	audit_id uuid PRIMARY KEY,
	at       timestamptz NOT NULL,
	actor    text NOT NULL,
	action   text NOT NULL,
	subject  text NOT NULL,
	detail   text
);
GRANT SELECT, INSERT ON tmtp.audit TO tmtp_panel, tmtp_ctl;

-- The least UUIDv7 of a day: what the daily partitions are cut at.
CREATE FUNCTION tmtp.uuid_floor(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT AS $$
	SELECT (lpad(to_hex((extract(epoch FROM day)::bigint) * 1000), 12, '0')
		|| '7000' || '8000' || '000000000000')::uuid
$$;

-- Tables partitioned by day, by their UUIDv7 column.
CREATE TABLE tmtp.partitioned (
	name     text PRIMARY KEY,
	settings text NOT NULL
);

-- Makes the missing daily partitions from from_day up to and with to_day. Returns how many.
-- They are attached, not made in place: that waits for no reader or writer, nor they for it.
CREATE FUNCTION tmtp.ensure_partitions(from_day date, to_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	parent tmtp.partitioned;
	day date;
	made integer := 0;
	child text;
BEGIN
	IF to_day - from_day > 400 THEN
		RAISE EXCEPTION 'more than 400 days of partitions at once';
	END IF;
	PERFORM pg_advisory_xact_lock(7309940832);
	FOR parent IN SELECT * FROM tmtp.partitioned ORDER BY name LOOP
		day := from_day;
		WHILE day <= to_day LOOP
			child := parent.name || '_' || to_char(day, 'YYYYMMDD');
			IF to_regclass('tmtp.' || quote_ident(child)) IS NULL THEN
				EXECUTE format('CREATE TABLE tmtp.%I (LIKE tmtp.%I INCLUDING ALL) %s',
					child, parent.name, parent.settings);
				EXECUTE format('ALTER TABLE tmtp.%I ATTACH PARTITION tmtp.%I FOR VALUES FROM (%L) TO (%L)',
					parent.name, child, tmtp.uuid_floor(day), tmtp.uuid_floor(day + 1));
				made := made + 1;
			END IF;
			day := day + 1;
		END LOOP;
	END LOOP;
	RETURN made;
END
$$;
REVOKE ALL ON FUNCTION tmtp.ensure_partitions(date, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tmtp.ensure_partitions(date, date) TO tmtp_site, tmtp_relay, tmtp_home, tmtp_ctl;
