//! What the query has used and cost so far, by our own price table. Bills come from the gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use wardian_ledger::PriceTable;
use wardian_protocol::frame::ModelUsage;
use wardian_protocol::usage::{CacheCreation, ServerToolUse};
use wardian_protocol::{NanoUsd, Usage};

use crate::models;

/// Counts over the life of a conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    by_model: BTreeMap<String, ModelUsage>,
    total: NanoUsd,
    api_time: Duration,
}

impl Meter {
    /// Takes in what one model call used, by the model's name with its suffix; `date` is `YYYY-MM-DD`.
    pub(crate) fn record(&mut self, model: &str, usage: &Usage, date: &str) {
        let prices = PriceTable::embedded();
        let id = models::api_name(model);
        let cost = prices.cost(id, usage, date);
        self.total += cost.nano;
        let price = prices.model(id);
        let (five_minutes, hour) = usage.cache_writes();
        let entry = self.by_model.entry(model.to_owned()).or_default();
        add(&mut entry.input_tokens, usage.input_tokens);
        add(&mut entry.output_tokens, usage.output_tokens);
        add(&mut entry.cache_read_input_tokens, usage.cache_read_input_tokens);
        add(&mut entry.cache_creation_input_tokens, Some(five_minutes.saturating_add(hour)));
        let searches = usage.server_tool_use.as_ref().and_then(|uses| uses.web_search_requests);
        add(&mut entry.web_search_requests, searches);
        let thinking = thinking_tokens(usage);
        for (name, more) in [
            ("thinkingTokens", thinking),
            ("cacheCreationEphemeral5mInputTokens", five_minutes),
            ("cacheCreationEphemeral1hInputTokens", hour),
        ] {
            let before = entry.extra.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
            entry.extra.insert(name.to_owned(), before.saturating_add(more).into());
        }
        entry.extra.insert("canonicalModel".to_owned(), id.into());
        entry.extra.insert("provider".to_owned(), "firstParty".into());
        entry.cost_usd += cost.nano;
        let is_known = price.is_some() || models::is_long(model);
        entry.context_window = if is_known { models::context_window(model) } else { 0 };
        entry.max_output_tokens = price.and_then(|price| price.max_output).unwrap_or(0);
        // Once unknown, always unknown: the sum is no list price any more.
        if cost.unpriced || !entry.extra.contains_key("costBasis") {
            let basis = if cost.unpriced { "unknown" } else { "list" };
            entry.extra.insert("costBasis".to_owned(), basis.into());
        }
    }

    /// Goes on from what was counted before.
    pub(crate) fn restore(&mut self, total: NanoUsd, by_model: BTreeMap<String, ModelUsage>) {
        self.total = total;
        self.by_model = by_model;
    }

    /// Counts time that went into waiting for a model.
    pub(crate) fn add_api_time(&mut self, waited: Duration) {
        self.api_time = self.api_time.saturating_add(waited);
    }

    /// How long models were waited for.
    pub(crate) const fn api_time(&self) -> Duration {
        self.api_time
    }

    /// What the query has cost.
    pub(crate) const fn total(&self) -> NanoUsd {
        self.total
    }

    /// Counts and cost by model.
    pub(crate) const fn by_model(&self) -> &BTreeMap<String, ModelUsage> {
        &self.by_model
    }
}

fn thinking_tokens(usage: &Usage) -> u64 {
    let details = usage.extra.get("output_tokens_details");
    details.and_then(|details| details.get("thinking_tokens")?.as_u64()).unwrap_or(0)
}

/// No tokens, with the classes that clients read without asking.
pub(crate) fn no_usage() -> Usage {
    Usage {
        input_tokens: Some(0),
        output_tokens: Some(0),
        cache_creation_input_tokens: Some(0),
        cache_read_input_tokens: Some(0),
        ..Usage::default()
    }
}

/// The usage of a message that no model wrote.
pub(crate) fn unused() -> Usage {
    let mut usage = no_usage();
    usage.server_tool_use = Some(ServerToolUse {
        web_search_requests: Some(0),
        web_fetch_requests: Some(0),
        ..ServerToolUse::default()
    });
    usage.cache_creation = Some(CacheCreation {
        ephemeral_5m_input_tokens: Some(0),
        ephemeral_1h_input_tokens: Some(0),
        ..CacheCreation::default()
    });
    for name in
        ["output_tokens_details", "service_tier", "inference_geo", "iterations", "speed", "fallback_credit"]
    {
        usage.extra.insert(name.to_owned(), serde_json::Value::Null);
    }
    usage
}

/// Adds the usage of one reply to that of others. (Within a reply counts are merged, not added.)
pub(crate) fn add_usage(sum: &mut Usage, reply: &Usage) {
    add_optional(&mut sum.input_tokens, reply.input_tokens);
    add_optional(&mut sum.output_tokens, reply.output_tokens);
    add_optional(&mut sum.cache_creation_input_tokens, reply.cache_creation_input_tokens);
    add_optional(&mut sum.cache_read_input_tokens, reply.cache_read_input_tokens);
    if let Some(CacheCreation { ephemeral_5m_input_tokens, ephemeral_1h_input_tokens, extra: _ }) =
        &reply.cache_creation
    {
        let mine = sum.cache_creation.get_or_insert_default();
        add_optional(&mut mine.ephemeral_5m_input_tokens, *ephemeral_5m_input_tokens);
        add_optional(&mut mine.ephemeral_1h_input_tokens, *ephemeral_1h_input_tokens);
    }
    if let Some(ServerToolUse { web_search_requests, web_fetch_requests, extra: _ }) = &reply.server_tool_use
    {
        let mine = sum.server_tool_use.get_or_insert_default();
        add_optional(&mut mine.web_search_requests, *web_search_requests);
        add_optional(&mut mine.web_fetch_requests, *web_fetch_requests);
    }
    let thinking = thinking_tokens(sum).saturating_add(thinking_tokens(reply));
    let details = serde_json::json!({"thinking_tokens": thinking});
    sum.extra.insert("output_tokens_details".to_owned(), details);
    for (mine, theirs) in [
        (&mut sum.service_tier, &reply.service_tier),
        (&mut sum.speed, &reply.speed),
        (&mut sum.inference_geo, &reply.inference_geo),
    ] {
        if theirs.is_some() {
            mine.clone_from(theirs);
        }
    }
}

fn add(sum: &mut u64, more: Option<u64>) {
    *sum = sum.saturating_add(more.unwrap_or(0));
}

fn add_optional(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_add_up() {
        let reply = Usage {
            input_tokens: Some(10),
            output_tokens: Some(u64::MAX),
            service_tier: Some("standard".to_owned()),
            ..Usage::default()
        };
        let mut sum = no_usage();
        add_usage(&mut sum, &reply);
        add_usage(&mut sum, &reply);
        assert_eq!(sum.input_tokens, Some(20));
        assert_eq!(sum.output_tokens, Some(u64::MAX), "a hostile count stops at the largest number");
        assert_eq!(sum.cache_read_input_tokens, Some(0));
        assert_eq!(sum.service_tier.as_deref(), Some("standard"));
    }
}
