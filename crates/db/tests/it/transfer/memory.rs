//! However much a tenant has, an export and an import need little memory.

use std::fs::File;
use std::io::{self, Write};

use tenantry_db::lifecycle::{Export, ExportOptions};
use tenantry_testing::TestDatabase;

use super::import;
use crate::texts;

/// What this process has used at most, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Counting(File, u64);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Each test is a process of its own under nextest, so the peak is this test's.
#[tokio::test]
async fn hundreds_of_megabytes_take_the_memory_of_a_few_rows() {
    const MIB: u64 = 1024 * 1024;
    const ALLOWED_KIB: u64 = 32 * 1024;
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let fill = format!(
        "INSERT INTO {}.content (title, body)
         SELECT 't' || n, b || md5(n::text) || b
         FROM generate_series(1, 26000) n,
              (SELECT string_agg(md5(random()::text || m), E'\\n\"') AS b FROM generate_series(1, 120) m) x",
        acme.schema()
    );
    db.superuser().await.batch_execute(&fill).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive.zip");
    let options = ExportOptions { omit_secrets: false };
    let export = Export::open(&db.admin, &db.config, acme.id, options, &db.actor()).await.unwrap();
    let before = peak_kib();
    let out = Counting(File::create(&path).unwrap(), 0);
    let (manifest, out) = export.write(out, |_| {}).await.unwrap();
    let exporting = peak_kib() - before;
    assert!(manifest.bytes() > 200 * MIB, "{} bytes", manifest.bytes());
    assert_eq!(out.1, std::fs::metadata(&path).unwrap().len());
    let before = peak_kib();
    let copy = import(&db, &path, "copy").await.unwrap().tenant;
    let importing = peak_kib() - before;
    println!(
        "{} MiB unpacked, {} MiB packed: {exporting} KiB to export, {importing} KiB to import",
        manifest.bytes() / MIB,
        out.1 / MIB
    );
    assert!(exporting < ALLOWED_KIB && importing < ALLOWED_KIB, "{exporting} {importing} KiB");
    let same = format!(
        "SELECT (count(*) = 0)::text FROM {}.content a FULL JOIN {}.content b USING (id)
         WHERE a.body IS DISTINCT FROM b.body",
        acme.schema(),
        copy.schema()
    );
    assert_eq!(texts(&db.superuser().await, &same).await, ["true"]);
}
