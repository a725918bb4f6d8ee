//! Which built-in tools a session has.
//!
//! source: the agent protocol reference, section 1.6.

use std::sync::Arc;

use super::skill::{self, SkillTool};
use super::{FOR_SERVERS, builtin, canonical, is_default};
use crate::skill::Skills;
use crate::tool::Tool;
use crate::{Error, ToolSet};

/// Tools that the official CLI has only where they are named, besides those that nobody has unnamed.
const WHEN_NAMED: [&str; 2] = ["Glob", "Grep"];

/// Returns the names of all tools that can be asked for.
#[must_use]
pub fn names() -> Vec<String> {
    let made = builtin();
    let names = made.iter().map(|tool| tool.name()).chain(FOR_SERVERS).chain([skill::NAME]);
    names.map(str::to_owned).collect()
}

/// The tools of a set, in the order of their names. `has_host`: somebody can be asked.
pub(crate) fn chosen(set: &ToolSet, skills: &Skills, has_host: bool) -> Result<Vec<Arc<dyn Tool>>, Error> {
    let mut tools = builtin();
    tools.push(Arc::new(SkillTool(skills.clone())));
    match set {
        ToolSet::All => {
            tools.retain(|tool| is_default(tool.name(), has_host));
            tools.retain(|tool| tool.name() != skill::NAME || !skills.is_empty());
        }
        ToolSet::Standard => {
            tools.retain(|tool| is_default(tool.name(), has_host) && !WHEN_NAMED.contains(&tool.name()));
        }
        ToolSet::Only(names) => {
            let known = |name: &&String| {
                FOR_SERVERS.contains(&name.as_str())
                    || tools.iter().any(|tool| tool.name() == canonical(name))
            };
            if let Some(unknown) = names.iter().find(|name| !known(name)) {
                return Err(Error::UnknownTool(unknown.clone()));
            }
            tools.retain(|tool| names.iter().any(|name| canonical(name) == tool.name()));
        }
    }
    tools.sort_by(|one, other| one.name().cmp(other.name()));
    Ok(tools)
}
