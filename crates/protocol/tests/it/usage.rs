//! Usage, put together from its reports.

use proptest::prelude::*;
use serde_json::{Value, json};
use wardian_protocol::Usage;

fn usage(value: Value) -> Usage {
    serde_json::from_value(value).unwrap()
}

fn merged(reports: &[Value]) -> Value {
    let mut whole = Usage::default();
    for report in reports {
        whole.merge(&usage(report.clone()));
    }
    serde_json::to_value(whole).unwrap()
}

/// gateway reference, failures 14, 15, 16.
#[test]
fn reports_are_cumulative_and_zeros_wipe_nothing_out() {
    let start = json!({"input_tokens": 25, "output_tokens": 1, "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 9, "service_tier": "standard"});
    let end = json!({"input_tokens": 25, "output_tokens": 40, "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 9, "service_tier": "standard"});
    for delta in [
        // Everything again; only the output; zeros; nulls.
        end.clone(),
        json!({"output_tokens": 40}),
        json!({"input_tokens": 0, "output_tokens": 40, "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0}),
        json!({"input_tokens": null, "output_tokens": 40, "cache_read_input_tokens": null,
            "cache_creation_input_tokens": null, "service_tier": null, "cache_creation": null}),
    ] {
        assert_eq!(merged(&[start.clone(), delta.clone()]), end, "{delta}");
        assert_eq!(merged(&[start.clone(), json!({"output_tokens": 20}), delta.clone(), delta]), end);
    }
    assert_eq!(merged(&[json!({}), end.clone()]), end);
    assert_eq!(merged(&[start, end.clone(), json!({})]), end);
    assert_eq!(merged(&[json!({"input_tokens": 0}), json!({"input_tokens": 5})]), json!({"input_tokens": 5}));
}

#[test]
fn nested_reports_merge_field_by_field() {
    let merged = merged(&[
        json!({"cache_creation": {"ephemeral_5m_input_tokens": 5, "later_class": 1}, "new_field": "x"}),
        json!({"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 3, "later_class": 2},
            "server_tool_use": {"web_search_requests": 1}, "new_field": null}),
        json!({"server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}, "speed": "fast",
            "iterations": [{"type": "message", "input_tokens": 1, "later": true}]}),
    ]);
    assert_eq!(
        merged,
        json!({"cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 3, "later_class": 2},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}, "speed": "fast",
            "iterations": [{"type": "message", "input_tokens": 1, "later": true}], "new_field": "x"})
    );
}

#[test]
fn writes_by_lifetime() {
    for (report, writes) in [
        (json!({}), (0, 0)),
        (json!({"cache_creation_input_tokens": 10}), (10, 0)),
        (
            json!({"cache_creation_input_tokens": 10, "cache_creation": {"ephemeral_1h_input_tokens": 4}}),
            (6, 4),
        ),
        (json!({"cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}}), (3, 4)),
        (
            json!({"cache_creation_input_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 4}}),
            (0, 4),
        ),
        (
            json!({"cache_creation_input_tokens": 7, "cache_creation": {"ephemeral_5m_input_tokens": 3,
            "ephemeral_1h_input_tokens": 4}}),
            (3, 4),
        ),
    ] {
        assert_eq!(usage(report.clone()).cache_writes(), writes, "{report}");
    }
    let all =
        usage(json!({"input_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 4,
        "output_tokens": 100}));
    assert_eq!(all.prompt_tokens(), 7);
    let huge = json!({"input_tokens": u64::MAX, "cache_read_input_tokens": u64::MAX});
    assert_eq!(usage(huge).prompt_tokens(), u64::MAX);
}

#[test]
fn counts_that_are_none_are_refused() {
    for wrong in [
        json!({"input_tokens": -1}),
        json!({"input_tokens": 1.5}),
        json!({"output_tokens": "5"}),
        json!({"input_tokens": 1e30}),
        json!({"iterations": {}}),
        json!([]),
        json!("x"),
    ] {
        assert!(serde_json::from_value::<Usage>(wrong.clone()).is_err(), "{wrong}");
    }
}

fn report() -> impl Strategy<Value = Value> {
    let count = || prop::option::of(prop::option::of(0..1_000_u64));
    (count(), count(), count(), count(), count(), prop::option::of("standard|fast")).prop_map(
        |(input, output, read, total, hour, speed)| {
            let mut report = serde_json::Map::new();
            for (name, count) in [
                ("input_tokens", input),
                ("output_tokens", output),
                ("cache_read_input_tokens", read),
                ("cache_creation_input_tokens", total),
            ] {
                if let Some(count) = count {
                    report.insert(name.to_owned(), json!(count));
                }
            }
            if let Some(hour) = hour {
                report.insert("cache_creation".to_owned(), json!({"ephemeral_1h_input_tokens": hour}));
            }
            report.extend(speed.map(|speed| ("speed".to_owned(), json!(speed))));
            Value::Object(report)
        },
    )
}

proptest! {
    #[test]
    fn the_whole_is_no_less_than_any_report_and_no_more_than_the_largest(
        reports in prop::collection::vec(report(), 1..6),
    ) {
        let whole = merged(&reports);
        for name in ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"] {
            let largest = reports.iter().filter_map(|report| report[name].as_u64()).max();
            prop_assert_eq!(whole[name].as_u64(), largest, "{}", name);
        }
        let mut again = reports.clone();
        again.extend(reports);
        prop_assert_eq!(merged(&again)["output_tokens"].clone(), whole["output_tokens"].clone(), "twice is once");
    }
}
