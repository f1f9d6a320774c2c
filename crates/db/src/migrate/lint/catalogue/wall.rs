//! The rules that guard the wall between tenants.

use super::super::Severity;
use super::Rule;

super::rules! { WALL:
    SESSION_STATE "session-state" Error FIXED,
        "it outlives the transaction, and the next one on that connection is another tenant's",
        "`SET LOCAL`, or a SET clause of the function";
    SEARCH_PATH "search-path" Error FIXED,
        "the rest of the file, and the ledger's entry, would land in another schema",
        "leave it to the runner: names without a schema are looked up in the right one";
    ROLE_SWITCH "role-switch" Error FIXED,
        "what is made by another role belongs to it, and tenants have no rights on that",
        "leave it to the runner, which acts as the owner";
    TEMP_TABLE "temp-table" Error FIXED,
        "it outlives the transaction and hides a tenant's table of its name from the next one",
        "a WITH query, or a table that the same file drops";
    ADVISORY_LOCK "advisory-lock" Error LIFTABLE,
        "all tenants share its keys, and one of a session stays on the pooled connection",
        "the runner locks the tenant's row already; for more, lock a row";
    TRANSACTION_CONTROL "transaction-control" Error FIXED,
        "the part before it stays when the part behind it fails",
        "one file for each transaction";
    DYNAMIC_SQL "dynamic-sql" Warning LIFTABLE,
        "nobody can see before it runs what it does, and to whom",
        "write the statements out";
    DO_BLOCK "do-block" Warning LIFTABLE,
        "it runs as the owner of every tenant's schema, and little of it can be checked beforehand",
        "plain statements";
    OTHER_TENANT "other-tenant" Error FIXED,
        "the same file runs for every tenant, and each would reach into that one",
        "names without a schema, and `this_tenant()` for the id";
    QUALIFIED_NAME "qualified-name" Error LIFTABLE,
        "it leaves the tenant's schema, and does not follow it when it is renamed or restored",
        "the name alone; only the shared tables may be written `public.…`";
    PUBLIC_TABLE "public-table" Error LIFTABLE,
        "the file runs as the owner, who may read it: a view would show it to the tenant",
        "the shared tables `countries`, `timezones` and `platform_metadata` only";
    SHADOWED_TABLE "shadowed-table" Error FIXED,
        "`public` stands behind the tenant's schema in the path: where the tenant's table is missing, the shared one answers, to everybody",
        "another name in the public set";
    GRANT "grant" Error LIFTABLE,
        "default privileges cover what a tenant file makes; an own grant differs from tenant to tenant and is lost in a restore",
        "no grant at all";
    GRANT_TO_TENANT "grant-to-tenant" Error FIXED,
        "an object's list of rights holds about 2,400 entries, then no tenant can be created any more",
        "in the public set, a grant to `:\"tenant_group\"`";
    GRANT_TO_PUBLIC "grant-to-public" Error FIXED,
        "PUBLIC includes the lanes' logins, which must have no right outside a bound transaction",
        "in the public set, a grant to `:\"tenant_group\"` or `:\"reader\"`";
    GRANT_WRITE "grant-write" Error LIFTABLE,
        "what one tenant writes into a shared table, all others read",
        "SELECT only; writing goes through the service";
    ROLES "roles" Error FIXED,
        "roles belong to the whole cluster, and each change of one flushes the membership caches of all backends",
        "`tenantry init` makes the roles that there are";
    OWNER "owner" Error FIXED,
        "what the owner role does not own, neither migrations nor a purge can change any more",
        "leave things to the role that makes them";
    OUTSIDE_SCHEMA "outside-schema" Error LIFTABLE,
        "it belongs to the database or the server, not to the schema that the ledger speaks of",
        "do it once, by hand, as an administrator";
    EXTENSION "extension" Error LIFTABLE,
        "there is one of it in a database: it lands in the first tenant's schema and is gone with that tenant",
        "in the public set, or by hand, as an administrator";
    SERVER_FILE "server-file" Error FIXED,
        "it reads or writes on the server's disk, or waits for data that nobody sends",
        "INSERT … VALUES, or a program that uses COPY through its own connection";
    LARGE_OBJECT "large-object" Warning LIFTABLE,
        "it lies in no schema: dropping the schema leaves it, and it blocks the tenant's role from being dropped",
        "a `bytea` column";
    SECURITY_DEFINER "security-definer" Error LIFTABLE,
        "it runs with the rights of the owner of all schemas, over whatever the caller's search path finds",
        "SECURITY INVOKER; where that can't be, in the public set and with `SET search_path = pg_catalog, pg_temp`";
    FOREIGN_KEY_OUTSIDE "foreign-key-outside" Error FIXED,
        "sign-ups deadlock on it, dropping one tenant locks the shared table for all, and its triggers add up by tenant",
        "no foreign key: `tenant_id uuid NOT NULL DEFAULT this_tenant() CHECK (tenant_id = this_tenant())`, and for shared codes a plain column";
}
