//! Asking the person at the terminal before something is done that can't be taken back easily.

use std::io::{IsTerminal as _, Write as _};

use crate::exit::{Exit, Failure};

/// Asks, and yields whether the answer was yes. Where nobody can be asked it is refused, with `would`, what would be
/// done, and `hint`.
pub(crate) fn ask(question: &str, would: &str, hint: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Refused, would, hint).into());
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
