-- The things that need CREATEROLE, and nothing else. They take a UUID and a number, never a
-- name, so that whoever may call them reaches this installation's tenant roles only.
CREATE SCHEMA IF NOT EXISTS {control} AUTHORIZATION {rolemaker};
GRANT USAGE ON LANGUAGE plpgsql TO {rolemaker};
SET LOCAL ROLE {rolemaker};
REVOKE ALL ON SCHEMA {control} FROM PUBLIC;
GRANT USAGE ON SCHEMA {control} TO {admin};

CREATE OR REPLACE FUNCTION {control}.tenant_role(tenant uuid) RETURNS name
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ('tenant_' || pg_catalog.replace(tenant::text, '-', ''))::name;

-- Refuses a role that another installation on this server made.
CREATE OR REPLACE FUNCTION {control}.own_tenant_role(tenant uuid) RETURNS name
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role_name name := {control}.tenant_role(tenant);
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_auth_members m
          JOIN pg_roles r ON r.oid = m.member
         WHERE r.rolname = role_name AND m.roleid = '{group}'::regrole
    ) THEN
        RAISE undefined_object USING MESSAGE = format('role "%s" is not a tenant role of this installation', role_name);
    END IF;
    RETURN role_name;
END
$$;

CREATE OR REPLACE FUNCTION {control}.create_tenant_role(tenant uuid) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE ROLE %I NOLOGIN IN ROLE {group}', {control}.tenant_role(tenant));
END
$$;

CREATE OR REPLACE FUNCTION {control}.lane_role(lane integer) RETURNS name
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF lane NOT BETWEEN 0 AND {last_lane} THEN
        RAISE invalid_parameter_value USING MESSAGE = format('there is no lane %s', lane);
    END IF;
    RETURN '{prefix}_lane_' || lpad(lane::text, 2, '0');
END
$$;

CREATE OR REPLACE FUNCTION {control}.grant_tenant_role(tenant uuid, lane integer) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT %I TO %I', {control}.own_tenant_role(tenant), {control}.lane_role(lane));
END
$$;

CREATE OR REPLACE FUNCTION {control}.revoke_tenant_role(tenant uuid, lane integer) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('REVOKE %I FROM %I', {control}.own_tenant_role(tenant), {control}.lane_role(lane));
END
$$;

-- Large objects belong to no schema, and only their owner can unlink them. `most` at once: each takes a
-- lock. Nobody keeps the membership. Returns how many there were.
CREATE OR REPLACE FUNCTION {control}.drop_tenant_large_objects(tenant uuid, most integer) RETURNS integer
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role_name name := {control}.own_tenant_role(tenant);
    large_objects oid[] := ARRAY(SELECT m.oid FROM pg_largeobject_metadata m
                                  WHERE m.lomowner = quote_ident(role_name)::regrole LIMIT most);
    large_object oid;
BEGIN
    -- Each change of a membership flushes a cache in all connections of the server.
    IF cardinality(large_objects) > 0 THEN
        EXECUTE format('GRANT %I TO {rolemaker}', role_name);
        FOREACH large_object IN ARRAY large_objects LOOP
            PERFORM lo_unlink(large_object);
        END LOOP;
        EXECUTE format('REVOKE %I FROM {rolemaker}', role_name);
    END IF;
    RETURN cardinality(large_objects);
END
$$;

-- With what it owns in this database, and its rights here. Without CASCADE: what others rest on stays, and
-- the role with it.
CREATE OR REPLACE FUNCTION {control}.drop_tenant_role(tenant uuid) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role_name name := {control}.own_tenant_role(tenant);
BEGIN
    IF EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass
                  AND refobjid = quote_ident(role_name)::regrole) THEN
        EXECUTE format('GRANT %I TO {rolemaker}', role_name);
        EXECUTE format('DROP OWNED BY %I', role_name);
    END IF;
    EXECUTE format('DROP ROLE %I', role_name);
END
$$;

-- A login for one shell: a member of this tenant's role and of nothing else, for one connection, and for
-- somebody who connects within `seconds`. It gets a verifier, so that no password is ever in a statement.
CREATE OR REPLACE FUNCTION {control}.open_tenant_shell(
    tenant uuid, shell uuid, verifier text, statement_timeout_ms integer, seconds integer
) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role_name name := {control}.own_tenant_role(tenant);
    shell_name name := '{prefix}_shell_' || replace(shell::text, '-', '');
BEGIN
    IF NOT starts_with(verifier, 'SCRAM-SHA-256$') OR seconds NOT BETWEEN 1 AND 3600 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'a shell needs a SCRAM verifier and at most an hour';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT 1 PASSWORD %L VALID UNTIL %L',
                   shell_name, verifier, now() + make_interval(secs => seconds));
    EXECUTE format('GRANT %I TO %I', role_name, shell_name);
    EXECUTE format('ALTER ROLE %I SET search_path = %I, public, pg_temp', shell_name, role_name);
    EXECUTE format('ALTER ROLE %I SET statement_timeout = %s', shell_name, statement_timeout_ms);
END
$$;

-- With what it may have left: its own default privileges, say. Nothing to do for one that is gone. What it
-- made in another database can only be dropped there, and must not keep a tenant from being shut out: then the
-- role stays, as nobody's login and nobody's member.
CREATE OR REPLACE FUNCTION {control}.close_tenant_shell(shell uuid) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shell_name name := '{prefix}_shell_' || replace(shell::text, '-', '');
    role_name text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = shell_name) THEN
        RETURN;
    END IF;
    EXECUTE format('ALTER ROLE %I NOLOGIN', shell_name);
    FOR role_name IN SELECT roleid::regrole::text FROM pg_auth_members
                      WHERE member = quote_ident(shell_name)::regrole LOOP
        EXECUTE format('REVOKE %s FROM %I', role_name, shell_name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass
                  AND refobjid = quote_ident(shell_name)::regrole) THEN
        EXECUTE format('GRANT %I TO {rolemaker}', shell_name);
        EXECUTE format('DROP OWNED BY %I', shell_name);
        EXECUTE format('REVOKE %I FROM {rolemaker}', shell_name);
    END IF;
    BEGIN
        EXECUTE format('DROP ROLE %I', shell_name);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        -- Roles belong to the server: so that this database's `doctor` tells of it, and no other's.
        EXECUTE format('COMMENT ON ROLE %I IS %L', shell_name, 'a shell of ' || current_database());
    END;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {control} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    {control}.create_tenant_role(uuid),
    {control}.grant_tenant_role(uuid, integer),
    {control}.revoke_tenant_role(uuid, integer),
    {control}.drop_tenant_large_objects(uuid, integer),
    {control}.drop_tenant_role(uuid),
    {control}.open_tenant_shell(uuid, uuid, text, integer, integer),
    {control}.close_tenant_shell(uuid)
    TO {admin};
SET LOCAL ROLE NONE;
