//! The numbers of replicas: by replica and reason, never by tenant.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use tenantry_db::replicas::{Reason, Replicas, State};

const READS: &str = "tenantry_reads_total";
const HEALTHY: &str = "tenantry_replica_healthy";
const REASON: &str = "tenantry_replica_reason";
const LAG: &str = "tenantry_replica_lag_seconds";
const BEHIND: &str = "tenantry_replica_behind_bytes";
const HEARTBEAT: &str = "tenantry_replica_heartbeat_age_seconds";
const REPLICA_READS: &str = "tenantry_replica_reads_total";
const UNDER_WAY: &str = "tenantry_replica_reads_under_way";

pub(super) fn describe() {
    describe_counter!(READS, "Reads by who answered: a replica, or the primary and why");
    describe_gauge!(HEALTHY, "Whether the replica is read from");
    describe_gauge!(REASON, "What the last look found against the replica");
    describe_gauge!(LAG, "How far the replica is behind the primary in time");
    describe_gauge!(BEHIND, "How far the replica is behind the primary in WAL");
    describe_gauge!(HEARTBEAT, "How old the heartbeat is that the replica shows");
    describe_counter!(REPLICA_READS, "Reads that the replica answered");
    describe_gauge!(UNDER_WAY, "Reads under way on the replica");
}

/// What is not known of a replica is said as NaN: an old number would look like a good one.
pub(super) fn note(known: &Replicas) {
    let views = known.views();
    if views.is_empty() {
        return;
    }
    for (on, count) in known.counts() {
        counter!(READS, "on" => on.as_str()).absolute(count);
    }
    for view in views {
        let labels = [("replica", view.name.clone())];
        let seconds = |ms: Option<u64>| ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0);
        gauge!(HEALTHY, &labels).set(if view.state == State::Healthy { 1.0 } else { 0.0 });
        gauge!(LAG, &labels).set(seconds(view.lag_ms));
        gauge!(BEHIND, &labels).set(view.behind_bytes.map_or(f64::NAN, |bytes| bytes as f64));
        gauge!(HEARTBEAT, &labels).set(seconds(view.heartbeat_age_ms));
        counter!(REPLICA_READS, &labels).absolute(view.reads);
        gauge!(UNDER_WAY, &labels).set(view.under_way as f64);
        for reason in Reason::all() {
            let holds = if view.reasons.contains(&reason) { 1.0 } else { 0.0 };
            let name = view.name.clone();
            gauge!(REASON, "replica" => name, "reason" => reason.as_str()).set(holds);
        }
    }
}
