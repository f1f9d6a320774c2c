//! Rules about the session: what would outlive the transaction, or change whom it acts for.

use super::catalogue::{
    ADVISORY_LOCK, DO_BLOCK, DYNAMIC_SQL, LARGE_OBJECT, ROLE_SWITCH, SEARCH_PATH, SERVER_FILE,
    SESSION_STATE, TEMP_TABLE, TIMEOUT_OVERRIDE, TRANSACTION_CONTROL,
};
use super::file::File;
use super::finding::Report;
use super::words::{Kind, Piece, Word};

pub(super) fn check(file: &File<'_>, report: &mut Report) {
    for piece in &file.pieces {
        settings(file, piece, report);
        statements(file, piece, report);
        temporary(file, piece, report);
        functions(file, piece, report);
        unseen(file, piece, report);
    }
}

/// SET and RESET, by their full form: in a body, a column may have such a name.
fn settings(file: &File<'_>, piece: &Piece, report: &mut Report) {
    let words = &piece.words;
    if piece.opens(&["reset"]) && (!piece.in_body || words.len() >= 2) {
        let what = words.get(1).map_or("", |word| word.text.as_str());
        let rule = match what {
            "role" | "session" => ROLE_SWITCH,
            "search_path" => SEARCH_PATH,
            _ => SESSION_STATE,
        };
        return report.at(file, rule, piece.at(), format!("`RESET {what}`"));
    }
    if !piece.opens(&["set"]) {
        return;
    }
    let local = words.get(1).is_some_and(|w| w.is("local"));
    let scope = usize::from(local || words.get(1).is_some_and(|w| w.is("session")));
    let rest = words.get(1 + scope..).unwrap_or_default();
    let name = rest.first().and_then(|word| word.name()).unwrap_or_default().to_lowercase();
    let assigns = rest.get(1).is_some_and(|w| w.is("to") || w.is_sign("="));
    match name.as_str() {
        // `SET SESSION AUTHORIZATION`, where SESSION is not a scope.
        "role" | "authorization" | "session_authorization" | "session" => {
            report.at(file, ROLE_SWITCH, piece.at(), "another role than the owner from here on");
        }
        // `SET SCHEMA 'x'` is another way to write it.
        "search_path" | "schema" => {
            report.at(file, SEARCH_PATH, piece.at(), "another search path from here on");
        }
        "transaction" | "characteristics" => {
            report.at(file, TRANSACTION_CONTROL, piece.at(), "the transaction is the runner's");
        }
        "constraints" => {}
        "lock_timeout" | "statement_timeout" if local => {
            report.at(file, TIMEOUT_OVERRIDE, piece.at(), format!("`{name}` is set by the runner"));
        }
        // A variable of a body may have the name: `set := 1`.
        "" => {}
        _ if local || (piece.in_body && !assigns && name != "time" && name != "names") => {}
        _ => report.at(file, SESSION_STATE, piece.at(), format!("`SET {name}` without LOCAL")),
    }
}

fn statements(file: &File<'_>, piece: &Piece, report: &mut Report) {
    let Some(first) = piece.words.first().filter(|word| word.kind == Kind::Name) else { return };
    let alone = |word: &str| piece.words.len() > 1 || !piece.in_body || first.text != word;
    match first.text.as_str() {
        "listen" | "unlisten" | "discard" | "deallocate" | "load" if alone(&first.text) => {
            let word = first.text.to_uppercase();
            report.at(file, SESSION_STATE, piece.at(), format!("`{word}` acts on the session"));
        }
        "prepare" if !piece.opens(&["prepare", "transaction"]) => {
            report.at(
                file,
                SESSION_STATE,
                piece.at(),
                "a prepared statement stays on the connection",
            );
        }
        "declare" if piece.find(&["with", "hold"]).is_some() => {
            report.at(
                file,
                SESSION_STATE,
                piece.at(),
                "a cursor WITH HOLD stays on the connection",
            );
        }
        "commit" | "rollback" if piece.in_body => {
            let word = first.text.to_uppercase();
            report.at(file, TRANSACTION_CONTROL, piece.at(), format!("`{word}` in a body"));
        }
        "copy" => copy(file, piece, report),
        _ => {}
    }
}

fn copy(file: &File<'_>, piece: &Piece, report: &mut Report) {
    let words = piece.words.windows(2);
    let outside = words.filter(|pair| pair[0].is("from") || pair[0].is("to")).any(|pair| {
        pair[1].kind == Kind::Text || ["program", "stdin", "stdout"].iter().any(|w| pair[1].is(w))
    });
    if outside {
        report.at(file, SERVER_FILE, piece.at(), "`COPY` with a file, a program or the client");
    }
}

/// What may stand between CREATE and TEMP.
const MODIFIERS: &[&str] = &["or", "replace", "global", "local"];

fn temporary(file: &File<'_>, piece: &Piece, report: &mut Report) {
    let temporary = |word: &Word| word.is("temp") || word.is("temporary");
    let modifies = |word: &&Word| MODIFIERS.iter().any(|modifier| word.is(modifier));
    let found = if piece.opens(&["create"]) {
        piece.words.iter().skip(1).find(|word| !modifies(word)).filter(|word| temporary(word))
    } else {
        // SELECT … INTO TEMP x, also behind WITH.
        let into = piece.words.windows(2).find(|pair| pair[0].is("into") && temporary(&pair[1]));
        into.map(|pair| &pair[1])
    };
    let schema = piece
        .words
        .windows(2)
        .find(|pair| pair[0].name() == Some("pg_temp") && pair[1].is_sign("."));
    if let Some(word) = found.or_else(|| schema.map(|pair| &pair[0])) {
        report.at(file, TEMP_TABLE, word.at, "a temporary table, view or sequence");
    }
}

/// Functions that act on the session or outside the database, wherever they are called.
fn functions(file: &File<'_>, piece: &Piece, report: &mut Report) {
    // Rights on a function name it without calling it.
    if piece.opens(&["revoke"]) {
        return;
    }
    for pair in piece.words.windows(2) {
        let Some(name) = pair[0].name().filter(|_| pair[1].is_sign("(")) else { continue };
        let rule = match name {
            "set_config" => SESSION_STATE,
            "pg_read_file"
            | "pg_read_binary_file"
            | "pg_ls_dir"
            | "pg_stat_file"
            | "lo_import"
            | "lo_export" => SERVER_FILE,
            "query_to_xml"
            | "query_to_xmlschema"
            | "query_to_xml_and_xmlschema"
            | "ts_stat"
            | "dblink"
            | "dblink_exec" => DYNAMIC_SQL,
            "lo_create" | "lo_creat" | "lo_from_bytea" => LARGE_OBJECT,
            _ if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") => {
                ADVISORY_LOCK
            }
            _ => continue,
        };
        report.at(file, rule, pair[0].at, format!("`{name}` is called"));
    }
}

/// What can't be looked into. In the public set that is a matter between administrators.
fn unseen(file: &File<'_>, piece: &Piece, report: &mut Report) {
    if !file.is_tenant() {
        return;
    }
    if piece.opens(&["do"]) {
        report.at(file, DO_BLOCK, piece.at(), "a DO block");
    }
    if piece.in_body
        && let Some(at) = piece.find(&["execute"])
    {
        // A trigger's EXECUTE FUNCTION, and the right to EXECUTE, run no text.
        let next = piece.words.get(at + 1);
        let runs = next.is_some_and(|w| !["function", "procedure", "on"].iter().any(|k| w.is(k)));
        if runs {
            report.at(file, DYNAMIC_SQL, piece.words[at].at, "EXECUTE runs a text");
        }
    }
    let routine = matches!(piece.object(), Some(("create", "function" | "procedure")));
    let language = piece.words.windows(2).find(|pair| pair[0].is("language")).map(|pair| &pair[1]);
    if let Some(language) = language.filter(|_| routine || piece.opens(&["do"])) {
        let name = language.text.to_lowercase();
        if name != "sql" && name != "plpgsql" {
            report.at(file, DYNAMIC_SQL, language.at, format!("a body in `{name}`"));
        }
    }
}
