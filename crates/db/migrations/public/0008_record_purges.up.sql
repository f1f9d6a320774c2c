-- What is known of each purge: how far it came, so that a killed one goes on, and what it did, so that
-- it can be proved later. Ids, numbers and times only: this stays when the tenant is gone.
CREATE TABLE purges (
    tenant_id               uuid        PRIMARY KEY,
    actor                   text        NOT NULL,
    begun_at                timestamptz NOT NULL DEFAULT now(),
    step                    text        NOT NULL DEFAULT 'begun',
    -- The entry in the erasure ledger, which is a file outside this database. What it must still hold
    -- is known here, so that an empty or an older file is not taken for it.
    ledger_sequence         bigint,
    ledger_hash             bytea,
    schema_oids             oid[]       NOT NULL DEFAULT '{}',
    existed                 jsonb       NOT NULL DEFAULT '{}',  -- before anything was dropped
    steps                   jsonb       NOT NULL DEFAULT '[]',  -- each with its duration
    failures                integer     NOT NULL DEFAULT 0,     -- since it last came a step further
    last_error              text,
    retry_after             timestamptz,
    finished_at             timestamptz,
    statistics_rewritten_at timestamptz,

    CONSTRAINT purges_ledger_sequence_key UNIQUE (ledger_sequence),

    CONSTRAINT purges_actor_check CHECK (actor <> ''),
    CONSTRAINT purges_step_check
        CHECK (step IN ('begun', 'recorded', 'frozen', 'emptied', 'role_dropped', 'finished')),
    -- Nothing is dropped that the ledger does not know of.
    CONSTRAINT purges_ledger_check
        CHECK ((ledger_sequence IS NULL) = (ledger_hash IS NULL)
               AND (step = 'begun' OR ledger_sequence IS NOT NULL)),
    CONSTRAINT purges_ledger_hash_check CHECK (octet_length(ledger_hash) = 32),
    CONSTRAINT purges_existed_check     CHECK (jsonb_typeof(existed) = 'object'),
    CONSTRAINT purges_steps_check       CHECK (jsonb_typeof(steps) = 'array'),
    CONSTRAINT purges_failures_check    CHECK (failures >= 0),
    CONSTRAINT purges_finished_check    CHECK ((step = 'finished') = (finished_at IS NOT NULL))
);

-- How many began within the last hour?
CREATE INDEX purges_begun_at_idx ON purges (begun_at);
-- Of which are the statistics still on disk?
CREATE INDEX purges_statistics_idx ON purges (finished_at)
    WHERE finished_at IS NOT NULL AND statistics_rewritten_at IS NULL;

-- When somebody last looked for tenants that are due, by this server's clock. A clock that has moved
-- much further than the time between two looks may have jumped.
CREATE TABLE purge_watch (
    singleton    boolean     PRIMARY KEY DEFAULT true,
    seen_at      timestamptz,
    paused_until timestamptz,

    CONSTRAINT purge_watch_singleton_check CHECK (singleton)
);

INSERT INTO purge_watch DEFAULT VALUES;

GRANT SELECT ON purges, purge_watch TO :"reader";
