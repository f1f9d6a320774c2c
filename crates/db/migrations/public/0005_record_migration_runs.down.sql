-- tenantry: allow=index-not-concurrent reason="a few milliseconds, and a file that is whole or absent is worth more"
DROP TABLE migration_progress;
DROP TABLE migration_failures;
DROP TABLE migration_runs;
ALTER TABLE tenants RESET (fillfactor);
CREATE INDEX tenants_schema_version_idx ON tenants (schema_version) WHERE status <> 'purged';
ALTER TABLE tenants DROP COLUMN repeatable_digest;
