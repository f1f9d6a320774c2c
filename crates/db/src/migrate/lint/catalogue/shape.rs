//! The rules about the shape of tables, and about the files themselves.

use super::super::Severity;
use super::Rule;

super::rules! { SHAPE:
    SYNTAX_ERROR "syntax-error" Error LIFTABLE,
        "the server would refuse it, for the first tenant of a rollout",
        "correct it; if PostgreSQL does take it, allow it, and mind that other rules can't see into it";
    PSQL_META "psql-meta" Error FIXED,
        "only psql understands it, and the runner is none",
        "plain SQL; in the public set there are `:\"tenant_group\"` and `:\"reader\"`";
    CUSTOM_TYPE "custom-type" Error LIFTABLE,
        "the driver looks such a type up with a named statement, which poolers before PgBouncer 1.21 mix up between clients",
        "built-in types: text with a CHECK for an enum, `text` and lower() for citext, columns for a composite";
    CHAR_TYPE "char-type" Warning LIFTABLE,
        "`char(n)` pads with blanks and compares without them",
        "`text` or `varchar(n)`, with a CHECK";
    TIMESTAMP_WITHOUT_ZONE "timestamp-without-zone" Warning LIFTABLE,
        "it means another moment for each time zone that somebody reads it in",
        "`timestamptz`";
    DUPLICATE_ASSIGNMENT "duplicate-assignment" Error LIFTABLE,
        "PostgreSQL refuses two assignments to one column",
        "one assignment";
    NAME_TOO_LONG "name-too-long" Warning LIFTABLE,
        "PostgreSQL cuts names after 63 bytes without an error, and two long ones may become one",
        "a shorter name, or an explicit one for a constraint or index";
    NO_PRIMARY_KEY "no-primary-key" Warning LIFTABLE,
        "its rows can't be told apart: no paging, no logical replication, no spreading over nodes",
        "a PRIMARY KEY";
    TENANT_ID "tenant-id" Warning LIFTABLE,
        "nothing then stops a row of one tenant from landing at another in an import or a restore",
        "`tenant_id uuid NOT NULL DEFAULT this_tenant() CHECK (tenant_id = this_tenant())`";
    FOREIGN_KEY_WITHOUT_INDEX "foreign-key-without-index" Warning LIFTABLE,
        "deleting one row reads the whole other table",
        "an index that begins with the foreign key's columns";
    UNKNOWN_RULE "unknown-rule" Warning FIXED,
        "it lifts nothing, though somebody meant it to",
        "a name from docs/reference/lint-rules.md";
    UNUSED_ALLOW "unused-allow" Warning FIXED,
        "it hides the next finding of that rule",
        "remove it";
    FIXED_RULE "fixed-rule" Warning FIXED,
        "the rule guards what others rely on, so no file may break it",
        "remove it, and write the file otherwise";
}
