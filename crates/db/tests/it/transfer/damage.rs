//! Archives that are not as they were written, or never were: each is refused, by name, and leaves nothing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_db::ErrorKind;
use tenantry_db::lifecycle::Archive;
use tenantry_testing::TestDatabase;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{export, fill, import, rows};
use crate::texts;

/// The files of an archive, to be changed and packed again.
#[derive(Clone)]
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn of(path: &Path) -> Self {
        let mut zip = ZipArchive::new(File::open(path).unwrap()).unwrap();
        let mut files = Vec::new();
        for at in 0..zip.len() {
            let mut entry = zip.by_index(at).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.push((entry.name().unwrap().into_owned(), bytes));
        }
        Self(files)
    }

    fn file(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(known, _)| known == name).unwrap().1
    }

    fn manifest(&mut self, change: impl FnOnce(&mut Value)) {
        let text = self.file("manifest.json");
        let mut value = serde_json::from_slice(text).unwrap();
        change(&mut value);
        *text = value.to_string().into_bytes();
    }

    /// Replaces a table's file, with a manifest that says so.
    fn table(&mut self, name: &str, text: &str, rows: u64) {
        *self.file(&format!("tables/{name}.csv")) = text.as_bytes().to_vec();
        let hash: String =
            Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.manifest(|manifest| {
            let tables = manifest["tables"].as_array_mut().unwrap();
            let table = tables.iter_mut().find(|table| table["name"] == name).unwrap();
            table["rows"] = json!(rows);
            table["bytes"] = json!(text.len());
            table["sha256"] = json!(hash);
        });
    }

    fn pack(&self, path: &Path) {
        let mut zip = ZipWriter::new(File::create(path).unwrap());
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for (name, bytes) in &self.0 {
            zip.start_file(name.as_str(), options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }
}

async fn left(db: &TestDatabase) -> Vec<String> {
    let query =
        "SELECT id::text FROM public.tenants UNION ALL
         SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tenant\\_%' UNION ALL
         SELECT schema_name FROM public.migrations WHERE schema_name <> 'public' UNION ALL
         SELECT action FROM public.audit_log WHERE action = 'tenant.imported' UNION ALL
         SELECT 'a session in a transaction' FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - interval '1 minute'";
    texts(&db.superuser().await, query).await
}

async fn refused(db: &TestDatabase, path: &Path, what: &str) -> String {
    let before = left(db).await;
    let error = match import(db, path, "copy").await {
        Ok(_) => panic!("{what}: imported"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error:?}");
    assert_eq!(left(db).await, before, "{what}");
    error.to_string()
}

#[tokio::test]
async fn a_cut_or_changed_archive_leaves_nothing() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    fill(&db, &acme).await;
    let exported = export(&db, acme.id, false).await;
    let whole = std::fs::read(&exported.path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.zip");
    for cut in [0, 1, 100, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let said = refused(&db, &path, &format!("cut to {cut}")).await;
        assert!(said.starts_with("the archive is damaged"), "{said}");
    }
    // Wherever a byte is another. A few mean nothing to anybody, such as times and rights of the entries.
    let superuser = db.superuser().await;
    let source = rows(&superuser, acme.schema()).await;
    let mut noticed = 0;
    for at in (0..whole.len()).step_by(whole.len() / 30) {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        std::fs::write(&path, &changed).unwrap();
        let before = left(&db).await;
        match import(&db, &path, &format!("c{at}")).await {
            Ok(taken) => assert_eq!(rows(&superuser, taken.tenant.schema()).await, source, "{at}"),
            Err(error) => {
                noticed += 1;
                assert_eq!(error.kind(), ErrorKind::Refused, "byte {at}: {error:?}");
                assert_eq!(left(&db).await, before, "byte {at}");
            }
        }
    }
    assert!(noticed > 20, "{noticed} changes were noticed");
    for name in ["nothing.txt", "no-archive"] {
        let path = dir.path().join(name);
        std::fs::write(&path, "hello").unwrap();
        refused(&db, &path, name).await;
    }
    let missing = Archive::open(&dir.path().join("absent"), false).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Internal);
    let directory = Archive::open(dir.path(), false).await.unwrap_err();
    assert!(directory.to_string().contains("can't read"), "{directory}");
}

/// What is done to an archive, and what is said of it.
type Case = (&'static str, &'static str, fn(&mut Files, &str));

fn users(manifest: &mut Value) -> &mut Value {
    let tables = manifest["tables"].as_array_mut().unwrap();
    tables.iter_mut().find(|table| table["name"] == "users").unwrap()
}

fn without_name(manifest: &mut Value) {
    users(manifest)["columns"].as_array_mut().unwrap().retain(|column| column["name"] != "name");
}

const SOME_ID: &str = "6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90";

/// One user, as the file and its manifest would have it.
fn one_user(files: &mut Files, id: &str, tenant: &str, rest: &str) {
    let heading = first_line(files, "users");
    files.table("users", &format!("{heading}{id},{tenant},{rest},2026-01-01,2026-01-01\n"), 1);
}

const FILES: &[Case] = &[
    ("an extra file", "evil.csv: the manifest", |f, _| {
        f.0.push(("evil.csv".into(), b"x".to_vec()));
    }),
    ("a path", "../../etc/x: the manifest", |f, _| f.0.push(("../../etc/x".into(), b"x".to_vec()))),
    ("no manifest", "manifest.json: it is missing", |f, _| {
        f.0.pop();
    }),
    ("a missing table", "tables/users.csv: it is missing", |f, _| {
        f.0.retain(|(name, _)| name != "tables/users.csv");
    }),
    ("a byte less", "tables/users.csv: it has", |f, _| {
        f.file("tables/users.csv").pop();
    }),
    ("another byte", "not what the manifest says", |f, _| {
        let file = f.file("tables/users.csv");
        let at = file.iter().position(|byte| *byte == b'@').unwrap();
        file[at - 1] = b'z';
    }),
    ("another count", "not what the manifest says", |f, _| {
        f.manifest(|m| m["tables"][0]["rows"] = json!(1));
    }),
    ("a hash", "not what the manifest says", |f, _| {
        f.manifest(|m| m["tables"][0]["sha256"] = json!("00"));
    }),
];

const ROWS: &[Case] = &[
    ("another tenant's rows", "break a rule", |f, _| {
        one_user(f, SOME_ID, SOME_ID, "x@b.co,,n,r,,f,f,");
    }),
    ("columns in another order", "tables/users.csv: column name mismatch", |f, _| {
        let text = String::from_utf8(f.file("tables/users.csv").clone()).unwrap();
        f.table("users", &text.replacen("id,tenant_id", "tenant_id,id", 1), 3);
    }),
    ("a field too many", "extra data after last expected column", |f, own| {
        one_user(f, SOME_ID, own, "x@b.co,,n,r,,f,f,,");
    }),
    ("no id", "invalid input syntax for type uuid", |f, own| {
        one_user(f, "x", own, "x@b.co,,n,r,,f,f,");
    }),
    ("a rule broken", "break a rule", |f, own| one_user(f, SOME_ID, own, "X@B.CO,,n,r,,f,f,")),
    ("a key broken", "break a rule", |f, own| one_user(f, SOME_ID, own, "x@b.co,,n,r,,f,f,")),
    ("rows hidden behind an end", "rows arrived", |f, _| {
        let text = format!("{}\\.\nx\n", first_line(f, "comments"));
        f.table("comments", &text, 2);
    }),
];

const FORMS: &[Case] = &[
    ("a column less", "column users.name is not in the archive", |f, _| f.manifest(without_name)),
    ("a needed column left out", "no row can be without it", |f, _| {
        f.manifest(|m| {
            without_name(m);
            m["omitted"] = json!(["users.name"]);
        });
    }),
    ("a column that nobody knows", "has no column x\"; DROP SCHEMA public; --", |f, _| {
        let column = json!({"name": "x\"; DROP SCHEMA public; --", "type": "text"});
        f.manifest(|m| users(m)["columns"].as_array_mut().unwrap().push(column));
    }),
    ("a table that nobody knows", "has no table evil", |f, _| {
        let columns = json!([{"name": "x", "type": "text"}]);
        let evil = json!({"name": "evil", "file": "tables/evil.csv", "rows": 0, "bytes": 0,
                          "sha256": "", "columns": columns});
        f.manifest(|m| m["tables"].as_array_mut().unwrap().push(evil));
        f.0.push(("tables/evil.csv".into(), Vec::new()));
    }),
    ("another type", "in the archive text", |f, _| {
        f.manifest(|m| m["tables"][0]["columns"][0]["type"] = json!("text"));
    }),
    ("a sequence less", "sequence content_number_seq is not", |f, _| {
        f.manifest(|m| m["sequences"] = json!([]));
    }),
    ("a sequence out of bounds", "break a rule", |f, _| {
        f.manifest(|m| m["sequences"][0]["last_value"] = json!(-5));
    }),
    ("other migrations", "made by other migrations", |f, _| {
        f.manifest(|m| m["migrations"][0]["token_checksum"] = json!("00"));
    }),
];

#[tokio::test]
async fn whoever_builds_an_archive_gets_no_further() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    fill(&db, &acme).await;
    let files = Files::of(&export(&db, acme.id, false).await.path);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("built.zip");
    for (what, expected, change) in [FILES, ROWS, FORMS].concat() {
        let mut changed = files.clone();
        change(&mut changed, &acme.id.to_string());
        changed.pack(&path);
        let said = refused(&db, &path, what).await.replace('`', "");
        assert!(said.contains(expected), "{what}: {said}");
    }
    // Unchanged, it is taken.
    files.pack(&path);
    import(&db, &path, "copy").await.unwrap();
}

fn first_line(files: &mut Files, table: &str) -> String {
    let text = String::from_utf8(files.file(&format!("tables/{table}.csv")).clone()).unwrap();
    format!("{}\n", text.lines().next().unwrap())
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_is_unpacked() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let mut files = Files::of(&export(&db, acme.id, false).await.path);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.zip");
    let heading = first_line(&mut files, "content");
    files.table("content", &format!("{heading}{}", "\n".repeat(64 * 1024 * 1024)), 0);
    files.pack(&path);
    let packed = std::fs::metadata(&path).unwrap().len();
    assert!(packed < 200 * 1024, "{packed}");
    let said = refused(&db, &path, "a bomb").await;
    assert!(said.contains("more than 250 times as many"), "{said}");
    // The manifest says little, and the file holds much.
    files.manifest(|manifest| {
        let tables = manifest["tables"].as_array_mut().unwrap();
        let table = tables.iter_mut().find(|table| table["name"] == "content").unwrap();
        table["bytes"] = json!(100);
    });
    files.pack(&path);
    let said = refused(&db, &path, "a liar").await;
    assert!(said.contains("tables/content.csv: it has"), "{said}");
}
