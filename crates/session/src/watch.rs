//! Watches a turn from outside: counts it, and writes its spans, those of its tool calls below it.
//!
//! What an agent says of its tools is a claim: the spans are marked so, and nothing here is unbounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use serde_json::Value;
use tokio::time::Instant;
use wardian_protocol::SessionId;

use crate::metrics::{Metrics, Start, tool_label};

/// Tool calls under way at one time that are followed; of more only the end is missed.
const MAX_OPEN_TOOLS: usize = 256;

/// The longest id of a tool call that is followed.
const MAX_ID_BYTES: usize = 256;

/// What a turn is.
#[derive(Clone, Debug)]
pub struct Turn<'a> {
    /// The session.
    pub session_id: &'a SessionId,
    /// The agent's name, where it has one.
    pub agent: Option<&'a str>,
    /// The span that the turn's stands below: of the request that asked for it.
    pub parent: SpanContext,
    /// Whether a sandbox was there already.
    pub start: Start,
}

/// A turn that is watched. Dropping it ends it as lost.
#[derive(Debug)]
pub struct TurnWatch {
    metrics: Metrics,
    tracer: Option<Arc<BoxedTracer>>,
    context: Context,
    start: Start,
    began: Instant,
    is_heard: bool,
    is_over: bool,
    tools: BTreeMap<String, OpenTool>,
}

/// A tool call that has no result yet.
#[derive(Debug)]
struct OpenTool {
    label: &'static str,
    span: Option<BoxedSpan>,
}

/// The context of the request that is being served on this task, if it is traced.
#[must_use]
pub fn current_trace() -> SpanContext {
    Context::map_current(|context| context.span().span_context().clone())
}

/// Below this span; a span that is none would be taken for one that is not sampled.
fn below(parent: SpanContext) -> Context {
    if parent.is_valid() { Context::new().with_remote_span_context(parent) } else { Context::new() }
}

impl TurnWatch {
    /// Begins to watch.
    #[must_use]
    pub fn begin(metrics: &Metrics, tracer: Option<&Arc<BoxedTracer>>, turn: Turn<'_>) -> Self {
        metrics.turn_started();
        let parent = below(turn.parent);
        let context = tracer.map_or_else(Context::new, |tracer| {
            let name =
                turn.agent.map_or_else(|| "invoke_agent".to_owned(), |name| format!("invoke_agent {name}"));
            let mut attributes = vec![
                KeyValue::new("gen_ai.operation.name", "invoke_agent"),
                KeyValue::new("gen_ai.provider.name", "anthropic"),
                KeyValue::new("gen_ai.conversation.id", turn.session_id.to_string()),
            ];
            attributes.extend(turn.agent.map(|name| KeyValue::new("gen_ai.agent.name", name.to_owned())));
            let builder = tracer.span_builder(name).with_kind(SpanKind::Internal).with_attributes(attributes);
            Context::new().with_span(tracer.build_with_context(builder, &parent))
        });
        Self {
            metrics: metrics.clone(),
            tracer: tracer.cloned(),
            context,
            start: turn.start,
            began: Instant::now(),
            is_heard: false,
            is_over: false,
            tools: BTreeMap::new(),
        }
    }

    /// The turn's own span, for what belongs below it: `wardian_gateway::Door::set_trace`.
    #[must_use]
    pub fn trace(&self) -> SpanContext {
        self.context.span().span_context().clone()
    }

    /// Takes a message of the agent in, as it writes them.
    pub fn message(&mut self, message: &Value) {
        let blocks = || message["message"]["content"].as_array().into_iter().flatten();
        match message["type"].as_str() {
            Some("assistant") => {
                self.heard();
                let above = message["parent_tool_use_id"].as_str();
                for block in blocks().filter(|block| block["type"] == "tool_use") {
                    if let (Some(id), Some(name)) = (block["id"].as_str(), block["name"].as_str()) {
                        self.tool_started(id, name, above);
                    }
                }
            }
            Some("user") => {
                for block in blocks().filter(|block| block["type"] == "tool_result") {
                    if let Some(id) = block["tool_use_id"].as_str() {
                        self.tool_ended(id, block["is_error"] == true);
                    }
                }
            }
            Some("stream_event") => self.heard(),
            _ => (),
        }
    }

    /// The agent has said something.
    pub fn heard(&mut self) {
        if !self.is_heard {
            self.is_heard = true;
            self.metrics.first_message(self.start, self.began.elapsed());
        }
    }

    /// The model calls a tool; `above` is the call under which a subagent does.
    pub fn tool_started(&mut self, id: &str, name: &str, above: Option<&str>) {
        if id.len() > MAX_ID_BYTES || self.tools.len() >= MAX_OPEN_TOOLS || self.tools.contains_key(id) {
            return;
        }
        let label = tool_label(name);
        let span = self.tracer.as_ref().map(|tracer| {
            let above = above.and_then(|id| self.tools.get(id)?.span.as_ref());
            let parent = above.map_or_else(|| self.trace(), |span| span.span_context().clone());
            let shown: String = name.chars().take(MAX_ID_BYTES).collect();
            let attributes = [
                KeyValue::new("gen_ai.operation.name", "execute_tool"),
                KeyValue::new("gen_ai.tool.name", shown),
                KeyValue::new("gen_ai.tool.call.id", id.to_owned()),
                KeyValue::new("gen_ai.tool.type", "function"),
                KeyValue::new("wardian.source", "claimed"),
            ];
            let builder = tracer.span_builder(format!("execute_tool {label}"));
            let builder = builder.with_kind(SpanKind::Internal).with_attributes(attributes);
            tracer.build_with_context(builder, &below(parent))
        });
        self.tools.insert(id.to_owned(), OpenTool { label, span });
    }

    /// A call has its result.
    pub fn tool_ended(&mut self, id: &str, is_error: bool) {
        let Some(mut tool) = self.tools.remove(id) else { return };
        self.metrics.tool_used(tool.label, is_error);
        if let Some(span) = &mut tool.span {
            if is_error {
                span.set_attribute(KeyValue::new("error.type", "tool_error"));
                span.set_status(Status::error(""));
            }
            span.end();
        }
    }

    /// The turn is over. `outcome` is one of few words; `failed` marks the span.
    pub fn end(mut self, outcome: &'static str, failed: bool) {
        self.finish(outcome, failed);
    }

    fn finish(&mut self, outcome: &'static str, failed: bool) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.metrics.turn_ended(outcome, self.began.elapsed());
        for tool in std::mem::take(&mut self.tools).into_values() {
            if let Some(mut span) = tool.span {
                span.set_attribute(KeyValue::new("error.type", "interrupted"));
                span.set_status(Status::error(""));
                span.end();
            }
        }
        let span = self.context.span();
        span.set_attribute(KeyValue::new("wardian.outcome", outcome));
        if failed {
            span.set_attribute(KeyValue::new("error.type", outcome));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

impl Drop for TurnWatch {
    fn drop(&mut self) {
        self.finish("lost", true);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watch() -> TurnWatch {
        let session_id = SessionId::from_random([1; 16]);
        let (parent, start) = (SpanContext::NONE, Start::Cold);
        let turn = Turn { session_id: &session_id, agent: None, parent, start };
        TurnWatch::begin(&Metrics::default(), None, turn)
    }

    fn tool_use(id: &Value) -> Value {
        json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "id": id, "name": "Bash"}]}})
    }

    #[test]
    fn what_an_agent_writes_is_followed_within_bounds() {
        let mut watch = watch();
        for strange in [
            json!(null),
            json!([]),
            json!({"type": "assistant"}),
            json!({"type": "assistant", "message": {"content": "text"}}),
            json!({"type": "assistant", "message": {"content": [1, {"type": "tool_use"}]}}),
            json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "unknown"}]}}),
            tool_use(&json!("x".repeat(MAX_ID_BYTES + 1))),
            tool_use(&json!(7)),
        ] {
            watch.message(&strange);
        }
        assert!(watch.tools.is_empty() && watch.is_heard);
        for number in 0..10 * MAX_OPEN_TOOLS {
            watch.message(&tool_use(&json!(number.to_string())));
        }
        assert_eq!(watch.tools.len(), MAX_OPEN_TOOLS);
        watch.message(
            &json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "3"}]}}),
        );
        assert_eq!(watch.tools.len(), MAX_OPEN_TOOLS - 1);
        watch.end("completed", false);
    }
}
