-- The proof of an erasure: one certificate for each purge, and what it takes to make one.

-- By what right a purge began; the numbers that the tenant's role and objects had, so that nothing may
-- point to them when they are gone; and the position in the write-ahead log that a replica must have
-- replayed to have forgotten the tenant, too.
-- tenantry: allow=constraint-not-valid reason="a row for each purge, and nobody waits for one"
ALTER TABLE purges
    ADD COLUMN ground       text,
    ADD COLUMN role_oid     oid,
    ADD COLUMN objects      jsonb NOT NULL DEFAULT '{}',  -- numbers by catalog
    ADD COLUMN end_position pg_lsn,
    ADD CONSTRAINT purges_ground_check
        CHECK (ground IN ('retention_over', 'requested', 'requested_now', 'ledger')),
    ADD CONSTRAINT purges_objects_check CHECK (jsonb_typeof(objects) = 'object');

-- `document` is what is filed, without its digest: ids, times and numbers only. It is looked at again
-- while it is incomplete, and final from then on.
CREATE TABLE certificates (
    tenant_id    uuid        PRIMARY KEY,
    id           uuid        NOT NULL,
    status       text        NOT NULL DEFAULT 'incomplete',
    issued_at    timestamptz NOT NULL DEFAULT now(),
    looked_at    timestamptz,
    completed_at timestamptz,
    document     jsonb       NOT NULL,
    sha256       bytea       NOT NULL,  -- of the document in its canonical form

    CONSTRAINT certificates_id_key UNIQUE (id),
    CONSTRAINT certificates_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES purges (tenant_id),

    CONSTRAINT certificates_status_check   CHECK (status IN ('incomplete', 'complete')),
    CONSTRAINT certificates_complete_check CHECK ((status = 'complete') = (completed_at IS NOT NULL)),
    CONSTRAINT certificates_document_check CHECK (jsonb_typeof(document) = 'object'),
    CONSTRAINT certificates_sha256_check   CHECK (octet_length(sha256) = 32)
);

-- Which are to be looked at again?
CREATE INDEX certificates_incomplete_idx ON certificates (looked_at NULLS FIRST) WHERE status = 'incomplete';

-- A certificate that was filed must not become another one, and none is withdrawn.
CREATE FUNCTION certificates_refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'a certificate is final: % is refused', TG_OP
        USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;

CREATE TRIGGER certificates_final
    BEFORE UPDATE ON certificates
    FOR EACH ROW
    WHEN (OLD.status = 'complete' OR NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id
          OR NEW.issued_at <> OLD.issued_at)
    EXECUTE FUNCTION certificates_refuse_change();

CREATE TRIGGER certificates_stay
    BEFORE DELETE OR TRUNCATE ON certificates
    FOR EACH STATEMENT
    EXECUTE FUNCTION certificates_refuse_change();

ALTER TABLE certificates ENABLE ALWAYS TRIGGER certificates_final;
ALTER TABLE certificates ENABLE ALWAYS TRIGGER certificates_stay;

-- Column statistics hold values. These tables are often empty, and ANALYZE does not renew the statistics of
-- an empty table, so the values of a purged tenant would stay: none are collected any more. Setting the
-- type anew, which changes nothing else, drops what was collected.
-- tenantry: allow=changing-column-type reason="the same type: nothing is rewritten"
ALTER TABLE idempotency_keys
    ALTER COLUMN name TYPE varchar(255),
    ALTER COLUMN subdomain TYPE varchar(100),
    ALTER COLUMN settings TYPE jsonb;
ALTER TABLE idempotency_keys
    ALTER COLUMN name SET STATISTICS 0,
    ALTER COLUMN subdomain SET STATISTICS 0,
    ALTER COLUMN settings SET STATISTICS 0;
-- tenantry: allow=changing-column-type reason="the same type: nothing is rewritten"
ALTER TABLE migration_failures
    ALTER COLUMN statement TYPE text,
    ALTER COLUMN message TYPE text,
    ALTER COLUMN blocked_by TYPE jsonb;
ALTER TABLE migration_failures
    ALTER COLUMN statement SET STATISTICS 0,
    ALTER COLUMN message SET STATISTICS 0,
    ALTER COLUMN blocked_by SET STATISTICS 0;

REVOKE ALL ON FUNCTION certificates_refuse_change() FROM PUBLIC;
GRANT SELECT ON certificates TO :"reader";
