-- Schemas that were replaced: a tenant was taken back to an earlier moment alone, and what it had until then
-- is kept for a while under another name, so that this can be undone. Whatever is called so and has no row
-- here is nobody's, and is dropped.
CREATE TABLE kept_schemas (
    number            bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id         uuid        NOT NULL,
    -- Its name: no tenant's, and no lane may enter it.
    kept_as           text        NOT NULL
        GENERATED ALWAYS AS ('tenant_' || replace(tenant_id::text, '-', '') || '__kept_' || number::text) STORED,
    -- The moment that the tenant was taken back to; null where it was kept by an undo.
    restored_to       timestamptz,
    replaced_at       timestamptz NOT NULL DEFAULT now(),
    keep_until        timestamptz NOT NULL,
    -- Where it stands, for the way back: as in `tenants` and `migrations`.
    schema_version    bigint      NOT NULL,
    repeatable_digest bytea       NOT NULL,
    ledger            jsonb       NOT NULL,

    CONSTRAINT kept_schemas_ledger_check CHECK (jsonb_typeof(ledger) = 'array')
);

CREATE INDEX kept_schemas_tenant_id_idx ON kept_schemas (tenant_id, number);

GRANT SELECT ON kept_schemas TO :"reader";
