//! The price table as a file: read, checked, turned into integers.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::amount::read_decimal;
use crate::table::{DatedRates, ModelPrice, ONE, PriceTable, Rates, Tier};

/// Why a text is no price table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not JSON of the table's shape.
    #[error("read the price table: {0}")]
    Malformed(String),
    /// A price that is no plain decimal text, or too fine: rates have six decimals, factors two, fees nine.
    #[error("read the price table: {field} of {model}: {text:?} is no plain decimal number")]
    Decimal {
        /// The model, or the part of the table.
        model: String,
        /// The field.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// A model without rates, or whose rows are not in the order of their days.
    #[error("read the price table: {model}: {problem}")]
    Rows {
        /// The model.
        model: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An alias for a model that the table does not have.
    #[error("read the price table: the alias {alias:?} leads to {model:?}, which has no price")]
    Alias {
        /// The alias.
        alias: String,
        /// Where it leads.
        model: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "retrieved")]
    _retrieved: String,
    #[serde(rename = "notes", default)]
    _notes: Vec<String>,
    web_search_per_1k: String,
    unknown_model: ClassPrices,
    aliases: BTreeMap<String, String>,
    models: BTreeMap<String, Model>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    family: String,
    context: u64,
    max_output: Option<u64>,
    deprecated_at: Option<String>,
    rates: Vec<Row>,
}

// `deny_unknown_fields` and `flatten` exclude each other, hence the two lists of classes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    effective_from: Option<String>,
    input: String,
    output: String,
    cache_write_5m: String,
    cache_write_1h: String,
    cache_read: String,
    batch: Option<String>,
    geo_us: Option<String>,
    fast: Option<String>,
    tier: Option<TierPrices>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassPrices {
    input: String,
    output: String,
    cache_write_5m: String,
    cache_write_1h: String,
    cache_read: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierPrices {
    above_prompt_tokens: u64,
    input: String,
    output: String,
    cache_write_5m: String,
    cache_write_1h: String,
    cache_read: String,
}

impl PriceTable {
    /// Reads a table in the format of the crate's `data/prices.json`.
    ///
    /// # Errors
    /// [`PriceError`] names what is wrong.
    pub fn parse(json: &str) -> Result<Self, PriceError> {
        let file: File =
            serde_json::from_str(json).map_err(|error| PriceError::Malformed(error.to_string()))?;
        let models = file
            .models
            .into_iter()
            .map(|(id, model)| Ok((id.clone(), read_model(&id, model)?)))
            .collect::<Result<BTreeMap<_, _>, PriceError>>()?;
        if let Some((alias, model)) = file.aliases.iter().find(|(_, model)| !models.contains_key(*model)) {
            return Err(PriceError::Alias { alias: alias.clone(), model: model.clone() });
        }
        let unknown = file.unknown_model;
        let prices = [
            unknown.input,
            unknown.output,
            unknown.cache_write_5m,
            unknown.cache_write_1h,
            unknown.cache_read,
        ];
        Ok(Self {
            version: file.version,
            web_search_pico: decimal("the table", "web_search_per_1k", &file.web_search_per_1k, 9)?,
            unknown: read_rates("unknown_model", &prices)?,
            aliases: file.aliases,
            models,
        })
    }
}

fn read_model(id: &str, model: Model) -> Result<ModelPrice, PriceError> {
    let rows = |problem| PriceError::Rows { model: id.to_owned(), problem };
    if model.rates.is_empty() {
        return Err(rows("it has no rates"));
    }
    if model.rates.iter().filter_map(|row| row.effective_from.as_deref()).any(|day| !is_day(day)) {
        return Err(rows("an effective_from is no day (YYYY-MM-DD)"));
    }
    // `None` sorts before every day, so a row without one can only be the first.
    if !model.rates.is_sorted_by(|earlier, later| earlier.effective_from < later.effective_from) {
        return Err(rows("its rates are not in the order of effective_from"));
    }
    Ok(ModelPrice {
        context_window: model.context,
        max_output: model.max_output,
        deprecated_at: model.deprecated_at,
        family: model.family,
        rates: model.rates.into_iter().map(|row| read_row(id, row)).collect::<Result<_, _>>()?,
    })
}

fn read_row(id: &str, row: Row) -> Result<DatedRates, PriceError> {
    let factor =
        |field, text: &Option<String>| text.as_deref().map(|text| decimal(id, field, text, 2)).transpose();
    let tier = row.tier.map(|tier| {
        let prices = [tier.input, tier.output, tier.cache_write_5m, tier.cache_write_1h, tier.cache_read];
        Ok(Tier { above_prompt_tokens: tier.above_prompt_tokens, rates: read_rates(id, &prices)? })
    });
    Ok(DatedRates {
        geo_us: factor("geo_us", &row.geo_us)?.unwrap_or(ONE),
        fast: factor("fast", &row.fast)?,
        batch: factor("batch", &row.batch)?.unwrap_or(ONE),
        rates: read_rates(
            id,
            &[row.input, row.output, row.cache_write_5m, row.cache_write_1h, row.cache_read],
        )?,
        tier: tier.transpose()?,
        effective_from: row.effective_from,
    })
}

/// Dollars a million tokens are pico-dollars a token, times a million.
fn read_rates(
    model: &str,
    [input, output, cache_write_5m, cache_write_1h, cache_read]: &[String; 5],
) -> Result<Rates, PriceError> {
    Ok(Rates {
        input: decimal(model, "input", input, 6)?,
        output: decimal(model, "output", output, 6)?,
        cache_write_5m: decimal(model, "cache_write_5m", cache_write_5m, 6)?,
        cache_write_1h: decimal(model, "cache_write_1h", cache_write_1h, 6)?,
        cache_read: decimal(model, "cache_read", cache_read, 6)?,
    })
}

fn decimal(model: &str, field: &'static str, text: &str, places: usize) -> Result<u64, PriceError> {
    read_decimal(text, places).ok_or_else(|| PriceError::Decimal {
        model: model.to_owned(),
        field,
        text: text.chars().take(40).collect(),
    })
}

fn is_day(text: &str) -> bool {
    let shape = |(place, byte): (usize, u8)| {
        if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() }
    };
    text.len() == 10 && text.bytes().enumerate().all(shape)
}
