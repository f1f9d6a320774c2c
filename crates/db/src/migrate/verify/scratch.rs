//! Where files are tried: a schema that exists in one open transaction only.
//!
//! The transaction is never committed. So nobody else ever sees the schema, nothing has to be tidied up,
//! and nothing is left even if the machine goes down in the middle. What was locked or queued
//! (notifications among them) goes with it.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::super::batch::{BatchError, PUBLIC_PATH, tenant_path, with_roles};
use super::super::fingerprint::{Fingerprint, SETTLE, fingerprints};
use super::super::session::Session;
use super::super::{Batch, Migration, MigrationSet, Script, SetKind, fill_new_schema, outside};
use super::super::{Repeatable, require_public_head};
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::empty_schema;

/// Which public schema the files meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Public {
    /// An empty one of the scratch's own.
    Own,
    /// The installation's.
    Real {
        /// Why, as it follows «because».
        because: String,
    },
}

/// An open transaction in which files are tried as the owner. Dropped, it is rolled back with its
/// connection.
pub(crate) struct Scratch<'a> {
    session: Session,
    admin: &'a AdminDb,
    tenant: TenantId,
    public: Public,
}

/// How a file ended in the scratch.
pub(crate) type Tried = Result<(), String>;

impl<'a> Scratch<'a> {
    /// Opens one beside the installation's own public schema.
    pub(crate) async fn open(admin: &'a AdminDb) -> Result<Scratch<'a>, Error> {
        let session = Session::open(admin).await?;
        let begin = format!("BEGIN; SET LOCAL ROLE {}", admin.roles.owner());
        session.client().batch_execute(&begin).await.doing("begin a scratch transaction")?;
        let public = Public::Real { because: "nothing else was asked for".to_owned() };
        Ok(Self { session, admin, tenant: TenantId::random(), public })
    }

    /// Opens one with a public schema of its own where that can be had: the installation's is renamed in
    /// this transaction, which nobody else sees.
    ///
    /// # Errors
    /// [`Error::Busy`] if another one does the same: it would have to wait inside the server.
    pub(crate) async fn open_apart(admin: &'a AdminDb) -> Result<Scratch<'a>, Error> {
        let mut scratch = Self::open(admin).await?;
        scratch.lock().await?;
        scratch.public = match scratch.immovable().await? {
            Some(because) => Public::Real { because },
            None => scratch.set_aside().await?,
        };
        Ok(scratch)
    }

    pub(crate) fn public(&self) -> &Public {
        &self.public
    }

    pub(crate) fn client(&self) -> &tokio_postgres::Client {
        self.session.client()
    }

    /// The schema that a set's files run in.
    pub(crate) fn schema(&self, set: SetKind) -> String {
        match set {
            SetKind::Public => "public".to_owned(),
            SetKind::Tenant => self.tenant.schema().to_string(),
        }
    }

    pub(crate) fn path(&self, set: SetKind) -> String {
        match set {
            SetKind::Public => PUBLIC_PATH.to_owned(),
            SetKind::Tenant => tenant_path(self.tenant.schema()),
        }
    }

    async fn lock(&self) -> Result<(), Error> {
        // Only the admin may take such locks.
        let key = format!("{}:scratch", self.admin.roles);
        let (admin, owner) = (self.admin.roles.admin(), self.admin.roles.owner());
        self.run(&format!("SET LOCAL ROLE {admin}")).await?;
        let statement =
            "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))";
        let row = self
            .client()
            .query_typed_one(statement, &[(&key, Type::TEXT)])
            .await
            .doing("lock the scratch")?;
        self.run(&format!("SET LOCAL ROLE {owner}")).await?;
        match row.get(0) {
            true => Ok(()),
            false => Err(Error::Busy("the scratch of another `migrate verify`".to_owned())),
        }
    }

    /// Why the public schema can't be set aside, if it can't.
    async fn immovable(&self) -> Result<Option<String>, Error> {
        let row = self
            .client()
            .query_typed_one(
                "SELECT (SELECT string_agg('`' || extname || '`', ', ' ORDER BY extname)
                           FROM pg_extension WHERE extnamespace = n.oid),
                        pg_has_role(n.nspowner, 'USAGE'), pg_get_userbyid(n.nspowner)::text
                 FROM pg_namespace n WHERE n.nspname = 'public'",
                &[],
            )
            .await
            .doing("look at the public schema")?;
        let (extensions, own, owner): (Option<String>, bool, String) =
            (row.get(0), row.get(1), row.get(2));
        Ok(match extensions {
            _ if !own => Some(format!("schema `public` belongs to `{owner}`, not to ours")),
            Some(names) => Some(format!("extensions live in schema `public`: {names}")),
            None => None,
        })
    }

    async fn set_aside(&self) -> Result<Public, Error> {
        let roles = &self.admin.roles;
        let statements = format!(
            "SAVEPOINT aside; SET LOCAL lock_timeout = '1s';
             ALTER SCHEMA public RENAME TO {roles}_public_aside;
             CREATE SCHEMA public;
             GRANT USAGE ON SCHEMA public TO {}, {};
             RELEASE aside",
            roles.tenant_group(),
            roles.reader()
        );
        match self.client().batch_execute(&statements).await {
            Ok(()) => Ok(Public::Own),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                self.run("ROLLBACK TO aside; RELEASE aside").await?;
                let because = "its owner may not rename schema `public`".to_owned();
                Ok(Public::Real { because })
            }
            Err(error) => Err(error).doing("set the public schema aside"),
        }
    }

    async fn run(&self, statements: &str) -> Result<(), Error> {
        self.client().batch_execute(statements).await.doing("prepare the scratch")
    }

    /// Marks where [`back`](Self::back) leads.
    pub(crate) async fn mark(&self, name: &'static str) -> Result<(), Error> {
        self.run(&format!("SAVEPOINT {name}")).await
    }

    /// Undoes everything since the mark, and gives up the locks that it took.
    pub(crate) async fn back(&self, name: &'static str) -> Result<(), Error> {
        self.run(&format!("ROLLBACK TO {name}; RELEASE {name}")).await
    }

    /// Makes the tenant's empty schema. The group stands for the tenant's role: making one would keep
    /// everybody else from making one, until the end of this transaction.
    pub(crate) async fn make_schema(&self) -> Result<(), Error> {
        let roles = &self.admin.roles;
        self.run(&empty_schema(self.tenant.schema(), &roles.tenant_group(), roles)).await
    }

    /// Makes a tenant's schema as a sign-up does, with everything at head.
    pub(crate) async fn make_whole_schema(&self, set: &MigrationSet) -> Result<Tried, Error> {
        let roles = &self.admin.roles;
        let making = empty_schema(self.tenant.schema(), &roles.tenant_group(), roles);
        self.mark("step").await?;
        match fill_new_schema(self.client(), self.admin, set, self.tenant, &making).await {
            Ok(()) => self.run("RELEASE step").await.map(Ok),
            Err(Error::Migration(error)) => {
                self.back("step").await?;
                Ok(Err(told(&error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Brings the scratch's own public schema to head; beside the real one, looks whether that is there.
    pub(crate) async fn public_at_head(&self, set: &MigrationSet) -> Result<Tried, Error> {
        if self.public != Public::Own {
            return require_public_head(self.client(), set).await.map(Ok);
        }
        for migration in set.migrations() {
            if let Err(problem) = self.up(SetKind::Public, migration).await? {
                return Ok(Err(problem));
            }
        }
        self.repeat(SetKind::Public, set.repeatables()).await
    }

    pub(crate) async fn up(&self, set: SetKind, migration: &Migration) -> Result<Tried, Error> {
        self.apply(set, &migration.up).await
    }

    pub(crate) async fn repeat(&self, set: SetKind, files: &[Repeatable]) -> Result<Tried, Error> {
        for file in files {
            if let Err(problem) = self.apply(set, &file.script).await? {
                return Ok(Err(problem));
            }
        }
        Ok(Ok(()))
    }

    /// Runs a file, with what its transaction's end would check; if it fails, it leaves nothing.
    pub(crate) async fn apply(&self, set: SetKind, script: &Script) -> Result<Tried, Error> {
        let text = match script.transactional {
            true => script.text.clone(),
            false => outside::in_a_transaction(script, true).unwrap_or_else(|| script.text.clone()),
        };
        let text = match set {
            SetKind::Public => with_roles(&text, &self.admin.roles),
            SetKind::Tenant => text,
        };
        let limits = &self.admin.limits;
        let mut batch = Batch::new(self.schema(set));
        // In a message of its own: of a text that can't be parsed nothing runs, not even this.
        self.mark("step").await?;
        batch.settings(&self.admin.roles, &self.path(set), limits);
        batch.script_as(script, &text, limits);
        // Each file ends its transaction elsewhere: what was put off until then is due now (rows that wait
        // for a check would keep the next file from altering their table), and its settings end.
        batch.ours(
            "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; RESET ALL; RELEASE step;",
        );
        match batch.send(self.client()).await {
            Ok(()) => Ok(Ok(())),
            Err(BatchError::Statement(error)) => {
                if self.client().is_closed() {
                    return Err(error.into());
                }
                self.back("step").await?;
                Ok(Err(told(&error)))
            }
            Err(BatchError::Guard | BatchError::Locked | BatchError::Loss) => {
                unreachable!("a batch without guards")
            }
        }
    }

    /// What the catalog says of the set's schema now.
    pub(crate) async fn fingerprint(&self, set: SetKind) -> Result<Fingerprint, Error> {
        let schema = self.schema(set);
        // The savepoint brings the settings back.
        self.run(&format!("SAVEPOINT look; {SETTLE}")).await?;
        let stand_in = self.admin.roles.tenant_group();
        let stand_in = if set == SetKind::Tenant { stand_in.as_str() } else { "" };
        let mut found =
            fingerprints(self.client(), std::slice::from_ref(&schema), stand_in).await?;
        self.back("look").await?;
        Ok(found.remove(&schema).unwrap_or_default())
    }

    /// Ends it at once, instead of when the server notices.
    pub(crate) async fn close(self) -> Result<(), Error> {
        self.run("ROLLBACK").await
    }
}

/// An error with its cause: what failed where, and what the server said.
fn told(error: &super::super::MigrationError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let words = source.to_string();
        if words != "db error" {
            text = format!("{text}: {words}");
        }
        cause = source.source();
    }
    text
}
