//! What this host can do, found out by doing it.

use serde::{Deserialize, Serialize};

use crate::spec::LauncherConfig;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::{mend_mounts, mend_proc, mend_user_namespaces};

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
///
/// Works beside a running server: it uses folders of its own below the state folder, and removes them.
#[cfg(target_os = "linux")]
pub async fn check(config: &LauncherConfig) -> Vec<Check> {
    linux::check(config).await
}

/// Says that this system has no backend.
#[cfg(not(target_os = "linux"))]
pub async fn check(_config: &LauncherConfig) -> Vec<Check> {
    let error = crate::Error::UnsupportedOs { os: std::env::consts::OS };
    let detail = format!("failed to {error}");
    vec![Check { name: "sandbox".to_owned(), ok: false, detail, mend: Some("use a Linux host".to_owned()) }]
}
