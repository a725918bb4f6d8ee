//! Slash commands: the built-in ones, and those of the user's own, kept as Markdown files.

use std::path::PathBuf;

/// A command of the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomCommand {
    /// What is typed after the slash: `deploy`, `team:deploy`.
    pub name: String,
    /// What it does, for people and for the model.
    pub description: String,
    /// What its arguments are, for people.
    pub argument_hint: String,
    /// The model that its turn uses, in place of the session's.
    pub model: Option<String>,
    /// Rules for calls that go through unasked in its turn.
    pub allowed_tools: Vec<String>,
    /// The prompt, with places for the arguments.
    pub body: String,
    /// Whose it is: `user` or `project`.
    pub source: String,
    /// The file.
    pub path: PathBuf,
}
