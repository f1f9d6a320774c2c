//! PgBouncer and what is behind it, tried as each lane in use.

use super::Check;
use crate::config::Config;
use crate::direct::connect_once;
use crate::error::{Doing, Error};
use crate::pooler;
use crate::replicas::{self, Reason, ReplicaView, State};

/// A day would be too long: with 10,000 tenants a connection grows to a gigabyte.
const MAX_LIFETIME_S: u32 = 4 * 3600;

pub(super) async fn checks(config: &Config) -> Vec<Check> {
    if config.database.url.is_none() {
        return vec![Check::warning(
            "pgbouncer",
            "`database.url` is not set",
            "set it to PgBouncer's entry for the primary",
        )];
    }
    let mut checks = vec![match mode(config).await {
        Ok(check) => check,
        Err(error) => return vec![Check::error("pgbouncer", &error)],
    }];
    checks.push(lanes(config).await.unwrap_or_else(|error| Check::error("lanes", &error)));
    match replicas::inspect(config).await {
        Ok(views) => checks.extend(views.iter().map(replica)),
        Err(error) => checks.push(Check::error("replica", &error)),
    }
    checks
}

/// What a look at a replica found. Not a failure: the primary answers for it.
fn replica(view: &ReplicaView) -> Check {
    const NAME: &str = "replica";
    if view.state == State::Healthy {
        return Check::ok(NAME, format!("{} may be read from", view.name));
    }
    let reasons: Vec<&str> = view.reasons.iter().map(|reason| reason.in_words()).collect();
    let promoted = [Reason::NotAReplica, Reason::OtherTimeline];
    let hint = if view.reasons.iter().any(|reason| promoted.contains(reason)) {
        "docs/runbooks/promotion.md"
    } else {
        "docs/runbooks/replica-lag.md says what each means"
    };
    Check::warning(NAME, format!("{} {}", view.name, reasons.join(", ")), hint)
}

async fn mode(config: &Config) -> Result<Check, Error> {
    let settings = pooler::settings(config).await?;
    let setting = |key: &str| settings.get(key).map_or("", String::as_str);
    let lanes = &config.lanes;
    let pool_size = setting("default_pool_size");
    Ok(if setting("pool_mode") != "transaction" {
        Check::failed(
            "pgbouncer",
            format!("`pool_mode` is `{}`", setting("pool_mode")),
            "set `pool_mode = transaction`: binding is made for it",
        )
    } else if pool_size != lanes.pool_size.to_string() {
        Check::warning(
            "pgbouncer",
            format!(
                "`default_pool_size` is {pool_size}, but `lanes.pool_size` is {}",
                lanes.pool_size
            ),
            "make them equal: Tenantry's own limits rely on it",
        )
    } else if !(1..=MAX_LIFETIME_S).contains(&setting("server_lifetime").parse().unwrap_or(0)) {
        Check::warning(
            "pgbouncer",
            format!("`server_lifetime` is {} seconds", setting("server_lifetime")),
            format!(
                "set it to 1 to {MAX_LIFETIME_S}: a server connection keeps some 200 KB for each tenant that it served"
            ),
        )
    } else {
        Check::ok(
            "pgbouncer",
            format!("transaction pooling, {pool_size} server connections for each lane"),
        )
    })
}

async fn lanes(config: &Config) -> Result<Check, Error> {
    let secret = config.lanes.secret()?;
    for lane in config.lanes.in_use() {
        let login = config.roles.lane(lane);
        let server = config.database.pooled(&login, &secret.password(&login))?;
        let client = connect_once(&server, config.database.connect_timeout).await?;
        let row = client
            .query_typed_one("SELECT current_user::text, pg_is_in_recovery()", &[])
            .await
            .doing(format!("reach the primary through PgBouncer as `{login}`"))?;
        if row.get::<_, &str>(0) != login || row.get(1) {
            return Ok(Check::failed(
                "lanes",
                format!(
                    "`{login}` through PgBouncer is `{}` on {}",
                    row.get::<_, &str>(0),
                    if row.get(1) { "a replica" } else { "the primary" }
                ),
                "`database.url` must name PgBouncer's entry for the primary, without a forced user",
            ));
        }
    }
    Ok(Check::ok(
        "lanes",
        format!("{} lanes reach the primary through PgBouncer", config.lanes.count),
    ))
}
