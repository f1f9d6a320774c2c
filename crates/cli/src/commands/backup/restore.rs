//! `tenantry backup restore`: asking first, and telling afterwards what has to be known.

use std::fmt::Write as _;

use tenantry_backup::{Destination, Engine, Progress as Copied, Restore, Restored, Step, restore};
use tenantry_db::Config;

use crate::args::{BackupRestore, Common};
use crate::commands::actor;
use crate::confirm;
use crate::exit::Exit;
use crate::output::{self, say};
use crate::steps::Progress;

pub(super) async fn run(
    common: &Common,
    config: &Config,
    engine: &Engine,
    args: &BackupRestore,
) -> anyhow::Result<Exit> {
    let destination = match &args.target_dir {
        Some(path) => Destination::Beside(path.clone()),
        None if args.yes || ask(engine, args)? => Destination::InPlace,
        None => return Ok(Exit::Refused),
    };
    let actor = actor();
    let bar = Progress::begin("restoring files, in percent");
    let wish = Restore {
        engine,
        config,
        actor: &actor,
        when: args.to,
        destination,
        decide_again: args.reapply,
    };
    let restored = restore(&wish, |step| at(&bar, &step)).await?;
    drop(bar);
    let in_place = args.target_dir.is_none();
    output::data(common.output, &restored, |restored| text(restored, in_place))?;
    Ok(Exit::Done)
}

fn at(bar: &Progress, step: &Step) {
    match step {
        Step::Copying(Copied::Copying { percent }) => bar.at_percent(*percent),
        Step::Copying(_) => {}
        Step::Recovering => bar.say("recovered to the moment"),
        Step::LookingBack => bar.say("looking at the state that is given up"),
        Step::Erasing => bar.say("erasing again who was erased"),
        Step::Placing => bar.say("giving it its name"),
    }
}

fn ask(engine: &Engine, args: &BackupRestore) -> anyhow::Result<bool> {
    let directory = engine.settings().server.data_dir.display().to_string();
    let question = format!(
        "Take the server in `{directory}` back to {}, with all tenants? What came later is kept in the old \
         directory only.",
        args.to
    );
    let would = format!("the server in `{directory}` would be taken back to {}", args.to);
    let hint = "add `--yes` to confirm, or `--target-dir` to restore beside it";
    let yes = confirm::ask(&question, &would, hint)?;
    if !yes {
        say("nothing was changed");
    }
    Ok(yes)
}

fn text(restored: &Restored, in_place: bool) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<16}{value}");
    };
    let time =
        |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".to_owned(), |it| it.to_string());
    put("restored to", restored.data_dir.display().to_string());
    if let Some(kept) = &restored.kept {
        put("old directory", kept.display().to_string());
    }
    put("last commit", time(restored.last_commit));
    put("from", format!("{}, timeline {}", restored.backup, restored.from_timeline));
    put("timeline", restored.timeline.to_string());
    put("erased again", restored.erased_again.to_string());
    put("took", format!("{:.0} s", restored.took.as_secs_f32()));
    match restored.lost_decisions.as_deref() {
        None => {}
        Some([]) => put("since then", "nobody was created, suspended, deleted or held".to_owned()),
        Some(lost) => {
            put("since then", format!("{} decided again, of", restored.decided_again));
            for decision in lost {
                let name = decision.subdomain.as_deref().unwrap_or("-");
                let by = decision.by.as_deref().unwrap_or("?");
                let what = format!("{}  {name}  {by}  {}", decision.decision, decision.tenant);
                put("", format!("{}  {what}", time(decision.at)));
            }
        }
    }
    for note in &restored.notes {
        put("note", note.clone());
    }
    if in_place {
        put("next", "start the server; build each replica anew; `tenantry migrate run`; `tenantry backup run`".to_owned());
    }
    text
}
