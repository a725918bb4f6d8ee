//! Scripts: what the server answers, read strictly. The format is documented in `docs/model-scripts.md`.

mod fields;
mod reply;

use std::time::Duration;

use serde_json::{Map, Value};

use fields::Fields;
pub(crate) use reply::{Answer, Cut, CutAt, Failure, Match, Reply};

/// The longest script, in bytes: far above what people write, far below what hurts.
pub(crate) const MAX_SCRIPT_BYTES: usize = 16 * 1024 * 1024;
/// The most replies in a script.
const MAX_REPLIES: usize = 100_000;
/// The longest delay, one that outlasts every client's own deadline.
pub(crate) const MAX_DELAY: Duration = Duration::from_mins(60);

/// What the server answers, in order.
#[derive(Clone, Debug)]
pub struct Script {
    pub(crate) replies: Vec<Reply>,
    pub(crate) models: Option<Vec<String>>,
}

/// Why a text is not a script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Over 16 MiB.
    #[error("read the script: it is over {MAX_SCRIPT_BYTES} bytes")]
    TooLarge,
    /// Not JSON at all.
    #[error("read the script: not JSON: {0}")]
    NotJson(String),
    /// A field that does not exist, has the wrong type, is out of range, or contradicts another.
    #[error("read the script: {at}: {problem}")]
    Field {
        /// Where: `replies[2].error.status`.
        at: String,
        /// What is wrong, with the nearest known name where there is one.
        problem: String,
    },
}

impl ScriptError {
    pub(crate) fn field(at: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { at: at.into(), problem: problem.into() }
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// On the first thing that is wrong; unknown fields are, and the error names the nearest known one.
    pub fn parse(json: &str) -> Result<Self, ScriptError> {
        if json.len() > MAX_SCRIPT_BYTES {
            return Err(ScriptError::TooLarge);
        }
        let value: Value =
            serde_json::from_str(json).map_err(|error| ScriptError::NotJson(error.to_string()))?;
        let mut fields = Fields::of(value, "the script")?;
        let replies = fields.list("replies", MAX_REPLIES)?;
        let models = fields.opt_strings("models")?;
        fields.finish()?;
        let replies = replies
            .into_iter()
            .enumerate()
            .map(|(index, value)| Reply::read(value, &format!("replies[{index}]")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { replies, models })
    }

    /// A script that repeats the last user text to every request, for demos and warm-ups.
    #[must_use]
    pub fn echo() -> Self {
        let reply = Reply { repeat: true, answer: Answer::Echo, ..Reply::default() };
        Self { replies: vec![reply], models: None }
    }
}

/// A JSON object; its fields keep their order.
pub(crate) type Object = Map<String, Value>;
