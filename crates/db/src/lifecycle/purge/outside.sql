-- What is outside of the tenant's schemas and would be dropped with what is inside.
--
-- $1 the schema, $2 what the names of its copies begin with.
WITH spaces AS (
    SELECT oid FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $2)
), members AS (
    SELECT d.classid, d.objid FROM spaces s
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
    UNION
    -- The row types of relations, which stand in their schema by way of the relation only.
    SELECT 'pg_type'::regclass, t.oid FROM spaces s
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
    JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    JOIN pg_type t ON t.oid = c.reltype
), resting AS (
    SELECT DISTINCT d.classid, d.objid FROM members m
    JOIN pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype IN ('n', 'a')
), placed AS (
    SELECT r.classid, r.objid,
           CASE r.classid
               WHEN 'pg_class'::regclass THEN (SELECT relnamespace FROM pg_class WHERE oid = r.objid)
               WHEN 'pg_type'::regclass THEN (SELECT typnamespace FROM pg_type WHERE oid = r.objid)
               WHEN 'pg_proc'::regclass THEN (SELECT pronamespace FROM pg_proc WHERE oid = r.objid)
               WHEN 'pg_constraint'::regclass THEN (SELECT connamespace FROM pg_constraint WHERE oid = r.objid)
               WHEN 'pg_rewrite'::regclass THEN
                   (SELECT c.relnamespace FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = r.objid)
               WHEN 'pg_attrdef'::regclass THEN
                   (SELECT c.relnamespace FROM pg_attrdef a JOIN pg_class c ON c.oid = a.adrelid WHERE a.oid = r.objid)
               WHEN 'pg_trigger'::regclass THEN
                   (SELECT c.relnamespace FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.oid = r.objid)
               WHEN 'pg_policy'::regclass THEN
                   (SELECT c.relnamespace FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.oid = r.objid)
           END AS namespace
    FROM resting r
)
SELECT pg_describe_object(p.classid, p.objid, 0) FROM placed p
WHERE p.namespace IS NOT NULL AND p.namespace NOT IN (SELECT oid FROM spaces)
      -- The toast tables of the schema's own tables.
  AND p.namespace <> 'pg_toast'::regnamespace
UNION ALL
SELECT 'extension ' || e.extname FROM pg_extension e JOIN spaces s ON s.oid = e.extnamespace
ORDER BY 1
LIMIT 20
