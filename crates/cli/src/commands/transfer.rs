//! `tenantry tenant export` and `import`.
//!
//! An archive appears under its name when it is whole, and not before.

use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal as _, stdout};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use tenantry_db::lifecycle::{
    Archive, Export, ExportOptions, ImportAs, Manifest, TransferProgress, import_tenant,
};
use tenantry_db::migrate::Migrations;
use tenantry_db::models::tenants::get_tenant;
use tenantry_db::{AdminDb, Config, Error, ReaderDb};

use super::actor;
use super::tenant::print;
use crate::args::{Common, Format, TenantExport, TenantImport};
use crate::exit::{Exit, Failure};
use crate::output::{self, say};
use crate::signals::StopSignal;
use crate::steps::CopyProgress;

pub(super) async fn export(
    common: &Common,
    config: &Config,
    args: &TenantExport,
) -> anyhow::Result<()> {
    let to_stdout = args.file.as_os_str() == "-";
    if to_stdout && (common.output == Format::Json || stdout().is_terminal()) {
        let hint = "redirect it, as in `--file - > acme.zip`, without `--output json`";
        let message = "the archive can't go where it would be shown";
        return Err(Failure::new(Exit::Usage, message, hint).into());
    }
    let target = if to_stdout { None } else { Some(Target::at(&args.file, args.force)?) };
    let mut stop = StopSignal::listen()?;
    let tenant = get_tenant(&ReaderDb::new(config)?, &args.tenant).await?.id;
    let admin = AdminDb::new(config)?;
    let options = ExportOptions { omit_secrets: args.omit_secrets };
    let export = Export::open(&admin, config, tenant, options, &actor()).await?;
    let bar = CopyProgress::begin("exporting");
    let written = async {
        let Some(target) = target else {
            let (manifest, _) = export.write(stdout(), move |at| bar.at(at)).await?;
            return anyhow::Ok(manifest);
        };
        let file = target.create()?;
        let (manifest, file) = export.write(file, move |at| bar.at(at)).await?;
        target.keep(&file)?;
        Ok(manifest)
    };
    let manifest = tokio::select! {
        written = written => written?,
        () = stop.wait() => {
            let hint = "nothing was left behind";
            return Err(Failure::new(Exit::Failed, "the export was stopped", hint).into());
        }
    };
    if to_stdout {
        say(&text(&manifest, "stdout"));
        return Ok(());
    }
    let shown = args.file.display().to_string();
    let report = json!({
        "file": shown, "tenant_id": manifest.tenant.id, "exported_at": manifest.exported_at,
        "schema_version": manifest.schema_version, "tables": manifest.tables.len(),
        "rows": manifest.rows(), "bytes": manifest.bytes(), "omitted": manifest.omitted,
    });
    output::data(common.output, &report, |_| text(&manifest, &shown) + "\n")
}

fn text(manifest: &Manifest, file: &str) -> String {
    let omitted = match manifest.omitted.as_slice() {
        [] => String::new(),
        omitted => format!(", without {}", omitted.join(", ")),
    };
    let (rows, tables) = (manifest.rows(), manifest.tables.len());
    format!("{file}: {rows} rows of {tables} tables as of {}{omitted}", manifest.exported_at)
}

pub(super) async fn import(
    common: &Common,
    config: &Config,
    args: &TenantImport,
) -> anyhow::Result<()> {
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    let archive = Archive::open(&args.file, args.any_size).await?;
    let wanted = ImportAs {
        name: args.name.as_deref(),
        subdomain: args.subdomain.as_deref(),
        tier: args.tier.as_deref(),
    };
    let admin = AdminDb::new(config)?;
    let bar = CopyProgress::begin("importing");
    let progress = move |at: &TransferProgress<'_>| bar.at(at);
    let imported =
        import_tenant(&admin, config, &migrations, archive, wanted, &actor(), progress).await?;
    let (rows, source) = (imported.rows, imported.source);
    say(&format!(
        "{rows} rows of tenant {source}, loaded at version {}, now at {}",
        imported.from_version, imported.tenant.schema_version
    ));
    print(common, &imported.tenant)
}

/// Where an archive goes, and where it grows until it is whole.
struct Target {
    path: PathBuf,
    partial: PathBuf,
    force: bool,
}

impl Target {
    fn at(path: &Path, force: bool) -> anyhow::Result<Self> {
        let name = path.file_name().ok_or_else(|| {
            let message = format!("`{}` is no name of a file", path.display());
            Failure::new(Exit::Usage, message, "`--file acme.zip`, or `--file -` for stdout")
        })?;
        let name = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
        let target = Self { path: path.to_owned(), partial: path.with_file_name(name), force };
        target.require_free()?;
        Ok(target)
    }

    fn require_free(&self) -> anyhow::Result<()> {
        let shown = self.path.display();
        match fs::symlink_metadata(&self.path) {
            Err(_) => Ok(()),
            Ok(there) if there.is_file() && self.force => Ok(()),
            Ok(there) if there.is_file() => {
                let message = format!("`{shown}` is there already");
                Err(Failure::new(Exit::Refused, message, "`--force` overwrites it").into())
            }
            // Renaming would put a file in the place of a device or a link.
            Ok(_) => {
                let message = format!("`{shown}` is there, and no ordinary file");
                Err(Failure::new(Exit::Refused, message, "choose another name").into())
            }
        }
    }

    fn create(&self) -> anyhow::Result<File> {
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.partial);
        open.with_context(|| format!("can't write `{}`", self.partial.display()))
    }

    /// On disk, then under its name.
    fn keep(&self, file: &File) -> anyhow::Result<()> {
        let context = || format!("can't write `{}`", self.path.display());
        file.sync_all().with_context(context)?;
        self.require_free()?;
        fs::rename(&self.partial, &self.path).with_context(context)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(parent.unwrap_or(Path::new("."))).with_context(context)?;
        directory.sync_all().with_context(context)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Gone already where the archive was kept.
        let _ = fs::remove_file(&self.partial);
    }
}
