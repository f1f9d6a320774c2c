//! The files of a new migration, and of a new directory of migrations.

use std::path::{Path, PathBuf};

use super::source::{PUBLIC, TENANT, head_of};
use super::{MigrationError, SetKind, sql};

/// Puts this program's own files where they are missing: all of them into a new directory; into one that
/// is there already, the public ones that it lacks, under numbers above all others.
///
/// Yields what was written.
///
/// # Errors
/// [`MigrationError::Files`] for what can't be read or written.
pub fn add_built_in(dir: &Path) -> Result<Vec<PathBuf>, MigrationError> {
    let is_new = !dir.join("public").is_dir() && !dir.join("tenant").is_dir();
    let mut written = Vec::new();
    for (set, files) in [(SetKind::Public, PUBLIC), (SetKind::Tenant, TENANT)] {
        std::fs::create_dir_all(dir.join(set.to_string())).map_err(|e| unusable(dir, &e))?;
        if is_new {
            for (file, text) in files {
                written.push(write(&dir.join(set.to_string()).join(file), text)?);
            }
        }
    }
    if is_new {
        return Ok(written);
    }
    let public = dir.join("public");
    let mut present = Vec::new();
    for entry in std::fs::read_dir(&public).map_err(|e| unusable(&public, &e))? {
        let path = entry.map_err(|e| unusable(&public, &e))?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let text = std::fs::read_to_string(&path).map_err(|e| unusable(&path, &e))?;
            present.push(sql::token_checksum(&text));
        }
    }
    for (file, text) in PUBLIC.iter().filter(|(file, _)| file.ends_with(".up.sql")) {
        if present.contains(&sql::token_checksum(text)) {
            continue;
        }
        let name =
            file.trim_end_matches(".up.sql").trim_start_matches(|c: char| c.is_ascii_digit());
        let stem = format!("{}{name}", next_version(dir)?);
        written.push(write(&public.join(format!("{stem}.up.sql")), text)?);
        let down = file.replace(".up.sql", ".down.sql");
        if let Some((_, text)) = PUBLIC.iter().find(|(file, _)| **file == down) {
            written.push(write(&public.join(format!("{stem}.down.sql")), text)?);
        }
    }
    Ok(written)
}

/// Writes the up and the down file of a new migration, with the safe ways of common changes in comments.
///
/// # Errors
/// [`MigrationError::Files`] for a name that can't be one, and for what can't be read or written.
pub fn create(dir: &Path, set: SetKind, name: &str) -> Result<Vec<PathBuf>, MigrationError> {
    let well_formed = !name.is_empty()
        && name.len() <= 100
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !well_formed {
        let problem = format!(
            "`{}` is not a migration's name: lower-case letters, digits and underscores, such as `add_labels`",
            crate::ids::excerpt(name)
        );
        return Err(MigrationError::Files { problems: vec![problem] });
    }
    let place = dir.join(set.to_string());
    let stem = format!("{}_{name}", next_version(dir)?);
    let (up, down) = match set {
        SetKind::Public => {
            (include_str!("template/public.up.sql"), include_str!("template/public.down.sql"))
        }
        SetKind::Tenant => {
            (include_str!("template/tenant.up.sql"), include_str!("template/tenant.down.sql"))
        }
    };
    Ok(vec![
        write(&place.join(format!("{stem}.up.sql")), &up.replace("{name}", name))?,
        write(&place.join(format!("{stem}.down.sql")), &down.replace("{name}", name))?,
    ])
}

/// One above all versions of both sets; where those are timestamps, the time of now.
fn next_version(dir: &Path) -> Result<String, MigrationError> {
    const FIRST_TIMESTAMP: i64 = 10_000_000_000_000;
    let mut head = 0;
    for set in [SetKind::Public, SetKind::Tenant] {
        head = head.max(head_of(&dir.join(set.to_string()))?);
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%d%H%M%S").to_string();
    match now.parse::<i64>() {
        Ok(now) if head >= FIRST_TIMESTAMP => Ok(now.max(head + 1).to_string()),
        _ => Ok(format!("{:04}", head + 1)),
    }
}

fn write(path: &Path, text: &str) -> Result<PathBuf, MigrationError> {
    use std::io::Write as _;
    let new = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = new.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| unusable(path, &e)).map(|()| path.to_owned())
}

fn unusable(path: &Path, error: &std::io::Error) -> MigrationError {
    MigrationError::Files { problems: vec![format!("`{}` can't be used: {error}", path.display())] }
}
