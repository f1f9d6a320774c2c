//! The rules that guard the wall between tenants.

use super::{SetKind, check, check_tenant, in_set};

#[test]
fn what_outlives_the_transaction() {
    check_tenant(&[
        ("SET work_mem = '1GB';", &["session-state"]),
        ("set SESSION \"Work_Mem\" TO 1;", &["session-state"]),
        ("SET TIME ZONE 'UTC';", &["session-state"]),
        ("RESET ALL;", &["session-state"]),
        ("DISCARD ALL;", &["session-state"]),
        ("LISTEN x;", &["session-state"]),
        ("LOAD 'auto_explain';", &["session-state"]),
        ("PREPARE q AS SELECT 1;", &["session-state"]),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1;", &["session-state"]),
        ("SELECT set_config('work_mem', '1', true);", &["session-state"]),
        ("SELECT pg_catalog.\"set_config\" ('work_mem', '1', true);", &["session-state"]),
        ("SELECT U&\"set\\005fconfig\"('work_mem', '1', true);", &["session-state"]),
        ("SELECT U&\"set!005fconfig\" UESCAPE '!' ('work_mem', '1', true);", &["session-state"]),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $x$ BEGIN SET /* */ work_mem = 1; END $x$;",
            &["session-state"],
        ),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS E'BEGIN S\\x45T work_mem = 1; END';",
            &["session-state"],
        ),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SELECT set_config('\n'''a'', ''b'', false)';",
            &["session-state"],
        ),
        (
            "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT set_config('a.b', 'c', false); END;",
            &["session-state"],
        ),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP DISCARD ALL; END LOOP; END $$;",
            &["session-state"],
        ),
        ("SET LOCAL work_mem = '1GB';", &[]),
        ("SET CONSTRAINTS ALL DEFERRED;", &[]),
        ("UPDATE notes SET body = '' WHERE body IS NULL;", &[]),
        ("CREATE TABLE own AS SELECT 'SET x = 1; RESET ALL' AS set_config;", &[]),
        ("DECLARE c CURSOR FOR SELECT 1;", &[]),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql SET work_mem = '1MB' AS $$ DECLARE set int; BEGIN set := 1; RETURN CASE WHEN true THEN set ELSE 1 END; END $$;",
            &[],
        ),
    ]);
}

#[test]
fn who_acts_and_where() {
    check_tenant(&[
        ("SET LOCAL search_path TO public;", &["search-path"]),
        ("SET search_path = '';", &["search-path"]),
        ("SET \"search_path\" = '';", &["search-path"]),
        ("SET LOCAL SCHEMA 'public';", &["search-path"]),
        ("RESET search_path;", &["search-path"]),
        ("SET LOCAL lock_timeout = '1h';", &["timeout-override?"]),
        ("SET ROLE postgres;", &["role-switch"]),
        ("SET LOCAL ROLE postgres;", &["role-switch"]),
        ("SET LOCAL \"role\" = postgres;", &["role-switch"]),
        ("SET SESSION AUTHORIZATION postgres;", &["role-switch"]),
        ("SET LOCAL SESSION AUTHORIZATION postgres;", &["role-switch"]),
        ("RESET ROLE;", &["role-switch"]),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF true THEN SET LOCAL ROLE x; END IF; END $$;",
            &["role-switch"],
        ),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;", &["transaction-control"]),
        (
            "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;",
            &["transaction-control"],
        ),
        (
            "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; rollback and chain; END $$;",
            &["transaction-control"],
        ),
        (
            "CREATE TABLE own (id int PRIMARY KEY, tenant_id uuid DEFAULT this_tenant() CHECK (this_tenant() = tenant_id), role text, search_path text);",
            &[],
        ),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN RAISE NOTICE 'COMMIT;'; END $$;",
            &[],
        ),
    ]);
}

#[test]
fn temporary_things_and_locks_of_all() {
    check_tenant(&[
        ("CREATE TEMP TABLE x (id int);", &["no-primary-key?", "temp-table", "tenant-id?"]),
        ("CREATE LOCAL TEMPORARY TABLE x AS SELECT 1;", &["temp-table"]),
        ("CREATE OR REPLACE TEMP VIEW x AS SELECT 1;", &["temp-table"]),
        ("WITH a AS (SELECT 1 AS b) SELECT b INTO TEMPORARY TABLE x FROM a;", &["temp-table"]),
        ("SELECT 1 AS a INTO TEMP x;", &["temp-table"]),
        ("CREATE TABLE pg_temp.x AS SELECT 1;", &["temp-table"]),
        ("CREATE TABLE U&\"pg\\005ftemp\".x AS SELECT 1;", &["temp-table"]),
        ("SELECT pg_advisory_lock(1);", &["advisory-lock"]),
        ("SELECT \"pg_try_advisory_xact_lock\"(1);", &["advisory-lock"]),
        ("CREATE TABLE temp AS SELECT 1 AS pg_advisory_lock;", &[]),
        ("CREATE UNLOGGED TABLE x AS SELECT 1;", &[]),
    ]);
}

#[test]
fn what_can_not_be_seen() {
    check_tenant(&[
        ("DO $$ BEGIN PERFORM 1; END $$;", &["do-block?"]),
        ("DO $$ BEGIN EXECUTE 'SELECT 1'; END $$;", &["do-block?", "dynamic-sql?"]),
        (
            "DO $$ BEGIN EXECUTE 'SET ROLE x'; END $$;",
            &["do-block?", "dynamic-sql?", "role-switch"],
        ),
        (
            "DO $a$ BEGIN EXECUTE $b$ DO $c$ BEGIN COMMIT; END $c$ $b$; END $a$;",
            &["do-block?", "dynamic-sql?", "transaction-control"],
        ),
        (
            "DO $$ BEGIN EXECUTE format('GRANT x TO %I', 'y'); END $$;",
            &["do-block?", "dynamic-sql?", "roles"],
        ),
        ("DO LANGUAGE plperl 'x';", &["do-block?", "dynamic-sql?"]),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpython3u AS 'return 1';", &["dynamic-sql?"]),
        ("SELECT query_to_xml('SELECT 1', true, true, '');", &["dynamic-sql?"]),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE \"sql\" AS 'SELECT 1';", &[]),
        ("CREATE TRIGGER t BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION g();", &[]),
    ]);
    // The system's own files are between administrators.
    assert_eq!(in_set(SetKind::Public, "DO $$ BEGIN EXECUTE 'SELECT 1'; END $$;"), [""; 0]);
}

#[test]
fn names_of_other_schemas() {
    let hex = "0123456789abcdef0123456789abcdef";
    let own = format!("SELECT 1 FROM tenant_{hex}.users");
    let quoted = format!("SELECT 'x' FROM \"tenant_{hex}\".users");
    let text = format!("SELECT to_regclass('tenant_{hex}.users')");
    let shorter = format!("SELECT 'tenant_{}'", &hex[1..]);
    check_tenant(&[
        (&own, &["other-tenant"]),
        (&quoted, &["other-tenant"]),
        (&text, &["other-tenant"]),
        (&shorter, &[]),
        ("INSERT INTO public.tenants VALUES (1);", &["qualified-name"]),
        ("SELECT 1 FROM PUBLIC . /* here */ tenants;", &["qualified-name"]),
        ("SELECT 1 FROM \"public\".tenants;", &["qualified-name"]),
        ("SELECT 1 FROM U&\"\\0070ublic\".tenants;", &["qualified-name"]),
        ("SELECT 1 FROM db.public.countries;", &["qualified-name"]),
        ("SELECT other.f();", &["qualified-name"]),
        ("CREATE TABLE other.t AS SELECT 1;", &["qualified-name"]),
        ("CREATE TABLE own AS SELECT x::other.ty FROM notes x;", &["qualified-name"]),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM other.t';",
            &["qualified-name"],
        ),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM other.t WHERE x; END $$;",
            &["qualified-name"],
        ),
        ("SELECT 1 FROM information_schema.tables;", &["qualified-name"]),
        (
            "SELECT c.code, n.body FROM public.countries c JOIN notes n ON pg_catalog.lower(n.body) = c.code;",
            &[],
        ),
        (
            "SELECT notes.body FROM notes WHERE (notes).body COLLATE pg_catalog.\"C\" = 'public.tenants';",
            &[],
        ),
        (
            "CREATE TRIGGER t BEFORE UPDATE ON notes EXECUTE FUNCTION other.f();",
            &["qualified-name"],
        ),
        ("CREATE TABLE own (LIKE other.t);", &["qualified-name"]),
        (
            "CREATE SEQUENCE s OWNED BY notes.id; COMMENT ON COLUMN notes.body IS 'a.b'; UPDATE notes SET body = o.body FROM notes o WHERE o.id = notes.id;",
            &[],
        ),
        (
            "CREATE FUNCTION f(a notes.body%TYPE) RETURNS void LANGUAGE plpgsql AS $$ DECLARE r notes%ROWTYPE; t notes.body%TYPE; BEGIN r.body := t; r := g(t => r.body); END $$;",
            &[],
        ),
        ("SET LOCAL app.user = 'x';", &[]),
        ("CREATE VIEW v AS TABLE tenants;", &["public-table"]),
        // The name may mean both in one file, so a WITH query of that name does not excuse it.
        ("CREATE VIEW v AS WITH tenants AS (SELECT 1) SELECT * FROM tenants;", &["public-table"]),
        ("CREATE VIEW v AS SELECT * FROM tenants;", &["public-table"]),
        (
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM tenants';",
            &["public-table"],
        ),
        ("CREATE VIEW v AS SELECT code AS tenants FROM countries;", &[]),
    ]);
    check(
        SetKind::Public,
        &[(&own, &["other-tenant"]), ("SELECT 1 FROM public.tenants JOIN other.x ON true;", &[])],
    );
}

#[test]
fn rights() {
    check_tenant(&[
        ("GRANT SELECT ON notes TO reporting;", &["grant"]),
        ("REVOKE SELECT ON notes FROM reporting;", &["grant"]),
        ("REVOKE ALL ON FUNCTION f() FROM PUBLIC;", &[]),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x;", &["grant"]),
        ("ALTER TABLE notes OWNER TO x;", &["owner"]),
        ("ALTER TABLE notes ADD owner text;", &[]),
        ("CREATE EXTENSION citext;", &["extension"]),
        ("CREATE SCHEMA x;", &["outside-schema"]),
        ("ALTER TABLE notes SET SCHEMA public;", &["outside-schema"]),
        ("COPY notes FROM '/etc/passwd';", &["server-file"]),
        ("COPY notes TO PROGRAM 'curl x';", &["server-file"]),
        ("COPY (SELECT 1) TO STDOUT;", &["server-file"]),
        ("SELECT pg_read_file('/etc/passwd');", &["server-file"]),
        ("SELECT lo_create(0);", &["large-object?"]),
    ]);
    check(
        SetKind::Public,
        &[
            ("GRANT SELECT ON countries TO :\"tenant_group\", :\"reader\";", &[]),
            ("GRANT SELECT, INSERT ON countries TO :\"tenant_group\";", &["grant-write"]),
            ("GRANT ALL ON countries TO :\"tenant_group\";", &["grant-write"]),
            ("GRANT SELECT ON countries TO tenant_abc;", &["grant-to-tenant"]),
            ("GRANT SELECT ON countries TO \"tenant_abc\";", &["grant-to-tenant"]),
            ("GRANT SELECT ON countries TO PUBLIC;", &["grant-to-public"]),
            ("GRANT SELECT ON countries TO \"public\";", &["grant-to-public"]),
            ("GRANT x TO y;", &["roles"]),
            ("CREATE ROLE x;", &["roles"]),
            ("DROP OWNED BY x;", &["roles"]),
            ("REASSIGN OWNED BY x TO y;", &["roles"]),
            ("ALTER USER x SET work_mem = 1;", &["roles"]),
            ("CREATE EXTENSION citext;", &["extension?"]),
            (
                "CREATE EVENT TRIGGER x ON ddl_command_end EXECUTE FUNCTION f();",
                &["outside-schema"],
            ),
            ("CREATE TRIGGER x AFTER DELETE ON tenants EXECUTE FUNCTION f();", &[]),
        ],
    );
}

#[test]
fn functions_with_the_owners_rights() {
    let function = |options: &str| {
        format!("CREATE FUNCTION f() RETURNS int LANGUAGE sql {options} AS 'SELECT 1';")
    };
    let (open, fixed) =
        (function("SECURITY DEFINER"), function("SECURITY DEFINER SET search_path = pg_catalog"));
    check(
        SetKind::Public,
        &[
            (&open, &["security-definer"]),
            (&fixed, &[]),
            ("ALTER FUNCTION f() SECURITY DEFINER;", &["security-definer"]),
            (&function("SECURITY INVOKER"), &[]),
        ],
    );
    check_tenant(&[(&fixed, &["security-definer"])]);
}
