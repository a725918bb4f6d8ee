//! Counts of subagents, for results.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Killer, Status};

/// Kinds of subagents that are counted each by itself: names come from the model, among those that there are.
const MAX_TYPES: usize = 256;

/// Why a subagent was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Depth,
    Concurrency,
    Budget,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    spawned: u64,
    /// Asked for in the background, in the foreground, or not said.
    background: u64,
    foreground: u64,
    unset: u64,
    started_in_background: u64,
    max_depth: usize,
    by_subagents: u64,
    completed: u64,
    failed: u64,
    killed_by_parent: u64,
    killed_by_user: u64,
    killed_by_system: u64,
    refused_for_depth: u64,
    refused_for_concurrency: u64,
    refused_for_budget: u64,
    by_type: BTreeMap<String, u64>,
}

impl Stats {
    pub(super) fn start(&mut self, kind: &str, depth: usize, asked: Option<bool>, is_backgrounded: bool) {
        self.spawned += 1;
        *match asked {
            Some(true) => &mut self.background,
            Some(false) => &mut self.foreground,
            None => &mut self.unset,
        } += 1;
        self.started_in_background += u64::from(is_backgrounded);
        self.max_depth = self.max_depth.max(depth);
        self.by_subagents += u64::from(depth > 1);
        if self.by_type.len() < MAX_TYPES || self.by_type.contains_key(kind) {
            *self.by_type.entry(kind.to_owned()).or_default() += 1;
        }
    }

    pub(super) const fn end(&mut self, status: Status, killer: Option<Killer>) {
        *match (killer, status) {
            (Some(Killer::Parent), _) => &mut self.killed_by_parent,
            (Some(Killer::User), _) => &mut self.killed_by_user,
            (Some(Killer::System), _) | (None, Status::Stopped) => &mut self.killed_by_system,
            (None, Status::Completed) => &mut self.completed,
            (None, Status::Failed) => &mut self.failed,
        } += 1;
    }

    pub(super) const fn refuse(&mut self, refusal: Refusal) {
        *match refusal {
            Refusal::Depth => &mut self.refused_for_depth,
            Refusal::Concurrency => &mut self.refused_for_concurrency,
            Refusal::Budget => &mut self.refused_for_budget,
        } += 1;
    }

    pub(super) fn to_value(&self) -> Value {
        json!({
            "spawned": self.spawned,
            "requested": {"background": self.background, "foreground": self.foreground, "unset": self.unset},
            "started_in_background": self.started_in_background,
            "max_depth": self.max_depth,
            "spawned_by_subagents": self.by_subagents,
            "completed": self.completed,
            "failed": self.failed,
            "killed": {
                "parent": self.killed_by_parent,
                "user": self.killed_by_user,
                "system": self.killed_by_system,
            },
            "refused": {
                "depth_limit": self.refused_for_depth,
                "concurrency_limit": self.refused_for_concurrency,
                "budget": self.refused_for_budget,
            },
            "by_type": self.by_type,
        })
    }
}
