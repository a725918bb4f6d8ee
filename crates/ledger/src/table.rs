//! The price table: models, their rates by day, and what stands in where there is none.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The factor 1, in hundredths.
pub(crate) const ONE: u64 = 100;

static EMBEDDED: LazyLock<PriceTable> = LazyLock::new(|| {
    PriceTable::parse(include_str!("../data/prices.json")).expect("the table compiled in is read by a test")
});

/// What models cost, by day.
#[derive(Clone, Debug)]
pub struct PriceTable {
    pub(crate) version: String,
    pub(crate) web_search_pico: u64,
    pub(crate) unknown: Rates,
    pub(crate) aliases: BTreeMap<String, String>,
    pub(crate) models: BTreeMap<String, ModelPrice>,
}

/// One model of the table.
#[derive(Clone, Debug)]
pub struct ModelPrice {
    /// The most tokens that prompt and reply have together.
    pub context_window: u64,
    /// The most tokens that it writes in one reply, where that is known.
    pub max_output: Option<u64>,
    /// The day from which it is deprecated (`YYYY-MM-DD`), where that is announced.
    pub deprecated_at: Option<String>,
    pub(crate) family: String,
    pub(crate) rates: Vec<DatedRates>,
}

/// The rates that hold from a day on.
#[derive(Clone, Debug)]
pub(crate) struct DatedRates {
    pub(crate) effective_from: Option<String>,
    pub(crate) rates: Rates,
    pub(crate) tier: Option<Tier>,
    /// Factors in hundredths. `fast` is `None` where no price for it is known.
    pub(crate) geo_us: u64,
    pub(crate) fast: Option<u64>,
    pub(crate) batch: u64,
}

/// Other rates for calls with a long prompt.
#[derive(Clone, Debug)]
pub(crate) struct Tier {
    pub(crate) above_prompt_tokens: u64,
    pub(crate) rates: Rates,
}

/// Pico-dollars a token, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cache_write_5m: u64,
    pub(crate) cache_write_1h: u64,
    pub(crate) cache_read: u64,
}

/// Factors on every token class, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Factors {
    pub(crate) geo: u64,
    pub(crate) fast: u64,
    pub(crate) batch: u64,
}

/// The rates of a model on a day, found in the table or standing in.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) row: DatedRates,
    pub(crate) priced: bool,
    pub(crate) context_window: u64,
    pub(crate) max_output: Option<u64>,
}

impl PriceTable {
    /// The table compiled in.
    #[must_use]
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }

    /// The table's version, to be kept with each amount.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The model id behind an alias such as `sonnet`; anything else is itself.
    #[must_use]
    pub fn resolve_alias<'a>(&'a self, name: &'a str) -> &'a str {
        self.aliases.get(name).map_or(name, String::as_str)
    }

    /// The model of that id or alias, if the table has it.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<&ModelPrice> {
        self.models.get(self.resolve_alias(id))
    }

    /// The ids of all models that have a price.
    pub fn model_ids(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    pub(crate) fn find(&self, id: &str, at: &str) -> Found {
        match self.model(id) {
            Some(model) => Found {
                row: model.rates_at(at).clone(),
                priced: true,
                context_window: model.context_window,
                max_output: model.max_output,
            },
            None => Found {
                row: self.stand_in(id, at),
                priced: false,
                context_window: self.models.values().map(|model| model.context_window).max().unwrap_or(0),
                max_output: None,
            },
        }
    }

    /// The factor of fast mode for a model: its own, or the dearest of the table where none is known.
    pub(crate) fn fast_factor(&self, row: &DatedRates, at: &str) -> u64 {
        row.fast.unwrap_or_else(|| {
            self.models.values().filter_map(|model| model.rates_at(at).fast).max().unwrap_or(ONE)
        })
    }

    /// The rates for a model that the table does not have: class by class the dearest of its family, of all tiers, and
    /// of the table's rates for unknown models. Never cheaper for being unknown: no batch discount.
    fn stand_in(&self, id: &str, at: &str) -> DatedRates {
        let words: Vec<&str> = id.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
        let family = self.models.values().filter(|model| words.contains(&model.family.as_str()));
        let rates = family
            .flat_map(|model| {
                let row = model.rates_at(at);
                [Some(row.rates), row.tier.as_ref().map(|tier| tier.rates)].into_iter().flatten()
            })
            .fold(self.unknown, Rates::dearer);
        let geo_us = self.models.values().map(|model| model.rates_at(at).geo_us).max().unwrap_or(ONE);
        DatedRates { effective_from: None, rates, tier: None, geo_us, fast: None, batch: ONE }
    }
}

impl ModelPrice {
    /// The row of the day `at` (`YYYY-MM-DD`, anything after it is ignored by the comparison); for days before the first
    /// row, the first.
    pub(crate) fn rates_at(&self, at: &str) -> &DatedRates {
        let begun = |row: &&DatedRates| row.effective_from.as_deref().is_none_or(|day| day <= at);
        self.rates.iter().rev().find(begun).unwrap_or(&self.rates[0])
    }
}

impl DatedRates {
    /// The rates of a call whose prompt has so many tokens.
    pub(crate) fn for_prompt(&self, prompt_tokens: u64) -> Rates {
        match &self.tier {
            Some(tier) if prompt_tokens > tier.above_prompt_tokens => tier.rates,
            Some(_) | None => self.rates,
        }
    }
}

impl Rates {
    /// Class by class the dearer of the two.
    pub(crate) fn dearer(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cache_write_5m: self.cache_write_5m.max(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            cache_read: self.cache_read.max(other.cache_read),
        }
    }

    /// The dearest class of prompt tokens.
    pub(crate) fn dearest_input(self) -> u64 {
        self.input.max(self.cache_write_5m).max(self.cache_write_1h).max(self.cache_read)
    }
}
