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

/// The largest definition of an agent, an environment or a session, as JSON text: a long system prompt with all tools has
/// room many times over.
pub const MAX_DEFINITION_BYTES: usize = 1 << 20;

/// The largest state of a session's owner, as JSON text. It is written anew with each change, so it should stay small;
/// this is room for what waits in it, such as the input of a tool call.
pub const MAX_STATE_BYTES: usize = 4 << 20;

/// Versions of one agent.
pub const MAX_AGENT_VERSIONS: u64 = 10_000;

/// Rows in one page of a list of agents, environments, files or sessions: the largest page of the API, and one row more
/// that shows whether there is another. A larger `limit` is taken as this one.
pub const MAX_PAGE_ROWS: u32 = 1001;

/// Bytes of definitions, states and payloads in one page of a list. A page that would be larger is refused, since a
/// shorter one would look like the last; twenty of the largest definitions still fit.
pub const MAX_LIST_BYTES: usize = 32 << 20;

/// The longest file name and media type, in bytes.
pub const MAX_FILENAME_BYTES: usize = 1024;

/// Lines of its agent that are kept of one session; the oldest go first.
pub const MAX_RAW_ROWS: u64 = 4096;

/// Bytes of such lines that are kept of one session; the oldest go first.
pub const MAX_RAW_BYTES: u64 = 8 << 20;

/// The longest key of an idempotent request, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// The largest answer kept for an idempotent request: more than any answer that is not streamed.
pub const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Rows deleted in one commit by what deletes by age or user, so that others wait only milliseconds for it.
pub const DELETE_BATCH: u32 = 2000;
