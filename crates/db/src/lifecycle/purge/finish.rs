//! The end: shared rows, the tombstone, the look that nothing is left, and the certificate. One transaction:
//! a tenant of which something is left is not called purged, and none is without its certificate.

use std::time::Instant;

use serde_json::json;

use super::report::PurgeProgress;
use super::session::PurgeSession;
use super::{certificate, shared, verify};
use crate::error::{Doing, Error};
use crate::models::audit::{self, Action, Actor};
use crate::models::purges::{self, Step};
use crate::models::{deletion, tenants};

pub(super) async fn finish(
    session: &mut PurgeSession<'_>,
    actor: &Actor,
    progress: &mut (dyn FnMut(&PurgeProgress) + Send),
) -> Result<(), Error> {
    let started = Instant::now();
    let (admin, tenant) = (session.admin, session.tenant);
    let tx = session.begin_dropping().await?;
    let subdomain = tenants::lock(&tx, tenant).await?.subdomain;
    shared::delete(&tx, tenant).await?;
    deletion::bury(&tx, tenant).await?;
    let looked = verify::look(&tx, admin, tenant, subdomain.as_deref()).await?;
    looked.require_nothing(tenant)?;
    audit::record(&tx, actor, Action::Purged, tenant, &json!({})).await?;
    purges::set_step(&tx, tenant, Step::Finished, started.elapsed(), 0).await?;
    certificate::issue(&tx, admin, tenant, looked, false).await?;
    tx.commit().await.doing("commit the end of the purge")?;
    tracing::info!(tenant.id = %tenant, "tenant purged");
    progress(&PurgeProgress::done(Step::Finished, 0));
    // The purge is over: what can't be seen now is looked for later.
    if let Err(error) = certificate::look(admin, tenant, actor).await {
        tracing::warn!(tenant.id = %tenant, %error, "can't look at the replicas: it is done later");
    }
    Ok(())
}
