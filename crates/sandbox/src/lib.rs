#![doc = include_str!("../README.md")]

#[cfg(target_os = "linux")]
mod client;
#[cfg(not(target_os = "linux"))]
#[path = "unsupported.rs"]
mod client;
pub mod doctor;
mod error;
mod spec;
pub mod volume;

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod guest;
#[cfg(target_os = "linux")]
mod launcher;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod wire;

pub use client::{Launcher, Process, Sandbox};
pub use error::Error;
pub use spec::{
    Capabilities, Exec, Exit, HOME, LauncherConfig, Limits, Missing, PATH, RUN_DIR, Shown, Spec, Stdio, Tier,
    Volume, WayOut,
};

/// What the program `wardian-guest` does; for that program only.
#[doc(hidden)]
#[cfg(target_os = "linux")]
pub fn guest_main(role: Option<&std::ffi::OsStr>) -> std::process::ExitCode {
    let result = match role.and_then(std::ffi::OsStr::to_str) {
        Some("launcher") => launcher::main(),
        Some("guest") => guest::main(),
        Some("probe") => probe::main(),
        _ => Err(std::io::Error::other("wardian starts this program itself, as `launcher` or as `guest`")),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wardian-guest: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// What the program `wardian-guest` does; for that program only.
#[doc(hidden)]
#[cfg(not(target_os = "linux"))]
pub fn guest_main(_role: Option<&std::ffi::OsStr>) -> std::process::ExitCode {
    eprintln!("wardian-guest: {}", Error::UnsupportedOs { os: std::env::consts::OS });
    std::process::ExitCode::FAILURE
}
