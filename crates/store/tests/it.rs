//! The store at its border: one module a concern.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "it/common.rs"]
mod common;
#[path = "it/concurrent.rs"]
mod concurrent;
#[path = "it/crash.rs"]
mod crash;
#[path = "it/full.rs"]
mod full;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/managed.rs"]
mod managed;
#[path = "it/open.rs"]
mod open;
#[path = "it/owners.rs"]
mod owners;
#[path = "it/paging.rs"]
mod paging;
#[path = "it/resources.rs"]
mod resources;
#[path = "it/retention.rs"]
mod retention;
#[path = "it/story.rs"]
mod story;
#[path = "it/upgrade.rs"]
mod upgrade;
#[path = "it/usage.rs"]
mod usage;
