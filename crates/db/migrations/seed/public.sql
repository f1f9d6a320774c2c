-- Rows for `migrate verify`, as `tenant.sql`. The reference tables are filled by their own migration.
-- tenantry: leave-empty=countries, timezones, platform_metadata

INSERT INTO tenants (name, subdomain, tier, lane) VALUES ('Acme', 'acme', 'free', 0);
INSERT INTO tenants (name, subdomain, tier, lane, status, suspended_at)
VALUES ('Globex', 'globex', 'pro', 1, 'suspended', now());
INSERT INTO migrations (schema_name, version, name, checksum, token_checksum, duration_ms)
VALUES ('public', 1, 'create_public_schema', decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'), 1);
INSERT INTO audit_log (actor, action) VALUES ('seed', 'tenant.created');
INSERT INTO migration_runs (direction, actor) VALUES ('up', 'seed');
INSERT INTO migration_failures (run, schema_name, message, attempts)
SELECT id, 'public', 'seed', 1 FROM migration_runs LIMIT 1;
INSERT INTO migration_progress (schema_name, version, direction, token_checksum)
VALUES ('public', 1, 'up', decode(repeat('00', 32), 'hex'));
INSERT INTO certificates (tenant_id, id, document, sha256)
SELECT tenant_id, gen_random_uuid(), '{}', decode(repeat('00', 32), 'hex') FROM purges LIMIT 1;
