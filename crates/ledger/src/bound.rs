//! The most that a request can cost, before it is sent.
//!
//! The bound is a proof. A token is at least a byte of the body, but for the tokens that the API itself puts into the
//! prompt ([`HIDDEN_PROMPT_TOKENS`]), and a prompt is never more than the context window. Each prompt token is taken
//! as of the dearest class (a one-hour cache write), each reply token as written, inference as in the US and fast, and
//! a long prompt as in its tier. So no usage that the request can lead to costs more.

use wardian_protocol::NanoUsd;

use crate::amount::{Amount, Tokens};
use crate::table::{Factors, Found, ONE, PriceTable, Rates};

/// Prompt tokens that are in no byte of the body: the API's own framing of messages and of tool definitions (the
/// published tool-use prompts are below 700 tokens). Definitions of Anthropic's own tools, such as `bash_20250124`,
/// have a few hundred each beyond their bytes: count such prompts with `count_tokens`.
pub const HIDDEN_PROMPT_TOKENS: u64 = 1_024;

/// What is known of a request before it is sent: enough for an upper bound of its cost.
///
/// A request that names several models (an advisor) is bounded by the dearest of their bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestBound {
    /// The body's length. `u64::MAX` when the body refers to tokens that are not in it (a URL, a file id) or has
    /// images or documents, whose tokens do not follow from their bytes: the whole context window is then reserved.
    pub body_bytes: u64,
    /// The prompt's tokens, when they were counted.
    pub input_tokens: Option<u64>,
    /// The request's `max_tokens`.
    pub max_tokens: u64,
    /// The most web searches that the request allows; `None` when it has no such tool.
    pub web_searches: Option<u64>,
    /// The most model calls that the request may lead to; 0 counts as 1. Over 1 (tools that the API runs), each call
    /// reserves the whole context window.
    pub iterations: u64,
    /// Whether it is certain that the request does not ask for fast mode (no `speed`, or `standard`).
    pub standard_speed: bool,
}

impl PriceTable {
    /// The most that a request to `model` can cost by the prices of the day `at` (`YYYY-MM-DD`).
    #[must_use]
    pub fn bound(&self, model: &str, request: &RequestBound, at: &str) -> NanoUsd {
        let parts = self.parts(model, request, at);
        parts.fixed.plus(parts.per_token.times(request.max_tokens.min(parts.max_output))).round_up()
    }

    /// The largest `max_tokens`, no larger than the request's and the model's, whose bound is within `available`; 0
    /// when there is none.
    #[must_use]
    pub fn max_tokens_that_fit(
        &self,
        model: &str,
        request: &RequestBound,
        available: NanoUsd,
        at: &str,
    ) -> u64 {
        let parts = self.parts(model, request, at);
        parts.fixed.how_many_more(parts.per_token, available).min(request.max_tokens).min(parts.max_output)
    }

    fn parts(&self, model: &str, request: &RequestBound, at: &str) -> Parts {
        let found = self.find(model, at);
        let calls = request.iterations.max(1);
        let prompt = prompt_bound(&found, request);
        let rates = dearest_rates(&found, prompt);
        let factors = Factors {
            geo: found.row.geo_us.max(ONE),
            fast: if request.standard_speed { ONE } else { self.fast_factor(&found.row, at).max(ONE) },
            batch: ONE,
        };
        let input = Rates { input: rates.dearest_input(), ..rates };
        let price = |tokens| Amount::of(&tokens, &input, factors);
        let fees = Amount::fee(request.web_searches.unwrap_or(0), self.web_search_pico);
        Parts {
            fixed: price(Tokens { input: prompt, ..Tokens::default() }).times(calls).plus(fees),
            per_token: price(Tokens { output: 1, ..Tokens::default() }).times(calls),
            max_output: found.max_output.unwrap_or(u64::MAX),
        }
    }
}

/// A bound as a line: `fixed + per_token × max_tokens`.
struct Parts {
    fixed: Amount,
    per_token: Amount,
    max_output: u64,
}

/// The most prompt tokens of one model call.
fn prompt_bound(found: &Found, request: &RequestBound) -> u64 {
    if request.iterations > 1 {
        return found.context_window;
    }
    let told = request.input_tokens.unwrap_or(u64::MAX).min(request.body_bytes);
    told.saturating_add(HIDDEN_PROMPT_TOKENS).min(found.context_window)
}

/// The dearest rates that a prompt of at most so many tokens can have.
fn dearest_rates(found: &Found, prompt_tokens: u64) -> Rates {
    found.row.rates.dearer(found.row.for_prompt(prompt_tokens))
}
