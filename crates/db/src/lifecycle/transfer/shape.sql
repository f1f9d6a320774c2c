-- The tables of a schema as they stand in an archive, and its sequences (kind `S`, without columns).
-- Partitions are read and written through the table that they belong to; what PostgreSQL computes is left out.
--
-- $1 the schema.
SELECT c.relname::text, c.relkind::text, quote_ident(c.relname),
       coalesce(a.names, '{}'), coalesce(a.quoted, '{}'), coalesce(a.types, '{}'),
       coalesce(a.optional, '{}'), coalesce(a.own_id, '{}')
FROM pg_namespace n
JOIN pg_class c ON c.relnamespace = n.oid
CROSS JOIN LATERAL (
    SELECT array_agg(attname::text ORDER BY attnum) AS names,
           array_agg(quote_ident(attname) ORDER BY attnum) AS quoted,
           array_agg(format_type(atttypid, atttypmod) ORDER BY attnum) AS types,
           array_agg(NOT attnotnull OR atthasdef OR attidentity <> '' ORDER BY attnum) AS optional,
           -- What holds this tenant's id, by its name or since it is that by default.
           array_agg(atttypid = 'uuid'::regtype
                     AND (attname = 'tenant_id'
                          OR EXISTS (SELECT FROM pg_attrdef d
                                     JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
                                                     AND p.refclassid = 'pg_proc'::regclass
                                     JOIN pg_proc f ON f.oid = p.refobjid
                                     WHERE d.adrelid = attrelid AND d.adnum = attnum
                                       AND f.proname = 'this_tenant' AND f.pronamespace = n.oid))
                     ORDER BY attnum) AS own_id
    FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND c.relkind <> 'S'
) a
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f', 'S') AND NOT c.relispartition
ORDER BY c.relname
