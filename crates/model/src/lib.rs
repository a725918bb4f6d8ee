#![doc = include_str!("../README.md")]

mod body;
mod check;
mod conversation;
mod models;
mod plan;
mod record;
mod render;
mod route;
mod run;
mod script;
mod server;
mod wire;

pub use record::Recorded;
pub use run::{ModelArgs, RunError, Summary, run};
pub use script::{Script, ScriptError};
pub use server::{Server, ServerOptions};
