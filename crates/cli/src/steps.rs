//! Steps of a longer piece of work, as they happen: a spinner on a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tenantry_db::lifecycle::TransferProgress;

use crate::output::say;

/// One step that is going on.
pub(crate) struct Step {
    spinner: Option<ProgressBar>,
    started: Instant,
}

impl Step {
    /// Begins a step; `doing` says what is going on, as in «starting the primary».
    pub(crate) fn begin(doing: impl Into<String>) -> Self {
        let spinner = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
                .expect("the template is right");
            let spinner = ProgressBar::new_spinner().with_style(style).with_message(doing.into());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { spinner, started: Instant::now() }
    }

    /// Ends the step; `done` says what is true now.
    pub(crate) fn end(self, done: &str) {
        let seconds = self.started.elapsed().as_secs_f32();
        self.clear();
        say(&format!("{done} ({seconds:.1} s)"));
    }

    fn clear(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A count that goes up: a bar on a terminal, a line now and then elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    doing: &'static str,
    said: Cell<Instant>,
}

impl Progress {
    const SAY_EVERY: Duration = Duration::from_secs(5);

    pub(crate) fn begin(doing: &'static str) -> Self {
        Self::styled(doing, "{msg} {wide_bar} {pos}/{len} {per_sec:.0} {eta} left")
    }

    fn styled(doing: &'static str, template: &str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(template).expect("the template is right");
            ProgressBar::new(0).with_style(style).with_message(doing)
        });
        Self { bar, doing, said: Cell::new(Instant::now()) }
    }

    /// Says something beside the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// As [`at`](Self::at), with words in the place of what is being done.
    fn at_saying(&self, done: usize, all: usize, words: impl Fn() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {}", self.doing, words()));
        } else if self.said.get().elapsed() >= Self::SAY_EVERY {
            self.said.set(Instant::now());
            say(&format!("{} {}, {done} of {all} tables done", self.doing, words()));
            return;
        }
        self.at(done, all);
    }

    /// As [`at`](Self::at), of a share between 0 and 100.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and 100"
    )]
    pub(crate) fn at_percent(&self, percent: f64) {
        self.at(percent as usize, 100);
    }

    pub(crate) fn at(&self, done: usize, all: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        } else if self.said.get().elapsed() >= Self::SAY_EVERY {
            self.said.set(Instant::now());
            say(&format!("{}: {done} of {all}", self.doing));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Tables that are copied, with the bytes so far: a bar on a terminal, a line now and then elsewhere.
pub(crate) struct CopyProgress {
    bar: Progress,
    begun: Instant,
}

impl CopyProgress {
    pub(crate) fn begin(doing: &'static str) -> Self {
        Self {
            bar: Progress::styled(doing, "{msg} {wide_bar} {pos}/{len} tables"),
            begun: Instant::now(),
        }
    }

    pub(crate) fn at(&self, at: &TransferProgress<'_>) {
        let per_second = at.bytes as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let (bytes, rate) = (HumanBytes(at.bytes), HumanBytes(per_second as u64));
        self.bar
            .at_saying(at.tables_done, at.tables, || format!("{}: {bytes}, {rate}/s", at.table));
    }
}
