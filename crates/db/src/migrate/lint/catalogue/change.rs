//! The rules about changing what exists while people use it.

use super::super::Severity;
use super::Rule;

super::rules! { CHANGE:
    DROP_TABLE "drop-table" Error LIFTABLE,
        "services of the version before still use it until the last one is replaced, and its rows are gone",
        "stop using it, release, and drop it in a later release";
    DROP_COLUMN "drop-column" Error LIFTABLE,
        "services of the version before still name it until the last one is replaced, and its values are gone",
        "stop using it, release, and drop it in a later release";
    RENAME_TABLE "rename-table" Error LIFTABLE,
        "services of the version before fail until the last one is replaced, on each migrated tenant",
        "add the new one, write to both, copy, and drop the old one in a later release";
    RENAME_COLUMN "rename-column" Error LIFTABLE,
        "services of the version before fail until the last one is replaced, on each migrated tenant",
        "add the new one, write to both, copy, and drop the old one in a later release";
    DROP_CASCADE "drop-cascade" Warning LIFTABLE,
        "it takes along what others have built on it, unseen",
        "drop what depends on it by name, first";
    TRUNCATE "truncate" Error LIFTABLE,
        "all rows are gone, and readers wait",
        "DELETE with a condition";
    DELETE_ALL "delete-all" Error LIFTABLE,
        "all rows are gone",
        "a condition, and a reason if there really is none";
    UPDATE_ALL "update-all" Warning LIFTABLE,
        "it locks every row until the file is through, and writes the table anew",
        "a condition that touches only what needs it, such as `WHERE column IS NULL`";
    CHANGING_COLUMN_TYPE "changing-column-type" Error LIFTABLE,
        "the table is rewritten with everybody locked out, and services that read the former type fail",
        "add a column of the new type, write to both, copy, and drop the old one in a later release";
    REQUIRED_COLUMN "required-column" Error LIFTABLE,
        "it fails for every tenant that has a row, and services of the version before can't insert any more",
        "a DEFAULT, or a column that may be null";
    REWRITING_COLUMN "rewriting-column" Warning LIFTABLE,
        "each row is written anew with everybody locked out",
        "add the column without it, set the default for new rows, then fill the old ones in a later file";
    SET_NOT_NULL "set-not-null" Warning LIFTABLE,
        "the table is read from end to end with everybody locked out, and one null fails the file",
        "`ADD CONSTRAINT … CHECK (column IS NOT NULL) NOT VALID`, in the next file `VALIDATE CONSTRAINT`, then SET NOT NULL";
    CONSTRAINT_NOT_VALID "constraint-not-valid" Warning LIFTABLE,
        "the table is read from end to end while writers wait, and one old row fails the file",
        "`NOT VALID` first, and `VALIDATE CONSTRAINT` in the next file";
    UNIQUE_WITHOUT_INDEX "unique-without-index" Warning LIFTABLE,
        "the index is built with everybody locked out, and one old double fails the file",
        "`CREATE UNIQUE INDEX CONCURRENTLY` in a file of its own, then `ADD CONSTRAINT … USING INDEX`";
    INDEX_NOT_CONCURRENT "index-not-concurrent" Warning LIFTABLE,
        "writers wait until the index is built",
        "`CREATE INDEX CONCURRENTLY` in a `-- no-transaction` file; the runner builds it plainly where the table is small";
    TABLE_LOCK "table-lock" Warning LIFTABLE,
        "everybody else waits until the whole file is through",
        "a maintenance window, or the CONCURRENTLY form";
    NOT_IN_TRANSACTION "not-in-transaction" Error FIXED,
        "PostgreSQL refuses it within a transaction, and the file runs in one",
        "a file of its own that begins with `-- no-transaction`";
    NEEDLESS_NO_TRANSACTION "needless-no-transaction" Warning LIFTABLE,
        "a file that fails half way stays half applied",
        "leave `-- no-transaction` away";
    TIMEOUT_OVERRIDE "timeout-override" Warning LIFTABLE,
        "the runner's limits keep a file from stopping a tenant for long, and retry it",
        "`-- tenantry: lock_timeout=…` or `statement_timeout=…` in the file";
    MISSING_DOWN "missing-down" Warning LIFTABLE,
        "a release that goes wrong can't be taken back",
        "write the down file, or say `-- tenantry: irreversible`";
}
