-- The numbers of what stands in the tenant's schemas, by catalog: of its own name, and of what hangs on a
-- relation (indexes, toast tables, row types), whose rows may be left where the relation's is gone.
--
-- $1 the schema, $2 what the names of its copies begin with.
WITH spaces AS (
    SELECT oid FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $2)
), members AS (
    SELECT d.classid, d.objid FROM spaces s
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid AND d.objsubid = 0
), relations AS (
    SELECT c.oid, c.reltype, c.reltoastrelid FROM members m
    JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
), tables AS (
    SELECT oid FROM relations UNION SELECT reltoastrelid FROM relations WHERE reltoastrelid <> 0
), objects AS (
    SELECT classid, objid FROM members
    UNION SELECT 'pg_class'::regclass, oid FROM tables
    UNION SELECT 'pg_class'::regclass, i.indexrelid FROM tables t JOIN pg_index i ON i.indrelid = t.oid
    UNION SELECT 'pg_type'::regclass, reltype FROM relations WHERE reltype <> 0
    UNION SELECT 'pg_type'::regclass, y.typarray FROM members m JOIN pg_type y
        ON m.classid = 'pg_type'::regclass AND y.oid = m.objid WHERE y.typarray <> 0
    UNION SELECT 'pg_type'::regclass, y.typarray FROM relations r JOIN pg_type y ON y.oid = r.reltype
        WHERE y.typarray <> 0
)
SELECT c.relname::text, array_agg(o.objid ORDER BY o.objid)
FROM objects o JOIN pg_class c ON c.oid = o.classid
GROUP BY c.relname
ORDER BY c.relname
