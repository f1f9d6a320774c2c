//! In which portions a fleet is migrated: a canary first, all at the end.

use std::fmt;
use std::str::FromStr;

/// A number of tenants, or a share of those that a run concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// So many.
    Tenants(usize),
    /// So many in a hundred, rounded up.
    Percent(u8),
}

impl Portion {
    /// How many of `total` it is.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Tenants(n) => n.min(total),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        }
    }
}

/// A text that is neither a number nor a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a number of tenants such as `10` nor a share from `1%` to `100%`")]
pub struct InvalidPortion(String);

impl FromStr for Portion {
    type Err = InvalidPortion;

    fn from_str(text: &str) -> Result<Self, InvalidPortion> {
        let portion = match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|p| (1..=100).contains(p)).map(Self::Percent)
            }
            None => text.parse().ok().map(Self::Tenants),
        };
        portion.ok_or_else(|| InvalidPortion(crate::ids::excerpt(text)))
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenants(n) => write!(f, "{n}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Where each wave ends: how many tenants are in it and in those before. Portions that add nobody make
/// no wave of their own.
pub(super) fn ends(waves: &[Portion], total: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut last = 0;
    for end in waves.iter().map(|wave| wave.of(total)) {
        if end > last {
            ends.push(end);
            last = end;
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waves(text: &str) -> Vec<Portion> {
        text.split(' ').map(|w| w.parse().unwrap()).collect()
    }

    #[test]
    fn a_wave_is_counted_from_the_beginning() {
        for (text, total, expected) in [
            ("1 10% 100%", 1000, vec![1, 100, 1000]),
            ("1 10% 100%", 5, vec![1, 5]),
            ("1 10% 100%", 1, vec![1]),
            ("1 10% 100%", 0, vec![]),
            ("1 10%", 1000, vec![1, 100]),
            ("50% 10% 100%", 10, vec![5, 10]),
            ("3", 2, vec![2]),
        ] {
            assert_eq!(ends(&waves(text), total), expected, "{text} of {total}");
        }
    }

    #[test]
    fn nonsense_is_no_portion() {
        for text in ["", "%", "0%", "101%", "-1", "ten", "1.5%", "10 %"] {
            assert!(text.parse::<Portion>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn waves_grow_and_never_pass_the_end(
            percents in proptest::collection::vec(1_u8..=100, 0..6), total in 0_usize..5000,
        ) {
            let waves: Vec<_> = percents.into_iter().map(Portion::Percent).collect();
            let ends = ends(&waves, total);
            prop_assert!(ends.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(ends.iter().all(|end| (1..=total).contains(end)));
        }
    }
}
