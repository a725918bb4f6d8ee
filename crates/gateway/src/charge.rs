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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1;

    fn reserved(body_bytes: u64, max_tokens: u64) -> Reserved {
        let bound = RequestBound {
            body_bytes,
            input_tokens: None,
            max_tokens,
            web_searches: None,
            iterations: 1,
            standard_speed: true,
        };
        let checked = Checked { model: "claude-sonnet-5-5".to_owned(), bound, stream: true };
        Reserved::new(PriceTable::embedded(), checked, Timestamp::UNIX_EPOCH)
    }

    fn charge(reserved: &Reserved, reading: Reading, seconds: u64) -> Charge {
        reserved.charge(PriceTable::embedded(), &Fate::Sent { reading: Box::new(reading), seconds })
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
    }

    #[test]
    fn what_is_known_is_charged_and_what_is_not_is_estimated() {
        let reserved = reserved(900, 1000);
        let reading = |certainty, usage| Reading { certainty, usage, ..Reading::default() };
        let exact = charge(&reserved, reading(Certainty::Final, usage(10, 5)), SECOND);
        assert_eq!((exact.cost.0, exact.settled), (10 * 2000 + 5 * 10_000, Settled::Exact));
        let cut = Reading { written_tokens: 40, ..reading(Certainty::Partial, usage(10, 1)) };
        let estimated = charge(&reserved, cut.clone(), SECOND);
        assert_eq!((estimated.cost.0, estimated.settled), (10 * 2000 + 40 * 10_000, Settled::Estimated));
        let hidden = charge(&reserved, Reading { hidden: true, ..cut.clone() }, 2 * SECOND);
        assert_eq!(hidden.tokens.output_tokens, 2 * HIDDEN_TOKENS_PER_SECOND);
        let long = charge(&reserved, Reading { hidden: true, ..cut }, 600 * SECOND);
        assert_eq!(long.tokens.output_tokens, 1000, "no more than was asked for");
        let nothing = charge(&reserved, Reading::default(), SECOND);
        assert_eq!((nothing.cost.0, nothing.settled), (300 * 2000, Settled::Estimated));
        let refused = Reading { error: Some("overloaded_error".to_owned()), ..Reading::default() };
        assert_eq!(charge(&reserved, refused, SECOND).cost, NanoUsd::ZERO);
        let unreadable = charge(&reserved, reading(Certainty::Unreadable, Usage::default()), SECOND);
        assert_eq!((unreadable.cost, unreadable.settled), (reserved.bound, Settled::AtBound));
        assert_eq!(reserved.charge(PriceTable::embedded(), &Fate::Free).cost, NanoUsd::ZERO);
    }

    #[test]
    fn a_body_without_a_length_to_go_by_is_taken_for_the_context_window() {
        let nothing = charge(&reserved(u64::MAX, 10), Reading::default(), SECOND);
        assert_eq!(nothing.tokens.input_tokens, 1_000_000);
    }

    #[test]
    fn a_count_only_ever_lowers_the_bound() {
        let mut reserved = reserved(9000, 10);
        let by_length = reserved.bound;
        reserved.counted(PriceTable::embedded(), 9001);
        assert_eq!((reserved.bound, reserved.request.input_tokens), (by_length, None));
        reserved.counted(PriceTable::embedded(), 2000);
        assert!(reserved.bound < by_length);
    }

    proptest! {
        /// A reply within what was asked for never costs more than was reserved for it, however it ends.
        #[test]
        fn no_ending_costs_more_than_the_bound(
            bytes in 1..100_000_u64,
            max_tokens in 0..50_000_u64,
            share in (0..=100_u64, 0..=100_u64, 0..=100_u64),
            certainty in prop::sample::select(vec![
                Certainty::Nothing, Certainty::Partial, Certainty::Final, Certainty::Unreadable,
            ]),
            written_tokens in any::<u64>(),
            hidden in any::<bool>(),
            seconds in 0..100_000_u64,
        ) {
            let reserved = reserved(bytes, max_tokens);
            let input = bytes * share.0 / 100;
            let usage = Usage {
                cache_creation_input_tokens: Some((bytes - input) * share.1 / 100),
                ..usage(input, max_tokens * share.2 / 100)
            };
            let reading = Reading { usage, certainty, written_tokens, hidden, ..Reading::default() };
            let charge = charge(&reserved, reading, seconds);
            prop_assert!(charge.cost <= reserved.bound, "{charge:?} over {:?}", reserved.bound);
            prop_assert!(charge.cost >= NanoUsd::ZERO);
        }
    }
}
