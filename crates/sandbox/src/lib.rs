#![doc = include_str!("../README.md")]

mod client;
pub mod doctor;
mod error;
mod spec;
pub mod volume;

pub use client::{Launcher, Process, Sandbox};
pub use error::Error;
pub use spec::{
    Capabilities, Exec, Exit, HOME, LauncherConfig, Limits, Missing, PATH, RUN_DIR, Spec, Stdio, Tier,
    Volume, WayOut,
};
