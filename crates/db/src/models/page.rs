//! Lists by key set: a page begins after a row's position, so that it costs the same however deep
//! it lies, and rows that come or go meanwhile shift nothing.

use jiff::Timestamp;
use uuid::Uuid;

/// A row's place in a list that is sorted by (`created_at`, `id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// When the row was created.
    pub created_at: Timestamp,
    /// Its id, which decides between rows of one moment.
    pub id: Uuid,
}

/// Which part of a list to read.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The last row before it; none for the first page.
    pub after: Option<Position>,
    /// How many rows at most.
    pub limit: u16,
}

/// A page that was read.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// The rows, oldest first.
    pub rows: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<Position>,
    position: fn(&T) -> Position,
}

impl<T> Listed<T> {
    /// The page's first `count` rows, at least one: the others begin the next page.
    #[must_use]
    pub fn shortened(mut self, count: usize) -> Self {
        if count < self.rows.len() {
            self.rows.truncate(count.max(1));
            self.next = self.rows.last().map(self.position);
        }
        self
    }
}

impl Page {
    /// The first page, of at most so many rows.
    pub fn first(limit: u16) -> Self {
        Self { after: None, limit }
    }

    /// For `($n::timestamptz IS NULL OR (created_at, id) > ($n, $m))`.
    pub(crate) fn created_at(&self) -> Option<Timestamp> {
        self.after.map(|position| position.created_at)
    }

    /// See [`created_at`](Self::created_at).
    pub(crate) fn id(&self) -> Option<Uuid> {
        self.after.map(|position| position.id)
    }

    /// For `LIMIT`: one row more than asked for, which tells whether there is another page.
    pub(crate) fn rows_to_read(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The page, from what a statement with [`rows_to_read`](Self::rows_to_read) yielded.
    pub(crate) fn listed<T>(&self, mut rows: Vec<T>, position: fn(&T) -> Position) -> Listed<T> {
        let limit = usize::from(self.limit);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().map(position).filter(|_| more);
        Listed { rows, next, position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_too_many_tells_of_a_next_page_and_is_not_shown() {
        let page = Page { after: None, limit: 2 };
        let at = |n: &u128| Position { created_at: Timestamp::UNIX_EPOCH, id: Uuid::from_u128(*n) };
        let last = page.listed(vec![1, 2], at);
        assert_eq!((last.rows, last.next), (vec![1, 2], None));
        let first = page.listed(vec![1, 2, 3], at);
        assert_eq!((first.rows, first.next), (vec![1, 2], Some(at(&2))));
        assert_eq!(page.listed(Vec::new(), at).next, None);
    }

    #[test]
    fn a_shortened_page_goes_on_where_it_was_cut() {
        let page = Page { after: None, limit: 3 };
        let at = |n: &u128| Position { created_at: Timestamp::UNIX_EPOCH, id: Uuid::from_u128(*n) };
        let whole = || page.listed(vec![1, 2, 3], at);
        let cut = whole().shortened(2);
        assert_eq!((cut.rows, cut.next), (vec![1, 2], Some(at(&2))));
        assert_eq!(whole().shortened(0).rows, [1], "or nobody would get past a large row");
        assert_eq!(whole().shortened(3).next, None);
    }
}
