//! The certificate for people: the same as the document, in lines.

use std::fmt;

use serde_json::Value;

use super::Certificate;

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let document = &self.document;
        writeln!(f, "ERASURE CERTIFICATE {}\n", plain(&document["certificate_id"]))?;
        for (label, value) in [
            ("status", &document["status"]),
            ("tenant", &document["tenant_id"]),
            ("installation", &document["installation"]["database_system_identifier"]),
            ("database", &document["installation"]["database"]),
            ("created", &document["tenant"]["created_at"]),
            ("deleted", &document["tenant"]["deleted_at"]),
            ("purge begun", &document["purge"]["begun_at"]),
            ("purge finished", &document["purge"]["finished_at"]),
            ("by", &document["purge"]["actor"]),
            ("issued", &document["issued_at"]),
            ("looked at", &document["seen"]["looked_at"]),
            ("completed", &document["completed_at"]),
            ("erased", &document["erased_at"]),
        ] {
            line(f, label, &plain(value))?;
        }
        line(f, "on the ground", ground(document["purge"]["ground"].as_str().unwrap_or_default()))?;
        let ledger = &document["ledger"];
        let entry = format!("{}, SHA-256 {}", plain(&ledger["sequence"]), plain(&ledger["sha256"]));
        line(f, "ledger entry", if ledger.is_null() { "-" } else { &entry })?;
        let software = &document["software"];
        let software = format!(
            "Tenantry {}, PostgreSQL {}",
            plain(&software["tenantry"]),
            plain(&software["postgresql"])
        );
        line(f, "software", &software)?;
        if document["issued_later"] == true {
            writeln!(
                f,
                "\nThe purge ended under a version that made no certificates: this one was made later."
            )?;
        }
        before(f, &document["purge"]["existed"])?;
        places(f, &document["verification"])?;
        seen(f, &document["seen"])?;
        section(f, "still open", document["open"].as_array())?;
        writeln!(f, "\nbackups\n  {}", plain(&document["backups"]["says"]))?;
        section(f, "beyond this certificate", document["beyond"].as_array())?;
        writeln!(f, "\nSHA-256 of the document  {}", self.sha256)
    }
}

fn ground(code: &str) -> &str {
    match code {
        "retention_over" => "its retention was over",
        "requested" => "somebody asked for it and confirmed it; its retention was over",
        "requested_now" => "somebody asked for it at once and confirmed it",
        "ledger" => "it had been erased before, and a restore had brought it back",
        _ => "not known",
    }
}

fn before(f: &mut fmt::Formatter<'_>, existed: &Value) -> fmt::Result {
    writeln!(f, "\nwhat there was")?;
    for (label, key) in [
        ("tables", "tables"),
        ("rows, about", "rows_estimate"),
        ("bytes, about", "bytes_estimate"),
        ("large objects", "large_objects"),
        ("kept copies", "copies"),
    ] {
        line(f, &format!("  {label}"), &plain(&existed[key]))?;
    }
    Ok(())
}

fn places(f: &mut fmt::Formatter<'_>, verification: &Value) -> fmt::Result {
    writeln!(f, "\nplaces that were looked at, and rows found")?;
    for place in verification["places"].as_array().into_iter().flatten() {
        writeln!(f, "  {:>4}  {}", plain(&place["found"]), plain(&place["place"]))?;
        writeln!(f, "        {}", plain(&place["query"]))?;
    }
    writeln!(f, "  with")?;
    for parameter in verification["parameters"].as_array().into_iter().flatten() {
        let numbers = plain(&parameter["numbers"]);
        let (name, of, count) =
            (plain(&parameter["name"]), plain(&parameter["of"]), plain(&parameter["count"]));
        writeln!(f, "        {name} {of} ({count}): {numbers}")?;
    }
    section(f, "could not be read", verification["unread"].as_array())?;
    section(
        f,
        "rows that stay: ids, times and numbers, or by the operator's wish",
        verification["kept"].as_array(),
    )
}

fn seen(f: &mut fmt::Formatter<'_>, seen: &Value) -> fmt::Result {
    let replicas = &seen["replicas"];
    writeln!(
        f,
        "\nstatistics of columns\n  written anew {}",
        plain(&seen["statistics_rewritten_at"])
    )?;
    writeln!(f, "\nreplicas, which must have replayed {}", plain(&replicas["position"]))?;
    let servers = replicas["servers"].as_object();
    if servers.is_none_or(serde_json::Map::is_empty) {
        return writeln!(f, "  none was seen");
    }
    for (name, server) in servers.into_iter().flatten() {
        let state = match (server["past"] == true, &server["declared_gone_by"]) {
            (true, _) => "has forgotten the tenant".to_owned(),
            (false, Value::Null) => "has not replayed the purge, as far as was seen".to_owned(),
            (false, by) => format!("exists no more, says {}", plain(by)),
        };
        writeln!(f, "  `{name}` {state}; replayed {}", plain(&server["replayed"]))?;
    }
    Ok(())
}

fn section(f: &mut fmt::Formatter<'_>, heading: &str, lines: Option<&Vec<Value>>) -> fmt::Result {
    let Some(lines) = lines.filter(|lines| !lines.is_empty()) else { return Ok(()) };
    writeln!(f, "\n{heading}")?;
    lines.iter().try_for_each(|line| writeln!(f, "  - {}", plain(line)))
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, value: &str) -> fmt::Result {
    writeln!(f, "{label:<15} {value}")
}

/// Text without its quotes; nothing as `-`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
