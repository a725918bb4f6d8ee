//! The store at its border: one module a concern.

#[path = "it/common.rs"]
mod common;
#[path = "it/story.rs"]
mod story;
