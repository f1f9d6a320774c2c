//! Rules about changing tables that hold rows: locks, scans, and what fails on old rows.

use super::catalogue::{
    CHANGING_COLUMN_TYPE, CONSTRAINT_NOT_VALID, INDEX_NOT_CONCURRENT, NEEDLESS_NO_TRANSACTION,
    NOT_IN_TRANSACTION, REQUIRED_COLUMN, REWRITING_COLUMN, Rule, SET_NOT_NULL, TABLE_LOCK,
    UNIQUE_WITHOUT_INDEX,
};
use super::file::File;
use super::finding::Report;
use super::tables::{Made, Tables};
use super::tree::{Remark, What};
use super::words::Piece;

/// `before` are the tables as they are before the file.
pub(super) fn check(file: &File<'_>, before: &Tables, report: &mut Report) {
    for remark in &file.tree.remarks {
        if !on_new_table(file, before, remark) && !is_harmless(file, before, remark) {
            report.at(file, remark.rule, remark.at, remark.message.as_str());
        }
    }
    for piece in file.pieces.iter().filter(|piece| !piece.in_body) {
        table_lock(file, piece, report);
        if file.script.transactional && needs_no_transaction(piece) {
            let message = format!("`{}` can't run in a transaction", opening(piece));
            report.at(file, NOT_IN_TRANSACTION, piece.at(), message);
        }
    }
    if !file.script.transactional && !file.pieces.iter().any(needs_no_transaction) {
        let message = "every statement of it could run in one transaction";
        report.line(file, NEEDLESS_NO_TRANSACTION, 1, message);
    }
}

/// Rules that ask for rows: a table that this very file makes has none.
const OF_OLD_TABLES: &[&Rule] = &[
    CHANGING_COLUMN_TYPE,
    CONSTRAINT_NOT_VALID,
    INDEX_NOT_CONCURRENT,
    REQUIRED_COLUMN,
    REWRITING_COLUMN,
    SET_NOT_NULL,
    UNIQUE_WITHOUT_INDEX,
];

fn on_new_table(file: &File<'_>, before: &Tables, remark: &Remark) -> bool {
    let asks = OF_OLD_TABLES.iter().any(|rule| rule.name == remark.rule.name);
    let table = file.tree.table_at(remark.at);
    asks && table.is_some_and(|table| Made::by(file, before).tables.contains(&table.name))
}

/// What squawk can't know: the types and constraints of the files before.
fn is_harmless(file: &File<'_>, before: &Tables, remark: &Remark) -> bool {
    let statement = file.tree.statements.iter().find(|range| range.contains(&remark.at));
    // The action that holds the remark begins last before it.
    let fact = file.tree.facts.iter().rfind(|fact| {
        fact.at <= remark.at && statement.is_some_and(|range| range.contains(&fact.at))
    });
    let Some(fact) = fact else { return false };
    let table = fact.what.table().and_then(|table| before.tables.get(&table.name));
    match &fact.what {
        What::SetType { column, ty, .. } => {
            let former = table.and_then(|table| table.columns.get(column));
            former.is_some_and(|former| widens(&former.ty, ty))
        }
        What::SetNotNull { column, .. } => table.is_some_and(|t| t.is_checked_not_null(column)),
        _ => false,
    }
}

/// Changes of a type that rewrite nothing and that readers do not notice.
fn widens(from: &str, to: &str) -> bool {
    let limit = |ty: &str| {
        let rest = ty.strip_prefix("varchar").or_else(|| ty.strip_prefix("charactervarying"))?;
        if rest.is_empty() {
            return Some(u32::MAX);
        }
        rest.strip_prefix('(')?.strip_suffix(')')?.parse::<u32>().ok()
    };
    matches!((limit(from), limit(to)), (Some(from), Some(to)) if from <= to)
}

fn opening(piece: &Piece) -> String {
    let words = piece.words.iter().take(2).map(|word| word.text.to_uppercase());
    words.collect::<Vec<_>>().join(" ")
}

fn table_lock(file: &File<'_>, piece: &Piece, report: &mut Report) {
    let concurrently = piece.find(&["concurrently"]).is_some();
    let message = if piece.opens(&["lock"]) {
        "`LOCK`"
    } else if piece.opens(&["cluster"]) {
        "`CLUSTER` rewrites the table with everybody locked out"
    } else if piece.opens(&["vacuum"]) && piece.find(&["full"]).is_some() {
        "`VACUUM FULL` rewrites the table with everybody locked out"
    } else if piece.opens(&["refresh"]) && !concurrently {
        "`REFRESH MATERIALIZED VIEW` locks its readers out"
    } else if piece.opens(&["alter", "table"])
        && [&["set", "logged"][..], &["set", "unlogged"], &["set", "access", "method"]]
            .iter()
            .any(|words| piece.find(words).is_some())
    {
        "the table is rewritten with everybody locked out"
    } else {
        return;
    };
    report.at(file, TABLE_LOCK, piece.at(), message);
}

/// What PostgreSQL refuses within a transaction, also in an implicit one.
fn needs_no_transaction(piece: &Piece) -> bool {
    let concurrently = piece.find(&["concurrently"]).is_some();
    match piece.object() {
        Some(("create" | "drop", "index")) | Some(("alter", "table")) => concurrently,
        Some(("create" | "drop", "database" | "tablespace" | "subscription")) => true,
        Some(("alter", "system")) => true,
        Some(("alter", "type")) => piece.find(&["add", "value"]).is_some(),
        _ if piece.opens(&["reindex"]) => {
            concurrently
                || ["database", "system", "schema"].iter().any(|what| piece.find(&[what]).is_some())
        }
        _ => piece.opens(&["vacuum"]) || piece.opens(&["cluster"]),
    }
}
