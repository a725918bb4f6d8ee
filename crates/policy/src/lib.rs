#![doc = include_str!("../README.md")]

mod decide;
mod mode;
mod rule;

pub use decide::{Call, Decision, Facts, PathFact, Policy, Reason, ReasonKind, decide, paths_of};
pub use mode::{ModeError, PermissionMode};
pub use rule::{Rule, RuleError};
