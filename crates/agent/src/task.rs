//! Work that goes on beside the turn: commands and subagents in the background.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::frames::Out;

/// The tasks of a session and all its subagents.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(#[expect(dead_code, reason = "background work comes next")] Arc<Registry>);

#[derive(Debug)]
struct Registry {
    _out: Out,
    _folder: PathBuf,
}

impl Tasks {
    /// `out`: the main thread's. `folder`: where outputs are kept.
    pub(crate) fn new(out: Out, folder: &Path) -> Self {
        Self(Arc::new(Registry { _out: out, _folder: folder.join("tasks") }))
    }
}
