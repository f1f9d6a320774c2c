-- One line for each thing that the catalog knows of the schemas named in $1, with the names that a
-- tenant alone has taken out. Rights of the role $2 count as the tenant role's own: a scratch schema
-- has no role of its own. Expects an empty search_path, so that every name is qualified.
--
-- Finds what belongs to a schema by pg_depend, whose index leads from a schema to its objects, whatever
-- they are: no other catalog has an index on the namespace alone, and a scan for each schema is what
-- makes this slow where there are thousands.
WITH ns AS MATERIALIZED (
    SELECT n.oid, n.nspname::text AS name, n.nspowner, n.nspacl,
           CASE WHEN n.nspname ~ '^tenant_[0-9a-f]{32}$'
                THEN pg_catalog.substr(n.nspname::text, 8)::uuid::text END AS tenant
      FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY ($1::text[])
),
member AS MATERIALIZED (
    SELECT DISTINCT ns.oid AS ns, d.classid, d.objid
      FROM ns JOIN pg_catalog.pg_depend d
        ON d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = ns.oid
),
relation AS MATERIALIZED (
    SELECT m.ns, c.oid, c.relname::text AS name, c.relkind, c.relpersistence, c.relowner, c.relam,
           c.reltablespace, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relispopulated,
           c.reloptions, c.reltoastrelid, c.reloftype, c.relpartbound, c.relacl
      FROM member m
      LEFT JOIN pg_catalog.pg_type t ON m.classid = 'pg_catalog.pg_type'::regclass AND t.oid = m.objid
      JOIN pg_catalog.pg_class c
        ON c.oid = CASE m.classid WHEN 'pg_catalog.pg_class'::regclass THEN m.objid ELSE t.typrelid END
     WHERE c.relnamespace = m.ns
),
index AS MATERIALIZED (
    SELECT r.ns, r.name AS relation, i.indexrelid AS oid, i.indisvalid AND i.indisready AND i.indislive AS valid,
           i.indisclustered, i.indisreplident, i.indexprs IS NOT NULL AS has_expressions
      FROM relation r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid
),
rule AS MATERIALIZED (
    SELECT k.ns, k.relation, k.oid, k.conname AS name, k.convalidated, k.conislocal, k.coninhcount
      FROM (SELECT r.ns, r.name AS relation, k.oid, k.conname, k.convalidated, k.conislocal, k.coninhcount
              FROM relation r JOIN pg_catalog.pg_constraint k ON k.conrelid = r.oid
            UNION ALL
            SELECT m.ns, t.typname::text, k.oid, k.conname, k.convalidated, k.conislocal, k.coninhcount
              FROM member m JOIN pg_catalog.pg_type t ON t.oid = m.objid
              JOIN pg_catalog.pg_constraint k ON k.contypid = t.oid
             WHERE m.classid = 'pg_catalog.pg_type'::regclass) k
),
trigger AS MATERIALIZED (
    SELECT r.ns, r.name AS relation, t.oid, t.tgisinternal, t.tgenabled, t.tgconstraint
      FROM relation r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid
),
routine AS MATERIALIZED (
    SELECT m.ns, p.oid, p.prokind, p.proowner, p.proacl,
           p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')' AS name
      FROM member m JOIN pg_catalog.pg_proc p ON p.oid = m.objid
     WHERE m.classid = 'pg_catalog.pg_proc'::regclass AND p.pronamespace = m.ns
),
type AS MATERIALIZED (
    SELECT m.ns, t.oid, t.typname::text AS name, t.typtype, t.typowner, t.typacl, t.typbasetype, t.typtypmod,
           t.typnotnull, t.typdefault, t.typcollation
      FROM member m JOIN pg_catalog.pg_type t ON t.oid = m.objid
     WHERE m.classid = 'pg_catalog.pg_type'::regclass AND t.typnamespace = m.ns
),
-- What may bear a comment or a label.
object AS (
    SELECT oid AS ns, 'pg_catalog.pg_namespace'::regclass::oid AS classid, oid AS objid FROM ns
    UNION ALL SELECT ns, classid, objid FROM member
    UNION ALL SELECT ns, 'pg_catalog.pg_class'::regclass, oid FROM relation WHERE relkind = 'c'
    UNION ALL SELECT ns, 'pg_catalog.pg_class'::regclass, oid FROM index
    UNION ALL SELECT ns, 'pg_catalog.pg_constraint'::regclass, oid FROM rule
    UNION ALL SELECT ns, 'pg_catalog.pg_trigger'::regclass, oid FROM trigger WHERE NOT tgisinternal
    UNION ALL SELECT r.ns, 'pg_catalog.pg_policy'::regclass, p.oid
                FROM relation r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
    UNION ALL SELECT r.ns, 'pg_catalog.pg_rewrite'::regclass, w.oid
                FROM relation r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
),
-- A right that was never touched is the one by default: written out or not, it is the same.
right_on AS (
    SELECT oid AS ns, 'schema' AS what, coalesce(nspacl, pg_catalog.acldefault('n', nspowner)) AS acl FROM ns
    UNION ALL
    SELECT ns, 'relation ' || name,
           coalesce(relacl, pg_catalog.acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner))
      FROM relation WHERE relkind <> 'c'
    UNION ALL
    SELECT r.ns, 'column ' || r.name || '.' || a.attname, a.attacl
      FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid
     WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT ns, 'function ' || name, coalesce(proacl, pg_catalog.acldefault('f', proowner)) FROM routine
    UNION ALL
    SELECT ns, 'type ' || name, coalesce(typacl, pg_catalog.acldefault('T', typowner)) FROM type
    UNION ALL
    SELECT m.ns, pg_catalog.format('new %s of %s', d.defaclobjtype, d.defaclrole::regrole), d.defaclacl
      FROM member m JOIN pg_catalog.pg_default_acl d ON d.oid = m.objid
     WHERE m.classid = 'pg_catalog.pg_default_acl'::regclass
),
line AS (
    SELECT oid AS ns, pg_catalog.format('schema: owner %s', nspowner::regrole) AS text FROM ns
    UNION ALL
    SELECT r.ns, pg_catalog.format('right on %s: %s', r.what,
                     CASE WHEN $2::text = '' THEN item::text
                          ELSE pg_catalog.replace(item::text, $2 || '=', ns.name || '=') END)
      FROM right_on r JOIN ns ON ns.oid = r.ns CROSS JOIN LATERAL pg_catalog.unnest(r.acl) AS item
    UNION ALL
    SELECT r.ns, pg_catalog.format('relation %s: %s', r.name, pg_catalog.concat_ws(', ',
               'kind ' || r.relkind::text, 'owner ' || r.relowner::regrole, 'persistence ' || r.relpersistence::text,
               'access method ' || m.amname::text, 'tablespace ' || s.spcname,
               CASE WHEN r.relrowsecurity THEN 'row security' END,
               CASE WHEN r.relforcerowsecurity THEN 'forced row security' END,
               'replica identity ' || r.relreplident::text,
               CASE WHEN NOT r.relispopulated THEN 'not populated' END,
               'options ' || r.reloptions::text, 'toast options ' || t.reloptions::text,
               'of type ' || nullif(r.reloftype, 0)::regtype,
               'inherits ' || (SELECT pg_catalog.string_agg(i.inhparent::regclass::text, ' ' ORDER BY i.inhseqno)
                                 FROM pg_catalog.pg_inherits i WHERE i.inhrelid = r.oid),
               'partitioned by ' || CASE r.relkind WHEN 'p' THEN pg_catalog.pg_get_partkeydef(r.oid) END,
               'partition ' || pg_catalog.pg_get_expr(r.relpartbound, r.oid),
               'server ' || f.srvname || coalesce(' ' || ft.ftoptions::text, '')))
      FROM relation r
      LEFT JOIN pg_catalog.pg_am m ON m.oid = r.relam
      LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = r.reltablespace
      LEFT JOIN pg_catalog.pg_class t ON t.oid = r.reltoastrelid AND t.reloptions IS NOT NULL
      LEFT JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid = r.oid
      LEFT JOIN pg_catalog.pg_foreign_server f ON f.oid = ft.ftserver
    UNION ALL
    -- Numbered without the dropped ones: a migrated table and a fresh one differ there.
    SELECT r.ns, pg_catalog.format('column %s.%s: %s', r.name, a.attname, pg_catalog.concat_ws(', ',
               '#' || pg_catalog.row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum),
               pg_catalog.format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attnotnull THEN 'not null' END,
               'identity ' || nullif(a.attidentity::text, ''), 'generated ' || nullif(a.attgenerated::text, ''),
               CASE WHEN a.attcollation <> t.typcollation THEN 'collation ' || a.attcollation::regcollation END,
               'default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid),
               CASE WHEN a.attstorage <> t.typstorage THEN 'storage ' || a.attstorage::text END,
               'compression ' || nullif(a.attcompression::text, ''),
               'statistics ' || nullif(a.attstattarget, -1),
               'options ' || a.attoptions::text, 'foreign options ' || a.attfdwoptions::text,
               CASE WHEN a.attinhcount > 0 THEN 'inherited' || CASE WHEN a.attislocal THEN ' and local' ELSE '' END END))
      FROM relation r
      JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
    UNION ALL
    SELECT ns, pg_catalog.format('constraint %s.%s: %s', relation, name, pg_catalog.concat_ws(', ',
               pg_catalog.pg_get_constraintdef(oid), CASE WHEN NOT convalidated THEN 'not validated' END,
               CASE WHEN coninhcount > 0 THEN 'inherited' || CASE WHEN conislocal THEN ' and local' ELSE '' END END))
      FROM rule
    UNION ALL
    SELECT i.ns, pg_catalog.format('index %s.%s: %s', i.relation, c.relname, pg_catalog.concat_ws(', ',
               pg_catalog.pg_get_indexdef(i.oid), CASE WHEN NOT i.valid THEN 'invalid' END,
               CASE WHEN i.indisclustered THEN 'clustered' END,
               CASE WHEN i.indisreplident THEN 'replica identity' END,
               'tablespace ' || s.spcname,
               -- Only expressions can have any.
               CASE WHEN i.has_expressions THEN 'statistics ' || (
                   SELECT pg_catalog.string_agg(a.attnum || '=' || a.attstattarget, ' ' ORDER BY a.attnum)
                     FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = i.oid AND a.attnum > 0 AND a.attstattarget <> -1) END))
      FROM index i JOIN pg_catalog.pg_class c ON c.oid = i.oid
      LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
    UNION ALL
    SELECT r.ns, pg_catalog.format('sequence %s: %s from %s by %s, %s to %s, cache %s%s%s', r.name, s.seqtypid::regtype,
               s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
               CASE WHEN s.seqcycle THEN ', cycles' ELSE '' END,
               (SELECT ', owned by ' || d.refobjid::regclass || '.' || a.attname
                  FROM pg_catalog.pg_depend d
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = r.oid
                   AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')))
      FROM relation r JOIN pg_catalog.pg_sequence s ON s.seqrelid = r.oid
    UNION ALL
    SELECT ns, pg_catalog.format('view %s: %s', name, pg_catalog.pg_get_viewdef(oid))
      FROM relation WHERE relkind IN ('v', 'm')
    UNION ALL
    SELECT r.ns, pg_catalog.format('rule %s.%s: %s, enabled %s', r.name, w.rulename, pg_catalog.pg_get_ruledef(w.oid), w.ev_enabled)
      FROM relation r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
     WHERE w.rulename <> '_RETURN'
    UNION ALL
    SELECT t.ns, pg_catalog.format('trigger on %s: %s, enabled %s', t.relation, pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled)
      FROM trigger t WHERE NOT t.tgisinternal
    UNION ALL
    -- A foreign key whose triggers are switched off checks nothing.
    SELECT t.ns, pg_catalog.format('trigger on %s: of constraint %s, enabled %s', t.relation, k.conname, t.tgenabled)
      FROM trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
     WHERE t.tgisinternal AND t.tgenabled <> 'O'
    UNION ALL
    SELECT r.ns, pg_catalog.format('policy %s.%s: %s', r.name, p.polname, pg_catalog.concat_ws(', ',
               'command ' || p.polcmd::text, CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
               'to ' || (SELECT pg_catalog.string_agg(
                                    CASE WHEN role = 0 THEN 'public'
                                         WHEN $2 <> '' AND role::regrole::text = $2 THEN '{schema}'
                                         ELSE pg_catalog.replace(role::regrole::text, ns.name, '{schema}') END, ' '
                                    ORDER BY role::regrole::text COLLATE "C")
                           FROM pg_catalog.unnest(p.polroles) AS role),
               'using ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid),
               'check ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)))
      FROM relation r JOIN ns ON ns.oid = r.ns JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
    UNION ALL
    SELECT r.ns, pg_catalog.format('function %s: owner %s, %s', r.name, r.proowner::regrole,
               CASE WHEN r.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(r.oid)
                    ELSE pg_catalog.concat_ws(' ', 'aggregate', a.aggkind, a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
                             a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn,
                             a.aggsortop::regoperator, a.aggtranstype::regtype, a.agginitval, a.aggminitval) END)
      FROM routine r LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = r.oid
    UNION ALL
    SELECT t.ns, pg_catalog.format('type %s: %s', t.name, pg_catalog.concat_ws(', ',
               'kind ' || t.typtype::text, 'owner ' || t.typowner::regrole,
               'labels ' || (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ' ' ORDER BY e.enumsortorder)
                               FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
               CASE t.typtype WHEN 'd' THEN pg_catalog.concat_ws(', ',
                   'over ' || pg_catalog.format_type(t.typbasetype, t.typtypmod),
                   CASE WHEN t.typnotnull THEN 'not null' END, 'default ' || t.typdefault,
                   'collation ' || nullif(t.typcollation, 0)::regcollation) END,
               (SELECT pg_catalog.concat_ws(' ', 'range of', g.rngsubtype::regtype, nullif(g.rngcollation, 0)::regcollation,
                           o.opcname, g.rngcanonical, g.rngsubdiff)
                  FROM pg_catalog.pg_range g JOIN pg_catalog.pg_opclass o ON o.oid = g.rngsubopc
                 WHERE g.rngtypid = t.oid)))
      FROM type t
    UNION ALL
    SELECT m.ns, pg_catalog.format('statistics %s: owner %s, %s%s', s.stxname, s.stxowner::regrole,
               pg_catalog.pg_get_statisticsobjdef(s.oid), ', target ' || nullif(s.stxstattarget, -1))
      FROM member m JOIN pg_catalog.pg_statistic_ext s ON s.oid = m.objid
     WHERE m.classid = 'pg_catalog.pg_statistic_ext'::regclass
    UNION ALL
    -- Operators, collations, text search and the like. Publications are operation, not shape.
    SELECT m.ns, pg_catalog.format('%s %s', o.type, o.identity)
      FROM member m CROSS JOIN LATERAL pg_catalog.pg_identify_object(m.classid, m.objid, 0) o
     WHERE m.classid NOT IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass,
                             'pg_catalog.pg_type'::regclass, 'pg_catalog.pg_default_acl'::regclass,
                             'pg_catalog.pg_statistic_ext'::regclass, 'pg_catalog.pg_publication_namespace'::regclass)
    UNION ALL
    SELECT o.ns, pg_catalog.format('comment on %s %s: %s', i.type, i.identity, d.description)
      FROM object o
      JOIN pg_catalog.pg_description d ON d.classoid = o.classid AND d.objoid = o.objid
      CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    UNION ALL
    SELECT o.ns, pg_catalog.format('label on %s %s: %s %s', i.type, i.identity, d.provider, d.label)
      FROM object o
      JOIN pg_catalog.pg_seclabel d ON d.classoid = o.classid AND d.objoid = o.objid
      CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
)
SELECT ns.name AS schema,
       CASE WHEN ns.tenant IS NULL THEN line.text
            ELSE pg_catalog.replace(pg_catalog.replace(line.text, ns.name, '{schema}'), ns.tenant, '{tenant}')
       END AS line
  FROM line JOIN ns ON ns.oid = line.ns
