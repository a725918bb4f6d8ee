//! EnterPlanMode and ExitPlanMode: work that is planned first, and begun when the user agrees.
//!
//! source: the agent protocol reference, sections 1.5 and 1.6.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use wardian_policy::PermissionMode;

use crate::authorise::lock;
use crate::session::Setup;
use crate::tool::{Tool, ToolContext, ToolOutput};

const NO_SESSION: &str = "there is no session whose mode could change";
const ENTERED: &str = "This is plan mode now: look around, and change nothing. When you know what to do, call ExitPlanMode with the \
    plan; the user decides about it.";

/// The tool `EnterPlanMode`.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnterPlanMode;

impl Tool for EnterPlanMode {
    fn name(&self) -> &str {
        "EnterPlanMode"
    }

    fn description(&self) -> &str {
        "Goes into plan mode: you may read and search, and change nothing until the user agrees to a plan. For work that is large, \
         or that can be understood in more than one way. Not for questions, and not for small changes."
    }

    fn input_schema(&self) -> Value {
        json!({"type": "object", "properties": {}})
    }

    fn call<'a>(&'a self, _input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            let Some(setup) = context.within.setup() else { return ToolOutput::error(NO_SESSION) };
            match set_mode(setup, true).await {
                Ok(()) => ToolOutput::ok(ENTERED, json!({"message": ENTERED})),
                Err(text) => ToolOutput::error(text),
            }
        })
    }
}

/// The tool `ExitPlanMode`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExitPlanMode;

impl Tool for ExitPlanMode {
    fn name(&self) -> &str {
        "ExitPlanMode"
    }

    fn description(&self) -> &str {
        "Shows the user your plan and asks whether to go on. Only in plan mode, and only when the plan is whole: what changes where, \
         in which order, and how it is checked. Questions go before it, with AskUserQuestion."
    }

    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {"plan": {"type": "string", "description": "The plan, in Markdown"}},
        })
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            let Some(setup) = context.within.setup() else { return ToolOutput::error(NO_SESSION) };
            if let Err(text) = set_mode(setup, false).await {
                return ToolOutput::error(text);
            }
            let plan = input.get("plan").cloned().unwrap_or(Value::Null);
            let is_agent = setup.out.agent.is_some();
            let text = match plan.as_str() {
                Some(plan) => format!("The user agreed to this plan. Begin.\n\n{plan}"),
                None => "The user agreed. Begin.".to_owned(),
            };
            ToolOutput::ok(text, json!({"plan": plan, "isAgent": is_agent}))
        })
    }
}

/// Changes the mode, and says so. Plan mode is left for the mode that was before it; where the host has set another with
/// its answer, that one holds.
async fn set_mode(setup: &Setup, is_plan: bool) -> Result<(), String> {
    let changed = {
        let mut live = lock(&setup.live);
        let before = live.policy.mode;
        let next = match (is_plan, before) {
            (true, _) => PermissionMode::Plan,
            (false, PermissionMode::Plan) => live.mode_before_plan.unwrap_or_default(),
            (false, other) => other,
        };
        live.set_mode(next).map_err(|error| format!("failed to {error}"))?;
        (next != before).then_some(next)
    };
    if let Some(mode) = changed {
        setup.out.system("status", json!({"status": null, "permissionMode": mode.as_str()})).await;
    }
    Ok(())
}
