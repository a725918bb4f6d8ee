//! Makes an agent's message safe to pass on: ids are ours, money is the gateway's. No I/O.

use serde_json::{Value, json};
use wardian_protocol::{NanoUsd, SessionId};

use crate::report::Spending;

/// The message with our session id, and, in a result, with the gateway's figures in place of the agent's claims.
#[must_use]
pub fn stamp(mut message: Value, session_id: &SessionId, spending: &Spending) -> Value {
    let Value::Object(fields) = &mut message else { return message };
    fields.insert("session_id".to_owned(), session_id.as_str().into());
    if fields.get("type").is_some_and(|kind| kind == "result") {
        fields.insert("total_cost_usd".to_owned(), json!(spending.cost));
        fields.insert("modelUsage".to_owned(), model_usage(spending));
        fields.insert("usage".to_owned(), json!(spending.tokens()));
    }
    message
}

/// `modelUsage` as the Agent SDK spells it.
fn model_usage(spending: &Spending) -> Value {
    let spelt = |cost: NanoUsd, tokens: crate::report::TokenCounts| {
        json!({
            "inputTokens": tokens.input_tokens,
            "outputTokens": tokens.output_tokens,
            "cacheReadInputTokens": tokens.cache_read_input_tokens,
            "cacheCreationInputTokens": tokens.cache_creation_input_tokens,
            "webSearchRequests": tokens.web_search_requests,
            "costUSD": cost,
        })
    };
    spending
        .by_model
        .iter()
        .map(|(model, spent)| (model.clone(), spelt(spent.cost_usd, spent.tokens)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::{ModelSpending, TokenCounts};

    #[test]
    fn claims_of_identity_and_money_are_replaced() {
        let session = SessionId::from_random([3; 16]);
        let tokens = TokenCounts { input_tokens: 10, output_tokens: 5, ..TokenCounts::default() };
        let spending = Spending {
            cost: NanoUsd(105_000),
            by_model: BTreeMap::from([(
                "m".to_owned(),
                ModelSpending { requests: 1, tokens, cost_usd: NanoUsd(105_000) },
            )]),
            budget_refused: false,
        };
        let forged = json!({
            "type": "result", "session_id": "sesn_other", "total_cost_usd": 0, "result": "done",
            "modelUsage": {"x": {"costUSD": 9}}, "usage": {"input_tokens": 0},
        });
        let stamped = stamp(forged, &session, &spending);
        assert_eq!(
            stamped,
            json!({
                "type": "result", "session_id": session.as_str(), "total_cost_usd": 0.000105, "result": "done",
                "modelUsage": {"m": {
                    "inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 0,
                    "cacheCreationInputTokens": 0, "webSearchRequests": 0, "costUSD": 0.000105,
                }},
                "usage": {
                    "input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0, "web_search_requests": 0,
                },
            })
        );
        let plain = stamp(json!({"type": "assistant", "total_cost_usd": 7}), &session, &spending);
        assert_eq!(plain, json!({"type": "assistant", "total_cost_usd": 7, "session_id": session.as_str()}));
    }
}
