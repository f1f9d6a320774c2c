//! `public.purge_watch`: when somebody last looked for tenants that are due.

use std::time::Duration;

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::error::{Doing, Error};

/// What a look at the clock found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Look {
    /// Somebody else is looking at this moment.
    Elsewhere,
    /// The clock moved on as it should.
    Steady,
    /// It moved on by so many seconds since the last look, much more than the time between two looks.
    Jumped(f64),
    /// A jump was seen, and its pause is not over.
    Paused,
}

/// Looks at the clock. After a jump of more than `gap`, nothing is purged for `pause`.
pub(crate) async fn look(
    db: &impl GenericClient,
    gap: Duration,
    pause: Duration,
) -> Result<Look, Error> {
    let row = db
        .query_typed_opt(
            "WITH before AS (
                 SELECT seen_at, paused_until FROM public.purge_watch FOR UPDATE SKIP LOCKED
             ), judged AS (
                 SELECT clock_timestamp() AS at, seen_at, paused_until,
                        extract(epoch FROM clock_timestamp() - seen_at)::float8 AS gap_s
                 FROM before
             )
             UPDATE public.purge_watch
             SET seen_at = judged.at,
                 paused_until = CASE WHEN judged.gap_s > $1 THEN judged.at + make_interval(secs => $2)
                                     -- A clock that went back makes an old pause too long.
                                     WHEN judged.gap_s < -$1 THEN NULL
                                     WHEN judged.paused_until > judged.at THEN judged.paused_until END
             FROM judged
             RETURNING judged.gap_s, coalesce(judged.gap_s > $1, false), purge_watch.paused_until IS NOT NULL",
            &[(&gap.as_secs_f64(), Type::FLOAT8), (&pause.as_secs_f64(), Type::FLOAT8)],
        )
        .await
        .doing("look at the clock")?;
    Ok(match row {
        None => Look::Elsewhere,
        Some(row) if row.get(1) => Look::Jumped(row.get(0)),
        Some(row) if row.get(2) => Look::Paused,
        Some(_) => Look::Steady,
    })
}
