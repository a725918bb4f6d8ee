//! What a request is charged, from what is known when it is over. Pure.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use wardian_ledger::{PriceTable, RequestBound};
use wardian_protocol::{NanoUsd, Usage};
use wardian_store::{Settled, Tokens};

use crate::check::Checked;
use crate::meter::{Certainty, Reading};

/// A token of a prompt that nobody counted is taken for three bytes.
const BYTES_PER_TOKEN: u64 = 3;

/// How fast a model can write where that does not show: faster than any is known to.
const HIDDEN_TOKENS_PER_SECOND: u64 = 250;

/// The context window of a model that is not in the price table.
const UNKNOWN_WINDOW: u64 = 1_000_000;

/// What was reserved for a request, and what it was found from.
#[derive(Clone, Debug)]
pub struct Reserved {
    /// The model asked for.
    pub model: String,
    /// The most that it can cost.
    pub bound: NanoUsd,
    /// What that follows from.
    pub request: RequestBound,
    /// Whether the reply is to be a stream.
    pub stream: bool,
    /// When it came.
    pub at: Timestamp,
    /// The day of that, whose prices count.
    day: String,
}

/// What a request is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens by class.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoUsd,
    /// The price table's version.
    pub price_version: String,
    /// Whether the model had no price of its own.
    pub unpriced: bool,
    /// How the cost was found.
    pub settled: Settled,
}

/// How far a request came.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It was never sent, or the upstream refused it: nothing is billed.
    Free,
    /// It was sent, and `seconds` later nothing more was to come. `reading` is what came.
    Sent {
        /// What was read of the reply.
        reading: Box<Reading>,
        /// How long the model had.
        seconds: u64,
    },
}

impl Reserved {
    /// What to reserve for a request.
    pub fn new(prices: &PriceTable, checked: Checked, at: Timestamp) -> Self {
        let Checked { model, bound: request, stream } = checked;
        let day = at.to_zoned(TimeZone::UTC).date().to_string();
        let bound = prices.bound(&model, &request, &day);
        Self { model, bound, request, stream, at, day }
    }

    /// The largest `max_tokens` with which the bound would be within `available`.
    pub fn max_tokens_that_fit(&self, prices: &PriceTable, available: NanoUsd) -> u64 {
        prices.max_tokens_that_fit(&self.model, &self.request, available, &self.day)
    }

    /// Takes the counted tokens of the prompt into account, where they lower the bound.
    pub fn counted(&mut self, prices: &PriceTable, tokens: u64) {
        if tokens >= self.request.body_bytes {
            return;
        }
        self.request.input_tokens = Some(tokens);
        self.bound = prices.bound(&self.model, &self.request, &self.day);
    }

    /// What the request is charged.
    pub fn charge(&self, prices: &PriceTable, fate: &Fate) -> Charge {
        let (reading, seconds) = match fate {
            Fate::Free => return self.free(prices),
            Fate::Sent { reading, seconds } => (reading, *seconds),
        };
        let model = reading.model.as_deref().unwrap_or(&self.model);
        match reading.certainty {
            Certainty::Nothing if reading.error.is_some() => self.free(prices),
            Certainty::Final => self.priced(prices, model, reading, &reading.usage, Settled::Exact),
            Certainty::Nothing | Certainty::Partial => {
                let usage = self.estimate(prices, reading, seconds);
                let mut charge = self.priced(prices, model, reading, &usage, Settled::Estimated);
                charge.cost = charge.cost.min(self.bound);
                charge
            }
            Certainty::Unreadable => Charge {
                cost: self.bound,
                ..self.priced(prices, model, reading, &reading.usage, Settled::AtBound)
            },
        }
    }

    fn free(&self, prices: &PriceTable) -> Charge {
        self.priced(prices, &self.model, &Reading::default(), &Usage::default(), Settled::Exact)
    }

    fn priced(
        &self,
        prices: &PriceTable,
        model: &str,
        reading: &Reading,
        usage: &Usage,
        settled: Settled,
    ) -> Charge {
        let cost = prices.cost(model, usage, &self.day);
        Charge {
            model: reading.model.clone(),
            tokens: Tokens::from(usage),
            cost: cost.nano,
            price_version: cost.price_version,
            unpriced: cost.unpriced,
            settled,
        }
    }

    /// The counts of a reply that has no final ones: the prompt as it was counted, and of the reply what was counted or
    /// written. Where tokens do not show as bytes, the model may have written all the time.
    fn estimate(&self, prices: &PriceTable, reading: &Reading, seconds: u64) -> Usage {
        let mut usage = reading.usage.clone();
        if usage.input_tokens.is_none() {
            let window = prices.model(&self.model).map_or(UNKNOWN_WINDOW, |model| model.context_window);
            let by_length = || self.request.body_bytes.div_ceil(BYTES_PER_TOKEN);
            usage.input_tokens = Some(self.request.input_tokens.unwrap_or_else(by_length).min(window));
        }
        let hidden = if reading.hidden { seconds.saturating_mul(HIDDEN_TOKENS_PER_SECOND) } else { 0 };
        let written = reading.written_tokens.max(hidden.min(self.request.max_tokens));
        usage.output_tokens = Some(usage.output_tokens.unwrap_or(0).max(written));
        usage
    }
}
