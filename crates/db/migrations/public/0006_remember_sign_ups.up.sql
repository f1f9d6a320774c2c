-- What a sign-up with an `Idempotency-Key` was answered, so that the same request sent again gets the
-- same answer and no second tenant. Written in the transaction that makes the tenant. Kept for a day.
--
-- Holds what the tenant was called, so whoever erases a tenant deletes its rows here, too. Who asked
-- is not kept: `id` is a digest of caller and key.
CREATE TABLE idempotency_keys (
    id             bytea        PRIMARY KEY,
    request        bytea        NOT NULL,  -- SHA-256 of what was asked for
    tenant_id      uuid         NOT NULL,
    name           varchar(255) NOT NULL,
    subdomain      varchar(100) NOT NULL,
    tier           varchar(50)  NOT NULL,
    settings       jsonb        NOT NULL,
    lane           smallint     NOT NULL,
    schema_version bigint       NOT NULL,
    created_at     timestamptz  NOT NULL,  -- the tenant's, and with it this row's

    CONSTRAINT idempotency_keys_id_check      CHECK (octet_length(id) = 32),
    CONSTRAINT idempotency_keys_request_check CHECK (octet_length(request) = 32)
);

CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_tenant_id_idx  ON idempotency_keys (tenant_id);
