//! `wardian doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use wardian_sandbox::{LauncherConfig, doctor};

use crate::failure::{FAILED, Outcome, print};
use crate::host::{self, ScratchDir};

/// Makes a real sandbox on this host, attacks it from inside, and says what works and what mends what doesn't.
#[derive(clap::Args)]
pub struct Arguments {
    /// The folder with the static binaries wardian-guest and wardian-agent
    #[arg(long, env = "WARDIAN_LIBEXEC_DIR", value_name = "DIR")]
    libexec_dir: Option<PathBuf>,
}

/// Checks and prints a line a check; fails if one did.
pub async fn doctor(arguments: Arguments) -> Outcome {
    let scratch = ScratchDir::new()?;
    let libexec_dir = host::libexec_dir(arguments.libexec_dir)?;
    let checks = doctor::check(&LauncherConfig::new(libexec_dir, scratch.path().join("launcher"))).await;
    let wide = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in &checks {
        print(&format!(
            "{}  {:<wide$}  {}",
            if check.ok { "ok  " } else { "FAIL" },
            check.name,
            check.detail
        ))?;
        if let Some(mend) = check.mend.as_ref().filter(|_| !check.ok) {
            print(&format!("      {:<wide$}  mend: {mend}", ""))?;
        }
    }
    let failed = checks.iter().filter(|check| !check.ok).count();
    print(&format!("{} of {} checks passed", checks.len() - failed, checks.len()))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
