//! Migrations: files, what is pending, and applying them.
//!
//! Two sets: `public` for the system-wide tables, `tenant` for the tables that every tenant has.
//! One ledger, `public.migrations`, written in the transaction that applies the file.

mod attempt;
mod batch;
mod claim;
mod drift;
mod error;
mod event;
mod fingerprint;
mod fleet;
mod ledger;
pub mod lint;
mod loss;
mod new_schema;
mod outside;
mod plan;
mod preflight;
mod public;
mod record;
mod rollout;
mod script;
mod session;
mod set;
mod source;
mod sql;
mod standing;
mod status;
mod stepwise;
pub mod template;
mod tenant;
mod traveller;
mod verify;
mod waves;

pub use drift::{Drift, DriftGroup, DriftedTenant, Expected, drift};
pub use error::{Loss, MigrationError, Schemas};
pub use event::Event;
pub use fingerprint::{Fingerprint, fingerprint};
pub use plan::{Applied, pending};
pub use preflight::{Plan, PlannedFile, plan, plan_back, steps_back};
pub use public::{AppliedNow, migrate_public};
pub use record::{Blocker, Counts, Halfway, RunState, SchemaFailure};
pub use rollout::{Direction, Rollout, RolloutOptions, RolloutReport, Stop, Tenants, Tolerance};
pub use script::{Allow, IndexBuild, Script, ScriptOptions};
pub use set::{Migration, MigrationSet, Repeatable, SetKind};
pub use source::Migrations;
pub use status::{
    FleetStatus, PendingFile, Run, SetStatus, TenantBehind, TenantsAtVersion, fleet_status,
    set_status,
};
pub use verify::{Verification, VerifyCheck, VerifyStep, verify};
pub use waves::{InvalidPortion, Portion};

use batch::Batch;
pub(crate) use new_schema::fill_new_schema;
pub(crate) use public::require_public_head;
