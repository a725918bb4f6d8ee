//! Costs worked out by hand, to the nano-dollar. A price of $1 a million tokens is 1,000 nano-dollars a token.

use serde_json::{Value, json};
use wardian_ledger::PriceTable;

const TODAY: &str = "2026-11-22";

fn cost(model: &str, usage: Value, at: &str) -> (i64, bool) {
    let cost = PriceTable::embedded().cost(model, &serde_json::from_value(usage).unwrap(), at);
    assert_eq!(cost.price_version, "2026-11-22");
    (cost.nano.0, cost.unpriced)
}

#[track_caller]
fn costs(model: &str, usage: Value, nano: i64) {
    assert_eq!(cost(model, usage, TODAY), (nano, false));
}

/// source: the agent protocol reference, section 2.12: what the official CLI charges for 10,000 tokens of each class.
#[test]
fn ten_thousand_tokens_of_each_class() {
    for (model, input, output, read, write_5m, write_1h) in [
        ("claude-opus-5-5", 40_000_000, 200_000_000, 2_000_000, 50_000_000, 80_000_000),
        ("claude-fable-5-2", 80_000_000, 400_000_000, 2_000_000, 100_000_000, 160_000_000),
        ("claude-sonnet-5-5", 20_000_000, 100_000_000, 1_000_000, 25_000_000, 40_000_000),
        ("claude-sonnet-5", 20_000_000, 100_000_000, 2_000_000, 25_000_000, 40_000_000),
        ("claude-haiku-5-5", 1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000),
        ("claude-haiku-4-5", 10_000_000, 50_000_000, 1_000_000, 12_500_000, 20_000_000),
        ("claude-opus-4-8", 50_000_000, 250_000_000, 5_000_000, 62_500_000, 100_000_000),
        ("claude-sonnet-4-5", 30_000_000, 150_000_000, 3_000_000, 37_500_000, 60_000_000),
        ("claude-sonnet-4-5-20250929", 30_000_000, 150_000_000, 3_000_000, 37_500_000, 60_000_000),
        ("claude-mythos-5-1", 100_000_000, 500_000_000, 2_500_000, 125_000_000, 200_000_000),
    ] {
        costs(model, json!({"input_tokens": 10_000}), input);
        costs(model, json!({"output_tokens": 10_000}), output);
        costs(model, json!({"cache_read_input_tokens": 10_000}), read);
        costs(model, json!({"cache_creation": {"ephemeral_5m_input_tokens": 10_000}}), write_5m);
        costs(model, json!({"cache_creation": {"ephemeral_1h_input_tokens": 10_000}}), write_1h);
    }
}

#[test]
fn all_classes_add_up() {
    // 1,200×4,000 + 340×20,000 + 2,000×5,000 + 3,000×8,000 + 10,000×200
    costs(
        "claude-opus-5-5",
        json!({"input_tokens": 1_200, "output_tokens": 340, "cache_creation_input_tokens": 5_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 2_000, "ephemeral_1h_input_tokens": 3_000},
            "cache_read_input_tokens": 10_000, "service_tier": "standard", "speed": "standard"}),
        47_600_000,
    );
    costs("claude-sonnet-5-5", json!({"input_tokens": 1_000, "output_tokens": 500}), 7_000_000);
    costs("claude-sonnet-5-5", json!({}), 0);
    costs("sonnet", json!({"input_tokens": 1}), 2_000);
}

/// gateway reference, failure 12: a total beside its parts is not charged twice.
#[test]
fn cache_writes_are_counted_once() {
    let total = 3_000;
    for (usage, nano) in [
        // Only the total: five minutes.
        (json!({"cache_creation_input_tokens": total}), 15_000_000),
        (json!({"cache_creation_input_tokens": total, "cache_creation": null}), 15_000_000),
        (
            json!({"cache_creation_input_tokens": total,
            "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 2_000}}),
            21_000_000,
        ),
        // What the parts do not account for was written for five minutes.
        (
            json!({"cache_creation_input_tokens": total, "cache_creation": {"ephemeral_1h_input_tokens": 1_000}}),
            18_000_000,
        ),
        (json!({"cache_creation_input_tokens": total, "cache_creation": {}}), 15_000_000),
    ] {
        costs("claude-opus-5-5", usage, nano);
    }
}

/// gateway reference, failure 13: a cache read is not input.
#[test]
fn a_cache_read_has_its_own_price() {
    costs("claude-sonnet-5-5", json!({"input_tokens": 10, "cache_read_input_tokens": 100_000}), 10_020_000);
}

#[test]
fn prices_change_on_their_day() {
    let read = json!({"cache_read_input_tokens": 10_000});
    assert_eq!(cost("claude-sonnet-5-5", read.clone(), "2026-10-06"), (2_000_000, false));
    assert_eq!(cost("claude-sonnet-5-5", read.clone(), "2026-10-07"), (1_000_000, false));
    assert_eq!(cost("claude-sonnet-5-5", read.clone(), "2025-01-01"), (2_000_000, false));
    assert_eq!(cost("claude-sonnet-5-5", read, "2030-01-01"), (1_000_000, false));
}

#[test]
fn thinking_is_inside_the_output() {
    costs(
        "claude-sonnet-5-5",
        json!({"output_tokens": 100, "output_tokens_details": {"thinking_tokens": 80}}),
        1_000_000,
    );
}

#[test]
fn a_long_prompt_has_its_tier_for_every_class() {
    // Input, reads and writes count together. At 100,000 still the lower price: 40,000×100 + 50,000×10 + 10,000×125.
    costs(
        "claude-haiku-5-5",
        json!({"input_tokens": 40_000, "cache_read_input_tokens": 50_000,
            "cache_creation_input_tokens": 10_000}),
        5_750_000,
    );
    // One token more: 40,001×500 + 50,000×50 + 10,000×625 + 10×2,500.
    costs(
        "claude-haiku-5-5",
        json!({"input_tokens": 40_001, "cache_read_input_tokens": 50_000,
            "cache_creation_input_tokens": 10_000, "output_tokens": 10}),
        28_775_500,
    );
    // The reply does not count: 1×100 + 128,000×500.
    costs("claude-haiku-5-5", json!({"input_tokens": 1, "output_tokens": 128_000}), 64_000_100);
    // A model without tiers: 900,000×2,000.
    costs("claude-sonnet-5-5", json!({"input_tokens": 900_000}), 1_800_000_000);
}

#[test]
fn inference_in_the_us_costs_a_tenth_more_where_it_is_sold() {
    let usage = json!({"input_tokens": 1_000, "output_tokens": 100, "inference_geo": "us"});
    costs("claude-sonnet-5-5", usage.clone(), 3_300_000);
    costs("claude-haiku-4-5", usage, 1_500_000);
    costs("claude-sonnet-5-5", json!({"input_tokens": 1_000, "inference_geo": "global"}), 2_000_000);
}

#[test]
fn fast_mode_has_its_factor() {
    let usage = json!({"input_tokens": 1_000, "output_tokens": 100, "cache_read_input_tokens": 1_000,
        "speed": "fast"});
    // 8,000 + 40,000 + 400 nano-dollars a token; then 10/50/1, 16/80/0.4 and 30/150/3 dollars a million.
    costs("claude-opus-5-5", usage.clone(), 12_400_000);
    costs("claude-opus-4-8", usage.clone(), 16_000_000);
    costs("claude-fable-5-2", usage.clone(), 24_400_000);
    costs("claude-opus-4-6", usage.clone(), 48_000_000);
    // No price is known: the dearest factor, six, and a flag. (1,000×1,000 + 100×5,000 + 1,000×100) × 6.
    assert_eq!(cost("claude-haiku-4-5", usage, TODAY), (9_600_000, true));
}

#[test]
fn a_batch_costs_half_and_rounding_is_up_and_once() {
    costs(
        "claude-opus-5-5",
        json!({"input_tokens": 1_000, "output_tokens": 100, "cache_read_input_tokens": 100,
        "service_tier": "batch"}),
        3_010_000,
    );
    let write = |count: u64, more: Value| {
        let mut usage = json!({"cache_creation_input_tokens": count});
        usage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        usage
    };
    // 125 nano-dollars a token; ×1.1 = 137.5; ×0.5 = 62.5; both = 68.75.
    costs("claude-haiku-5-5", write(1, json!({})), 125);
    costs("claude-haiku-5-5", write(1, json!({"inference_geo": "us"})), 138);
    costs("claude-haiku-5-5", write(1, json!({"service_tier": "batch"})), 63);
    costs("claude-haiku-5-5", write(1, json!({"service_tier": "batch", "inference_geo": "us"})), 69);
    costs("claude-haiku-5-5", write(2, json!({"service_tier": "batch", "inference_geo": "us"})), 138);
    costs("claude-haiku-5-5", write(4, json!({"service_tier": "batch", "inference_geo": "us"})), 275);
}

#[test]
fn web_searches_have_a_fee_and_fetches_none() {
    // The fee has no factors: 1,000×2,200 + 3×10,000,000.
    costs(
        "claude-sonnet-5-5",
        json!({"input_tokens": 1_000, "inference_geo": "us",
        "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 7}}),
        32_200_000,
    );
    assert_eq!(
        cost("claude-tomorrow-1", json!({"server_tool_use": {"web_search_requests": 1}}), TODAY),
        (10_000_000, true)
    );
}

#[test]
fn iterations_are_priced_each_with_its_own_model() {
    let message = json!({"type": "message", "input_tokens": 100, "output_tokens": 50});
    let totals =
        |iterations: Value| json!({"input_tokens": 100, "output_tokens": 50, "iterations": iterations});
    // 100×4,000 + 50×20,000
    costs("claude-opus-5-5", totals(json!([message])), 1_400_000);
    costs("claude-opus-5-5", totals(json!([])), 1_400_000);
    costs("claude-opus-5-5", totals(Value::Null), 1_400_000);
    // The advisor on top: 1,000×8,000 + 200×40,000.
    costs(
        "claude-opus-5-5",
        totals(json!([message, {"type": "advisor_message", "model": "claude-fable-5-2",
            "input_tokens": 1_000, "output_tokens": 200}])),
        17_400_000,
    );
    // The compaction on top: 180,000×4,000 + 3,500×20,000.
    costs(
        "claude-opus-5-5",
        totals(json!([{"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500}, message])),
        791_400_000,
    );
    // Totals beyond the iterations are not lost: another 100×4,000 + 50×20,000.
    costs(
        "claude-opus-5-5",
        json!({"input_tokens": 200, "output_tokens": 100, "iterations": [message]}),
        2_800_000,
    );
    // A write whose lifetime only the total has is not charged twice: 100×5,000.
    costs(
        "claude-opus-5-5",
        json!({"cache_creation_input_tokens": 100, "cache_creation": {"ephemeral_1h_input_tokens": 100},
        "iterations": [{"type": "message", "cache_creation_input_tokens": 100}]}),
        500_000,
    );
}

#[test]
fn tiers_and_factors_go_by_the_iteration() {
    // Two prompts of 60,000 are no long prompt: 120,000×100.
    costs(
        "claude-haiku-5-5",
        json!({"input_tokens": 120_000, "iterations": [
        {"type": "message", "input_tokens": 60_000}, {"type": "message", "input_tokens": 60_000}]}),
        12_000_000,
    );
    // What an iteration does not say, the reply does: 1,000×8,000 + 1,000×4,000.
    costs(
        "claude-opus-5-5",
        json!({"input_tokens": 2_000, "speed": "fast", "iterations": [
            {"type": "message", "input_tokens": 1_000},
            {"type": "message", "input_tokens": 1_000, "speed": "standard"}]}),
        12_000_000,
    );
}

/// R14: max(family price, $10/$50), flagged, never free.
#[test]
fn an_unknown_model_is_charged_conservatively_and_flagged() {
    let usage = json!({"input_tokens": 1_000, "output_tokens": 1_000, "cache_read_input_tokens": 1_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 1_000}});
    // (10 + 50 + 1 + 12.5 + 20) dollars a million, ×1,000.
    for model in ["claude-sonnet-9", "claude-haiku-9-20290101", "gpt-x", "", "claude-fable-7", "../../etc"] {
        assert_eq!(cost(model, usage.clone(), TODAY), (93_500_000, true), "{model:?}");
    }
    let batch = json!({"input_tokens": 1_000, "service_tier": "batch", "inference_geo": "us"});
    assert_eq!(cost("claude-sonnet-9", batch, TODAY), (11_000_000, true));
}

#[test]
fn absurd_counts_stop_at_the_largest_amount() {
    let all = u64::MAX;
    let usage = json!({"input_tokens": all, "output_tokens": all, "cache_read_input_tokens": all, "speed": "fast",
        "cache_creation_input_tokens": all, "cache_creation": {"ephemeral_1h_input_tokens": all,
        "ephemeral_5m_input_tokens": all}, "server_tool_use": {"web_search_requests": all}});
    assert_eq!(cost("claude-opus-5-5", usage, TODAY), (i64::MAX, false));
}
