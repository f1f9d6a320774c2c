-- The four things that need CREATEROLE, and nothing else. They take a UUID and a number, never a
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

CREATE OR REPLACE FUNCTION {control}.drop_tenant_role(tenant uuid) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('DROP ROLE %I', {control}.own_tenant_role(tenant));
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {control} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    {control}.create_tenant_role(uuid),
    {control}.grant_tenant_role(uuid, integer),
    {control}.revoke_tenant_role(uuid, integer),
    {control}.drop_tenant_role(uuid)
    TO {admin};
SET LOCAL ROLE NONE;
