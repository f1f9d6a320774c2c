//! One file under the lint, and which set and direction it belongs to.

use super::source::Source;
use super::tree::Tree;
use super::words::{self, Piece};
use crate::migrate::{MigrationSet, Script, SetKind};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
    Repeatable,
}

/// A file, read for all rules.
pub(super) struct File<'a> {
    pub(super) set: SetKind,
    pub(super) direction: Direction,
    pub(super) script: &'a Script,
    pub(super) source: Source,
    pub(super) pieces: Vec<Piece>,
    pub(super) tree: Tree,
}

impl<'a> File<'a> {
    fn read(set: SetKind, direction: Direction, script: &'a Script) -> Self {
        let source = Source::read(&script.text, set == SetKind::Public);
        let pieces = words::pieces(&source.text);
        let tree = Tree::read(&source.text, script.transactional);
        Self { set, direction, script, source, pieces, tree }
    }

    /// The files of a set: versions in order, each one's up before its down, then the repeatable ones.
    pub(super) fn of_set(set: &'a MigrationSet) -> Vec<Self> {
        let kind = set.kind();
        let mut files = Vec::new();
        for migration in set.migrations() {
            files.push(Self::read(kind, Direction::Up, &migration.up));
            let down = migration.down.as_ref();
            files.extend(down.map(|down| Self::read(kind, Direction::Down, down)));
        }
        for repeatable in set.repeatables() {
            files.push(Self::read(kind, Direction::Repeatable, &repeatable.script));
        }
        files
    }

    /// Whether it runs for each tenant.
    pub(super) fn is_tenant(&self) -> bool {
        self.set == SetKind::Tenant
    }
}
