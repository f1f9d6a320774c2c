//! `public.heartbeat`: one row that says when the primary was last seen alive, and where its WAL stood.
//!
//! Replicas show how old they are by it; so does a server that was restored to a point in time. Every
//! service beats, and whoever finds the row young leaves it alone.

use std::time::Duration;

use crate::background;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::installation::Installation;

/// How often each service looks whether to beat. The row is written at least once a minute, also when a
/// look was in vain.
pub const EVERY: Duration = Duration::from_secs(30);

/// Beats, unless somebody did within the last 20 seconds or is at it. Yields whether it did.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn beat(admin: &AdminDb) -> Result<bool, Error> {
    let db = admin.connection().await?;
    // A clock that was set back must not stop the heart. Whoever waits for the row would only find it young.
    let written = db
        .execute_typed(
            "UPDATE public.heartbeat
                SET beat_at = clock_timestamp(),
                    timeline = ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer,
                    position = pg_current_wal_insert_lsn()
              WHERE singleton = (SELECT singleton FROM public.heartbeat
                                  WHERE beat_at NOT BETWEEN clock_timestamp() - interval '20 seconds'
                                                        AND clock_timestamp()
                                  FOR UPDATE SKIP LOCKED)",
            &[],
        )
        .await
        .doing("write the heartbeat")?;
    Ok(written > 0)
}

/// Beats until `stop` is done: run it beside whatever serves tenants.
pub async fn keep_beating(installation: Installation, stop: impl Future<Output = ()>) {
    let beat = || async { beat(installation.admin()).await.map(drop) };
    background::repeat("write the heartbeat", EVERY, stop, beat).await;
}
