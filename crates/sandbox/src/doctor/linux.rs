//! The checks, where there is a backend.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::Check;
use crate::client::{Launcher, Sandbox};
use crate::error::Error;
use crate::probe::Attempt;
use crate::spec::{Capabilities, Exec, LauncherConfig, RUN_DIR, Spec, Tier, Volume};

const PROBE_PATIENCE: Duration = Duration::from_secs(20);
/// The probe prints some twenty lines.
const MAX_PROBE_BYTES: u64 = 64 << 10;

pub(super) async fn check(config: &LauncherConfig) -> Vec<Check> {
    let folder = config.state_dir.join(format!("doctor-{}", std::process::id()));
    let mut checks = Vec::new();
    let own = LauncherConfig::new(&config.libexec_dir, folder.join("state"));
    match Launcher::start(own) {
        Ok(launcher) => {
            checks.push(passed("launcher", "starts and answers"));
            checks.extend(abilities(launcher.capabilities()));
            if let Err(error) = try_sandbox(&launcher, &folder, &mut checks).await {
                checks.push(failed("sandbox", &error));
            }
            launcher.shut_down().await;
        }
        Err(error) => checks.push(failed("launcher", &error)),
    }
    let _ = std::fs::remove_dir_all(&folder);
    let _ = std::fs::remove_dir(&config.state_dir);
    checks
}

fn abilities(capabilities: &Capabilities) -> Vec<Check> {
    let tier = match capabilities.tier {
        Tier::Full => passed("control groups", "limit memory and processes"),
        // The list of what is missing says why, and what to do.
        Tier::NoCgroup => Check {
            name: "control groups".to_owned(),
            ok: false,
            detail: "no limits but rlimits and file system sizes: tier no-cgroup".to_owned(),
            mend: None,
        },
    };
    let users = match (capabilities.uid_per_tenant, capabilities.idmapped_mounts) {
        (true, true) => passed("users", "one host user id for each tenant; folders keep their owners"),
        (true, false) => passed("users", "one host user id for each tenant"),
        (false, _) => passed("users", "without root: all tenants are this user on the host"),
    };
    let missing = capabilities.missing.iter().map(|missing| Check {
        name: "missing".to_owned(),
        ok: false,
        detail: missing.what.clone(),
        mend: Some(missing.mend.clone()),
    });
    [tier, users].into_iter().chain(missing).collect()
}

async fn try_sandbox(launcher: &Launcher, folder: &Path, checks: &mut Vec<Check>) -> Result<(), Error> {
    let workspace = folder.join("workspace");
    launcher.make_volume(&workspace, None)?;
    let sandbox = launcher.create("doctor", &Spec::new(Volume::new(&workspace, "/workspace"))).await?;
    checks.push(passed("sandbox", &format!("made, tier {}", sandbox.tier())));
    let exit = sandbox.exec(Exec::new(["true"])).await?.wait().await?;
    checks.push(Check {
        name: "run a program".to_owned(),
        ok: exit.success(),
        detail: format!("true: {exit:?}"),
        mend: None,
    });
    let write = Exec::new(["sh", "-c", "echo written > /workspace/file && cat /workspace/file"]);
    let exit = sandbox.exec(write).await?.wait().await?;
    checks.push(Check {
        name: "write the workspace".to_owned(),
        ok: exit.success(),
        detail: format!("{exit:?}"),
        mend: None,
    });
    for attempt in probe(&sandbox).await? {
        checks.push(Check {
            name: format!("held: {}", attempt.name),
            ok: attempt.held,
            detail: attempt.detail,
            mend: (!attempt.held).then(|| "do not run untrusted agents on this host; report this".to_owned()),
        });
    }
    sandbox.destroy().await
}

async fn probe(sandbox: &Sandbox) -> Result<Vec<Attempt>, Error> {
    let mut exec = Exec::new([format!("{RUN_DIR}/wardian-guest"), "probe".to_owned()]);
    exec.timeout = Some(PROBE_PATIENCE);
    let mut process = sandbox.exec(exec).await?;
    let mut output = Vec::new();
    if let Some(stdout) = process.stdout.take() {
        let limited = stdout.take(MAX_PROBE_BYTES);
        tokio::pin!(limited);
        limited.read_to_end(&mut output).await.map_err(Error::io("read the probe"))?;
    }
    let exit = process.wait().await?;
    serde_json::from_slice(&output)
        .map_err(|error| Error::Protocol { peer: "the probe", why: format!("{error} ({exit:?})") })
}

fn passed(name: &str, detail: &str) -> Check {
    Check { name: name.to_owned(), ok: true, detail: detail.to_owned(), mend: None }
}

fn failed(name: &str, error: &Error) -> Check {
    let mend = match error {
        Error::Isolation { mend, .. } => Some(mend.clone()),
        Error::MissingProgram { hint, .. } => Some((*hint).to_owned()),
        Error::Version { .. } => {
            Some("install wardian, wardian-guest and wardian-agent from one build".to_owned())
        }
        _ => None,
    };
    Check { name: name.to_owned(), ok: false, detail: format!("failed to {error}"), mend }
}

/// Returns the line that mends what usually forbids user namespaces.
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
pub(crate) fn mend_mounts() -> String {
    "needs Linux 5.12 or later and, in a container, `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`"
        .to_owned()
}

/// Returns the line that mends what usually forbids a new /proc.
pub(crate) fn mend_proc() -> String {
    "in a container whose /proc is masked, start it with `--security-opt systempaths=unconfined` \
     (Kubernetes: `procMount: Unmasked`)"
        .to_owned()
}
