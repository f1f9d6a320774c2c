-- Seals: a chain of hashes over the audit log, in the order in which its entries became visible. An entry
-- is sealed within a second or so by a service, not by the transaction that writes it: a chain inside each
-- transaction would be one lock for all, held across DDL. A seal is a row of its own, so that a sealed
-- entry is never updated.
CREATE TABLE audit_seals (
    position  bigint      PRIMARY KEY,  -- from 1, without gaps
    entry_id  bigint      NOT NULL,     -- no foreign key: what is missing is to be seen, not prevented
    hash      bytea       NOT NULL,     -- SHA-256 over the seal before, this one's place and time, and the entry
    sealed_at timestamptz NOT NULL,

    CONSTRAINT audit_seals_entry_id_key   UNIQUE (entry_id),
    CONSTRAINT audit_seals_position_check CHECK (position > 0),
    CONSTRAINT audit_seals_hash_check     CHECK (octet_length(hash) = 32)
);

-- What is to be sealed. A queue, because ids do not tell: an entry whose transaction took long appears
-- behind others with higher ids.
CREATE TABLE audit_unsealed (
    entry_id bigint PRIMARY KEY
);

-- Which heads of the chain were written to `audit-heads.jsonl`, outside this database, so that an empty or
-- an older file is not taken for it.
CREATE TABLE audit_anchors (
    sequence   bigint      PRIMARY KEY,  -- the file's line
    line_hash  bytea       NOT NULL,
    position   bigint      NOT NULL,     -- the seal that it names
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT audit_anchors_sequence_check  CHECK (sequence > 0),
    CONSTRAINT audit_anchors_position_check  CHECK (position >= 0),
    CONSTRAINT audit_anchors_line_hash_check CHECK (octet_length(line_hash) = 32)
);

CREATE FUNCTION audit_refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = '`tenantry audit verify` says whether the chain is whole';
END
$$;

CREATE TRIGGER audit_seals_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
    FOR EACH STATEMENT
    EXECUTE FUNCTION audit_refuse_change();

CREATE TRIGGER audit_anchors_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_anchors
    FOR EACH STATEMENT
    EXECUTE FUNCTION audit_refuse_change();

CREATE FUNCTION audit_log_queue() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.audit_unsealed (entry_id) VALUES (NEW.id);
    RETURN NULL;
END
$$;

CREATE TRIGGER audit_log_queue
    AFTER INSERT ON audit_log
    FOR EACH ROW
    EXECUTE FUNCTION audit_log_queue();

-- ALWAYS: also under session_replication_role = replica, which silences ordinary triggers.
ALTER TABLE audit_seals   ENABLE ALWAYS TRIGGER audit_seals_append_only;
ALTER TABLE audit_anchors ENABLE ALWAYS TRIGGER audit_anchors_append_only;
ALTER TABLE audit_log     ENABLE ALWAYS TRIGGER audit_log_queue;

-- What was there before is sealed first: its ids are the lowest. The trigger above has locked the log
-- against writers until this commits, so none slips in between.
INSERT INTO audit_unsealed (entry_id) SELECT id FROM audit_log ORDER BY id;

-- For lists by time, page after page.
-- tenantry: allow=index-not-concurrent reason="the trigger above has locked out writers already, and a file that is whole or absent is worth more"
CREATE INDEX audit_log_recorded_at_idx ON audit_log (recorded_at, id);

REVOKE ALL ON FUNCTION audit_refuse_change(), audit_log_queue() FROM PUBLIC;
GRANT SELECT ON audit_seals, audit_unsealed, audit_anchors TO :"reader";
