//! One file under the lint, and which set and direction it belongs to.

use super::source::Source;
use super::tree::Tree;
use super::words::{self, Piece};
use crate::migrate::{Migration, MigrationSet, Script, SetKind};

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
    pub(super) version: Option<i64>,
    pub(super) script: &'a Script,
    pub(super) source: Source,
    pub(super) pieces: Vec<Piece>,
    pub(super) tree: Tree,
}

impl<'a> File<'a> {
    fn read(set: SetKind, direction: Direction, version: Option<i64>, script: &'a Script) -> Self {
        let source = Source::read(&script.text, set == SetKind::Public);
        let pieces = words::pieces(&source.text);
        let tree = Tree::read(&source.text, script.transactional);
        Self { set, direction, version, script, source, pieces, tree }
    }

    /// The files of a set: versions in order, each one's up before its down, then the repeatable ones.
    pub(super) fn of_set(set: &'a MigrationSet) -> Vec<Self> {
        let kind = set.kind();
        let read = |direction, migration: &Migration, script| {
            Self::read(kind, direction, Some(migration.version), script)
        };
        let mut files = Vec::new();
        for migration in set.migrations() {
            files.push(read(Direction::Up, migration, &migration.up));
            files
                .extend(migration.down.as_ref().map(|down| read(Direction::Down, migration, down)));
        }
        for repeatable in set.repeatables() {
            files.push(Self::read(kind, Direction::Repeatable, None, &repeatable.script));
        }
        files
    }

    /// Whether it runs for each tenant.
    pub(super) fn is_tenant(&self) -> bool {
        self.set == SetKind::Tenant
    }
}
