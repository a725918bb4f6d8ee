//! How much of anything the store takes. Each limit is a refusal with [`crate::Error::TooLarge`], never a cut.

/// The largest payload of one event, as JSON text: room for the longest frame of an agent, even where escaping grows it.
pub const MAX_EVENT_BYTES: usize = 8 << 20;

/// Payload bytes in one append, so that one caller cannot hold the writer for long.
pub const MAX_APPEND_BYTES: usize = 16 << 20;

/// Events in one append, for the same reason.
pub const MAX_APPEND_EVENTS: usize = 4096;

/// Events in one page. A larger `limit` is taken as this one.
pub const MAX_PAGE_EVENTS: u32 = 1000;

/// Payload bytes after which a page ends early (it holds at least one event), so that a reader's memory is bounded.
pub const MAX_PAGE_BYTES: usize = 8 << 20;

/// The longest user id, in bytes.
pub const MAX_USER_BYTES: usize = 128;

/// The longest name of an org, key, model, owner, event kind or the like, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The longest free text, such as why a run failed, in bytes.
pub const MAX_DETAIL_BYTES: usize = 16 << 10;

/// Keys of one org, revoked ones included.
pub const MAX_KEYS: usize = 10_000;

/// Rows of one usage answer; a question that has more must be narrowed.
pub const MAX_USAGE_ROWS: usize = 10_000;

/// The largest token or search count of one record. A count above it is no count, and sums of these fit an `i64`.
pub const MAX_COUNT: u64 = 1_000_000_000_000;
