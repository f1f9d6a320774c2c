//! The rules about files, exceptions, and the order and form of what is told.

use std::path::Path;

use super::{SetKind, check, check_tenant, lint_files, told};
use crate::migrate::lint::{Finding, Severity, catalogue, lint, refuse_errors};
use crate::migrate::{MigrationError, Migrations};

#[test]
fn the_built_in_files_are_clean() {
    let findings = lint(&Migrations::embedded().unwrap());
    let standing: Vec<_> =
        findings.iter().filter(|f| f.allowed.is_none()).map(ToString::to_string).collect();
    assert_eq!(standing, [""; 0]);
}

#[test]
fn what_is_no_sql() {
    check_tenant(&[
        ("SELEKT 1;", &["syntax-error"]),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELEKT';", &["syntax-error"]),
        ("\\timing", &["psql-meta", "syntax-error"]),
        ("SELECT :'x'::text;", &["psql-meta", "syntax-error"]),
        ("GRANT SELECT ON notes TO :\"reader\";", &["grant", "psql-meta", "syntax-error"]),
        ("SELECT ('{1,2}'::int[])[1:2], 'a:b \\x', 1 ::text;", &[]),
    ]);
    check(
        SetKind::Public,
        &[("GRANT SELECT ON tenants TO :\"other\";", &["psql-meta", "syntax-error"])],
    );
}

#[test]
fn a_syntax_error_hides_nothing_of_the_wall() {
    check_tenant(&[
        ("SELEKT; SET ROLE x; SELEKT", &["role-switch", "syntax-error"]),
        ("SELECT FROM WHERE public.tenants;", &["qualified-name", "syntax-error"]),
    ]);
}

#[test]
fn a_way_back() {
    let findings = |text| told(&lint_files(&[], &[("1_a.up.sql", text)]), "1_a.up.sql");
    assert_eq!(findings("SELECT 1"), ["missing-down?"]);
    assert_eq!(findings("-- tenantry: irreversible\nSELECT 1"), [""; 0]);
}

#[test]
fn exceptions() {
    check_tenant(&[
        (
            "-- tenantry: allow=drop-column reason=\"unused since May\"\nALTER TABLE notes DROP body;",
            &[],
        ),
        (
            "-- tenantry: allow=drop-table reason=\"x\"\nALTER TABLE notes DROP body;",
            &["drop-column", "unused-allow?"],
        ),
        (
            "-- tenantry: allow=drop-colum reason=\"x\"\nALTER TABLE notes DROP body;",
            &["drop-column", "unknown-rule?"],
        ),
        (
            "-- tenantry: allow=session-state reason=\"x\"\nRESET ALL;",
            &["fixed-rule?", "session-state"],
        ),
        ("-- tenantry: allow=unused-allow reason=\"x\"\nSELECT 1;", &["fixed-rule?"]),
        (
            "-- squawk-ignore-file\n-- squawk-ignore renaming-column\nALTER TABLE notes RENAME body TO b;",
            &["rename-column"],
        ),
        (
            "SELECT '\n-- tenantry: allow=drop-column reason=\"x\"\n'; ALTER TABLE notes DROP body;",
            &["drop-column"],
        ),
    ]);
    let file = "-- tenantry: allow=drop-column reason=\"unused since May\"\nALTER TABLE notes DROP body;\n";
    let findings = lint_files(&[], &[("1_a.sql", file)]);
    let reasons: Vec<_> = findings.iter().map(|f| (f.rule, f.line, f.allowed.as_deref())).collect();
    assert_eq!(reasons, [("missing-down", 1, None), ("drop-column", 2, Some("unused since May"))]);
    assert!(refuse_errors(&findings).is_ok());
}

fn some() -> Vec<Finding> {
    let notes = "-- notes\nCREATE TABLE notes (id int PRIMARY KEY);\n\nSELECT 1 FROM tenants;\nGRANT SELECT ON notes TO x;\n";
    lint_files(
        &[
            ("1_t.up.sql", "CREATE TABLE tenants (id int PRIMARY KEY)"),
            ("1_t.down.sql", "DROP TABLE tenants"),
        ],
        &[("0002_notes.up.sql", notes)],
    )
}

#[test]
fn errors_are_refused_and_listed_with_file_line_and_rule() {
    let error = refuse_errors(&some()).unwrap_err();
    insta::assert_snapshot!(error, @r"
    the lint refuses the migration files:
      - `tenant/0002_notes.up.sql`, line 4: error[public-table]: `tenants` is a table of the public set, for the system alone
      - `tenant/0002_notes.up.sql`, line 5: error[grant]: a right given or taken in a tenant's file
    ");
    assert!(matches!(&error, MigrationError::Lint { findings } if findings.len() == 2));
    let error = crate::Error::from(error);
    assert_eq!(error.kind(), crate::ErrorKind::Refused);
    assert!(error.hint().unwrap().contains("migrate lint"));
}

#[test]
fn findings_have_a_form_for_programs() {
    let first = serde_json::to_string_pretty(&some().first()).unwrap();
    insta::assert_snapshot!(first, @r#"
    {
      "rule": "missing-down",
      "severity": "warning",
      "file": "tenant/0002_notes.up.sql",
      "line": 1,
      "message": "there is no down file beside it",
      "why": "a release that goes wrong can't be taken back",
      "safe_way": "write the down file, or say `-- tenantry: irreversible`",
      "allowed": null
    }
    "#);
}

/// The reference describes each rule once and none that there is not, with its weight.
#[test]
fn the_reference_names_the_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/lint-rules.md");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let heading = |pair: &[&str]| {
        let name = pair[0].strip_prefix("### `")?.strip_suffix('`')?;
        Some(format!("{name}: {}", pair[1]))
    };
    let mut documented: Vec<_> = lines.windows(2).filter_map(heading).collect();
    let told = |rule: &catalogue::Rule| {
        let severity = if rule.severity == Severity::Error { "Error" } else { "Warning" };
        let lifted = if rule.liftable { "May be lifted" } else { "May not be lifted" };
        format!("{}: *{severity}. {lifted}.*", rule.name)
    };
    let mut rules: Vec<_> = catalogue::all().map(told).collect();
    documented.sort_unstable();
    rules.sort_unstable();
    assert_eq!(documented, rules);
}
