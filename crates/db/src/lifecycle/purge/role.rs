//! The tenant's large objects and its role, by the rolemaker's functions: the admin can do neither.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::session::PurgeSession;
use crate::error::{Doing, Error};
use crate::lifecycle::ErasureError;

/// Each large object takes a lock.
const LARGE_OBJECTS_PER_BATCH: i32 = 500;

/// Yields how many large objects there were.
pub(super) async fn drop_role(session: &mut PurgeSession<'_>) -> Result<u64, Error> {
    let (tenant, control) = (session.tenant, session.admin.roles.control_schema().to_owned());
    let role = tenant.schema().to_string();
    take_rights(session, &role).await?;
    let mut unlinked = 0;
    loop {
        let tx = session.begin_dropping().await?;
        let known = tx
            .query_typed_opt("SELECT FROM pg_roles WHERE rolname = $1", &[(&role, Type::TEXT)])
            .await
            .doing("look for the tenant's role")?;
        if known.is_none() {
            return Ok(unlinked);
        }
        let statement = format!(
            "SELECT {control}.drop_tenant_large_objects('{tenant}', {LARGE_OBJECTS_PER_BATCH})"
        );
        let batch = tx.query_typed_one(&statement, &[]).await.map_err(of_control)?;
        let batch: i32 = batch.get(0);
        if batch == 0 {
            let dropped =
                tx.batch_execute(&format!("SELECT {control}.drop_tenant_role('{tenant}')")).await;
            match dropped {
                Ok(()) => tx.commit().await.doing("commit the drop of the role")?,
                Err(e) if e.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
                    tx.rollback().await.doing("take the drop of the role back")?;
                    return Err(used(session, &role).await?);
                }
                Err(e) => return Err(of_control(e)),
            }
            return Ok(unlinked);
        }
        tx.commit().await.doing("commit the drop of large objects")?;
        unlinked += u64::from(batch.unsigned_abs());
    }
}

/// Takes what somebody gave the role by hand, against the rule that it has nothing outside of its schema.
async fn take_rights(session: &mut PurgeSession<'_>, role: &str) -> Result<(), Error> {
    let owner = session.admin.roles.owner();
    let tx = session.begin_dropping().await?;
    let statements = tx
        .query_typed(include_str!("rights.sql"), &[(&role, Type::TEXT), (&owner, Type::TEXT)])
        .await
        .doing("look for rights of the tenant's role")?;
    if statements.is_empty() {
        return Ok(());
    }
    let mut texts = vec![format!("SET LOCAL ROLE {owner}")];
    texts.extend(statements.iter().map(|row| row.get(0)));
    tx.batch_execute(&texts.join("; ")).await.doing("take rights from the tenant's role")?;
    tx.commit().await.doing("commit the loss of rights")
}

fn of_control(source: tokio_postgres::Error) -> Error {
    match source.code() {
        Some(&SqlState::UNDEFINED_FUNCTION) => ErasureError::OldControlFunctions.into(),
        _ => Error::Database { doing: "drop the tenant's role".to_owned(), source },
    }
}

/// What the role still has, in which database.
async fn used(session: &PurgeSession<'_>, role: &str) -> Result<Error, Error> {
    let rows = session
        .client
        .query_typed(
            "SELECT coalesce('database `' || d.datname || '`: ', '')
                    || CASE s.deptype WHEN 'o' THEN 'it owns ' WHEN 'a' THEN 'it has rights on ' ELSE 'it is used by ' END
                    || CASE WHEN s.dbid = 0 OR d.datname = current_database()
                            THEN coalesce(pg_describe_object(s.classid, s.objid, s.objsubid), 'something')
                            ELSE 'something' END
             FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid LEFT JOIN pg_database d ON d.oid = s.dbid
             WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = $1
             ORDER BY 1 LIMIT 20",
            &[(&role, Type::TEXT)],
        )
        .await
        .doing("look what the tenant's role has")?;
    let objects = rows.iter().map(|row| row.get(0)).collect();
    Ok(ErasureError::RoleUsed { tenant: session.tenant, objects }.into())
}
