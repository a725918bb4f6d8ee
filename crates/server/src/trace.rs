//! The span of a request, below the one that the client names in `traceparent` (W3C Trace Context).

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use http::{HeaderMap, HeaderValue};
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use wardian_protocol::RequestId;

use crate::metrics::method_label;

/// The header of W3C Trace Context, in requests and answers.
const TRACEPARENT: &str = "traceparent";

/// The context for a request: with its own span, if spans are written; else with the client's, to pass on.
pub fn begin(tracer: Option<&Arc<BoxedTracer>>, request: &Request, id: &RequestId) -> Context {
    let parent = below(parent(request.headers()));
    let Some(tracer) = tracer else { return parent };
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("wardian.request.id", id.to_string()),
    ];
    attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
    let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let builder = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
    Context::new().with_span(tracer.build_with_context(builder, &parent))
}

/// The trace that a log line belongs to.
pub fn id(context: &Context) -> Option<String> {
    let span = context.span();
    span.span_context().is_valid().then(|| span.span_context().trace_id().to_string())
}

/// Ends the span of a request when the head of its answer is known, and tells the client its trace.
pub fn end(context: &Context, status: u16, headers: &mut HeaderMap) {
    let span = context.span();
    let own = span.span_context();
    if !own.is_valid() || own.is_remote() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&written(own)) {
        headers.insert(TRACEPARENT, value);
    }
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    if status >= 500 {
        span.set_attribute(KeyValue::new("error.type", status.to_string()));
        span.set_status(Status::error(""));
    }
    span.end();
}

/// Below this span; a span that is none would be taken for one that is not sampled.
fn below(parent: SpanContext) -> Context {
    if parent.is_valid() { Context::new().with_remote_span_context(parent) } else { Context::new() }
}

/// The client's span; none where the header is missing, stands there twice, or is not readable.
fn parent(headers: &HeaderMap) -> SpanContext {
    let mut found = headers.get_all(TRACEPARENT).iter();
    match (found.next(), found.next()) {
        (Some(value), None) => value.to_str().ok().and_then(read).unwrap_or(SpanContext::NONE),
        _ => SpanContext::NONE,
    }
}

/// Reads `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`; a later version may have more after that.
fn read(text: &str) -> Option<SpanContext> {
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole = version != "00" || parts.next().is_none();
    let sound = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !sound || !whole || version == "ff" {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8());
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

fn written(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_sound_header_is_read_and_written_back() {
        let context = read(SOUND).unwrap();
        assert!(context.is_remote() && context.is_sampled());
        assert_eq!(written(&context), SOUND);
        assert!(!read(&SOUND.replace("-01", "-00")).unwrap().is_sampled());
        assert!(read(&format!("cc{}-what-comes", &SOUND[2..])).is_some());
    }

    #[test]
    fn anything_else_is_no_parent() {
        for wrong in [
            "",
            "00",
            "----",
            &SOUND.to_uppercase(),
            &SOUND.replace("00-0", "ff-0"),
            &format!("{SOUND}-more"),
            &SOUND.replace("b7ad6b7169203331", "0000000000000000"),
            &SOUND.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &SOUND.replace("b7ad", "b7a"),
            &SOUND.replace("b7ad", "+7ad"),
            &"0".repeat(1 << 16),
        ] {
            assert_eq!(read(wrong), None, "{wrong:.100}");
        }
        let mut headers = HeaderMap::new();
        assert!(!parent(&headers).is_valid());
        headers.append(TRACEPARENT, HeaderValue::from_static(SOUND));
        assert!(parent(&headers).is_valid());
        headers.append(TRACEPARENT, HeaderValue::from_static(SOUND));
        assert!(!parent(&headers).is_valid(), "two of them");
    }
}
