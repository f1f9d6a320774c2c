//! `tenantry backup restore-tenant`: asking first, and telling afterwards where what was replaced lies.

use std::cell::OnceCell;
use std::fmt::Write as _;

use tenantry_backup::{
    Engine, Progress as Copied, Settings, TenantAim, TenantRestore, TenantRestored, TenantStep,
    When, restore_tenant, undo_restore_tenant,
};
use tenantry_db::Config;
use tenantry_db::lifecycle::Undone;

use crate::args::{BackupRestoreTenant, Common};
use crate::commands::actor;
use crate::confirm;
use crate::exit::Exit;
use crate::output::{self, say};
use crate::steps::Progress;

pub(super) async fn run(
    common: &Common,
    config: &Config,
    engine: &Engine,
    args: &BackupRestoreTenant,
) -> anyhow::Result<Exit> {
    let when = args.to.unwrap_or(When::Now);
    let aim = match &args.new {
        Some(subdomain) => TenantAim::New(subdomain),
        None => TenantAim::Replace,
    };
    let question = format!("Take tenant `{}` back to {when}?", args.tenant);
    let would = format!("tenant `{}` would be taken back to {when}", args.tenant);
    let hint = "add `--yes` to confirm, or `--as SUBDOMAIN` to look at the earlier state first";
    if aim == TenantAim::Replace && !args.yes && !ask(&question, &would, hint)? {
        return Ok(Exit::Refused);
    }
    let actor = actor();
    let wish = TenantRestore { engine, config, actor: &actor, tenant: &args.tenant, when, aim };
    let view = View::begin();
    let restored = restore_tenant(&wish, move |step| view.at(&step)).await?;
    output::data(common.output, &restored, text)?;
    Ok(Exit::Done)
}

pub(super) async fn undo(
    common: &Common,
    config: &Config,
    args: &BackupRestoreTenant,
) -> anyhow::Result<Exit> {
    let question = format!("Give tenant `{}` again what it had before?", args.tenant);
    let would = format!("tenant `{}` would get what it had before", args.tenant);
    if !args.yes && !ask(&question, &would, "add `--yes` to confirm")? {
        return Ok(Exit::Refused);
    }
    let keep = Settings::from_config(config)?.keep_replaced;
    let undone = undo_restore_tenant(config, &args.tenant, keep, &actor()).await?;
    output::data(common.output, &undone, undone_text)?;
    Ok(Exit::Done)
}

fn ask(question: &str, would: &str, hint: &str) -> anyhow::Result<bool> {
    let question = format!("{question} What it has now is kept, and `--undo` brings it back.");
    let yes = confirm::ask(&question, would, hint)?;
    if !yes {
        say("nothing was changed");
    }
    Ok(yes)
}

/// The steps: files in percent, then lines, then tables.
struct View {
    bar: Progress,
    tables: OnceCell<Progress>,
}

impl View {
    fn begin() -> Self {
        Self { bar: Progress::begin("restoring files, in percent"), tables: OnceCell::new() }
    }

    fn at(&self, step: &TenantStep) {
        match step {
            TenantStep::Copying(Copied::Copying { percent }) => self.bar.at_percent(*percent),
            TenantStep::Copying(_) => {}
            TenantStep::Recovered => self.bar.say("the scratch server has the moment"),
            TenantStep::BringingForward => {
                self.bar.say("bringing the earlier state to today's version");
            }
            TenantStep::Loading { tables_done, tables, .. } => {
                let bar = self.tables.get_or_init(|| {
                    self.bar.say("loading its rows");
                    Progress::begin("loading tables")
                });
                bar.at(*tables_done, *tables);
            }
            TenantStep::Swapping => self.bar.say("putting it in the tenant's place"),
        }
    }
}

fn text(restored: &TenantRestored) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: &str| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<16}{value}");
    };
    put("restored to", &restored.to);
    put("from", &restored.backup);
    if let Some(replaced) = &restored.replaced {
        put("tenant", &replaced.tenant.to_string());
        put("version", &format!("{} then, {} now", replaced.from_version, replaced.version));
        put("rows", &format!("{} now, about {} before", replaced.rows, replaced.rows_replaced));
        put("kept as", &format!("{} until {:.0}", replaced.kept_as, replaced.keep_until));
        put("", "what the tenant wrote since the moment is there, and only there");
        put("next", "have somebody look; `--undo` goes back, as long as it is kept");
    }
    if let Some(made) = &restored.made {
        put("new tenant", &made.tenant.id.to_string());
        put("subdomain", made.tenant.subdomain.as_deref().unwrap_or("-"));
        put("version", &made.tenant.schema_version.to_string());
        put("rows", &made.rows.to_string());
        put(
            "next",
            "look, export what is needed, then `tenantry tenant delete` it: no purge of the",
        );
        put("", "tenant that it was made of takes it along");
    }
    put(
        "took",
        &format!(
            "{:.1} s, {:.1} s until the scratch server had the moment",
            restored.took_s, restored.recovered_s
        ),
    );
    for note in &restored.notes {
        put("note", note);
    }
    text
}

fn undone_text(undone: &Undone) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<16}{value}");
    };
    put("tenant", &undone.tenant.to_string());
    put("has again", &format!("what it had until {:.0}", undone.replaced_at));
    put(
        "kept as",
        &format!("{} until {:.0}: what it had until now", undone.kept_as, undone.keep_until),
    );
    put("version", &undone.version.to_string());
    if undone.version != undone.former_version {
        let next = format!(
            "it was at {} until now: `tenantry migrate run --tenant {}`",
            undone.former_version, undone.tenant
        );
        put("next", &next);
    }
    text
}
