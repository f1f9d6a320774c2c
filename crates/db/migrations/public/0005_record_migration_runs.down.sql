DROP TABLE migration_progress;
DROP TABLE migration_failures;
DROP TABLE migration_runs;
ALTER TABLE tenants DROP COLUMN repeatable_digest;
