//! A disk that is really full: a test runs itself again in a mount namespace of its own, on a small `tmpfs`.

use std::path::Path;
use std::process::Command;

/// What the test says when it runs on the small disk: without it, the host gave none.
pub const ON_A_DISK: &str = "on a disk of its own";

/// Runs the test `name` of this very program again, with a disk of `mebibytes` in `folder`, and the folder in the variable
/// `variable`. As root, or in a user namespace where the host allows one.
///
/// # Errors
/// What was said where the host gives no such disk: nothing was tested then.
///
/// # Panics
/// When the test fails there, with all it said.
pub fn small_disk(folder: &Path, mebibytes: u32, name: &str, variable: &str) -> Result<(), Vec<String>> {
    let script = format!(
        "mount -t tmpfs -o size={mebibytes}m,mode=700 wardian-test \"$1\" && exec \"$2\" --exact {name} --nocapture"
    );
    let this = std::env::current_exe().map_err(|error| vec![error.to_string()])?;
    let mut said = Vec::new();
    for flags in [&[][..], &["--user", "--map-root-user"]] {
        let child = Command::new("unshare")
            .args(flags)
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", &script, "sh"])
            .args([folder, &this])
            .env(variable, folder)
            .output();
        let Ok(output) = child else { continue };
        let text =
            [output.stdout, output.stderr].map(|out| String::from_utf8_lossy(&out).into_owned()).concat();
        if text.contains(ON_A_DISK) {
            assert!(output.status.success(), "{text}");
            return Ok(());
        }
        said.push(text);
    }
    Err(said)
}
