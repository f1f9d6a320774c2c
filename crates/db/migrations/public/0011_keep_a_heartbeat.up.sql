-- The heartbeat: one row that a running service writes anew at least once a minute. On a replica it tells
-- how old the state is that the replica shows. After a recovery to a point in time it tells which point was
-- reached, on which timeline; and as long as it beats, there is a commit after any such point.
CREATE TABLE heartbeat (
    singleton boolean     PRIMARY KEY DEFAULT true,
    beat_at   timestamptz NOT NULL,
    timeline  integer     NOT NULL,
    position  pg_lsn      NOT NULL,  -- of the WAL, just before the row was written

    CONSTRAINT heartbeat_singleton_check CHECK (singleton),
    CONSTRAINT heartbeat_timeline_check  CHECK (timeline > 0)
);

INSERT INTO heartbeat (beat_at, timeline, position)
SELECT clock_timestamp(),
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer,
       pg_current_wal_insert_lsn();

GRANT SELECT ON heartbeat TO :"reader";
