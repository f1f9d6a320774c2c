//! Finding the programs: PostgreSQL 15 or newer, and PgBouncer.
//!
//! Owns the places to look and the order among them. Refuses to mix versions: `initdb`, `postgres`
//! and `pg_basebackup` come from one directory, of the version that the existing cluster has.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{Error, Result};

/// Older ones lack `security_invoker` and the closed `public` schema.
const OLDEST_MAJOR: u32 = 15;
const POSTGRES_PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_basebackup"];
const POOLER_PROGRAM: &str = "pgbouncer";

/// Packages put PostgreSQL into `<first>/<a version>/<second>`.
const VERSIONED_PLACES: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];
/// An ordinary user's `PATH` often lacks these.
const PLAIN_PLACES: [&str; 4] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"];

/// The programs of one stack.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    postgres_bin: PathBuf,
    pub(crate) pooler: PathBuf,
}

impl Programs {
    /// Looks in `search_path`, or else in `PATH` and the usual places. An existing cluster's
    /// `cluster_major` decides which PostgreSQL; else the first in `PATH`, then the newest.
    pub(crate) async fn find(
        search_path: Option<&OsStr>,
        cluster_major: Option<u32>,
    ) -> Result<Self> {
        let places = match search_path {
            Some(path) => std::env::split_paths(path).collect(),
            None => usual_places().await,
        };
        let (mut postgres_bin, mut unsuitable) = (None, None);
        for place in places.iter().filter(|place| has_all_of_postgres(place)) {
            let version = version_of(&place.join("postgres")).await?;
            if suits(major(&version), cluster_major) {
                postgres_bin = Some(place.clone());
                break;
            }
            unsuitable.get_or_insert(version);
        }
        let pooler = places.iter().map(|place| place.join(POOLER_PROGRAM)).find(|it| it.is_file());
        match (postgres_bin, unsuitable, pooler) {
            (Some(postgres_bin), _, Some(pooler)) => Ok(Self { postgres_bin, pooler }),
            (None, Some(found), _) => Err(Error::UnsupportedVersion {
                name: "postgres".to_owned(),
                found,
                needed: cluster_major.map_or_else(
                    || format!("{OLDEST_MAJOR} or newer"),
                    |major| format!("{major}, which made the existing data,"),
                ),
            }),
            (postgres_bin, _, pooler) => Err(missing(&places, postgres_bin.is_none(), pooler)),
        }
    }

    /// One of PostgreSQL's own programs.
    pub(crate) fn postgres(&self, name: &str) -> PathBuf {
        self.postgres_bin.join(name)
    }
}

/// The server's program, of the version that made some data.
///
/// # Errors
/// [`Error::MissingBinary`]; [`Error::UnsupportedVersion`] if it is there in other versions only.
pub(crate) async fn find_postgres(major_of_data: Option<u32>) -> Result<PathBuf> {
    let mut unsuitable = None;
    for place in usual_places().await {
        let program = place.join("postgres");
        if !program.is_file() {
            continue;
        }
        let version = version_of(&program).await?;
        if suits(major(&version), major_of_data) {
            return Ok(program);
        }
        unsuitable.get_or_insert(version);
    }
    let Some(found) = unsuitable else {
        return Err(Error::MissingBinary { names: vec!["postgres".to_owned()] });
    };
    let needed = major_of_data.map_or_else(
        || format!("{OLDEST_MAJOR} or newer"),
        |major| format!("{major}, which made the data,"),
    );
    Err(Error::UnsupportedVersion { name: "postgres".to_owned(), found, needed })
}

/// One of PostgreSQL's client programs, such as `psql`: in `PATH`, else where the servers' programs are looked
/// for, the newest version first.
///
/// # Errors
/// [`Error::MissingBinary`] with what to install.
pub async fn find_client_program(name: &str) -> Result<PathBuf> {
    let places = usual_places().await;
    let found = places.iter().map(|place| place.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::MissingBinary { names: vec![name.to_owned()] })
}

fn missing(places: &[PathBuf], without_postgres: bool, pooler: Option<PathBuf>) -> Error {
    let is_nowhere = |name: &str| !places.iter().any(|place| place.join(name).is_file());
    let mut names: Vec<String> = Vec::new();
    if without_postgres {
        names.extend(POSTGRES_PROGRAMS.iter().filter(|it| is_nowhere(it)).map(|it| (*it).into()));
        if names.is_empty() {
            // Each is somewhere, but no directory has them all.
            names.extend(POSTGRES_PROGRAMS.map(str::to_owned));
        }
    }
    if pooler.is_none() {
        names.push(POOLER_PROGRAM.to_owned());
    }
    Error::MissingBinary { names }
}

fn has_all_of_postgres(place: &Path) -> bool {
    POSTGRES_PROGRAMS.iter().all(|name| place.join(name).is_file())
}

fn suits(found: Option<u32>, wanted: Option<u32>) -> bool {
    found.is_some_and(|found| found >= OLDEST_MAJOR && wanted.is_none_or(|wanted| wanted == found))
}

async fn usual_places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Some(directory) = output_of(Path::new("pg_config"), "--bindir").await {
        places.push(directory.into());
    }
    places.extend(versioned_places());
    places.extend(PLAIN_PLACES.map(PathBuf::from));
    places
}

/// The newest version first.
fn versioned_places() -> impl Iterator<Item = PathBuf> {
    let mut found = BTreeSet::new();
    for (above, prefix, below) in VERSIONED_PLACES {
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            if let Some(version) = version {
                let version: u32 = version;
                found.insert((version, entry.path().join(below)));
            }
        }
    }
    found.into_iter().rev().map(|(_, place)| place)
}

async fn version_of(program: &Path) -> Result<String> {
    let line = output_of(program, "--version").await.unwrap_or_default();
    version_in(&line).map(str::to_owned).ok_or_else(|| {
        let source = std::io::Error::other(format!("it said {line:?}"));
        Error::Io { action: "ask for the version of", path: program.to_owned(), source }
    })
}

/// The first word that begins with a digit: `postgres (PostgreSQL) 15.18 (Debian …)`.
fn version_in(line: &str) -> Option<&str> {
    line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

/// `18beta1` is 18.
fn major(version: &str) -> Option<u32> {
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

async fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_say() {
        let version = |line| version_in(line).and_then(major);
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(version("postgres (PostgreSQL)"), None);
    }

    #[test]
    fn an_existing_cluster_decides_the_version() {
        assert!(suits(Some(15), None) && suits(Some(17), None));
        assert!(suits(Some(15), Some(15)) && !suits(Some(17), Some(15)));
        assert!(!suits(Some(14), None) && !suits(Some(14), Some(14)) && !suits(None, None));
    }
}
