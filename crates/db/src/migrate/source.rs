//! Migration files: their names, where they come from, and what is refused before anybody connects.
//!
//! `NNNN_name.up.sql` with `NNNN_name.down.sql` beside it, the convention of sqlx and
//! golang-migrate. A plain `NNNN_name.sql`, or an up file without a down file, can't be rolled back.
//! `repeatable/name.sql` beside them, for views and functions: applied again whenever it changes.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Migration, MigrationError, MigrationSet, Repeatable, Script, SetKind, sql};

macro_rules! embedded {
    ($set:literal: $($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../migrations/", $set, "/", $file)))),+]
    };
}

pub(super) const PUBLIC: &[(&str, &str)] = embedded!("public":
    "0001_create_public_schema.up.sql",
    "0001_create_public_schema.down.sql",
    "0003_seed_reference_data.up.sql",
    "0003_seed_reference_data.down.sql",
    "0004_announce_tenant_changes.up.sql",
    "0004_announce_tenant_changes.down.sql",
    "0005_record_migration_runs.up.sql",
    "0005_record_migration_runs.down.sql",
    "0006_remember_sign_ups.up.sql",
    "0006_remember_sign_ups.down.sql",
    "0008_record_purges.up.sql",
    "0008_record_purges.down.sql",
    "0009_seal_the_audit_log.up.sql",
    "0009_seal_the_audit_log.down.sql",
    "0010_certify_erasures.up.sql",
    "0010_certify_erasures.down.sql",
    "0011_keep_a_heartbeat.up.sql",
    "0011_keep_a_heartbeat.down.sql",
    "0012_remember_backup_reports.up.sql",
    "0012_remember_backup_reports.down.sql",
    "0013_keep_replaced_schemas.up.sql",
    "0013_keep_replaced_schemas.down.sql",
);

pub(super) const TENANT: &[(&str, &str)] = embedded!("tenant":
    "0002_create_tenant_schema_tables.up.sql",
    "0002_create_tenant_schema_tables.down.sql",
);

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
        Self::from_files("built-in ", owned(PUBLIC), owned(TENANT), &[])
    }

    /// The files of a directory with `public/` and `tenant/` in it. Among the public ones must be those
    /// that this program was built with, since it works on their tables; under which number is free, so
    /// that a later release's fit behind one's own.
    ///
    /// # Errors
    /// [`MigrationError::Files`] with everything that is wrong with them.
    pub fn from_dir(dir: &Path) -> Result<Self, MigrationError> {
        let read = |set: &str| read_dir(&dir.join(set));
        match (read("public"), read("tenant")) {
            (Ok(public), Ok(tenant)) => {
                Self::from_files(&format!("{}/", dir.display()), public, tenant, PUBLIC)
            }
            (public, tenant) => Err(MigrationError::Files {
                problems: [public.err(), tenant.err()].into_iter().flatten().collect(),
            }),
        }
    }

    /// The newest version of the public set that this program was built with, under whatever number.
    pub(super) fn newest_built_in(&self) -> i64 {
        let own: Vec<_> = PUBLIC.iter().map(|(_, text)| sql::token_checksum(text)).collect();
        let is_own = |m: &&Migration| own.contains(&m.token_checksum);
        self.public.migrations.iter().rev().find(is_own).map_or(0, |m| m.version)
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
        needed: &[(&str, &str)],
    ) -> Result<Self, MigrationError> {
        let mut problems = Vec::new();
        let public = assemble(SetKind::Public, place, public, &mut problems);
        let tenant = assemble(SetKind::Tenant, place, tenant, &mut problems);
        for (file, text) in needed.iter().filter(|(file, _)| file.ends_with(".up.sql")) {
            let tokens = sql::token_checksum(text);
            if !public.migrations.iter().any(|m| m.token_checksum == tokens) {
                problems.push(format!(
                    "`{place}public/` lacks `{file}` of this program, under any number, or has it changed: \
                     `tenantry migrate create --built-in` adds what is missing"
                ));
            }
        }
        if problems.is_empty() {
            Ok(Self { public, tenant })
        } else {
            Err(MigrationError::Files { problems })
        }
    }
}

/// The folder of a set's repeatable files.
const REPEATABLE: &str = "repeatable";

/// The SQL files of a set's directory and of its `repeatable/`, by their paths below it.
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
    let repeatable = dir.join(REPEATABLE);
    if !dir.ends_with(REPEATABLE) && repeatable.is_dir() {
        let below = |(name, text)| (format!("{REPEATABLE}/{name}"), text);
        files.extend(read_dir(&repeatable)?.into_iter().map(below));
    }
    files.sort();
    Ok(files)
}

/// The newest version in a set's directory, whatever the files hold.
pub(super) fn head_of(dir: &Path) -> Result<i64, MigrationError> {
    let files =
        read_dir(dir).map_err(|problem| MigrationError::Files { problems: vec![problem] })?;
    Ok(files
        .iter()
        .filter_map(|(file, _)| parse_file_name(file))
        .map(|f| f.version)
        .max()
        .unwrap_or(0))
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

pub(super) fn assemble(
    kind: SetKind,
    place: &str,
    files: Vec<(String, String)>,
    problems: &mut Vec<String>,
) -> MigrationSet {
    let mut ups: BTreeMap<i64, Migration> = BTreeMap::new();
    let mut downs: BTreeMap<i64, (String, Script)> = BTreeMap::new();
    let mut repeatables = Vec::new();
    for (file, text) in files {
        let shown = format!("{place}{kind}/{file}");
        if let Some(file) = file.strip_prefix("repeatable/") {
            repeatables.extend(repeatable(file, &shown, text, problems));
            continue;
        }
        let Some(FileName { version, name, direction }) = parse_file_name(&file) else {
            problems.push(format!("`{shown}` is not named like `0003_add_labels.up.sql`"));
            continue;
        };
        let script = Script::read(&shown, text, problems);
        let former = match direction {
            Direction::Up => {
                ups.insert(version, migration(version, name, script)).map(|m| m.up.file)
            }
            Direction::Down => {
                downs.insert(version, (name.to_owned(), script)).map(|(_, down)| down.file)
            }
        };
        if let Some(former) = former {
            problems.push(format!("`{former}` and `{shown}` have the same version"));
        }
    }
    for (version, (name, down)) in downs {
        match ups.get_mut(&version) {
            Some(up) if up.name == name && up.up.options.irreversible => problems.push(format!(
                "`{}` calls itself irreversible, but `{}` stands beside it",
                up.up.file, down.file
            )),
            Some(up) if up.name == name => up.down = Some(down),
            _ => problems.push(format!(
                "`{}` has no up file of the same version and name beside it",
                down.file
            )),
        }
    }
    MigrationSet { kind, migrations: ups.into_values().collect(), repeatables }
}

fn migration(version: i64, name: &str, up: Script) -> Migration {
    Migration {
        version,
        name: name.to_owned(),
        checksum: sql::checksum(&up.text),
        token_checksum: sql::token_checksum(&up.text),
        up,
        down: None,
    }
}

fn repeatable(
    file: &str,
    shown: &str,
    text: String,
    problems: &mut Vec<String>,
) -> Option<Repeatable> {
    let well_formed = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let Some(name) = file.strip_suffix(".sql").filter(well_formed) else {
        problems.push(format!("`{shown}` is not named like `content_overview.sql`"));
        return None;
    };
    let script = Script::read(shown, text, problems);
    if !script.transactional {
        problems.push(format!("`{shown}` is repeatable, and those run in a transaction"));
    }
    let token_checksum = sql::token_checksum(&script.text);
    Some(Repeatable { name: name.to_owned(), script, token_checksum })
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
        assert!(
            all.into_iter().all(|m: &Migration| m.down.is_some()),
            "each of ours has a way back"
        );
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
