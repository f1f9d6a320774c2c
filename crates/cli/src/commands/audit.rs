//! `tenantry audit verify`.

use tenantry_db::audit::{self, Verification};
use tenantry_db::migrate::Migrations;
use tenantry_db::{Error, ReaderDb};

use crate::args::{Audit, Common};
use crate::exit::Exit;
use crate::steps::Progress;
use crate::{config_file, output};

pub(super) async fn run(common: &Common, command: &Audit) -> anyhow::Result<Exit> {
    match command {
        Audit::Verify => verify(common).await,
    }
}

async fn verify(common: &Common) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    let reader = ReaderDb::new(&config)?;
    let bar = Progress::begin("seals");
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let show = |done, all| bar.at(count(done), count(all));
    let found = audit::verify(&reader, &config, &migrations, show).await;
    drop(bar);
    let found = found?;
    output::data(common.output, &found, text)?;
    Ok(if found.intact { Exit::Done } else { Exit::Failed })
}

fn text(found: &Verification) -> String {
    let mut text = String::new();
    for finding in &found.findings {
        text += &format!("BROKEN  {}: {finding}\n", finding.kind);
    }
    let more = found.findings_count - found.findings.len() as u64;
    if more > 0 {
        text += &format!("        and {more} more\n");
    }
    text += &match found.intact {
        true => format!("intact: {} entries are as they were sealed\n", found.sealed),
        false => format!(
            "broken: docs/runbooks/audit-verify.md says what each means ({} seals)\n",
            found.sealed
        ),
    };
    if let Some(head) = &found.head {
        text += &format!("head:   position {}, SHA-256 {}\n", head.position, head.hash);
    }
    if let (Some(anchored), Some(file)) = (&found.anchored, &found.anchor_file) {
        text += &format!(
            "anchor: position {} at {}, in `{}`\n",
            anchored.position,
            anchored.recorded_at,
            file.display()
        );
    }
    if found.unsealed > 0 {
        text += &format!("note:   {} entries are not sealed yet\n", found.unsealed);
    }
    for note in &found.notes {
        text += &format!("note:   {note}\n");
    }
    text
}
