//! `manifest.json`: what an archive holds, and from where. It stands last, so that an archive that was cut
//! off has none.
//!
//! What is read here may come from anybody: it is checked against itself before anything is done with it,
//! and names in it are only ever compared, never sent to the server.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TransferError;
use crate::ids::{TenantId, excerpt};

pub(super) const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "tenantry-export";
const FORMAT_VERSION: u32 = 1;

/// What an archive holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub(super) format: String,
    pub(super) format_version: u32,
    pub(super) software_version: String,
    /// Whose data it is.
    pub tenant: ExportedTenant,
    /// When its snapshot was taken, by the server's clock.
    pub exported_at: Timestamp,
    pub(super) snapshot_lsn: String,
    /// The newest tenant migration that the schema had.
    pub schema_version: i64,
    /// The version whose file, which runs outside a transaction, was half through.
    pub(super) half_way_to: Option<i64>,
    pub(super) migrations: Vec<AppliedFile>,
    pub(super) csv: CsvForm,
    /// Columns that were left out, as `table.column`.
    pub omitted: Vec<String>,
    /// The tables, in the order of their files.
    pub tables: Vec<ExportedTable>,
    pub(super) sequences: Vec<ExportedSequence>,
}

/// The tenant as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportedTenant {
    /// Its id, which no import takes over.
    pub id: TenantId,
    /// Its display name.
    pub name: String,
    /// Its unique human name.
    pub subdomain: Option<String>,
    /// What it had booked.
    pub tier: String,
    /// Free settings of the product.
    pub settings: Map<String, Value>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A migration that the schema had.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AppliedFile {
    pub(super) version: i64,
    pub(super) name: String,
    /// SHA-256 of the file, in hex.
    pub(super) checksum: String,
    /// SHA-256 of its tokens: without comments and white space.
    pub(super) token_checksum: String,
}

/// How the files are written, for people and programs that do not know this one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CsvForm {
    encoding: String,
    delimiter: String,
    quote: String,
    header: bool,
    null: String,
    empty_text: String,
    times: String,
    binary: String,
}

impl CsvForm {
    pub(super) fn ours() -> Self {
        let own = str::to_owned;
        Self {
            encoding: own("UTF-8"),
            delimiter: own(","),
            quote: own("\""),
            header: true,
            null: own("an empty field without quotes"),
            empty_text: own("an empty field in quotes"),
            times: own("ISO 8601, UTC"),
            binary: own("\\x and hex digits"),
        }
    }
}

/// A table and its file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportedTable {
    /// Its name.
    pub name: String,
    pub(super) file: String,
    /// How many rows.
    pub rows: u64,
    /// How long its file is, unpacked.
    pub bytes: u64,
    pub(super) sha256: String,
    pub(super) columns: Vec<ExportedColumn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExportedColumn {
    pub(super) name: String,
    pub(super) r#type: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ExportedSequence {
    pub(super) name: String,
    pub(super) last_value: i64,
    pub(super) is_called: bool,
}

/// The name of a table's file: its own where that can stand on any disk, else a number.
pub(super) fn file_of(table: &str, number: usize) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match table.bytes().all(plain) {
        true => format!("tables/{table}.csv"),
        // A hyphen, so that no table's own name is the same.
        false => format!("tables/table-{number}.csv"),
    }
}

impl Manifest {
    pub(super) fn format() -> (String, u32) {
        (FORMAT.to_owned(), FORMAT_VERSION)
    }

    /// How many rows it holds.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).fold(0, u64::saturating_add)
    }

    /// How many bytes its files have, unpacked.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).fold(0, u64::saturating_add)
    }

    /// Reads it, and checks what it says against itself.
    pub(super) fn read(text: &[u8]) -> Result<Self, TransferError> {
        /// What every version has, to tell a newer one from a damaged one.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            format_version: u32,
        }
        let unreadable =
            |e: serde_json::Error| TransferError::damaged(MANIFEST, excerpt(&e.to_string()));
        let head: Head = serde_json::from_slice(text).map_err(unreadable)?;
        if head.format != FORMAT {
            return Err(TransferError::damaged(MANIFEST, "it is not an export's"));
        }
        if head.format_version != FORMAT_VERSION {
            let found = head.format_version;
            let newer = format!("its format is {found}, this program knows {FORMAT_VERSION}");
            return Err(TransferError::Newer(newer));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(unreadable)?;
        manifest.agrees_with_itself()?;
        Ok(manifest)
    }

    fn agrees_with_itself(&self) -> Result<(), TransferError> {
        let wrong = |what: String| Err(TransferError::damaged(MANIFEST, what));
        let mut names = BTreeSet::new();
        for (number, table) in self.tables.iter().enumerate() {
            let shown = excerpt(&table.name);
            if !names.insert(&table.name) {
                return wrong(format!("table `{shown}` stands there twice"));
            }
            // The rule that the name was made by, and nothing that a path could hide in.
            if table.file != file_of(&table.name, number + 1) {
                let file = excerpt(&table.file);
                return wrong(format!("the file of table `{shown}` can't be `{file}`"));
            }
            let columns: BTreeSet<_> = table.columns.iter().map(|column| &column.name).collect();
            if columns.is_empty() || columns.len() != table.columns.len() {
                return wrong(format!("the columns of table `{shown}` are not as they can be"));
            }
        }
        let sequences: BTreeSet<_> = self.sequences.iter().map(|sequence| &sequence.name).collect();
        if sequences.len() != self.sequences.len() {
            return wrong("a sequence stands there twice".to_owned());
        }
        let ascending = self.migrations.windows(2).all(|pair| pair[0].version < pair[1].version);
        let newest = self.migrations.last().map_or(0, |file| file.version);
        if !ascending || newest != self.schema_version {
            return wrong("its migrations do not lead to its version".to_owned());
        }
        Ok(())
    }

    /// Where the schema of the archive can be built from these files: none of them was changed, and all
    /// of them are there.
    pub(super) fn require_migrations(
        &self,
        set: &crate::migrate::MigrationSet,
    ) -> Result<(), TransferError> {
        if self.schema_version > set.head() {
            return Err(TransferError::Newer(format!(
                "its schema stands at version {}, the files here end at {}",
                self.schema_version,
                set.head()
            )));
        }
        if let Some(version) = self.half_way_to {
            return Err(TransferError::OtherShape(format!(
                "when it was exported, the tenant was half way to version {version}"
            )));
        }
        for file in &self.migrations {
            let shown = format!("version {} (`{}`)", file.version, excerpt(&file.name));
            let Some(ours) = set.find(file.version) else {
                return Err(TransferError::OtherMigrations(format!("{shown} is not here")));
            };
            if data_encoding::HEXLOWER.encode(&ours.token_checksum) != file.token_checksum {
                let text = format!("{shown} has other statements than `{}`", ours.up.file);
                return Err(TransferError::OtherMigrations(text));
            }
        }
        let lacks = |version: i64| !self.migrations.iter().any(|file| file.version == version);
        let here = set.migrations().iter().filter(|ours| ours.version <= self.schema_version);
        match here.map(|ours| ours.version).find(|version| lacks(*version)) {
            Some(version) => {
                Err(TransferError::OtherMigrations(format!("it lacks version {version}")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migrate::Migrations;

    fn manifest() -> Value {
        let set = Migrations::embedded().unwrap().tenant;
        let first = &set.migrations()[0];
        json!({
            "format": "tenantry-export", "format_version": 1, "software_version": "0.1.0",
            "tenant": {"id": TenantId::random(), "name": "A", "subdomain": "a", "tier": "free",
                       "settings": {}, "created_at": "2026-01-01T00:00:00Z"},
            "exported_at": "2026-01-01T00:00:00Z", "snapshot_lsn": "0/0",
            "schema_version": 2, "half_way_to": null,
            "migrations": [{"version": 2, "name": "x", "checksum": "",
                "token_checksum": data_encoding::HEXLOWER.encode(&first.token_checksum)}],
            "csv": CsvForm::ours(), "omitted": [],
            "tables": [{"name": "users", "file": "tables/users.csv", "rows": 0, "bytes": 3, "sha256": "",
                        "columns": [{"name": "id", "type": "uuid"}]}],
            "sequences": [],
        })
    }

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut value = manifest();
        change(&mut value);
        let read = Manifest::read(value.to_string().as_bytes());
        let checked =
            read.and_then(|m| m.require_migrations(&Migrations::embedded().unwrap().tenant));
        checked.map_or_else(|e| e.to_string(), |()| "taken".to_owned())
    }

    #[test]
    fn a_good_one_is_taken_and_what_contradicts_itself_is_not() {
        assert_eq!(refused(|_| {}), "taken");
        let table = |m: &mut Value| m["tables"][0].clone();
        let twice = refused(|m| {
            let again = table(m);
            m["tables"].as_array_mut().unwrap().push(again);
        });
        assert!(twice.contains("twice"), "{twice}");
        for file in ["../users.csv", "/tables/users.csv", "tables/x.csv", "tables/table-1.csv", ""]
        {
            let said = refused(|m| m["tables"][0]["file"] = json!(file));
            assert!(said.contains("the file of table `users` can't be"), "{file}: {said}");
        }
        assert!(refused(|m| m["tables"][0]["columns"] = json!([])).contains("columns"));
        assert!(refused(|m| m["schema_version"] = json!(1)).contains("do not lead"));
        assert!(refused(|m| m["format"] = json!("zip")).contains("not an export's"));
        assert!(refused(|m| m["tables"][0]["rows"] = json!(-1)).contains("damaged"));
    }

    #[test]
    fn what_is_newer_or_other_is_called_so() {
        assert!(refused(|m| m["format_version"] = json!(2)).contains("newer than this program"));
        let newer = refused(|m| {
            m["schema_version"] = json!(9999);
            m["migrations"][0]["version"] = json!(9999);
        });
        assert!(newer.contains("newer than this program: its schema stands at"), "{newer}");
        let other = refused(|m| m["migrations"][0]["token_checksum"] = json!("00"));
        assert!(other.contains("made by other migrations: version 2"), "{other}");
        let less = refused(|m| {
            m["schema_version"] = json!(1);
            m["migrations"][0]["version"] = json!(1);
        });
        assert!(less.contains("version 1 (`x`) is not here"), "{less}");
        assert!(refused(|m| m["half_way_to"] = json!(3)).contains("half way"));
    }

    #[test]
    fn names_of_files_say_nothing_that_a_disk_understands() {
        assert_eq!(file_of("publish_jobs", 3), "tables/publish_jobs.csv");
        for odd in ["../etc/passwd", "Users", "a b", "a/b", "ü", "table-1"] {
            assert_eq!(file_of(odd, 7), "tables/table-7.csv");
        }
    }
}
