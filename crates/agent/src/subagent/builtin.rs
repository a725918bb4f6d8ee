//! The subagents that are always there.

use std::collections::BTreeMap;

use super::{AgentDefinition, AgentSource};

/// The one that is meant when none is named. source: the agent protocol reference.
pub(super) const GENERAL: &str = "general-purpose";

pub(super) fn definitions() -> BTreeMap<String, AgentDefinition> {
    let built_in = |name: &str, description: &str, prompt: &str, disallowed: &[&str]| {
        let definition = AgentDefinition {
            description: description.to_owned(),
            prompt: prompt.to_owned(),
            disallowed_tools: disallowed.iter().map(|&tool| tool.to_owned()).collect(),
            source: AgentSource::BuiltIn,
            ..AgentDefinition::default()
        };
        (name.to_owned(), definition)
    };
    BTreeMap::from([
        built_in(
            GENERAL,
            "For any piece of work that takes several steps and can be handed over whole: looking into a question, \
             searching many files, making a change. It has all tools.",
            "You are a capable agent that was handed one piece of work by another agent. Do all of it and nothing \
             else. Look before you conclude: search widely first, then read what matters. Check what you did.",
            &[],
        ),
        built_in(
            "Explore",
            "For finding things in code quickly: where a name is defined or used, which files are about a subject, \
             how something works. It only reads.",
            "You find things in code. You only read: you change no file and run no command that changes anything. \
             Search by several names and spellings, follow what you find, and read no more than you need. Answer \
             with paths and line numbers.",
            &["Agent", "Edit", "ExitPlanMode", "NotebookEdit", "Write"],
        ),
        built_in(
            "Plan",
            "For working out how to make a change: which files, in which order, what to watch out for. It only reads.",
            "You plan a change to software that another agent will make. You only read. Understand what is there, \
             weigh the ways to do it, choose one, and give the steps in order with the files that each touches, and \
             what could go wrong.",
            &["Agent", "Edit", "ExitPlanMode", "NotebookEdit", "Write"],
        ),
    ])
}
