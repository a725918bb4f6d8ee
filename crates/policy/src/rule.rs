//! Permission rules: `Tool` or `Tool(specifier)`.

use std::fmt;
use std::str::FromStr;

/// A permission rule such as `Bash(git *)`, `Read(./src/**)`, `mcp__server__tool` or `WebSearch`.
#[derive(Clone, Debug)]
pub struct Rule {
    text: String,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the rule {rule:?}: {problem} at character {position}; {hint}")]
pub struct RuleError {
    /// The text, shortened.
    pub rule: String,
    /// What is wrong.
    pub problem: &'static str,
    /// Where, in characters from 1.
    pub position: usize,
    /// What to do about it.
    pub hint: &'static str,
}

impl Rule {
    /// The rule as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Ok(Self { text: text.to_owned() })
    }
}
