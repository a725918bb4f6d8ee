//! What the gateway counts, named after OpenTelemetry's conventions for generative AI and, where these have no name, after
//! what Claude Code itself exports. A model's name comes from inside a sandbox: one without a price is `other`.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider, NoopMeterProvider, UpDownCounter};
use wardian_ledger::PriceTable;
use wardian_protocol::NanoUsd;
use wardian_store::Tokens;

use crate::exchange::Outcome;

/// The buckets that the conventions name for durations of model requests, in seconds, and three more for long replies.
const DURATION_SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
    655.36,
];

/// Those for the time to the first token, in seconds, and two more.
const FIRST_TOKEN_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0];

/// Those for tokens.
const TOKENS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// The instruments. Cheap to clone; the default counts nothing.
#[derive(Clone, Debug)]
pub struct Metrics {
    durations: Histogram<f64>,
    first_tokens: Histogram<f64>,
    token_counts: Histogram<u64>,
    tokens: Counter<u64>,
    cost: Counter<f64>,
    running: UpDownCounter<i64>,
    refusals: Counter<u64>,
    unsettled: Counter<u64>,
}

/// A model request that is over.
#[derive(Debug)]
pub struct Done<'a> {
    /// The model asked for.
    pub model: &'a str,
    /// The model that answered.
    pub answered: Option<&'a str>,
    /// How it ended.
    pub outcome: Outcome,
    /// The status that the sandbox got.
    pub status: u16,
    /// From its coming until its end.
    pub took: Duration,
    /// From its coming until the first piece of a streamed answer.
    pub first_token: Option<Duration>,
    /// Tokens by class.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoUsd,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&NoopMeterProvider::new().meter("none"))
    }
}

impl Metrics {
    /// Makes the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let seconds = |name, text, buckets: &[f64]| {
            let histogram = meter.f64_histogram(name).with_description(text).with_unit("s");
            histogram.with_boundaries(buckets.to_vec()).build()
        };
        let counter = |name, text| meter.u64_counter(name).with_description(text);
        let metrics = Self {
            durations: seconds(
                "gen_ai.client.operation.duration",
                "Model requests that went upstream, by model and error",
                DURATION_SECONDS,
            ),
            first_tokens: seconds(
                "gen_ai.server.time_to_first_token",
                "From a streamed model request to the first piece of its answer",
                FIRST_TOKEN_SECONDS,
            ),
            token_counts: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_description("Tokens of a model request")
                .with_unit("{token}")
                .with_boundaries(TOKENS.to_vec())
                .build(),
            tokens: counter("claude_code.token.usage", "Tokens by class and model")
                .with_unit("tokens")
                .build(),
            cost: meter
                .f64_counter("claude_code.cost.usage")
                .with_description("What model requests cost, by model")
                .with_unit("USD")
                .build(),
            running: meter
                .i64_up_down_counter("wardian.model.requests.running")
                .with_description("Model requests under way now")
                .build(),
            refusals: counter(
                "wardian.gateway.refusals",
                "Requests of sandboxes that the gateway refused, by the type of the error",
            )
            .build(),
            unsettled: counter(
                "wardian.gateway.settle.failures",
                "Model requests whose record could not be settled when they ended",
            )
            .build(),
        };
        // A series that is there from the start shows its first change, too.
        metrics.running.add(0, &[]);
        metrics.unsettled.add(0, &[]);
        metrics
    }

    /// A model request goes upstream next.
    pub(crate) fn began(&self) {
        self.running.add(1, &[]);
    }

    /// A model request that began is settled.
    pub(crate) fn ended(&self) {
        self.running.add(-1, &[]);
    }

    /// A request was refused. `kind` is one of the API's types of errors.
    pub(crate) fn refused(&self, kind: &str) {
        self.refusals.add(1, &[KeyValue::new("error.type", kind.to_owned())]);
    }

    /// A record could not be settled in time.
    pub(crate) fn settle_failed(&self) {
        self.unsettled.add(1, &[]);
    }

    /// A model request that went upstream is over.
    pub(crate) fn done(&self, prices: &PriceTable, done: &Done<'_>) {
        let asked = model_label(prices, done.model);
        let answered = done.answered.map_or_else(|| asked.clone(), |model| model_label(prices, model));
        let mut labels = vec![
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.provider.name", "anthropic"),
            KeyValue::new("gen_ai.request.model", asked),
            KeyValue::new("gen_ai.response.model", answered.clone()),
        ];
        self.count_tokens(&labels, done.tokens);
        if let Some(first_token) = done.first_token {
            self.first_tokens.record(first_token.as_secs_f64(), &labels);
        }
        labels.extend(error_label(done).map(|error| KeyValue::new("error.type", error)));
        self.durations.record(done.took.as_secs_f64(), &labels);
        let tokens = done.tokens;
        let classes = [
            ("input", tokens.input_tokens),
            ("output", tokens.output_tokens),
            ("cacheRead", tokens.cache_read_tokens),
            ("cacheCreation", written(tokens)),
        ];
        for (class, count) in classes {
            if count > 0 {
                let labels = [KeyValue::new("type", class), KeyValue::new("model", answered.clone())];
                self.tokens.add(count, &labels);
            }
        }
        if done.cost > NanoUsd::ZERO {
            self.cost.add(done.cost.as_usd(), &[KeyValue::new("model", answered)]);
        }
    }

    /// The conventions know two kinds of tokens; what was read from a cache or written to one is input.
    fn count_tokens(&self, labels: &[KeyValue], tokens: Tokens) {
        let input =
            tokens.input_tokens.saturating_add(tokens.cache_read_tokens).saturating_add(written(tokens));
        for (kind, count) in [("input", input), ("output", tokens.output_tokens)] {
            if count > 0 {
                let mut labels = labels.to_vec();
                labels.push(KeyValue::new("gen_ai.token.type", kind));
                self.token_counts.record(count, &labels);
            }
        }
    }
}

fn written(tokens: Tokens) -> u64 {
    tokens.cache_write_5m_tokens.saturating_add(tokens.cache_write_1h_tokens)
}

/// The name of a model as far as it may stand in a label.
pub fn model_label(prices: &PriceTable, model: &str) -> String {
    let id = prices.resolve_alias(model);
    if prices.model(id).is_some() { id.to_owned() } else { "other".to_owned() }
}

/// What went wrong, if anything, out of a bounded set.
pub fn error_label(done: &Done<'_>) -> Option<String> {
    match done.outcome {
        Outcome::Completed | Outcome::Local => None,
        Outcome::UpstreamError => Some(done.status.to_string()),
        Outcome::Aborted | Outcome::Refused | Outcome::UpstreamLost => Some(done.outcome.name().to_owned()),
    }
}
