//! Pages of lists: where one begins, which way it goes, and what it leaves out.

use jiff::Timestamp;

/// Which way a list goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    #[default]
    Desc,
}

/// The place of a row in a list: lists are ordered by when a row was made, and rows made at the same time by their id, so
/// the place stays where it is whatever is made or deleted, and whatever the clock does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When the row was made.
    pub at: Timestamp,
    /// Its id.
    pub id: String,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The order of the list, and of the rows in the answer, also in one that goes backward.
    pub order: Order,
    /// The row that the page comes after; with `backward` the row that it comes before. `None`: from the list's start, or
    /// with `backward` from its end.
    pub after: Option<Position>,
    /// Whether the page before the position is asked for.
    pub backward: bool,
    /// The most rows; more than [`crate::MAX_PAGE_ROWS`] are taken as that many.
    pub limit: u32,
}

impl Page {
    /// The first page, in this order.
    #[must_use]
    pub const fn first(order: Order, limit: u32) -> Self {
        Self { order, after: None, backward: false, limit }
    }
}

/// Bounds on when a row was made, all of which must hold. The default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreatedRange {
    /// Later than this.
    pub gt: Option<Timestamp>,
    /// At this time or later.
    pub gte: Option<Timestamp>,
    /// Earlier than this.
    pub lt: Option<Timestamp>,
    /// At this time or earlier.
    pub lte: Option<Timestamp>,
}
