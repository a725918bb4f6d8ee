//! Money as the API writes it: whole cents as a text, so that no client rounds it.

use serde_json::{Value, json};
use wardian_protocol::NanoUsd;
use wardian_protocol::money::{MAX_USD, NANO_PER_USD};
use wardian_session::FieldError;

use super::Fields;

/// Nano-dollars in a cent.
const NANO_PER_CENT: i64 = NANO_PER_USD / 100;

/// Reads `{"type": "limit", "max_list_cost": {"amount": "125", "currency": "USD"}}`.
pub fn read_budget(value: Value, name: &str, errors: &mut Vec<FieldError>) -> Option<NanoUsd> {
    let mut nested = Vec::new();
    let mut fields = Fields::of(value, &format!("{name}."), errors)?;
    let kind = fields.word("type", &[("limit", ())]);
    if kind.is_none() && !fields.failed("type") {
        fields.error("type", "expected `limit`");
    }
    let cost = match fields.value("max_list_cost") {
        Some(value) => read_amount(value, &format!("{name}.max_list_cost."), &mut nested),
        None => {
            fields.error("max_list_cost", "expected {\"amount\": cents as a text, \"currency\": \"USD\"}");
            None
        }
    };
    fields.finish();
    errors.append(&mut nested);
    cost
}

fn read_amount(value: Value, place: &str, errors: &mut Vec<FieldError>) -> Option<NanoUsd> {
    let mut fields = Fields::of(value, place, errors)?;
    let expected = "whole cents as a text without leading zeros, from \"1\" to a million dollars";
    let cost = fields.parsed("amount", expected, |value| read_cents(value.as_str()?));
    if cost.is_none() && !fields.failed("amount") {
        fields.error("amount", format!("expected {expected}"));
    }
    let currency = fields.word("currency", &[("USD", ())]);
    if currency.is_none() && !fields.failed("currency") {
        fields.error("currency", "expected `USD`");
    }
    fields.finish();
    cost
}

fn read_cents(text: &str) -> Option<NanoUsd> {
    let plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    let cents: i64 = if plain { text.parse().ok()? } else { return None };
    (cents <= MAX_USD * 100).then(|| NanoUsd(cents * NANO_PER_CENT))
}

/// A budget, or null where there is none.
pub fn budget_json(budget: Option<NanoUsd>) -> Value {
    match budget {
        Some(limit) => json!({"type": "limit", "max_list_cost": amount_json(limit)}),
        None => Value::Null,
    }
}

/// An amount, in whole cents. A fraction of a cent is shown as one: nothing looks cheaper than it was.
pub fn amount_json(amount: NanoUsd) -> Value {
    let nano = amount.0.max(0);
    let cents = nano / NANO_PER_CENT + i64::from(nano % NANO_PER_CENT > 0);
    json!({"amount": cents.to_string(), "currency": "USD"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cents_are_exact_and_nothing_else_is_taken() {
        let read = |amount: Value| {
            let budget = json!({"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}});
            let mut errors = Vec::new();
            (read_budget(budget, "budget", &mut errors), errors.first().map(ToString::to_string))
        };
        assert_eq!(read(json!("125")), (Some(NanoUsd(1_250_000_000)), None));
        assert_eq!(read(json!("100000000")), (Some(NanoUsd::from_usd(1_000_000)), None));
        for wrong in ["", "0", "0125", "-1", "+1", "1.5", "1e3", " 1", "100000001", "99999999999999999999"] {
            let (budget, error) = read(json!(wrong));
            assert_eq!(budget, None, "{wrong}");
            assert!(
                error.unwrap().starts_with("budget.max_list_cost.amount: expected whole cents"),
                "{wrong}"
            );
        }
        assert_eq!(read(json!(125)).0, None);
    }

    #[test]
    fn a_fraction_of_a_cent_counts_as_one() {
        for (nano, cents) in
            [(0, "0"), (1, "1"), (10_000_000, "1"), (10_000_001, "2"), (1_250_000_000, "125"), (-5, "0")]
        {
            assert_eq!(amount_json(NanoUsd(nano)), json!({"amount": cents, "currency": "USD"}));
        }
        assert_eq!(budget_json(None), Value::Null);
    }
}
