//! What a person or a script sees: data on stdout, everything else on stderr.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use tracing_subscriber::EnvFilter;
use unicode_width::UnicodeWidthStr as _;

use crate::args::{Args, Command, Format, Serve};
use crate::exit;

/// Prints data: as text, or as one JSON document.
pub(crate) fn data<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    match format {
        Format::Text => print(&text(value)),
        Format::Json => print(&(serde_json::to_string_pretty(value)? + "\n")),
    }
}

/// Prints text as it is. A reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Says something to the person at the terminal. If nobody can hear it, that is no error.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Reports why a command failed: the error, its causes, what to do.
pub(crate) fn report(error: &anyhow::Error) {
    let paint = |code: &str, text: &str| {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    say(&format!("{} {error}", paint("1;31", "error:")));
    // The driver's own «db error» says nothing; its cause is the server's message.
    for cause in error.chain().skip(1).map(ToString::to_string).filter(|c| c != "db error") {
        say(&format!("  caused by: {}", cause.replace('\n', "\n             ")));
    }
    if let Some(hint) = exit::hint(error) {
        say(&format!("{} {hint}", paint("1;36", "hint:")));
    }
}

/// Columns under a heading, two spaces between, the last one as long as it is.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width())))
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(line(&heading)).chain(rows.iter().map(|row| line(row))).collect()
}

/// Logs go to stderr: warnings always, the rest with `-v`. A service alone also tells of each
/// request. `TENANTRY_LOG` takes finer filters.
pub(crate) fn log_to_stderr(args: &Args) {
    let level = match (args.common.verbose, &args.command) {
        (0, Command::Serve(_)) => {
            "warn,deadpool.postgres=error,tenantry=info,tenantry_api=info,tenantry_backup=info"
        }
        // The pool warns of each connection that ends; what it means to a request is logged there.
        (0, _) => "warn,deadpool.postgres=error",
        (1, _) => {
            "warn,tenantry=info,tenantry_api=info,tenantry_backup=info,tenantry_db=info,tenantry_stack=info"
        }
        _ => {
            "info,tenantry=debug,tenantry_api=debug,tenantry_backup=debug,tenantry_db=debug,tenantry_stack=debug"
        }
    };
    let filter = EnvFilter::try_from_env("TENANTRY_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match &args.command {
        Command::Serve(Serve { log_format: Format::Json, .. }) => log.json().init(),
        _ => log.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
    }
}
