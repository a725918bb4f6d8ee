//! The engine and the binary against the scripted model.

#[path = "it/engine.rs"]
mod engine;
#[path = "it/support.rs"]
mod support;
