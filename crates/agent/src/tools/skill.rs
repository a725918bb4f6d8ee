//! Skill.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use wardian_policy::Rule;

use crate::authorise::lock;
use crate::skill::Skills;
use crate::tool::{Tool, ToolContext, ToolOutput};
use crate::words;

/// The tool's name.
pub(crate) const NAME: &str = "Skill";

/// The tool `Skill`.
#[derive(Clone, Debug)]
pub(crate) struct SkillTool(pub(crate) Skills);

impl Tool for SkillTool {
    fn name(&self) -> &str {
        NAME
    }

    fn description(&self) -> &str {
        "Uses a skill: written instructions for a kind of task. The skills that there are were named to you with what \
         they are for; use one as soon as a task fits it, before you begin. You then get its instructions and follow \
         them. Do not guess at names."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "skill": {"type": "string", "description": "The skill's name"},
                "args": {"type": "string", "description": "Its arguments, as one text"},
            },
            "required": ["skill"],
            "additionalProperties": false,
        })
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            let name = input["skill"].as_str().unwrap_or_default();
            let Some(skill) = self.0.get(name) else {
                return ToolOutput::error(words::unknown_skill(name, &self.0.names()));
            };
            if !self.0.is_enabled(&skill) {
                return ToolOutput::error(words::skill_not_enabled(&skill.name));
            }
            if !skill.for_model {
                return ToolOutput::error(words::skill_for_people(&skill.name));
            }
            let text = match skill.text(input["args"].as_str().unwrap_or_default()).await {
                Ok(text) => text,
                Err(error) => {
                    return ToolOutput::error(format!("failed to read the skill {}: {error}", skill.name));
                }
            };
            let mut structured = json!({"success": true, "commandName": skill.name});
            if !skill.allowed_tools.is_empty() {
                structured["allowedTools"] = json!(skill.allowed_tools);
                if let Some(setup) = context.within.setup() {
                    let rules = skill.allowed_tools.iter().filter_map(|rule| rule.parse::<Rule>().ok());
                    let mut live = lock(&setup.live);
                    let new: Vec<Rule> = rules.filter(|rule| !live.policy.allow.contains(rule)).collect();
                    live.policy.allow.extend(new.iter().cloned());
                    self.0.grant(new);
                }
            }
            ToolOutput {
                followed_by: Some(text),
                ..ToolOutput::ok(words::skill_follows(&skill.name), structured)
            }
        })
    }
}
