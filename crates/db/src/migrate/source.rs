//! Migration files: their names, where they come from, and what is refused before anybody connects.
//!
//! `NNNN_name.up.sql` with `NNNN_name.down.sql` beside it, the convention of sqlx and
//! golang-migrate. A plain `NNNN_name.sql`, or an up file without a down file, can't be rolled back.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::{MigrationError, sql};

macro_rules! embedded {
    ($set:literal: $($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../migrations/", $set, "/", $file)))),+]
    };
}

const PUBLIC: &[(&str, &str)] = embedded!("public":
    "0001_create_public_schema.up.sql",
    "0001_create_public_schema.down.sql",
    "0003_seed_reference_data.up.sql",
    "0003_seed_reference_data.down.sql",
    "0004_announce_tenant_changes.up.sql",
    "0004_announce_tenant_changes.down.sql",
    "0006_remember_sign_ups.up.sql",
    "0006_remember_sign_ups.down.sql",
);

const TENANT: &[(&str, &str)] = embedded!("tenant":
    "0002_create_tenant_schema_tables.up.sql",
    "0002_create_tenant_schema_tables.down.sql",
);

/// One of the two sets of migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetKind {
    /// The system-wide tables.
    Public,
    /// The tables that every tenant has.
    Tenant,
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Tenant => "tenant",
        })
    }
}

/// One version of a schema.
#[derive(Debug, Clone)]
pub struct Migration {
    /// The number that the file's name begins with.
    pub version: i64,
    /// The rest of the file's name.
    pub name: String,
    /// The up file, as people find it.
    pub file: String,
    /// The statements that lead to this version.
    pub up: String,
    /// The statements that lead back, if there is a way back.
    pub down: Option<String>,
    /// SHA-256 of the up file's bytes, line ends unified.
    pub checksum: [u8; 32],
    /// SHA-256 of the up file's tokens, without comments and white space.
    pub token_checksum: [u8; 32],
}

/// The migrations of one set, in ascending order of version.
#[derive(Debug, Clone)]
pub struct MigrationSet {
    kind: SetKind,
    migrations: Vec<Migration>,
}

impl MigrationSet {
    /// Which set it is.
    pub fn kind(&self) -> SetKind {
        self.kind
    }

    /// The migrations, oldest first.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// The newest version, 0 for an empty set.
    pub fn head(&self) -> i64 {
        self.migrations.last().map_or(0, |m| m.version)
    }
}

/// Both sets.
#[derive(Debug, Clone)]
pub struct Migrations {
    /// The system-wide tables.
    pub public: MigrationSet,
    /// The tables that every tenant has.
    pub tenant: MigrationSet,
}

impl Migrations {
    /// The files that this program was built with.
    ///
    /// # Errors
    /// None in a program that passed its tests.
    pub fn embedded() -> Result<Self, MigrationError> {
        let owned = |files: &[(&str, &str)]| {
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        Self::from_files("built-in ", owned(PUBLIC), owned(TENANT))
    }

    /// The files of a directory with `public/` and `tenant/` in it.
    ///
    /// # Errors
    /// [`MigrationError::Files`] with everything that is wrong with them.
    pub fn from_dir(dir: &Path) -> Result<Self, MigrationError> {
        let read = |set: &str| read_dir(&dir.join(set));
        match (read("public"), read("tenant")) {
            (Ok(public), Ok(tenant)) => {
                Self::from_files(&format!("{}/", dir.display()), public, tenant)
            }
            (public, tenant) => Err(MigrationError::Files {
                problems: [public.err(), tenant.err()].into_iter().flatten().collect(),
            }),
        }
    }

    /// The files that the configuration names.
    ///
    /// # Errors
    /// As [`Migrations::from_dir`].
    pub fn load(config: &crate::config::Migrations) -> Result<Self, MigrationError> {
        config.dir.as_deref().map_or_else(Self::embedded, Self::from_dir)
    }

    fn from_files(
        place: &str,
        public: Vec<(String, String)>,
        tenant: Vec<(String, String)>,
    ) -> Result<Self, MigrationError> {
        let mut problems = Vec::new();
        let public = assemble(SetKind::Public, place, public, &mut problems);
        let tenant = assemble(SetKind::Tenant, place, tenant, &mut problems);
        if problems.is_empty() {
            Ok(Self { public, tenant })
        } else {
            Err(MigrationError::Files { problems })
        }
    }
}

fn read_dir(dir: &Path) -> Result<Vec<(String, String)>, String> {
    let problem = |e: std::io::Error| format!("`{}` can't be read: {e}", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(problem)? {
        let entry = entry.map_err(problem)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sql") {
            let text = std::fs::read_to_string(entry.path())
                .map_err(|e| format!("`{}` can't be read: {e}", entry.path().display()))?;
            files.push((name, text));
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

struct FileName<'a> {
    version: i64,
    name: &'a str,
    direction: Direction,
}

fn parse_file_name(file: &str) -> Option<FileName<'_>> {
    let stem = file.strip_suffix(".sql")?;
    let (stem, direction) = match stem.rsplit_once('.') {
        Some((stem, "up")) => (stem, Direction::Up),
        Some((stem, "down")) => (stem, Direction::Down),
        Some(_) => return None,
        None => (stem, Direction::Up),
    };
    let (digits, name) = stem.split_once('_')?;
    let well_formed = digits.bytes().all(|b| b.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let version = digits.parse().ok().filter(|version| *version > 0)?;
    well_formed.then_some(FileName { version, name, direction })
}

fn assemble(
    kind: SetKind,
    place: &str,
    files: Vec<(String, String)>,
    problems: &mut Vec<String>,
) -> MigrationSet {
    let mut ups: BTreeMap<i64, Migration> = BTreeMap::new();
    let mut downs: BTreeMap<i64, (String, String, String)> = BTreeMap::new();
    for (file, text) in files {
        let shown = format!("{place}{kind}/{file}");
        let Some(FileName { version, name, direction }) = parse_file_name(&file) else {
            problems.push(format!("`{shown}` is not named like `0003_add_labels.up.sql`"));
            continue;
        };
        check_text(&shown, &text, problems);
        let former = match direction {
            Direction::Up => {
                ups.insert(version, migration(version, name, &shown, text)).map(|m| m.file)
            }
            Direction::Down => {
                downs.insert(version, (name.to_owned(), shown.clone(), text)).map(|d| d.1)
            }
        };
        if let Some(former) = former {
            problems.push(format!("`{former}` and `{shown}` have the same version"));
        }
    }
    for (version, (name, shown, text)) in downs {
        match ups.get_mut(&version) {
            Some(up) if up.name == name => up.down = Some(text),
            _ => problems
                .push(format!("`{shown}` has no up file of the same version and name beside it")),
        }
    }
    MigrationSet { kind, migrations: ups.into_values().collect() }
}

fn migration(version: i64, name: &str, shown: &str, up: String) -> Migration {
    Migration {
        version,
        name: name.to_owned(),
        file: shown.to_owned(),
        checksum: sql::checksum(&up),
        token_checksum: sql::token_checksum(&up),
        up,
        down: None,
    }
}

fn check_text(shown: &str, text: &str, problems: &mut Vec<String>) {
    if text.contains('\0') {
        problems.push(format!("`{shown}` holds a NUL byte"));
    }
    if text.lines().next().is_some_and(|line| line.trim() == "-- no-transaction") {
        problems.push(format!(
            "`{shown}` asks to run outside a transaction, which this version can't do"
        ));
    }
    let statements = sql::statements(text);
    if statements.is_empty() {
        problems.push(format!("`{shown}` holds no statement"));
    }
    for statement in statements.iter().filter(|s| sql::controls_transaction(s)) {
        problems.push(format!(
            "`{shown}`, line {}: `{}` would split the transaction that makes the file whole or absent",
            statement.line, statement.opening
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<MigrationSet, Vec<String>> {
        let owned = files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        let mut problems = Vec::new();
        let set = assemble(SetKind::Tenant, "", owned, &mut problems);
        if problems.is_empty() { Ok(set) } else { Err(problems) }
    }

    #[test]
    fn the_embedded_list_is_what_the_directories_hold() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for (set, listed) in [("public", PUBLIC), ("tenant", TENANT)] {
            let mut listed: Vec<_> =
                listed.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
            listed.sort();
            assert_eq!(read_dir(&root.join(set)).unwrap(), listed);
        }
        let both = Migrations::embedded().unwrap();
        let all = both.public.migrations().iter().chain(both.tenant.migrations());
        assert!(all.into_iter().all(|m| m.down.is_some()), "each of ours has a way back");
    }

    #[test]
    fn versions_sort_as_numbers_and_a_missing_down_is_irreversible() {
        let set = load(&[
            ("10_c.sql", "SELECT 1"),
            ("2_b.up.sql", "SELECT 1"),
            ("2_b.down.sql", "SELECT 1"),
            ("20261123120000_d.up.sql", "SELECT 1"),
        ])
        .unwrap();
        let seen: Vec<_> = set.migrations().iter().map(|m| (m.version, m.down.is_some())).collect();
        assert_eq!(seen, [(2, true), (10, false), (20_261_123_120_000, false)]);
        assert_eq!(set.head(), 20_261_123_120_000);
    }

    #[test]
    fn every_bad_file_is_reported_at_once() {
        let problems = load(&[
            ("0001_a.up.sql", "SELECT 1;\nCOMMIT;"),
            ("1_b.up.sql", "SELECT 1"),
            ("0002_gone.down.sql", "SELECT 1"),
            ("0003_empty.up.sql", "-- nothing\n"),
            ("0004_Bad.up.sql", "SELECT 1"),
            ("0_zero.up.sql", "SELECT 1"),
            ("no_version.up.sql", "SELECT 1"),
            ("0005_x.sideways.sql", "SELECT 1"),
        ])
        .unwrap_err();
        insta::assert_snapshot!(problems.join("\n"), @r"
        `tenant/0001_a.up.sql`, line 2: `COMMIT` would split the transaction that makes the file whole or absent
        `tenant/0001_a.up.sql` and `tenant/1_b.up.sql` have the same version
        `tenant/0003_empty.up.sql` holds no statement
        `tenant/0004_Bad.up.sql` is not named like `0003_add_labels.up.sql`
        `tenant/0_zero.up.sql` is not named like `0003_add_labels.up.sql`
        `tenant/no_version.up.sql` is not named like `0003_add_labels.up.sql`
        `tenant/0005_x.sideways.sql` is not named like `0003_add_labels.up.sql`
        `tenant/0002_gone.down.sql` has no up file of the same version and name beside it
        ");
    }
}
