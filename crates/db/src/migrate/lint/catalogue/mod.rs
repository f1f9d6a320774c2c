//! Every rule: its name, how much it weighs, whether a file may break it, why, and what to do instead.
//!
//! Names are a contract: files name them in `allow=`. `docs/reference/lint-rules.md` tells the same at
//! length; a test compares the two.

mod change;
mod shape;
mod wall;

pub(super) use change::*;
pub(super) use shape::*;
pub(super) use wall::*;

use super::Severity;

/// What a migration file should not do.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    /// Whether `allow=` with a reason lifts it.
    pub(super) liftable: bool,
    pub(super) why: &'static str,
    pub(super) safe_way: &'static str,
}

/// Rules as constants, and the list of them.
macro_rules! rules {
    ($list:ident: $($id:ident $name:literal $severity:ident $lift:ident, $why:literal, $safe_way:literal;)+) => {
        $(pub(in super::super) const $id: &Rule = &Rule {
            name: $name,
            severity: Severity::$severity,
            liftable: super::$lift,
            why: $why,
            safe_way: $safe_way,
        };)+
        pub(in super::super) const $list: &[&Rule] = &[$($id),+];
    };
}
use rules;

const LIFTABLE: bool = true;
const FIXED: bool = false;

/// All rules.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    [WALL, CHANGE, SHAPE].into_iter().flatten().copied()
}

/// The rule of a name.
pub(super) fn find(name: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let mut names: Vec<_> = all().map(|rule| rule.name).collect();
        let kebab = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(names.iter().all(kebab), "{names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
