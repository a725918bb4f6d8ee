//! What this host can do, found out by doing it.

use serde::{Deserialize, Serialize};

use crate::spec::LauncherConfig;

/// One thing tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was tried.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// The one line that mends it, when it is not ok and there is one.
    pub mend: Option<String>,
}

/// Makes a real sandbox, runs programs in it that should and should not succeed, and says what came of it.
pub async fn check(_config: &LauncherConfig) -> Vec<Check> {
    Vec::new()
}
