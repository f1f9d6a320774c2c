-- The columns of PostgreSQL's catalogs by which a row can point to something of a tenant's: to a schema, a
-- role or another object, in an access list, or by a pair of catalog and number.
--
-- $1 the catalogs whose rows may be the tenant's.
WITH catalogs AS (
    SELECT oid, relname FROM pg_class
    WHERE oid < 16384 AND relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'
), found AS (
    SELECT fktable AS catalog, fkcols[1] AS col, NULL::text AS number,
           CASE WHEN is_array THEN 'array' ELSE 'reference' END AS kind, pktable::text AS target
    FROM pg_get_catalog_foreign_keys()
    WHERE cardinality(fkcols) = 1 AND pktable::text = ANY ($1)
      AND fkcols[1] NOT IN ('classid', 'refclassid', 'classoid')
    UNION ALL
    SELECT a.attrelid, a.attname, NULL, 'acl', 'pg_authid'
    FROM catalogs c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.atttypid = 'aclitem[]'::regtype AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT a.attrelid, a.attname, p.number, 'pair', ''
    FROM catalogs c JOIN pg_attribute a ON a.attrelid = c.oid
    JOIN (VALUES ('classid', 'objid'), ('refclassid', 'refobjid'), ('classoid', 'objoid')) p (class, number)
      ON a.attname = p.class
)
SELECT c.relname::text, c.relisshared, f.col, f.number, f.kind, f.target,
       has_column_privilege(f.catalog, f.col, 'SELECT')
FROM found f JOIN pg_class c ON c.oid = f.catalog
ORDER BY c.relname, f.kind, f.col, f.target
