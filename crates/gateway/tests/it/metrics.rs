//! What is counted, as a scrape shows it.

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use wardian_gateway::Metrics;

use super::raw::{Answer, Raw, Then};
use super::rig::{Rig, ask};

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-5-5\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n";
const TEXT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n";
const END: &str =
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\n";

/// Scrapes.
struct Scraped {
    registry: Registry,
    provider: SdkMeterProvider,
}

impl Scraped {
    fn new() -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        Self { registry, provider }
    }

    fn metrics(&self) -> Metrics {
        Metrics::new(&self.provider.meter("test"))
    }

    fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    /// The sum of the series of that name whose labels have all of these.
    fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.text();
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// Every metric has the name that dashboards ask for, and the figures are the bill's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_counted_by_model_once_it_is_over() {
    let whole = [START, TEXT, END].map(str::as_bytes);
    let raw = Raw::new(vec![
        Answer::stream(&whole, Then::Keep),
        Answer::stream(&whole[..2], Then::Close),
        Answer::json("529 Overloaded", "", "{}"),
    ])
    .await;
    let scraped = Scraped::new();
    let metrics = scraped.metrics();
    let rig = Rig::with(&raw.url, |config| config.metrics = metrics).await;
    let door = rig.door();
    for expected in [200, 200, 529] {
        assert_eq!(door.connect().await.ask(&ask(true, 50)).await.status, expected);
    }
    assert_eq!(door.connect().await.ask("nonsense").await.status, 400);
    let spent = door.door.close().await;
    let model = "model=\"claude-sonnet-5-5\"";
    let duration = "gen_ai_client_operation_duration_seconds_count";
    assert_eq!(scraped.value(duration, &["gen_ai_request_model=\"claude-sonnet-5-5\""]), 3.0);
    assert_eq!(scraped.value(duration, &["error_type=\"upstream_lost\""]), 1.0);
    assert_eq!(scraped.value(duration, &["error_type=\"529\""]), 1.0);
    assert_eq!(scraped.value("gen_ai_server_time_to_first_token_seconds_count", &[]), 2.0);
    let tokens = &spent.by_model["claude-sonnet-5-5"].tokens;
    #[expect(clippy::cast_precision_loss, reason = "a few tokens")]
    for (class, count) in [
        ("input", tokens.input_tokens as f64),
        ("cacheRead", tokens.cache_read_tokens as f64),
        ("output", tokens.output_tokens as f64),
        ("cacheCreation", 0.0),
    ] {
        let class = format!("type=\"{class}\"");
        assert_eq!(scraped.value("claude_code_token_usage_total", &[model, &class]), count, "{class}");
    }
    let usage = "gen_ai_client_token_usage_sum";
    assert_eq!(scraped.value(usage, &["gen_ai_token_type=\"input\""]), 28.0);
    let cost = scraped.value("claude_code_cost_usage_total", &[model]);
    assert!((cost - spent.cost.as_usd()).abs() < 1e-12, "{cost} {}", spent.cost);
    let refused = ["error_type=\"invalid_request_error\""];
    assert_eq!(scraped.value("wardian_gateway_refusals_total", &refused), 1.0);
    assert_eq!(scraped.value("wardian_model_requests_running", &[]), 0.0);
    assert!(scraped.text().contains("gen_ai_client_operation_duration_seconds_bucket"));
}

/// A sandbox that asks for a thousand models makes no thousand series, and its texts stand in no label.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_cannot_choose_labels() {
    let reply = r#"{"type":"message","model":"evil-answer","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let raw = Raw::new((0..40).map(|_| Answer::json("200 OK", "", reply)).collect()).await;
    let scraped = Scraped::new();
    let metrics = scraped.metrics();
    let rig = Rig::with(&raw.url, |config| config.metrics = metrics).await;
    let door = rig.door();
    let mut client = door.connect().await;
    for number in 0..40 {
        let name = format!("evil-{number}\\\"}} 1 forged");
        assert_eq!(client.ask(&ask(false, 50).replace("claude-sonnet-5-5", &name)).await.status, 200);
    }
    door.door.close().await;
    let text = scraped.text();
    assert!(!text.contains("evil") && !text.contains("forged"), "{text}");
    let counted = scraped.value("gen_ai_client_operation_duration_seconds_count", &["_model=\"other\""]);
    assert_eq!(counted, 40.0);
}
