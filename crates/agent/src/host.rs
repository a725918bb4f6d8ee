//! What the agent asks its host over the control channel: permissions and hooks. Each question is a request with an id;
//! a question that is no longer needed is withdrawn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use wardian_agent::{
    CanUseTool, Elicitation, Elicited, Hook, HookEvent, HookFailure, HookInput, HookOutput, McpHost,
    OnElicitation, OnFailure, Permission, PermissionRequest, PermissionUpdate, ReasonKind, new_session_id,
};
use wardian_protocol::AgentFrame;
use wardian_protocol::JsonMap;
use wardian_protocol::control::{
    AgentRequest, ControlAnswer, ControlCancelRequest, ControlRequest, PermissionAnswer,
};
use wardian_protocol::frame::MAX_LINE_BYTES;
use wardian_protocol::hook::HookMatcher;

/// Questions on their way to the host.
const QUEUE: usize = 256;

/// Asks the host.
#[derive(Clone)]
pub struct Host(mpsc::Sender<Question>);

/// What goes to the host.
pub enum Question {
    Ask { id: String, request: Value, answer: oneshot::Sender<ControlAnswer> },
    Withdraw { id: String },
}

impl Question {
    pub fn id(&self) -> &str {
        match self {
            Self::Ask { id, .. } | Self::Withdraw { id } => id,
        }
    }
}

/// Questions that wait for their answers.
#[derive(Default)]
pub struct Pending {
    answers: HashMap<String, oneshot::Sender<ControlAnswer>>,
    /// Nobody answers any more.
    closed: bool,
}

impl Pending {
    /// Notes a question and gives the frame to write, if one is to be written.
    pub fn ask(&mut self, question: Question) -> Option<AgentFrame> {
        match question {
            // Dropping `answer` tells the asker that there is no host.
            Question::Ask { .. } if self.closed => None,
            Question::Ask { id, request, answer } => {
                self.answers.insert(id.clone(), answer);
                Some(AgentFrame::ControlRequest(ControlRequest {
                    request_id: id,
                    request,
                    extra: JsonMap::new(),
                }))
            }
            Question::Withdraw { id } => {
                self.answers.remove(&id)?;
                Some(AgentFrame::ControlCancelRequest(ControlCancelRequest {
                    request_id: id,
                    extra: JsonMap::new(),
                }))
            }
        }
    }

    /// Passes an answer on. One to no question, or the second to one, is dropped.
    pub fn answer(&mut self, answer: ControlAnswer) {
        if let Some(asker) = self.answers.remove(answer.request_id()) {
            let _ = asker.send(answer);
        }
    }

    /// Tells who waits for it of an answer that cannot be read.
    pub fn answer_unread(&mut self, line: &str, problem: &str) {
        let frame: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(id) = frame["response"]["request_id"].as_str() {
            let error = format!("the host's answer cannot be read: {problem}");
            self.answer(ControlAnswer::Error { request_id: id.to_owned(), error, extra: JsonMap::new() });
        }
    }

    /// Whether somebody waits for an answer.
    pub fn is_waiting(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Tells all who wait, and will ask, that nobody answers.
    pub fn close(&mut self) {
        self.closed = true;
        self.answers.clear();
    }
}

impl Host {
    /// A way to the host, and the questions that come through it.
    pub fn channel() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Asks what the host must see whole: what does not fit into a line is not asked at all.
    async fn ask(&self, request: AgentRequest) -> Result<Value, String> {
        let request = serde_json::to_value(request).map_err(|error| error.to_string())?;
        if !fits(&request) {
            return Err("it is too long for the host's protocol".to_owned());
        }
        self.put(request).await
    }

    /// Asks; what is too long is cut on its way.
    async fn put(&self, request: Value) -> Result<Value, String> {
        let id = new_id()?;
        let (answer, answered) = oneshot::channel();
        let gone = || "the host is gone".to_owned();
        let question = Question::Ask { id: id.clone(), request, answer };
        self.0.send(question).await.map_err(|_| gone())?;
        let mut withdrawal = Withdrawal { host: self, id: Some(id) };
        let answer = answered.await;
        withdrawal.id = None;
        match answer {
            Ok(ControlAnswer::Success { response, .. }) => Ok(response),
            Ok(ControlAnswer::Error { error, .. }) => Err(error),
            Err(_) => Err(gone()),
        }
    }

    /// Asks the host whether tools may be used.
    pub fn can_use_tool(&self) -> CanUseTool {
        let host = self.clone();
        Arc::new(move |asked| {
            let host = host.clone();
            Box::pin(async move { host.may_use(asked).await })
        })
    }

    async fn may_use(&self, asked: PermissionRequest) -> Permission {
        let question = wardian_protocol::control::CanUseTool {
            display_name: Some(
                asked
                    .mcp_server
                    .as_ref()
                    .map_or_else(|| asked.tool_name.clone(), |tool| tool.display_name.clone()),
            ),
            description: description(&asked),
            extra: details(&asked),
            decision_reason: asked.reason_kind.needs_words().then_some(asked.reason),
            decision_reason_type: asked.reason_kind.as_str().map(str::to_owned),
            blocked_path: asked.blocked_path,
            tool_name: asked.tool_name,
            input: asked.input,
            tool_use_id: asked.tool_use_id,
        };
        let answer = self.ask(AgentRequest::CanUseTool(question)).await;
        match answer.and_then(|answer| permission(answer).map_err(|error| error.to_string())) {
            Ok(permission) => permission,
            Err(error) => Permission::deny(format!("The permission could not be asked for: {error}")),
        }
    }

    /// The way to a tool server in the host's process.
    pub fn mcp_host(&self, server: &str) -> McpHost {
        let (host, server) = (self.clone(), server.to_owned());
        Arc::new(move |message| {
            let request = json!({"subtype": "mcp_message", "server_name": server, "message": message});
            let host = host.clone();
            Box::pin(async move {
                let mut answer = host.ask(AgentRequest::Other(request)).await?;
                Ok(answer.get_mut("mcp_response").map(Value::take).unwrap_or_default())
            })
        })
    }

    /// Asks the host's user what servers want to know.
    pub fn elicitation(&self) -> OnElicitation {
        let host = self.clone();
        Arc::new(move |asked| {
            let host = host.clone();
            Box::pin(async move { host.elicit(asked).await })
        })
    }

    async fn elicit(&self, asked: Elicitation) -> Elicited {
        let mode = asked.mode();
        let order = asked.requested_schema.as_ref().and_then(|schema| schema["properties"].as_object());
        let order = order.map(|properties| properties.keys().cloned().collect::<Vec<_>>());
        let fields = [
            ("url", asked.url.clone().map(Value::String)),
            ("elicitation_id", asked.elicitation_id.map(Value::String)),
            ("requested_schema", asked.requested_schema),
            ("property_order", order.map(Value::from)),
        ];
        let mut request = json!({
            "subtype": "elicitation",
            "mcp_server_name": asked.server,
            "message": asked.message,
            "mode": mode,
        });
        for (name, value) in fields {
            if let Some(value) = value {
                request[name] = value;
            }
        }
        match self.ask(AgentRequest::Other(request)).await {
            Ok(answer) if answer["action"] == "accept" => {
                Elicited::Accept(answer.get("content").filter(|content| content.is_object()).cloned())
            }
            Ok(answer) if answer["action"] == "cancel" => Elicited::Cancel,
            // A host that cannot ask its user has said no for the user.
            Ok(_) | Err(_) => Elicited::Decline,
        }
    }

    /// The hooks that the host registered for an event.
    pub fn hooks<'a>(&self, matchers: &'a [HookMatcher]) -> impl Iterator<Item = Hook> + use<'a, '_> {
        let of = |matcher: &'a HookMatcher| {
            matcher.hook_callback_ids.iter().map(|id| self.hook(matcher, id)).collect::<Vec<_>>()
        };
        matchers.iter().flat_map(of)
    }

    fn hook(&self, matcher: &HookMatcher, callback_id: &str) -> Hook {
        let (host, callback_id) = (self.clone(), callback_id.to_owned());
        let mut hook = Hook::new(matcher.matcher.as_deref(), move |input| {
            let (host, callback_id) = (host.clone(), callback_id.clone());
            async move {
                let event = input.hook_event_name.parse::<HookEvent>().ok();
                let cause = ["source", "reason", "load_reason"].iter().find_map(|name| input.text(name));
                if event.is_some_and(|event| !event.reaches_hosts(cause)) {
                    return Ok(HookOutput::default());
                }
                host.run_hook(callback_id, input).await.map_err(HookFailure)
            }
        });
        let timeout = matcher.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        hook.timeout = timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(hook.timeout);
        if matcher.on_failure.as_deref() == Some("block") {
            hook.on_failure = OnFailure::Block;
        }
        hook
    }

    async fn run_hook(&self, callback_id: String, input: HookInput) -> Result<HookOutput, String> {
        let tool_use_id = match &input.call {
            Some(call) => call.clone(),
            None if input.hook_event_name == "PostToolBatch" => format!("hook-{}", new_session_id()),
            None => new_session_id(),
        };
        let is_guard = input.hook_event_name == "PreToolUse";
        let input = serde_json::to_value(input).map_err(|error| error.to_string())?;
        let request = AgentRequest::HookCallback { callback_id, input, tool_use_id: Some(tool_use_id) };
        let request = serde_json::to_value(request).map_err(|error| error.to_string())?;
        if is_guard && !fits(&request) {
            // Whoever guards calls would decide about something else than what is run.
            return serde_json::from_value(unseen()).map_err(|error| error.to_string());
        }
        let answer = self.put(request).await?;
        if answer.is_null() {
            return Ok(HookOutput::default());
        }
        serde_json::from_value(answer).map_err(|error| format!("the host's answer makes no sense: {error}"))
    }
}

/// Withdraws a question whose asker is dropped before the answer.
struct Withdrawal<'a> {
    host: &'a Host,
    id: Option<String>,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            // A full queue means that the host is not reading: it will not miss this.
            let _ = self.host.0.try_send(Question::Withdraw { id });
        }
    }
}

/// What a frame has besides the request.
const FRAME_BYTES: usize = 1024;

/// Whether a question goes into a line as it is.
fn fits(request: &Value) -> bool {
    request.to_string().len() + FRAME_BYTES < MAX_LINE_BYTES
}

/// Refuses a call that a hook cannot be shown.
fn unseen() -> Value {
    json!({"hookSpecificOutput": {
        "hookEventName": "PreToolUse",
        "permissionDecision": "deny",
        "permissionDecisionReason":
            "The input is too long to be shown to the hook that decides about it. Do it in smaller pieces.",
    }})
}

fn new_id() -> Result<String, String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| error.to_string())?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

fn permission(answer: Value) -> Result<Permission, serde_json::Error> {
    serde_json::from_value::<PermissionAnswer>(answer).map(Permission::from)
}

/// What an ordinary question says besides.
fn details(asked: &PermissionRequest) -> JsonMap {
    let mut extra = JsonMap::new();
    // What rules and hooks want asked is to be asked each time: nothing is offered then.
    if !matches!(asked.reason_kind, ReasonKind::Rule | ReasonKind::Hook | ReasonKind::Mode) {
        let suggestions: Vec<Value> = asked.suggestions.iter().map(PermissionUpdate::to_value).collect();
        extra.insert("permission_suggestions".to_owned(), suggestions.into());
    }
    if let Some(agent_id) = &asked.agent_id {
        extra.insert("agent_id".to_owned(), agent_id.as_str().into());
    }
    if let Some(tool) = &asked.mcp_server {
        let server = json!({"name": tool.server, "source": tool.source.as_str()});
        extra.insert("mcp_server".to_owned(), server);
    }
    if asked.reason_kind == ReasonKind::Hook {
        extra.insert("decision_reason_hook_event".to_owned(), "PreToolUse".into());
    }
    if matches!(asked.tool_name.as_str(), "AskUserQuestion" | "ExitPlanMode") {
        extra.insert("requires_user_interaction".to_owned(), true.into());
    }
    extra
}

/// What a call does, for people: its own description, or what it is about.
fn description(asked: &PermissionRequest) -> Option<String> {
    let names: &[&str] = match asked.tool_name.as_str() {
        "Read" | "Write" | "Edit" => &["file_path"],
        "NotebookEdit" => &["notebook_path"],
        "WebFetch" => &["url"],
        "WebSearch" => &["query"],
        _ => &["description"],
    };
    names.iter().find_map(|name| asked.input.get(name)?.as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_hosts_are_read() {
        let allow = json!({"behavior": "allow", "updatedInput": {"a": 1}, "toolUseID": "t", "updatedPermissions": [
            {"type": "addRules", "behavior": "allow", "destination": "session",
             "rules": [{"toolName": "Bash", "ruleContent": "git *"}]},
            {"type": "setMode", "mode": "acceptEdits", "destination": "session"},
            {"type": "addDirectories", "directories": ["relative"]},
            {"type": "whatever"}, 7,
        ]});
        let Ok(Permission::Allow { updated_input, updates }) = permission(allow) else { panic!() };
        assert_eq!(updated_input, Some(json!({"a": 1})));
        assert_eq!(updates.len(), 2, "{updates:?}");
        let deny = permission(json!({"behavior": "deny", "message": "no", "interrupt": true}));
        assert!(matches!(deny, Ok(Permission::Deny { interrupt: true, .. })));
        for nonsense in [json!(null), json!({}), json!({"behavior": "maybe"}), json!("allow"), json!(true)] {
            assert!(permission(nonsense.clone()).is_err(), "{nonsense}");
        }
    }

    #[tokio::test]
    async fn an_answer_counts_once_and_only_where_it_was_asked_for() {
        let (host, mut questions) = Host::channel();
        let mut pending = Pending::default();
        let asked = tokio::join!(host.ask(AgentRequest::Other(json!({"subtype": "x"}))), async {
            let Some(AgentFrame::ControlRequest(request)) = pending.ask(questions.recv().await.unwrap())
            else {
                panic!()
            };
            let answer = |id: &str, value: i32| ControlAnswer::Success {
                request_id: id.to_owned(),
                response: json!(value),
                extra: JsonMap::new(),
            };
            pending.answer(answer("forged", 1));
            pending.answer(answer(&request.request_id, 2));
            pending.answer(answer(&request.request_id, 3));
        });
        assert_eq!(asked.0, Ok(json!(2)));
    }

    #[tokio::test]
    async fn what_a_host_cannot_see_whole_is_not_asked_and_not_allowed() {
        let (host, mut questions) = Host::channel();
        let long = json!({"command": "x".repeat(MAX_LINE_BYTES)});
        let asked = host.ask(AgentRequest::Other(json!({"subtype": "x", "input": long}))).await;
        assert_eq!(asked, Err("it is too long for the host's protocol".to_owned()));
        let input = |event: &str| HookInput {
            hook_event_name: event.to_owned(),
            fields: JsonMap::from_iter([("tool_input".to_owned(), long.clone())]),
            ..HookInput::default()
        };
        let answer = host.run_hook("h".to_owned(), input("PreToolUse")).await.unwrap();
        let said = answer.hook_specific_output.unwrap();
        assert_eq!(said.permission_decision, Some(wardian_protocol::hook::PermissionDecision::Deny));
        assert!(questions.try_recv().is_err(), "nothing was asked");
        // What has happened already is told as far as it goes.
        let mut pending = Pending::default();
        let told = tokio::join!(host.run_hook("h".to_owned(), input("PostToolUse")), async {
            let question = questions.recv().await.unwrap();
            let id = question.id().to_owned();
            assert!(pending.ask(question).is_some());
            pending.answer_unread("no json", "");
            pending.answer_unread(&json!({"response": {"request_id": id}}).to_string(), "it says nothing");
        });
        assert_eq!(told.0, Err("the host's answer cannot be read: it says nothing".to_owned()));
    }

    #[tokio::test]
    async fn a_dropped_question_is_withdrawn_and_a_gone_host_answers_nothing() {
        let (host, mut questions) = Host::channel();
        let mut pending = Pending::default();
        {
            let mut asking = std::pin::pin!(host.ask(AgentRequest::Other(json!({}))));
            assert!(futures_util::poll!(asking.as_mut()).is_pending());
            assert!(pending.ask(questions.recv().await.unwrap()).is_some());
        }
        let withdrawn = pending.ask(questions.recv().await.unwrap());
        assert!(matches!(withdrawn, Some(AgentFrame::ControlCancelRequest(_))));
        pending.close();
        let (answer, ()) = tokio::join!(host.ask(AgentRequest::Other(json!({}))), async {
            assert!(pending.ask(questions.recv().await.unwrap()).is_none());
        });
        assert_eq!(answer, Err("the host is gone".to_owned()));
    }
}
