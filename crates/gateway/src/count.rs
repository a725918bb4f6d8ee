//! Counting a request's tokens, which is free, when the bound by its length would refuse it.

use bytes::Bytes;
use http::Method;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::gateway::Shared;
use crate::upstream::Outgoing;

/// The fields of a request that say what the model reads; the call knows no others and refuses them.
const COUNTED_FIELDS: [&str; 13] = [
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "context_management",
    "compaction",
    "cache_control",
    "speed",
    "billing_policy",
];

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The count is documented as an estimate: so much, and a few, may be added by the real call.
const MARGIN_DIVISOR: u64 = 20;

/// The few.
const MARGIN_TOKENS: u64 = 64;

/// The most tokens that the prompt of a request has, by the upstream's own count; `None` when it gave none.
pub async fn count(shared: &Shared, request: &Outgoing) -> Option<u64> {
    let patience = shared.config.timeouts.count_tokens;
    let counting = async {
        let outgoing = Outgoing {
            method: Method::POST,
            target: PathAndQuery::from_static("/v1/messages/count_tokens?beta=true"),
            headers: request.headers.clone(),
            body: countable(&request.body)?,
        };
        let reply = shared.upstream.send(outgoing, patience).await.ok()?;
        let success = reply.status().is_success();
        let body = Limited::new(reply.into_body(), MAX_ANSWER_BYTES).collect().await.ok()?.to_bytes();
        let answer: Answer = serde_json::from_slice(&body).ok().filter(|_| success)?;
        Some(with_margin(answer.input_tokens))
    };
    tokio::time::timeout(patience, counting).await.ok().flatten()
}

#[derive(Deserialize)]
struct Answer {
    input_tokens: u64,
}

fn with_margin(tokens: u64) -> u64 {
    tokens.saturating_add(tokens / MARGIN_DIVISOR).saturating_add(MARGIN_TOKENS)
}

/// The part of a body that the call takes, each field as it was written.
fn countable(body: &[u8]) -> Option<Bytes> {
    let mut fields: std::collections::BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
    fields.retain(|name, _| COUNTED_FIELDS.contains(&name.as_str()));
    serde_json::to_vec(&fields).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_model_reads_is_counted() {
        let body = br#"{"model":"m","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"\u0068i"}],"metadata":{},"system":"s"}"#;
        let expected = r#"{"messages":[{"role":"user","content":"\u0068i"}],"model":"m","system":"s"}"#;
        assert_eq!(countable(body).unwrap(), expected);
        assert_eq!(countable(b"[1]"), None);
        assert_eq!((with_margin(0), with_margin(1000), with_margin(u64::MAX)), (64, 1114, u64::MAX));
    }
}
