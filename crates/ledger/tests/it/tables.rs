//! The price table as a file.

use serde_json::{Value, json};
use wardian_ledger::{PriceTable, RequestBound};
use wardian_protocol::{NanoUsd, Usage};

fn table() -> Value {
    let rates = |input: &str| json!({"input": input, "output": "40", "cache_write_5m": "1", "cache_write_1h": "1", "cache_read": "1"});
    json!({
        "version": "test-1", "source": "a test", "retrieved": "2026-11-22", "web_search_per_1k": "10",
        "unknown_model": rates("10"),
        "aliases": {"big": "claude-big-1"},
        "models": {"claude-big-1": {"family": "big", "context": 1000, "max_output": 100, "rates": [rates("30")]}}
    })
}

fn error(change: impl FnOnce(&mut Value)) -> String {
    let mut table = table();
    change(&mut table);
    PriceTable::parse(&table.to_string()).unwrap_err().to_string()
}

#[test]
fn the_embedded_table_names_its_models_and_aliases() {
    let table = PriceTable::embedded();
    assert_eq!(table.version(), "2026-11-22");
    assert_eq!(table.resolve_alias("fable"), "claude-fable-5-2");
    assert_eq!(table.resolve_alias("claude-opus-5"), "claude-opus-5");
    assert_eq!(table.resolve_alias("no such"), "no such");
    let haiku = table.model("haiku").unwrap();
    assert_eq!((haiku.context_window, haiku.max_output), (1_000_000, Some(128_000)));
    assert_eq!(table.model("claude-fable-5-2").unwrap().max_output, None);
    assert_eq!(table.model("claude-sonnet-4-5").unwrap().deprecated_at.as_deref(), Some("2026-11-30"));
    assert!(table.model("claude-unheard-of").is_none());
    assert_eq!(table.model_ids().count(), 23);
}

#[test]
fn an_unknown_model_of_a_dear_family_costs_what_the_family_does() {
    let table = PriceTable::parse(&table().to_string()).unwrap();
    let usage = Usage { input_tokens: Some(1), output_tokens: Some(1), ..Usage::default() };
    let cost = table.cost("claude-big-2", &usage, "2026-11-22");
    assert_eq!((cost.nano, cost.unpriced, cost.price_version.as_str()), (NanoUsd(70_000), true, "test-1"));
    assert_eq!(table.cost("claude-bigger-2", &usage, "2026-11-22").nano, NanoUsd(50_000));
    let bound =
        RequestBound { body_bytes: 1, max_tokens: 1, standard_speed: true, ..RequestBound::default() };
    assert!(table.bound("claude-big-2", &bound, "2026-11-22") >= NanoUsd(70_000));
}

#[test]
fn a_broken_table_is_refused_with_the_place() {
    assert!(PriceTable::parse("{").unwrap_err().to_string().starts_with("read the price table: EOF"));
    assert!(error(|table| table["surprise"] = json!(1)).contains("unknown field `surprise`"));
    assert!(
        error(|table| table["models"]["claude-big-1"]["rates"][0]["inptu"] = json!("1"))
            .contains("unknown field `inptu`")
    );
    assert_eq!(
        error(|table| table["models"]["claude-big-1"]["rates"][0]["input"] = json!("0.0000001")),
        "read the price table: input of claude-big-1: \"0.0000001\" is no plain decimal number"
    );
    assert!(
        error(|table| table["models"]["claude-big-1"]["rates"][0]["input"] = json!(0.1)).contains("string"),
        "a binary fraction is no price"
    );
    assert_eq!(
        error(|table| table["models"]["claude-big-1"]["rates"] = json!([])),
        "read the price table: claude-big-1: it has no rates"
    );
    assert_eq!(
        error(|table| table["aliases"]["big"] = json!("claude-big-9")),
        "read the price table: the alias \"big\" leads to \"claude-big-9\", which has no price"
    );
    let dated = |days: [&str; 2]| {
        error(|table| {
            let row = table["models"]["claude-big-1"]["rates"][0].clone();
            let rows = days.map(|day| {
                let mut row = row.clone();
                row["effective_from"] = json!(day);
                row
            });
            table["models"]["claude-big-1"]["rates"] = json!(rows);
        })
    };
    let order = "read the price table: claude-big-1: its rates are not in the order of effective_from";
    assert_eq!(dated(["2026-02-01", "2026-01-01"]), order);
    assert_eq!(dated(["2026-02-01", "2026-02-01"]), order);
    assert_eq!(
        dated(["2026-02-01", "2026-3-1"]),
        "read the price table: claude-big-1: an effective_from is no day (YYYY-MM-DD)"
    );
}
