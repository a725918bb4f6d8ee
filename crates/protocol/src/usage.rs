//! Token usage of a model reply, and how the parts of a stream make one.
//!
//! source: npm `@anthropic-ai/sdk` 1.12 `resources/beta/messages`, and the gateway reference, section 4.

use serde::{Deserialize, Deserializer, Serialize};

use crate::JsonMap;

/// Tokens by class, as the Messages API reports them. Every count is cumulative over the reply.
///
/// A field is `None` where the reply left it out or wrote `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens neither read from nor written to the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Reply tokens, thinking included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Prompt tokens written to the cache, both lifetimes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation_input_tokens: Option<u64>,
    /// Prompt tokens read from the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_input_tokens: Option<u64>,
    /// Cache writes by lifetime; where it is missing all writes count as five-minute ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<CacheCreation>,
    /// Uses of tools that the API runs itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_tool_use: Option<ServerToolUse>,
    /// `standard`, `priority` or `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// `standard` or `fast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Where inference ran: `us` is priced apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<String>,
    /// The model calls that made up the reply, each with its own tokens and maybe its own model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<Vec<Iteration>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// Cache writes by lifetime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheCreation {
    /// Written for five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_5m_input_tokens: Option<u64>,
    /// Written for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_1h_input_tokens: Option<u64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// Uses of tools that the API runs itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerToolUse {
    /// Web searches; each has a fee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_search_requests: Option<u64>,
    /// Web fetches; free beyond their tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_fetch_requests: Option<u64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: JsonMap,
}

/// One model call within a reply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// `message`, `compaction`, `advisor_message`, or one not known yet.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The model that ran it, where it is not the reply's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its tokens.
    #[serde(flatten)]
    pub usage: Box<Usage>,
}

impl Usage {
    /// Takes in a later report of the same reply: counts are cumulative, so a later one overwrites and never adds.
    ///
    /// A field that the later report leaves out keeps its value, and a zero does not wipe out an earlier count:
    /// `message_delta` is known to repeat the input classes as 0 or `null`. Where both counts are above zero the
    /// larger stays, since a cumulative count cannot shrink.
    pub fn merge(&mut self, later: &Self) {
        keep_larger(&mut self.input_tokens, later.input_tokens);
        keep_larger(&mut self.output_tokens, later.output_tokens);
        keep_larger(&mut self.cache_creation_input_tokens, later.cache_creation_input_tokens);
        keep_larger(&mut self.cache_read_input_tokens, later.cache_read_input_tokens);
        if let Some(later) = &later.cache_creation {
            let mine = self.cache_creation.get_or_insert_default();
            keep_larger(&mut mine.ephemeral_5m_input_tokens, later.ephemeral_5m_input_tokens);
            keep_larger(&mut mine.ephemeral_1h_input_tokens, later.ephemeral_1h_input_tokens);
            overwrite_map(&mut mine.extra, &later.extra);
        }
        if let Some(later) = &later.server_tool_use {
            let mine = self.server_tool_use.get_or_insert_default();
            keep_larger(&mut mine.web_search_requests, later.web_search_requests);
            keep_larger(&mut mine.web_fetch_requests, later.web_fetch_requests);
            overwrite_map(&mut mine.extra, &later.extra);
        }
        overwrite(&mut self.service_tier, later.service_tier.as_ref());
        overwrite(&mut self.speed, later.speed.as_ref());
        overwrite(&mut self.inference_geo, later.inference_geo.as_ref());
        overwrite(&mut self.iterations, later.iterations.as_ref());
        overwrite_map(&mut self.extra, &later.extra);
    }

    /// Cache writes as (five minutes, one hour). What the two lifetimes do not account for counts as five minutes.
    #[must_use]
    pub fn cache_writes(&self) -> (u64, u64) {
        let total = self.cache_creation_input_tokens.unwrap_or(0);
        let Some(split) = &self.cache_creation else { return (total, 0) };
        let five_minutes = split.ephemeral_5m_input_tokens.unwrap_or(0);
        let hour = split.ephemeral_1h_input_tokens.unwrap_or(0);
        (five_minutes.max(total.saturating_sub(hour)), hour)
    }

    /// Every prompt token: plain, read from the cache and written to it. This is what price tiers look at.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        let (five_minutes, hour) = self.cache_writes();
        [self.input_tokens.unwrap_or(0), self.cache_read_input_tokens.unwrap_or(0), five_minutes, hour]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Reads a usage that may be `null`.
pub(crate) fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Usage, D::Error> {
    Option::<Usage>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn keep_larger(mine: &mut Option<u64>, later: Option<u64>) {
    if let Some(later) = later {
        *mine = Some(mine.map_or(later, |mine| mine.max(later)));
    }
}

fn overwrite<T: Clone>(mine: &mut Option<T>, later: Option<&T>) {
    if let Some(later) = later {
        *mine = Some(later.clone());
    }
}

fn overwrite_map(mine: &mut JsonMap, later: &JsonMap) {
    for (name, value) in later.iter().filter(|(_, value)| !value.is_null()) {
        mine.insert(name.clone(), value.clone());
    }
}
