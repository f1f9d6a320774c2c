//! The number of a lane.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{InvalidName, TenantId, excerpt};

/// A lane: one of [`LaneId::COUNT`] login roles, each with a PgBouncer pool of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u8);

impl LaneId {
    /// How many lane roles `init` makes. A configuration uses the first K of them.
    pub const COUNT: u8 = 32;

    /// The lane with this number, if there is one.
    pub fn new(number: u8) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// The lane's number, as `public.tenants.lane` stores it.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The lane of a tenant where `count` are in use.
    pub(crate) fn spread(tenant: TenantId, count: u8) -> Self {
        let lane = tenant.as_uuid().as_u128() % u128::from(count.clamp(1, Self::COUNT));
        Self(u8::try_from(lane).expect("less than the number of lanes"))
    }

    /// All lanes that a server has, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

impl TryFrom<i16> for LaneId {
    type Error = InvalidName;

    fn try_from(number: i16) -> Result<Self, InvalidName> {
        u8::try_from(number)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| InvalidName::Lane(number.to_string()))
    }
}

impl FromStr for LaneId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| InvalidName::Lane(excerpt(text)))
    }
}

impl Serialize for LaneId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_end_where_the_roles_end() {
        assert_eq!(LaneId::all().count(), 32);
        assert_eq!(LaneId::try_from(31).unwrap().to_string(), "31");
        assert_eq!(LaneId::try_from(0).unwrap().to_string(), "00");
        assert!(LaneId::try_from(32).is_err());
        assert!(LaneId::try_from(-1).is_err());
        assert!("abc".parse::<LaneId>().is_err());
    }
}
