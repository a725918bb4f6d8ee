//! Models by name: aliases, and the suffix `[1m]` for a context of a million tokens.
//!
//! source: observed of the official CLI. A model that has such a context anyway loses the suffix; another keeps it wherever
//! it is named, and the API is asked for it by a beta.

use wardian_ledger::PriceTable;

/// Asks for the long context, behind a model's name.
const SUFFIX: &str = "[1m]";
/// The long context, in tokens.
const LONG_WINDOW: u64 = 1_000_000;
/// What asks the API for it.
pub(crate) const LONG_BETA: &str = "context-1m-2025-08-07";
/// The window of a model that the price table does not know.
const UNKNOWN_WINDOW: u64 = 200_000;

/// The id of the model that a name stands for, with the suffix where it matters.
pub(crate) fn resolve(name: &str) -> String {
    let prices = PriceTable::embedded();
    let id = prices.resolve_alias(api_name(name));
    let asks = is_long(name) && known_window(id).is_none_or(|window| window < LONG_WINDOW);
    if asks { format!("{id}{SUFFIX}") } else { id.to_owned() }
}

/// What the API calls a model.
pub(crate) fn api_name(model: &str) -> &str {
    if is_long(model) { &model[..model.len() - SUFFIX.len()] } else { model }
}

/// Whether a name asks for the long context.
pub(crate) fn is_long(model: &str) -> bool {
    let at = model.len().saturating_sub(SUFFIX.len());
    model.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(SUFFIX))
}

/// A model's context window, in tokens.
pub(crate) fn context_window(model: &str) -> u64 {
    if is_long(model) { LONG_WINDOW } else { known_window(model).unwrap_or(UNKNOWN_WINDOW) }
}

fn known_window(model: &str) -> Option<u64> {
    let known = PriceTable::embedded().model(model).map(|price| price.context_window);
    known.filter(|window| *window > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_context_is_asked_for_where_it_is_not_there_anyway() {
        for (name, resolved, window) in [
            ("claude-sonnet-4-5", "claude-sonnet-4-5", 200_000),
            ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5[1m]", 1_000_000),
            ("claude-sonnet-4-5[1M]", "claude-sonnet-4-5[1m]", 1_000_000),
            ("claude-sonnet-5[1m]", "claude-sonnet-5", 1_000_000),
            ("sonnet[1m]", "claude-sonnet-5-5", 1_000_000),
            ("a model of tomorrow", "a model of tomorrow", UNKNOWN_WINDOW),
            ("a model of tomorrow[1m]", "a model of tomorrow[1m]", 1_000_000),
            ("é[1m", "é[1m", UNKNOWN_WINDOW),
            ("[1m]", "[1m]", 1_000_000),
            ("", "", UNKNOWN_WINDOW),
        ] {
            let model = resolve(name);
            assert_eq!((model.as_str(), context_window(&model)), (resolved, window), "{name}");
            assert!(!is_long(api_name(&model)), "{name}");
            assert_eq!(resolve(&model), model, "{name}");
        }
    }
}
