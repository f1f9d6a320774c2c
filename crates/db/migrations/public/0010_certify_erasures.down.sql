ALTER TABLE migration_failures
    ALTER COLUMN statement SET STATISTICS -1,
    ALTER COLUMN message SET STATISTICS -1,
    ALTER COLUMN blocked_by SET STATISTICS -1;
ALTER TABLE idempotency_keys
    ALTER COLUMN name SET STATISTICS -1,
    ALTER COLUMN subdomain SET STATISTICS -1,
    ALTER COLUMN settings SET STATISTICS -1;

DROP TABLE certificates;
DROP FUNCTION certificates_refuse_change();

ALTER TABLE purges
    DROP CONSTRAINT purges_objects_check,
    DROP CONSTRAINT purges_ground_check,
    DROP COLUMN end_position,
    DROP COLUMN objects,
    DROP COLUMN role_oid,
    DROP COLUMN ground;
