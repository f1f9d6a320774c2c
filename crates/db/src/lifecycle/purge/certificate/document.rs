//! The document: its fields, and the form in which it is hashed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::super::verify::Looked;
use super::backups::Backups;
use crate::ids::TenantId;
use crate::models::purges::Ground;

/// What `format` says, and the version of what follows it.
const FORMAT: &str = "tenantry.erasure-certificate";
const VERSION: u32 = 1;

/// Whether anything is still to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateStatus {
    /// `open` says what is still to be seen.
    Incomplete,
    /// All of it was seen.
    Complete,
}

impl CertificateStatus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Complete => "complete",
        }
    }
}

/// Until when backups hold the tenant's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupsHold {
    /// This program does not know the backups.
    Unknown,
    /// Not after this time, if backups are made when they are due.
    Until(Timestamp),
    /// They do not: at this time everything in the repository was seen to be from after the purge.
    Gone(Timestamp),
    /// Backups went elsewhere until this time, and nobody looks there any more.
    Former(Timestamp),
}

impl BackupsHold {
    pub(super) fn says(self) -> String {
        match self {
            Self::Unknown => {
                "backups and archived write-ahead log made before the purge hold the tenant's data until they \
                 expire; when that is, this program does not know"
                    .to_owned()
            }
            Self::Until(at) => {
                format!(
                    "backups and archived write-ahead log hold the tenant's data until {at} at the latest, if \
                     backups are made when they are due; whether it is gone is looked at, and said only then"
                )
            }
            Self::Gone(at) => {
                format!(
                    "at {at} the oldest backup and the oldest archived write-ahead log in the repository were \
                     seen to be from after the purge: they hold nothing of the tenant"
                )
            }
            Self::Former(until) => {
                format!(
                    "backups went to another repository until {until}, which nobody looks at any more: it holds \
                     the tenant's data until it is destroyed"
                )
            }
        }
    }
}

/// What does not change from the moment of issue on.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    pub(super) certificate_id: Uuid,
    pub(super) tenant_id: TenantId,
    pub(super) issued_at: Timestamp,
    /// The purge ended under a version that made no certificates, so this was made afterwards.
    pub(super) issued_later: bool,
    pub(super) installation: Installation,
    pub(super) software: Software,
    pub(super) tenant: Lifetime,
    pub(super) purge: Purge,
    pub(super) ledger: Option<LedgerEntry>,
    pub(super) verification: Looked,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Installation {
    /// PostgreSQL's own number of the cluster; replicas and restored copies have the same.
    pub(super) database_system_identifier: String,
    pub(super) database: String,
    pub(super) role_prefix: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Software {
    pub(super) tenantry: &'static str,
    pub(super) postgresql: String,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Lifetime {
    pub(super) created_at: Timestamp,
    pub(super) deleted_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Purge {
    pub(super) begun_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    /// Who asked for it, as the audit log has it.
    pub(super) actor: String,
    pub(super) ground: Ground,
    /// What there was before.
    pub(super) existed: Value,
    pub(super) steps: Value,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct LedgerEntry {
    pub(super) sequence: i64,
    pub(super) sha256: String,
}

/// What is looked at until all of it was seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) looked_at: Option<Timestamp>,
    pub(super) statistics_rewritten_at: Option<Timestamp>,
    pub(super) replicas: Replicas,
}

/// The servers that copy this one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Replicas {
    /// What each must have replayed: a position in the write-ahead log after the end of the purge.
    pub(super) position: Option<String>,
    /// How many the configuration names.
    pub(super) configured: usize,
    pub(super) servers: BTreeMap<String, ReplicaSeen>,
}

/// One, or several of one name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReplicaSeen {
    /// How many bear this name.
    pub(super) servers: usize,
    /// How far the last of them has replayed, as far as was seen.
    pub(super) replayed: Option<String>,
    /// Whether that is past the end of the purge.
    pub(super) past: bool,
    /// Somebody said that it exists no more, and who.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) declared_gone_by: Option<String>,
}

/// What a purge never reaches, so that no certificate can speak of it.
const BEYOND: [&str; 8] = [
    "backups and archived write-ahead log, until they expire",
    "copies of backups, and directories of the server that a restore set aside",
    "other tenants that were made of an archive or of an earlier state of this one",
    "write-ahead log that the servers still keep",
    "logs of PostgreSQL, of proxies and of services",
    "exports that somebody made, and other systems that got data from this one",
    "blocks of file systems that were freed and not written over; dead versions of rows of shared tables, until \
     their space is used again",
    "replicas of replicas, and replicas that were neither connected nor configured",
];

/// The first of these, once the repository was seen without the tenant.
pub(super) const BEYOND_THE_REPOSITORY: &str = "repositories that this program was never told of";

impl Facts {
    /// The document, from what stays and what was seen.
    pub(super) fn document(&self, seen: &Seen, backups: &Backups) -> Value {
        let mut facts = serde_json::to_value(self).unwrap_or_default();
        facts["format"] = FORMAT.into();
        facts["version"] = VERSION.into();
        complete(facts, seen, backups, None)
    }
}

/// Puts what was seen into a document. `supersedes` is the digest of the one that it replaces.
pub(super) fn complete(
    mut document: Value,
    seen: &Seen,
    backups: &Backups,
    supersedes: Option<&str>,
) -> Value {
    let open = open_points(&document["verification"], seen);
    let status = match open.is_empty() {
        true => CertificateStatus::Complete,
        false => CertificateStatus::Incomplete,
    };
    document["status"] = status.as_str().into();
    // Said when somebody has seen the backups without it, by `backups`.
    document["erased"] = false.into();
    document["open"] = open.into();
    document["seen"] = serde_json::to_value(seen).unwrap_or_default();
    document["backups"] = backups.document();
    document["beyond"] = BEYOND.to_vec().into();
    if let (CertificateStatus::Complete, Some(supersedes)) = (status, supersedes) {
        document["supersedes_sha256"] = supersedes.into();
        document["completed_at"] = serde_json::to_value(seen.looked_at).unwrap_or_default();
    }
    document
}

/// What is still to be seen, in words.
fn open_points(verification: &Value, seen: &Seen) -> Vec<String> {
    let mut open = Vec::new();
    if seen.statistics_rewritten_at.is_none() {
        open.push(
            "the statistics of columns, which hold values, were not written anew yet".to_owned(),
        );
    }
    for place in verification["unread"].as_array().into_iter().flatten() {
        let place = place.as_str().unwrap_or_default();
        open.push(format!("{place} could not be read: run `tenantry init` with this version"));
    }
    if verification["statements"].as_i64().unwrap_or_default() > 0 {
        open.push(
            "`pg_stat_statements` holds statements of the tenant: `pg_stat_statements_reset()` as a superuser"
                .to_owned(),
        );
    }
    open.extend(seen.replicas.open_points());
    open
}

impl Replicas {
    fn open_points(&self) -> Vec<String> {
        let Some(position) = &self.position else {
            return vec!["the replicas were not looked at yet".to_owned()];
        };
        let mut open = Vec::new();
        for (name, seen) in &self.servers {
            if seen.past || seen.declared_gone_by.is_some() {
                continue;
            }
            open.push(match &seen.replayed {
                Some(replayed) => {
                    format!("replica `{name}` has replayed {replayed}, and must reach {position}")
                }
                None => format!("replica `{name}` is not connected, and must reach {position}"),
            });
        }
        let known: usize = self.servers.values().map(|seen| seen.servers).sum();
        if known < self.configured {
            open.push(format!(
                "`database.replica_urls` names {}, of which {known} were seen connected to this primary",
                self.configured
            ));
        }
        open
    }
}

/// The canonical form (RFC 8785): keys in order, no spaces. Numbers are whole, so that there is one way to
/// write each.
pub(super) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

pub(super) fn digest(document: &Value) -> [u8; 32] {
    Sha256::digest(canonical(document)).into()
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            list(text, ('{', '}'), sorted, |(key, value), text| {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            });
        }
        Value::Array(items) => list(text, ('[', ']'), items, write),
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn list<T>(
    text: &mut String,
    (open, close): (char, char),
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(T, &mut String),
) {
    text.push(open);
    for (n, next) in items.into_iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        item(next, text);
    }
    text.push(close);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_canonical_form_knows_one_order() {
        let value = json!({"b": [1, {"z": null, "a": "x\"\n"}], "a": true});
        assert_eq!(canonical(&value), r#"{"a":true,"b":[1,{"a":"x\"\n","z":null}]}"#);
    }

    fn replica(servers: usize, replayed: Option<&str>, past: bool) -> ReplicaSeen {
        ReplicaSeen { servers, replayed: replayed.map(str::to_owned), past, declared_gone_by: None }
    }

    #[test]
    fn each_thing_that_was_not_seen_keeps_it_open() {
        let whole = json!({"unread": [], "statements": 0});
        let mut seen = Seen {
            looked_at: None,
            statistics_rewritten_at: Some(Timestamp::UNIX_EPOCH),
            replicas: Replicas { position: Some("0/5".to_owned()), ..Replicas::default() },
        };
        assert_eq!(open_points(&whole, &seen), Vec::<String>::new());
        assert_eq!(open_points(&json!({"unread": ["`x`"], "statements": 2}), &seen).len(), 2);
        seen.replicas.servers.insert("a".to_owned(), replica(1, Some("0/6"), true));
        assert!(open_points(&whole, &seen).is_empty());
        seen.replicas.servers.insert("b".to_owned(), replica(1, None, false));
        seen.replicas.servers.insert("c".to_owned(), replica(1, Some("0/4"), false));
        seen.replicas.configured = 4;
        seen.statistics_rewritten_at = None;
        let open = open_points(&whole, &seen).join("\n");
        for words in [
            "not written anew",
            "`b` is not connected",
            "`c` has replayed 0/4",
            "names 4, of which 3",
        ] {
            assert!(open.contains(words), "{words}: {open}");
        }
        for gone in ["b", "c"] {
            let seen = seen.replicas.servers.get_mut(gone).unwrap();
            seen.declared_gone_by = Some("cli:x".to_owned());
        }
        assert_eq!(open_points(&whole, &seen).len(), 2);
        assert_eq!(open_points(&whole, &Seen::default()).len(), 2, "nothing was looked at");
    }
}
