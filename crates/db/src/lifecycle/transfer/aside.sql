-- What stands in the way of loading rows table by table, each with the statement that puts it aside and the
-- one that puts it back: foreign keys, whose tables may refer to each other in circles, and triggers, whose
-- work was done when the rows were written first. Of a partitioned table's key only that of the root: its
-- partitions follow.
--
-- $1 the schema.
SELECT format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname),
       format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
       || coalesce(format('; COMMENT ON CONSTRAINT %I ON %I.%I IS %L', k.conname, n.nspname, c.relname,
                          obj_description(k.oid, 'pg_constraint')), '')
FROM pg_namespace n
JOIN pg_class c ON c.relnamespace = n.oid
JOIN pg_constraint k ON k.conrelid = c.oid
WHERE n.nspname = $1 AND k.contype = 'f' AND k.conparentid = 0
UNION ALL
SELECT format('ALTER TABLE ONLY %I.%I DISABLE TRIGGER %I', n.nspname, c.relname, t.tgname),
       format('ALTER TABLE ONLY %I.%I ENABLE %sTRIGGER %I', n.nspname, c.relname,
              CASE t.tgenabled WHEN 'A' THEN 'ALWAYS ' WHEN 'R' THEN 'REPLICA ' ELSE '' END, t.tgname)
FROM pg_namespace n
JOIN pg_class c ON c.relnamespace = n.oid
JOIN pg_trigger t ON t.tgrelid = c.oid
WHERE n.nspname = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D'
ORDER BY 1
