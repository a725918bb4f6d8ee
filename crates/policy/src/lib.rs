#![doc = include_str!("../README.md")]

mod bash;
mod decide;
mod everyday;
mod files;
mod mode;
mod rule;
mod shell;

pub use bash::{Plan, plan_of};
pub use decide::{
    Call, Decision, Facts, Link, PathFact, Policy, Reason, ReasonKind, decide, host_of, paths_of,
};
pub use mode::{ModeError, PermissionMode};
pub use rule::{MAX_RULE_BYTES, Rule, RuleError};
