-- One line for each thing that the catalog knows of the schema $1. Asks by OID: the
-- information_schema is slow where there are thousands of schemas.
WITH ns AS (
    SELECT oid, nspowner, nspacl FROM pg_catalog.pg_namespace WHERE nspname = $1
),
relations AS (
    SELECT c.* FROM pg_catalog.pg_class c JOIN ns ON c.relnamespace = ns.oid
)
SELECT format('schema owner=%s acl=%s', nspowner::regrole, nspacl::text)
  FROM ns
UNION ALL
SELECT format('default acl for=%s type=%s acl=%s', d.defaclrole::regrole, d.defaclobjtype, d.defaclacl::text)
  FROM pg_catalog.pg_default_acl d JOIN ns ON d.defaclnamespace = ns.oid
UNION ALL
SELECT format('relation %s kind=%s persistence=%s owner=%s rls=%s options=%s acl=%s',
              relname, relkind, relpersistence, relowner::regrole, relrowsecurity,
              reloptions::text, relacl::text)
  FROM relations
UNION ALL
SELECT format('column %s.%s #%s type=%s not_null=%s identity=%s generated=%s collation=%s default=%s acl=%s',
              r.relname, a.attname, row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum),
              pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
              a.attgenerated, a.attcollation::regcollation,
              pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attacl::text)
  FROM relations r
  JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
UNION ALL
SELECT format('constraint %s.%s validated=%s %s',
              r.relname, k.conname, k.convalidated, pg_catalog.pg_get_constraintdef(k.oid))
  FROM relations r JOIN pg_catalog.pg_constraint k ON k.conrelid = r.oid
UNION ALL
SELECT format('index valid=%s %s', i.indisvalid, pg_catalog.pg_get_indexdef(i.indexrelid))
  FROM relations r JOIN pg_catalog.pg_index i ON i.indexrelid = r.oid
UNION ALL
SELECT format('sequence %s start=%s increment=%s min=%s max=%s cycle=%s type=%s',
              r.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
              s.seqtypid::regtype)
  FROM relations r JOIN pg_catalog.pg_sequence s ON s.seqrelid = r.oid
UNION ALL
SELECT format('view %s %s', relname, pg_catalog.pg_get_viewdef(oid))
  FROM relations WHERE relkind IN ('v', 'm')
UNION ALL
SELECT format('trigger %s enabled=%s %s', r.relname, t.tgenabled, pg_catalog.pg_get_triggerdef(t.oid))
  FROM relations r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
UNION ALL
SELECT format('policy %s.%s command=%s using=%s check=%s', r.relname, p.polname, p.polcmd,
              pg_catalog.pg_get_expr(p.polqual, p.polrelid),
              pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
  FROM relations r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT format('function owner=%s acl=%s %s', p.proowner::regrole, p.proacl::text,
              CASE WHEN p.prokind IN ('f', 'p') THEN pg_catalog.pg_get_functiondef(p.oid)
                   ELSE p.oid::regprocedure::text END)
  FROM pg_catalog.pg_proc p JOIN ns ON p.pronamespace = ns.oid
UNION ALL
SELECT format('type %s kind=%s owner=%s acl=%s', t.typname, t.typtype, t.typowner::regrole, t.typacl::text)
  FROM pg_catalog.pg_type t JOIN ns ON t.typnamespace = ns.oid
 WHERE t.typtype IN ('d', 'e', 'r', 'm')
