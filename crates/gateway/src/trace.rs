//! The span of a model request, written when it is over. OpenTelemetry calls it `chat`.

use std::time::SystemTime;

use jiff::Timestamp;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use wardian_ledger::PriceTable;
use wardian_protocol::{RequestId, SessionId};

use crate::metrics::{Done, error_label, model_label};

/// A model request as its span shows it.
#[derive(Debug)]
pub struct Chat<'a> {
    /// Our id of it.
    pub id: &'a RequestId,
    /// The upstream's.
    pub upstream_id: Option<&'a str>,
    /// The session that it belongs to.
    pub session_id: &'a SessionId,
    /// When it came.
    pub from: Timestamp,
    /// When it was over.
    pub to: Timestamp,
    /// The rest.
    pub done: &'a Done<'a>,
}

impl Chat<'_> {
    /// Writes the span, below `parent`.
    pub fn write(&self, tracer: &BoxedTracer, parent: SpanContext, prices: &PriceTable) {
        let done = self.done;
        // A span's name is to be one of few; the attribute has what the sandbox wrote.
        let name = format!("chat {}", model_label(prices, done.model));
        let builder = tracer
            .span_builder(name)
            .with_kind(SpanKind::Client)
            .with_start_time(SystemTime::from(self.from))
            .with_attributes(self.attributes());
        let mut span = tracer.build_with_context(builder, &below(parent));
        if let Some(error) = error_label(done) {
            span.set_attribute(KeyValue::new("error.type", error));
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(SystemTime::from(self.to));
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let done = self.done;
        let tokens = done.tokens;
        let written = tokens.cache_write_5m_tokens.saturating_add(tokens.cache_write_1h_tokens);
        let input = tokens.input_tokens.saturating_add(tokens.cache_read_tokens).saturating_add(written);
        let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.provider.name", "anthropic"),
            KeyValue::new("gen_ai.conversation.id", self.session_id.to_string()),
            KeyValue::new("gen_ai.request.model", done.model.to_owned()),
            KeyValue::new("gen_ai.response.model", done.answered.unwrap_or(done.model).to_owned()),
            KeyValue::new("gen_ai.usage.input_tokens", count(input)),
            KeyValue::new("gen_ai.usage.output_tokens", count(tokens.output_tokens)),
            KeyValue::new("gen_ai.usage.cache_read.input_tokens", count(tokens.cache_read_tokens)),
            KeyValue::new("gen_ai.usage.cache_creation.input_tokens", count(written)),
            KeyValue::new("http.response.status_code", i64::from(done.status)),
            KeyValue::new("wardian.request.id", self.id.to_string()),
            KeyValue::new("wardian.cost_usd", done.cost.as_usd()),
        ];
        attributes
            .extend(self.upstream_id.map(|id| KeyValue::new("wardian.upstream_request.id", id.to_owned())));
        attributes.extend(
            done.first_token.map(|after| KeyValue::new("wardian.time_to_first_token_s", after.as_secs_f64())),
        );
        attributes
    }
}

/// Below this span; a span that is none would be taken for one that is not sampled.
fn below(parent: SpanContext) -> Context {
    if parent.is_valid() { Context::new().with_remote_span_context(parent) } else { Context::new() }
}
