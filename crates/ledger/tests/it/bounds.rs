//! The bound is a proof: nothing that a request can lead to costs more.

use proptest::prelude::*;
use wardian_ledger::{HIDDEN_PROMPT_TOKENS, PriceTable, RequestBound};
use wardian_protocol::usage::{CacheCreation, Iteration, ServerToolUse};
use wardian_protocol::{NanoUsd, Usage};

const TODAY: &str = "2026-11-22";

fn bound(model: &str, request: &RequestBound) -> i64 {
    PriceTable::embedded().bound(model, request, TODAY).0
}

/// (1,000 bytes + 1,024) × the hour's write × 1.1, and max_tokens × output × 1.1.
#[test]
fn bounds_worked_out_by_hand() {
    let request =
        RequestBound { body_bytes: 1_000, max_tokens: 100, standard_speed: true, ..RequestBound::default() };
    assert_eq!(HIDDEN_PROMPT_TOKENS, 1_024);
    // 2,024×4,000×1.1 + 100×10,000×1.1
    assert_eq!(bound("claude-sonnet-5-5", &request), 10_005_600);
    // Not known to be of standard speed, a model with fast mode: 2,024×8,000×2.2 + 100×20,000×2.2.
    let maybe_fast = RequestBound { standard_speed: false, ..request.clone() };
    assert_eq!(bound("claude-opus-5-5", &maybe_fast), 40_022_400);
    // Counted: 24+1,024 tokens. 1,048×4,000×1.1 + 1,100,000.
    let counted = RequestBound { input_tokens: Some(24), ..request.clone() };
    assert_eq!(bound("claude-sonnet-5-5", &counted), 5_711_200);
    // A long prompt counts as long: 151,024×1,000×1.1 + 100×2,500×1.1; and never more than the window.
    let long = RequestBound { body_bytes: 150_000, ..request.clone() };
    assert_eq!(bound("claude-haiku-5-5", &long), 166_401_400);
    let all = RequestBound { body_bytes: u64::MAX, ..request.clone() };
    assert_eq!(bound("claude-sonnet-5-5", &all), 4_401_100_000);
    // Three calls with the whole window each, two searches: 3×(1,000,000×4,400 + 100×11,000) + 2×10,000,000.
    let tools = RequestBound { iterations: 3, web_searches: Some(2), ..request.clone() };
    assert_eq!(bound("claude-sonnet-5-5", &tools), 13_223_300_000);
    // The model's own maximum holds: 2,024×4,400 + 128,000×11,000.
    let greedy = RequestBound { max_tokens: u64::MAX, ..request };
    assert_eq!(bound("claude-sonnet-5-5", &greedy), 1_416_905_600);
}

#[test]
fn a_refusal_tells_what_would_fit() {
    let request = RequestBound {
        body_bytes: 1_000,
        max_tokens: 64_000,
        standard_speed: true,
        ..RequestBound::default()
    };
    let fits = |available| {
        PriceTable::embedded().max_tokens_that_fit("claude-sonnet-5-5", &request, NanoUsd(available), TODAY)
    };
    // The prompt takes 8,905,600; each token of the reply 11,000.
    assert_eq!(fits(8_905_599), 0);
    assert_eq!(fits(8_905_600), 0);
    assert_eq!(fits(8_916_600), 1);
    assert_eq!(fits(8_916_599), 0);
    assert_eq!(fits(i64::MAX), 64_000);
    assert_eq!(fits(-1), 0);
}

#[derive(Clone, Debug)]
struct Case {
    model: String,
    at: String,
    request: RequestBound,
    usage: Usage,
}

/// Token counts of one model call that the request permits.
fn call(prompt: u64, output: u64, counted_as: [u8; 4], one_total: bool) -> Usage {
    let weights = counted_as.map(u64::from);
    let whole = weights.iter().sum::<u64>().max(1);
    let [five, hour, read, _] = weights.map(|weight| prompt * weight / whole);
    let split = CacheCreation {
        ephemeral_5m_input_tokens: Some(five),
        ephemeral_1h_input_tokens: Some(hour),
        ..CacheCreation::default()
    };
    Usage {
        input_tokens: Some(prompt - five - hour - read),
        output_tokens: Some(output),
        cache_creation_input_tokens: Some(five + hour),
        cache_creation: (!one_total).then_some(split),
        cache_read_input_tokens: Some(read),
        ..Usage::default()
    }
}

fn total(calls: &[Usage]) -> Usage {
    let sum = |field: fn(&Usage) -> u64| Some(calls.iter().map(field).sum::<u64>());
    Usage {
        input_tokens: sum(|usage| usage.input_tokens.unwrap_or(0)),
        output_tokens: sum(|usage| usage.output_tokens.unwrap_or(0)),
        cache_creation_input_tokens: sum(|usage| usage.cache_creation_input_tokens.unwrap_or(0)),
        cache_creation: calls.iter().any(|usage| usage.cache_creation.is_some()).then(|| CacheCreation {
            ephemeral_1h_input_tokens: sum(|usage| usage.cache_writes().1),
            ..CacheCreation::default()
        }),
        cache_read_input_tokens: sum(|usage| usage.cache_read_input_tokens.unwrap_or(0)),
        ..Usage::default()
    }
}

fn models() -> Vec<String> {
    let known = PriceTable::embedded().model_ids().map(str::to_owned);
    known.chain(["claude-opus-99", "who-knows", "haiku"].map(str::to_owned)).collect()
}

prop_compose! {
    fn case()(
        model in prop::sample::select(models()),
        at in prop::sample::select(vec!["2026-01-01", "2026-10-06", "2026-10-07", "2026-11-22", "2031-01-01", "", "x"]),
        body_bytes in prop_oneof![0..3_000_u64, 90_000..110_000_u64, 0..5_000_000_u64, Just(u64::MAX)],
        counted in prop::option::of(0..300_000_u64),
        max_tokens in prop_oneof![0..10_u64, 0..200_000_u64, Just(u64::MAX)],
        searches in prop::option::of(0..20_u64),
        iterations in 0..6_u64,
        standard_speed in any::<bool>(),
    )(
        calls in prop::collection::vec(
            (0..=1_000_u64, 0..=1_000_u64, any::<[u8; 4]>(), any::<bool>()), 1..=(iterations.max(1) as usize)),
        searched in 0..=searches.unwrap_or(0),
        speed in prop::sample::select(vec![None, Some("standard"), Some("fast")]),
        geo in prop::sample::select(vec![None, Some("us"), Some("global")]),
        tier in prop::sample::select(vec![None, Some("standard"), Some("batch"), Some("priority")]),
        model in Just(model), at in Just(at), body_bytes in Just(body_bytes), counted in Just(counted),
        max_tokens in Just(max_tokens), searches in Just(searches), iterations in Just(iterations),
        standard_speed in Just(standard_speed), listed in any::<bool>(),
    ) -> Case {
        let request = RequestBound { body_bytes, input_tokens: counted, max_tokens, web_searches: searches,
            iterations, standard_speed };
        let known = PriceTable::embedded().model(&model);
        let window = known.map_or(1_000_000, |model| model.context_window);
        let told = counted.unwrap_or(u64::MAX).min(body_bytes).saturating_add(HIDDEN_PROMPT_TOKENS);
        let prompt = if iterations > 1 { window } else { window.min(told) };
        let reply = max_tokens.min(known.and_then(|model| model.max_output).unwrap_or(u64::MAX)).min(10_000_000);
        // Thousandths of the most, so that the most itself comes up.
        let calls: Vec<Usage> = calls.into_iter().map(|(of_prompt, of_reply, weights, one_total)| {
            call(prompt * of_prompt / 1_000, reply * of_reply / 1_000, weights, one_total)
        }).collect();
        let mut usage = total(&calls);
        if listed || calls.len() > 1 {
            let list = calls.into_iter().map(|usage| Iteration { kind: "message".into(), model: None,
                usage: Box::new(usage) });
            usage.iterations = Some(list.collect());
        }
        usage.server_tool_use = Some(ServerToolUse { web_search_requests: Some(searched), ..ServerToolUse::default() });
        usage.speed = speed.filter(|speed| !(standard_speed && *speed == "fast")).map(str::to_owned);
        usage.inference_geo = geo.map(str::to_owned);
        usage.service_tier = tier.map(str::to_owned);
        Case { model, at: at.to_owned(), request, usage }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_reply_costs_more_than_its_bound(case in case()) {
        let table = PriceTable::embedded();
        let cost = table.cost(&case.model, &case.usage, &case.at);
        let bound = table.bound(&case.model, &case.request, &case.at);
        prop_assert!(cost.nano <= bound, "{} > {bound}: {case:?}", cost.nano);
        prop_assert!(cost.nano >= NanoUsd::ZERO);
        prop_assert_eq!(cost.unpriced, table.model(&case.model).is_none()
            || (case.usage.speed.as_deref() == Some("fast") && !has_fast_mode(&case.model)));
    }

    #[test]
    fn what_fits_fits_and_one_more_does_not(case in case(), available in 0..5_000_000_000_i64) {
        let table = PriceTable::embedded();
        let available = NanoUsd(available);
        let fits = table.max_tokens_that_fit(&case.model, &case.request, available, &case.at);
        let bound = |max_tokens| {
            table.bound(&case.model, &RequestBound { max_tokens, ..case.request.clone() }, &case.at)
        };
        prop_assert!(fits <= case.request.max_tokens);
        prop_assert!(fits == 0 || bound(fits) <= available);
        let cap = table.model(&case.model).and_then(|model| model.max_output).unwrap_or(u64::MAX);
        prop_assert!(fits == case.request.max_tokens.min(cap) || bound(fits + 1) > available);
    }

    #[test]
    fn nothing_panics_and_more_tokens_never_cost_less(
        model in ".{0,20}", at in ".{0,12}", input: u64, output: u64, read: u64, hour: u64, more: u64,
    ) {
        let table = PriceTable::embedded();
        let usage = |input| Usage {
            input_tokens: Some(input), output_tokens: Some(output), cache_read_input_tokens: Some(read),
            cache_creation: Some(CacheCreation { ephemeral_1h_input_tokens: Some(hour), ..CacheCreation::default() }),
            ..Usage::default()
        };
        let less = table.cost(&model, &usage(input), &at).nano;
        prop_assert!(less <= table.cost(&model, &usage(input.saturating_add(more)), &at).nano);
        let request = RequestBound { body_bytes: input, max_tokens: output, iterations: read, ..RequestBound::default() };
        let _ = table.max_tokens_that_fit(&model, &request, NanoUsd(i64::MAX), &at);
        prop_assert!(table.bound(&model, &request, &at) >= NanoUsd::ZERO);
    }
}

fn has_fast_mode(model: &str) -> bool {
    ["claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-fable-5-2"]
        .iter()
        .any(|with| model.starts_with(with))
}
