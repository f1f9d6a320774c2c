-- The next objects of the tenant's schemas to be dropped, as statements. One batch is what one transaction
-- can drop without filling the server's lock table: each object and all that depends on it takes a lock.
--
-- $1 the schema, $2 what the names of its copies begin with, $3 how many locks, $4 how many objects.
WITH spaces AS (
    SELECT oid FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $2)
), found AS (
    SELECT d.classid, d.objid, c.relkind,
           (SELECT count(*) FROM pg_depend i
             WHERE i.refclassid = d.classid AND i.refobjid = d.objid) AS dependents,
           -- References from elsewhere: each takes its table with it. Last, they are mostly gone.
           (SELECT count(*) FROM pg_depend f
             WHERE f.refclassid = d.classid AND f.refobjid = d.objid
               AND f.classid = 'pg_constraint'::regclass AND f.deptype = 'n') AS referenced
    FROM spaces s
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid AND d.deptype = 'n'
    LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    -- What belongs to another object goes with it: an identity's sequence, a partition's index.
    WHERE NOT EXISTS (SELECT FROM pg_depend i
                       WHERE i.classid = d.classid AND i.objid = d.objid AND i.objsubid = 0
                         AND (i.deptype IN ('i', 'P', 'S')
                              OR i.deptype = 'a' AND c.relkind = 'S'))
      -- Partitions go before what they are parts of, so that no drop takes them all at once.
      AND NOT EXISTS (SELECT FROM pg_inherits h WHERE c.relkind IN ('r', 'p', 'f') AND h.inhparent = c.oid)
), ranked AS (
    SELECT classid, objid, dependents, referenced,
           CASE WHEN relkind IN ('v', 'm') THEN 1 WHEN relkind IN ('r', 'p', 'f') THEN 2
                   WHEN relkind IS NOT NULL THEN 3 ELSE 4 END AS rank
    FROM found
), weighed AS (
    SELECT classid, objid, dependents, referenced,
           sum(6 + dependents + 4 * referenced)
                  OVER (ORDER BY referenced, dependents, objid) - 6 - dependents - 4 * referenced AS before
    FROM ranked WHERE rank = (SELECT min(rank) FROM ranked)
)
SELECT format('DROP %s IF EXISTS %s CASCADE',
              CASE WHEN o.type IN ('function', 'procedure', 'aggregate') THEN 'ROUTINE'
                   WHEN o.type = 'statistics object' THEN 'STATISTICS'
                   ELSE upper(o.type) END,
              o.identity)
FROM weighed w, LATERAL pg_identify_object(w.classid, w.objid, 0) o
WHERE w.before <= $3
ORDER BY w.referenced, w.dependents, w.objid
LIMIT $4
