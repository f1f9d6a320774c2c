-- The public schema: what the whole system shares. Tenants' own rows live in their own schemas.
--
-- Runs as one batch in one transaction, as the owner role, with `search_path` = public, pg_temp.
-- Role names belong to the installation (`roles.prefix`), so the runner fills in two psql-style
-- placeholders, here and in every file of the public set: the group that all tenant roles are in,
-- and the reader login. To try this file by hand: psql -1 -v tenant_group=… -v reader=… -f …

-- ----------------------------------------------------------------------------------------------
-- tenants: one row for each customer, and the single authority on where and whether it is served.
--
--   ready      provisioned ahead of time, waiting for a sign-up; has no name yet
--   active  ⇄  suspended
--   deleted    restorable until purge_after; keeps its subdomain, because a restore needs it
--   purging    being erased, no way back
--   purged     a tombstone: id and dates, nothing personal, so that an erasure can be proved
-- ----------------------------------------------------------------------------------------------
CREATE TABLE tenants (
    id             uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    name           varchar(255) NOT NULL,
    subdomain      varchar(100),
    tier           varchar(50)  NOT NULL,
    status         varchar(50)  NOT NULL DEFAULT 'active',
    settings       jsonb        NOT NULL DEFAULT '{}',
    lane           smallint     NOT NULL,
    schema_version bigint       NOT NULL DEFAULT 0,
    legal_hold     boolean      NOT NULL DEFAULT false,
    created_at     timestamptz  NOT NULL DEFAULT now(),
    updated_at     timestamptz  NOT NULL DEFAULT now(),
    suspended_at   timestamptz,
    deleted_at     timestamptz,
    purge_after    timestamptz,
    purged_at      timestamptz,

    CONSTRAINT tenants_subdomain_key UNIQUE (subdomain),

    -- A lower-case DNS label: 63 octets at most, no hyphen at either end.
    CONSTRAINT tenants_subdomain_check
        CHECK (subdomain ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT tenants_status_check
        CHECK (status IN ('ready', 'active', 'suspended', 'deleted', 'purging', 'purged')),
    CONSTRAINT tenants_settings_check
        CHECK (jsonb_typeof(settings) = 'object'),
    CONSTRAINT tenants_lane_check
        CHECK (lane BETWEEN 0 AND 31),
    CONSTRAINT tenants_schema_version_check
        CHECK (schema_version >= 0),

    -- Each status says what must be known. A row that contradicts itself would be served, restored
    -- or erased wrongly, so the database refuses it, whoever writes it.
    CONSTRAINT tenants_identity_check
        CHECK (status NOT IN ('active', 'suspended', 'deleted')
               OR (name <> '' AND subdomain IS NOT NULL AND tier <> '')),
    CONSTRAINT tenants_ready_check
        CHECK (status <> 'ready'
               OR (subdomain IS NULL
                   AND num_nonnulls(suspended_at, deleted_at, purge_after, purged_at) = 0)),
    CONSTRAINT tenants_active_check
        CHECK (status <> 'active'
               OR num_nonnulls(suspended_at, deleted_at, purge_after, purged_at) = 0),
    CONSTRAINT tenants_suspended_check
        CHECK (status <> 'suspended'
               OR (suspended_at IS NOT NULL
                   AND num_nonnulls(deleted_at, purge_after, purged_at) = 0)),
    -- `suspended_at` may stay on a deleted row: a restore then knows what to return to.
    CONSTRAINT tenants_deleted_check
        CHECK (status <> 'deleted'
               OR (deleted_at IS NOT NULL AND purge_after IS NOT NULL
                   AND purge_after >= deleted_at)),
    CONSTRAINT tenants_purged_check
        CHECK ((status = 'purged') = (purged_at IS NOT NULL)
               AND (status <> 'purged'
                    OR (name = '' AND subdomain IS NULL AND settings = '{}'))),

    -- A legal hold is worth what the database makes of it: while it stands, no purge can begin.
    CONSTRAINT tenants_legal_hold_check
        CHECK (NOT legal_hold OR status NOT IN ('purging', 'purged'))
);

-- The list, by key set; the same by status, which also finds the oldest ready tenant to claim.
CREATE INDEX tenants_created_at_idx ON tenants (created_at, id);
CREATE INDEX tenants_status_idx     ON tenants (status, created_at, id);
CREATE INDEX tenants_lane_idx       ON tenants (lane);
-- Who is behind? Tombstones have no schema, so they are never behind.
CREATE INDEX tenants_schema_version_idx ON tenants (schema_version) WHERE status <> 'purged';
-- What is due for a purge?
CREATE INDEX tenants_purge_after_idx ON tenants (purge_after)
    WHERE status = 'deleted' AND NOT legal_hold;

-- A trigger here, and only here: many writers (API, CLI, rollouts, an operator in psql) change a
-- tenant, and "when did it last change?" has to hold for all of them.
CREATE FUNCTION tenants_touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER tenants_touch_updated_at
    BEFORE UPDATE ON tenants
    FOR EACH ROW
    WHEN (OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION tenants_touch_updated_at();

-- ----------------------------------------------------------------------------------------------
-- migrations: one ledger for both sets. Its row is written in the transaction of the migration
-- itself, so it can't lie. `schema_name` is `public` or a tenant schema.
-- ----------------------------------------------------------------------------------------------
CREATE TABLE migrations (
    schema_name    varchar(63) NOT NULL,
    version        bigint      NOT NULL,
    name           text        NOT NULL,
    checksum       bytea       NOT NULL,  -- SHA-256 of the file, carriage returns removed
    token_checksum bytea       NOT NULL,  -- SHA-256 of its tokens: a new comment isn't a new migration
    applied_at     timestamptz NOT NULL DEFAULT now(),
    duration_ms    integer     NOT NULL,
    run            uuid,                  -- the rollout that did it; null when it was none

    CONSTRAINT migrations_pkey PRIMARY KEY (schema_name, version),

    CONSTRAINT migrations_version_check        CHECK (version > 0),
    CONSTRAINT migrations_checksum_check       CHECK (octet_length(checksum) = 32),
    CONSTRAINT migrations_token_checksum_check CHECK (octet_length(token_checksum) = 32),
    CONSTRAINT migrations_duration_ms_check    CHECK (duration_ms >= 0)
);

-- ----------------------------------------------------------------------------------------------
-- Shared reference tables: the only ones here that tenants can read. Seeded by 0003.
-- Codes are text with a check, not char(n), which pads with blanks and compares without them.
-- ----------------------------------------------------------------------------------------------
CREATE TABLE countries (
    alpha2       text PRIMARY KEY,
    alpha3       text NOT NULL,
    numeric_code text NOT NULL,  -- text: the leading zeros belong to it
    name         text NOT NULL,

    CONSTRAINT countries_alpha3_key       UNIQUE (alpha3),
    CONSTRAINT countries_numeric_code_key UNIQUE (numeric_code),

    CONSTRAINT countries_alpha2_check       CHECK (alpha2 ~ '^[A-Z]{2}$'),
    CONSTRAINT countries_alpha3_check       CHECK (alpha3 ~ '^[A-Z]{3}$'),
    CONSTRAINT countries_numeric_code_check CHECK (numeric_code ~ '^[0-9]{3}$'),
    CONSTRAINT countries_name_check         CHECK (name <> '')
);

-- Names only, no offsets: those change by law, and PostgreSQL knows them (`AT TIME ZONE name`).
CREATE TABLE timezones (
    name          text   PRIMARY KEY,
    alias_of      text,                        -- null for a zone; an alias names its zone
    country_codes text[] NOT NULL DEFAULT '{}',  -- first the country it is named in; {} for Etc/…

    CONSTRAINT timezones_alias_of_fkey FOREIGN KEY (alias_of) REFERENCES timezones (name),

    CONSTRAINT timezones_name_check     CHECK (name <> ''),
    CONSTRAINT timezones_alias_of_check CHECK (alias_of <> name)
);

CREATE INDEX timezones_alias_of_idx ON timezones (alias_of);

CREATE TABLE platform_metadata (
    key  text  PRIMARY KEY,
    name text  NOT NULL,
    kind text  NOT NULL,
    data jsonb NOT NULL DEFAULT '{}',

    CONSTRAINT platform_metadata_key_check  CHECK (key ~ '^[a-z][a-z0-9_]*$'),
    CONSTRAINT platform_metadata_name_check CHECK (name <> ''),
    CONSTRAINT platform_metadata_kind_check
        CHECK (kind IN ('network', 'video', 'messaging', 'blog', 'business')),
    CONSTRAINT platform_metadata_data_check CHECK (jsonb_typeof(data) = 'object')
);

-- ----------------------------------------------------------------------------------------------
-- audit_log: who did what to which tenant. It outlives the tenant, hence no foreign key and, by
-- rule, no personal data in `details`: the log of erasures must not itself have to be erased.
-- ----------------------------------------------------------------------------------------------
CREATE TABLE audit_log (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- the moment, not the transaction's start
    actor       text        NOT NULL,
    action      text        NOT NULL,
    tenant_id   uuid,
    request_id  text,
    details     jsonb       NOT NULL DEFAULT '{}',

    CONSTRAINT audit_log_actor_check   CHECK (actor <> ''),
    CONSTRAINT audit_log_action_check  CHECK (action <> ''),
    CONSTRAINT audit_log_details_check CHECK (jsonb_typeof(details) = 'object')
);

CREATE INDEX audit_log_tenant_id_idx ON audit_log (tenant_id, id);

-- Stops slips and ordinary access, the owner's too. Whoever may drop the trigger (the owner) or
-- the table can still rewrite history; making that visible is the work of the sealing columns
-- that a later migration adds.
CREATE FUNCTION audit_log_refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % is refused', TG_OP
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'record a correction as a new entry';
END
$$;

-- Per statement: TRUNCATE fires no row triggers, and an UPDATE of no rows is just as wrong.
CREATE TRIGGER audit_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT
    EXECUTE FUNCTION audit_log_refuse_change();

-- ALWAYS: also under session_replication_role = replica, which silences ordinary triggers.
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;

-- ----------------------------------------------------------------------------------------------
-- Rights. Tenants read the reference tables and nothing else in this schema; PUBLIC gets nothing.
-- To the group, never to a tenant's role: an ACL holds about 2,400 entries.
-- ----------------------------------------------------------------------------------------------
REVOKE ALL ON FUNCTION tenants_touch_updated_at(), audit_log_refuse_change() FROM PUBLIC;

GRANT SELECT ON countries, timezones, platform_metadata TO :"tenant_group";
GRANT SELECT ON tenants, migrations, countries, timezones, platform_metadata, audit_log TO :"reader";
