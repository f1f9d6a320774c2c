-- The tables of schema $1 and their columns that an INSERT may name: how they are declared, what kind of
-- value they take, whether one is required, what checks of their own say, and where they lead.
SELECT c.relname::text, a.attname::text, a.attnum, pg_catalog.format_type(a.atttypid, a.atttypmod),
       CASE WHEN base.typcategory IN ('S', 'N', 'B', 'D', 'T', 'E', 'A', 'R', 'I', 'V') THEN base.typcategory::text
            ELSE base.typname::text END,
       a.attnotnull AND NOT a.atthasdef,
       ARRAY(SELECT pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k
              WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]
                AND base.typcategory = 'S'),
       leads.to_table, leads.to_column
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1
  LEFT JOIN pg_catalog.pg_attribute a
    ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND a.attgenerated = ''
  LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type base ON base.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
  LEFT JOIN LATERAL (
       SELECT k.confrelid::regclass::text AS to_table, pg_catalog.quote_ident(f.attname) AS to_column
         FROM pg_catalog.pg_constraint k
         JOIN pg_catalog.pg_attribute f
           ON f.attrelid = k.confrelid AND f.attnum = k.confkey[pg_catalog.array_position(k.conkey, a.attnum)]
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey)
        ORDER BY pg_catalog.cardinality(k.conkey), k.conname LIMIT 1) leads ON true
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
 ORDER BY c.relname, a.attnum
