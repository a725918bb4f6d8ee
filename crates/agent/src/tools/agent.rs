//! Agent: hands a piece of work to a subagent.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use super::input::parse_input;
use crate::subagent::{self, AgentDefinition, Asked};
use crate::tool::{Tool, ToolContext, ToolOutput};

/// The tool `Agent`, with the subagents of one session.
#[derive(Debug)]
pub struct Agent {
    description: String,
    in_background: bool,
}

impl Agent {
    /// `agents`: those that can be called on. `in_background`: whether they may go on beside the turn.
    #[must_use]
    pub fn new(agents: &BTreeMap<String, AgentDefinition>, in_background: bool) -> Self {
        Self { description: description(agents, in_background), in_background }
    }
}

fn description(agents: &BTreeMap<String, AgentDefinition>, in_background: bool) -> String {
    let mut text = "Hands a piece of work to a subagent: an agent with its own conversation, which sees nothing of this \
                    one and gives back one report. Use it for work that can be described whole, above all when it \
                    would fill this conversation with what only the result of is needed.\n\
                    \n\
                    - Put into the prompt all that it must know: the goal, the places, what to give back.\n\
                    - Several calls in one reply work side by side."
        .to_owned();
    text.push_str(if in_background {
        "\n- It works in the background unless run_in_background is false: then you go on at once, and its report \
         comes by itself as a notice. Say false only when your very next step needs the report."
    } else {
        "\n- The call waits for the report."
    });
    text.push_str("\n\nThe subagents:");
    for (name, agent) in agents {
        text.push_str(&format!("\n- {name}: {}", subagent::shown_description(agent)));
    }
    text
}

impl Tool for Agent {
    fn name(&self) -> &str {
        "Agent"
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn input_schema(&self) -> Value {
        let mut schema = json!({
            "type": "object",
            "properties": {
                "description": {"type": "string", "description": "The work in three to five words, for the user"},
                "prompt": {"type": "string", "description": "The work, with all that is needed to do it"},
                "subagent_type": {"type": "string", "description": "Which subagent; default general-purpose"},
                "model": {
                    "type": "string",
                    "enum": ["sonnet", "opus", "haiku", "fable"],
                    "description": "Another model than the one it has",
                },
                "effort": {
                    "type": "string",
                    "enum": ["low", "medium", "high", "xhigh", "max"],
                    "description": "How hard it tries; only where the user asks for it",
                },
            },
            "required": ["description", "prompt"],
        });
        if self.in_background {
            schema["properties"]["run_in_background"] = json!({
                "type": "boolean",
                "description": "False: wait for the report. Default true",
            });
        }
        schema
    }

    /// Subagents of one reply work side by side.
    fn runs_alongside(&self) -> bool {
        true
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            let Some(setup) = context.within.setup() else {
                return Failure::new("there is no session here for a subagent to work in").into();
            };
            match parse_input::<Input>("Agent", &self.input_schema(), input).and_then(Input::checked) {
                Ok(asked) => subagent::run(setup, asked, context).await,
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Deserialize)]
struct Input {
    description: String,
    prompt: String,
    subagent_type: Option<String>,
    model: Option<String>,
    effort: Option<String>,
    run_in_background: Option<bool>,
    isolation: Option<String>,
}

impl Input {
    fn checked(self) -> Result<Asked, Failure> {
        if self.isolation.is_some() {
            return Err(Failure::new("isolation is not available here; the subagent works where you do"));
        }
        if self.prompt.trim().is_empty() {
            return Err(Failure::new("the prompt is empty"));
        }
        Ok(Asked {
            description: self.description,
            prompt: self.prompt,
            kind: self.subagent_type.filter(|kind| !kind.is_empty()),
            model: self.model,
            effort: self.effort,
            background: self.run_in_background,
        })
    }
}
