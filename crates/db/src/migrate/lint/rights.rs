//! Rules about rights, roles and what lies outside the schema.

use super::catalogue::{
    CUSTOM_TYPE, DROP_CASCADE, EXTENSION, GRANT, GRANT_TO_PUBLIC, GRANT_TO_TENANT, GRANT_WRITE,
    OUTSIDE_SCHEMA, OWNER, ROLES, SECURITY_DEFINER,
};
use super::file::{Direction, File};
use super::finding::Report;
use super::words::{Kind, Piece, Word};

pub(super) fn check(file: &File<'_>, report: &mut Report) {
    for piece in &file.pieces {
        grants(file, piece, report);
        objects(file, piece, report);
        owner(file, piece, report);
        security_definer(file, piece, report);
        cascade(file, piece, report);
    }
}

fn grants(file: &File<'_>, piece: &Piece, report: &mut Report) {
    if piece.opens(&["alter", "default", "privileges"]) {
        return report.at(file, GRANT, piece.at(), "default privileges are made with the schema");
    }
    let (grant, revoke) = (piece.opens(&["grant"]), piece.opens(&["revoke"]));
    if !grant && !revoke {
        return;
    }
    let roles = roles(piece, if grant { "to" } else { "from" });
    if piece.find(&["on"]).is_none() {
        return report.at(file, ROLES, piece.at(), "a change of who is in which role");
    }
    for role in &roles {
        if role.name().is_some_and(|name| name.starts_with("tenant_")) {
            report.at(
                file,
                GRANT_TO_TENANT,
                role.at,
                format!("`{}` is a tenant's role", role.text),
            );
        }
        // In quotes, too, it is PUBLIC.
        if grant && role.name() == Some("public") {
            report.at(file, GRANT_TO_PUBLIC, role.at, "a right for PUBLIC");
        }
    }
    // Functions are PUBLIC's when they are made, so taking that away is what a careful file does.
    let from_public = revoke && roles.iter().all(|role| role.name() == Some("public"));
    if file.is_tenant() && !from_public {
        report.at(file, GRANT, piece.at(), "a right given or taken in a tenant's file");
    }
    let to_tenants =
        roles.iter().any(|role| role.kind == Kind::Quoted && role.text == "TENANT_GROUP");
    let rights = piece.words.iter().skip(1).take_while(|word| !word.is("on"));
    let writes = |word: &&Word| !["select", "usage", "execute"].iter().any(|right| word.is(right));
    let mut rights = rights.filter(|word| word.kind == Kind::Name).filter(writes);
    if let (true, true, Some(right)) = (grant, to_tenants, rights.next()) {
        let right = right.text.to_uppercase();
        report.at(file, GRANT_WRITE, piece.at(), format!("{right} for all tenants at once"));
    }
}

/// Who gets or loses: the names behind the last TO or FROM.
fn roles<'a>(piece: &'a Piece, before: &str) -> Vec<&'a Word> {
    let Some(at) = piece.words.iter().rposition(|word| word.is(before)) else { return Vec::new() };
    let ends = |word: &&Word| ["with", "granted", "cascade", "restrict"].iter().any(|w| word.is(w));
    piece.words[at + 1..]
        .iter()
        .take_while(|word| !ends(word))
        .filter(|w| w.name().is_some())
        .collect()
}

/// CREATE, ALTER and DROP of what no migration should make, by the kind of thing.
fn objects(file: &File<'_>, piece: &Piece, report: &mut Report) {
    if piece.opens(&["reassign"]) || piece.opens(&["drop", "owned"]) {
        return report.at(file, ROLES, piece.at(), "everything that a role owns, at once");
    }
    if piece.opens(&["import", "foreign"]) || piece.opens(&["security", "label"]) {
        return report.at(file, OUTSIDE_SCHEMA, piece.at(), "it concerns the whole database");
    }
    let Some((verb, object)) = piece.object() else { return };
    let what = format!("`{} {}`", verb.to_uppercase(), object.to_uppercase());
    let second = piece.words.get(2);
    match object {
        "role" | "user" | "group" => {
            // A user mapping belongs to a foreign server.
            report.at(file, ROLES, piece.at(), what);
        }
        "extension" if file.is_tenant() => report.at(file, EXTENSION, piece.at(), what),
        "extension" => report.warn(file, EXTENSION, piece.at(), what),
        "system" | "database" | "tablespace" | "schema" | "publication" | "subscription"
        | "server" | "language" | "cast" => report.at(file, OUTSIDE_SCHEMA, piece.at(), what),
        "event" if second.is_some_and(|w| w.is("trigger")) => {
            report.at(file, OUTSIDE_SCHEMA, piece.at(), "`EVENT TRIGGER`");
        }
        "foreign" | "access" => {
            report.at(file, OUTSIDE_SCHEMA, piece.at(), what);
        }
        "type" if verb != "drop" => custom_type(file, piece, report, verb),
        _ => {}
    }
    let moves =
        piece.find(&["set", "schema"]).is_some() || piece.find(&["set", "tablespace"]).is_some();
    if verb == "alter" && moves {
        report.at(file, OUTSIDE_SCHEMA, piece.at(), "it moves a thing out of the schema");
    }
}

fn custom_type(file: &File<'_>, piece: &Piece, report: &mut Report, verb: &str) {
    let what = if piece.find(&["as", "enum"]).is_some() || piece.find(&["add", "value"]).is_some() {
        "an enum type"
    } else if verb == "create" {
        "a type of one's own"
    } else {
        return;
    };
    report.at(file, CUSTOM_TYPE, piece.at(), what);
}

fn owner(file: &File<'_>, piece: &Piece, report: &mut Report) {
    if let Some(at) = piece.find(&["owner", "to"]).filter(|_| piece.opens(&["alter"])) {
        report.at(file, OWNER, piece.words[at].at, "another owner");
    }
}

fn security_definer(file: &File<'_>, piece: &Piece, report: &mut Report) {
    if !piece.opens(&["create"]) && !piece.opens(&["alter"]) {
        return;
    }
    let Some(at) = piece.find(&["security", "definer"]) else { return };
    let fixed = piece.words.windows(2).any(|pair| {
        pair[0].is("set") && pair[1].name().is_some_and(|n| n.eq_ignore_ascii_case("search_path"))
    });
    let at = piece.words[at].at;
    if file.is_tenant() {
        let message = "a tenant would call it with the rights of the owner of all schemas";
        report.at(file, SECURITY_DEFINER, at, message);
    } else if !fixed {
        report.at(file, SECURITY_DEFINER, at, "SECURITY DEFINER without a fixed `SET search_path`");
    }
}

fn cascade(file: &File<'_>, piece: &Piece, report: &mut Report) {
    let drops = piece.opens(&["drop"])
        || piece.opens(&["truncate"])
        || (piece.opens(&["alter"]) && piece.find(&["drop"]).is_some());
    if let Some(word) = piece.words.last().filter(|word| drops && word.is("cascade")) {
        let how =
            if file.direction == Direction::Down { "CASCADE in a down file" } else { "CASCADE" };
        report.at(file, DROP_CASCADE, word.at, how);
    }
}
