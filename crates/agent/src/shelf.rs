//! Folders of texts: skills, commands, agents.

use std::path::PathBuf;

/// A folder of texts, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    /// Where it lies.
    pub folder: PathBuf,
    /// Whose it is: `user`, `project` or `plugin`.
    pub source: String,
    /// What every file must lie in, wherever links lead: whoever wrote a strange project could have the user's files told
    /// to the model otherwise. `None`: links may lead anywhere.
    pub root: Option<PathBuf>,
    /// Goes before the names, with a colon: a plugin's name.
    pub prefix: Option<String>,
}

impl Shelf {
    /// A folder of somebody who is trusted.
    pub fn new(folder: impl Into<PathBuf>, source: &str) -> Self {
        Self { folder: folder.into(), source: source.to_owned(), root: None, prefix: None }
    }

    /// The same folder where its files must lie in `root`.
    #[must_use]
    pub fn within(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// A name as it is called.
    pub(crate) fn named(&self, name: &str) -> String {
        self.prefix.as_ref().map_or_else(|| name.to_owned(), |prefix| format!("{prefix}:{name}"))
    }
}
