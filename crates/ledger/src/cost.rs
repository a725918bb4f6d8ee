//! What a reply cost.

use wardian_protocol::usage::Iteration;
use wardian_protocol::{NanoUsd, Usage};

use crate::amount::{Amount, Tokens};
use crate::table::{Factors, ONE, PriceTable};

/// What one reply cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The amount, rounded up once.
    pub nano: NanoUsd,
    /// The version of the table that gave it.
    pub price_version: String,
    /// Whether a price was missing and a conservative one stood in.
    pub unpriced: bool,
}

impl PriceTable {
    /// What a reply of `model` (the reply's own id, not the request's) cost by the prices of the day `at`
    /// (`YYYY-MM-DD`, the day of the request, as for the bound).
    ///
    /// Where the usage lists iterations, each is priced by itself, with its own model; what the totals have beyond them
    /// is priced as the reply's model. Thinking is inside the output tokens.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage, at: &str) -> Cost {
        let iterations = usage.iterations.as_deref().unwrap_or(&[]);
        let mut bill = Bill { table: self, at, sum: Amount::default(), unpriced: false };
        for iteration in iterations {
            let tokens = Tokens::of(&iteration.usage);
            let prompt = iteration.usage.prompt_tokens();
            bill.add(iteration.model.as_deref().unwrap_or(model), tokens, prompt, [&iteration.usage, usage]);
        }
        let rest = Tokens::of(usage).beyond(iterations.iter().filter(|it| counts_in_totals(it)));
        // A bill without iterations is the rest of none. With iterations the rest is nothing, but for a broken reply.
        if iterations.is_empty() || rest != Tokens::default() {
            bill.add(model, rest, usage.prompt_tokens(), [usage, usage]);
        }
        let nano = bill.sum.plus(Amount::fee(web_searches(usage), self.web_search_pico)).round_up();
        Cost { nano, price_version: self.version.clone(), unpriced: bill.unpriced }
    }
}

struct Bill<'a> {
    table: &'a PriceTable,
    at: &'a str,
    sum: Amount,
    unpriced: bool,
}

impl Bill<'_> {
    /// Adds one model call; what the first usage does not say of speed, place and tier, the second does.
    fn add(&mut self, model: &str, tokens: Tokens, prompt_tokens: u64, usages: [&Usage; 2]) {
        let found = self.table.find(model, self.at);
        let says = |field: fn(&Usage) -> Option<&String>, word: &str| {
            usages.into_iter().find_map(field).is_some_and(|value| value == word)
        };
        let fast = says(|usage| usage.speed.as_ref(), "fast");
        let factors = Factors {
            geo: if says(|usage| usage.inference_geo.as_ref(), "us") { found.row.geo_us } else { ONE },
            fast: if fast { self.table.fast_factor(&found.row, self.at) } else { ONE },
            batch: if says(|usage| usage.service_tier.as_ref(), "batch") { found.row.batch } else { ONE },
        };
        self.unpriced |= !found.priced || (fast && found.row.fast.is_none());
        self.sum = self.sum.plus(Amount::of(&tokens, &found.row.for_prompt(prompt_tokens), factors));
    }
}

impl Tokens {
    fn of(usage: &Usage) -> Self {
        let (cache_write_5m, cache_write_1h) = usage.cache_writes();
        Self {
            input: usage.input_tokens.unwrap_or(0),
            output: usage.output_tokens.unwrap_or(0),
            cache_write_5m,
            cache_write_1h,
            cache_read: usage.cache_read_input_tokens.unwrap_or(0),
        }
    }

    /// What these totals have beyond the iterations. Writes are compared together, since an iteration may leave out
    /// for how long it wrote.
    fn beyond<'a>(self, iterations: impl Iterator<Item = &'a Iteration>) -> Self {
        let parts = iterations.map(|iteration| Self::of(&iteration.usage));
        let (rest, writes) = parts.fold((self, self.cache_writes()), |(rest, writes), part| {
            let rest = Self {
                input: rest.input.saturating_sub(part.input),
                output: rest.output.saturating_sub(part.output),
                cache_read: rest.cache_read.saturating_sub(part.cache_read),
                ..rest
            };
            (rest, writes.saturating_sub(part.cache_writes()))
        });
        let cache_write_1h = rest.cache_write_1h.min(writes);
        Self { cache_write_1h, cache_write_5m: writes - cache_write_1h, ..rest }
    }

    const fn cache_writes(self) -> u64 {
        self.cache_write_5m.saturating_add(self.cache_write_1h)
    }
}

/// Whether an iteration's tokens are in the reply's totals too: those of compaction and of advisors come on top.
fn counts_in_totals(iteration: &Iteration) -> bool {
    !matches!(iteration.kind.as_str(), "compaction" | "advisor_message")
}

/// Web searches: the total, or the sum of the iterations' where that is more.
fn web_searches(usage: &Usage) -> u64 {
    let of = |usage: &Usage| {
        usage.server_tool_use.as_ref().and_then(|tools| tools.web_search_requests).unwrap_or(0)
    };
    let parts = usage.iterations.as_deref().unwrap_or(&[]).iter();
    of(usage).max(parts.map(|iteration| of(&iteration.usage)).fold(0, u64::saturating_add))
}
