-- What `migrate run` and `migrate rollback` did, and why a tenant could not be brought along. The ledger
-- (`migrations`) says where a schema stands; these say how it came there, or why it did not.

-- Which edition of the repeatable files a tenant has: a digest of all of them, empty for none. A column,
-- so that one query over one table says who is behind.
ALTER TABLE tenants ADD COLUMN repeatable_digest bytea NOT NULL DEFAULT '';

-- A rollout writes each row once for each migration. Without an index on what it changes, and with room
-- on the page, such an update touches no index at all; and whoever asks who is behind reads the whole
-- table anyhow, a few milliseconds for ten thousand tenants.
DROP INDEX tenants_schema_version_idx;
ALTER TABLE tenants SET (fillfactor = 70);

CREATE TABLE migration_runs (
    id                 uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    direction          text        NOT NULL,
    state              text        NOT NULL DEFAULT 'running',
    actor              text        NOT NULL,
    target             bigint,                 -- the version asked for; null for the newest
    tenants_total      integer     NOT NULL DEFAULT 0,
    tenants_done       integer     NOT NULL DEFAULT 0,
    tenants_failed     integer     NOT NULL DEFAULT 0,
    tenants_skipped    integer     NOT NULL DEFAULT 0,
    public_repeatables bytea,                  -- the edition that this run gave to the public schema
    started_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at           timestamptz,

    CONSTRAINT migration_runs_direction_check CHECK (direction IN ('up', 'down')),
    -- A runner that was killed leaves `running`; the next one, which holds the lock, sets it right.
    CONSTRAINT migration_runs_state_check
        CHECK (state IN ('running', 'complete', 'failed', 'interrupted')),
    CONSTRAINT migration_runs_ended_check CHECK ((state = 'running') = (ended_at IS NULL)),
    CONSTRAINT migration_runs_actor_check CHECK (actor <> '')
);

CREATE INDEX migration_runs_started_at_idx ON migration_runs (started_at);

-- One row for each schema that a run could not bring along. `message` is the server's first line, without
-- its details: those hold values of rows.
CREATE TABLE migration_failures (
    run         uuid        NOT NULL,
    schema_name varchar(63) NOT NULL,
    tenant_id   uuid,                          -- null for the public schema
    version     bigint,                        -- null for the repeatable files
    file        text,
    line        integer,
    statement   text,                          -- how it begins
    sqlstate    text,
    message     text        NOT NULL,
    blocked_by  jsonb       NOT NULL DEFAULT '[]',
    attempts    integer     NOT NULL,
    failed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT migration_failures_pkey PRIMARY KEY (run, schema_name),
    CONSTRAINT migration_failures_run_fkey
        FOREIGN KEY (run) REFERENCES migration_runs (id) ON DELETE CASCADE,
    CONSTRAINT migration_failures_blocked_by_check CHECK (jsonb_typeof(blocked_by) = 'array')
);

CREATE INDEX migration_failures_schema_name_idx ON migration_failures (schema_name);

-- How far a file that runs outside a transaction has come in a schema. `statements_begun` is one more
-- than `statements_done` while a statement is under way, so that a killed runner's successor knows which
-- one is in doubt.
CREATE TABLE migration_progress (
    schema_name      varchar(63) NOT NULL,
    version          bigint      NOT NULL,
    direction        text        NOT NULL,
    token_checksum   bytea       NOT NULL,
    statements_begun integer     NOT NULL DEFAULT 0,
    statements_done  integer     NOT NULL DEFAULT 0,
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT migration_progress_pkey PRIMARY KEY (schema_name, version, direction),
    CONSTRAINT migration_progress_direction_check CHECK (direction IN ('up', 'down')),
    CONSTRAINT migration_progress_token_checksum_check CHECK (octet_length(token_checksum) = 32),
    CONSTRAINT migration_progress_statements_check
        CHECK (statements_done >= 0 AND statements_begun BETWEEN statements_done AND statements_done + 1)
);

GRANT SELECT ON migration_runs, migration_failures, migration_progress TO :"reader";
