-- What takes the role's rights on objects of the owner's, which somebody gave it by hand: as the owner, since
-- nobody else can revoke them.
--
-- $1 the tenant's role, $2 the owner.
SELECT CASE held.classid
           WHEN 'pg_default_acl'::regclass THEN
               (SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %s REVOKE ALL ON %s FROM %I', $2,
                              (SELECT format('IN SCHEMA %I', nspname) FROM pg_namespace WHERE oid = a.defaclnamespace),
                              CASE a.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
                                                   WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END,
                              $1)
                FROM pg_default_acl a WHERE a.oid = held.objid)
           ELSE format('REVOKE ALL ON %s %s FROM %I CASCADE',
                       CASE o.type WHEN 'sequence' THEN 'SEQUENCE' WHEN 'schema' THEN 'SCHEMA' WHEN 'type' THEN 'TYPE'
                                   WHEN 'database' THEN 'DATABASE' WHEN 'large object' THEN 'LARGE OBJECT'
                                   WHEN 'function' THEN 'ROUTINE' WHEN 'procedure' THEN 'ROUTINE'
                                   WHEN 'aggregate' THEN 'ROUTINE' ELSE 'TABLE' END,
                       o.identity, $1)
       END
FROM (SELECT DISTINCT s.classid, s.objid FROM pg_shdepend s
      JOIN pg_roles r ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND r.rolname = $1
      JOIN pg_shdepend own ON own.dbid = s.dbid AND own.classid = s.classid AND own.objid = s.objid
                          AND own.deptype = 'o' AND own.refobjid = $2::text::regrole
      WHERE s.deptype = 'a'
        AND (s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
             OR s.classid = 'pg_database'::regclass
                AND s.objid = (SELECT oid FROM pg_database WHERE datname = current_database()))) held,
     LATERAL pg_identify_object(held.classid, held.objid, 0) o
