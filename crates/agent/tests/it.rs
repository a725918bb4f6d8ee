//! The engine and the binary against the scripted model.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

#[path = "it/engine.rs"]
mod engine;
#[path = "it/support.rs"]
mod support;
