//! What is counted of requests. A route's template is a label, a path never.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use http::Method;
use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    Counter, Gauge, Histogram, Meter, MeterProvider, NoopMeterProvider, UpDownCounter,
};

use crate::canary::Sign;

/// The buckets that OpenTelemetry's conventions name for HTTP servers, in seconds, and three for requests that wait for a run.
const DURATION_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 60.0, 300.0,
    1800.0,
];

/// The instruments. Cheap to clone; the default counts nothing.
#[derive(Clone, Debug)]
pub struct Metrics {
    durations: Histogram<f64>,
    readers: UpDownCounter<i64>,
    canary_runs: Counter<u64>,
    canary_durations: Gauge<f64>,
    canary_successes: Gauge<f64>,
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
        let metrics = Self {
            durations: meter
                .f64_histogram("http.server.request.duration")
                .with_description("From the head of a request until the head of its answer, by route")
                .with_unit("s")
                .with_boundaries(DURATION_SECONDS.to_vec())
                .build(),
            readers: meter
                .i64_up_down_counter("wardian.stream.readers")
                .with_description("Clients that read an event stream now")
                .build(),
            canary_runs: meter
                .u64_counter("wardian.canary.runs")
                .with_description("Runs of the canary, by what became of them")
                .build(),
            canary_durations: meter
                .f64_gauge("wardian.canary.duration")
                .with_description("How long the last run of the canary took that came to an end")
                .with_unit("s")
                .build(),
            canary_successes: meter
                .f64_gauge("wardian.canary.last_success_timestamp")
                .with_description("When the canary last answered, since 1970")
                .with_unit("s")
                .build(),
        };
        metrics.readers.add(0, &[]);
        metrics
    }

    /// A request was answered. `route` is its template, `None` where it matched none.
    pub(crate) fn answered(&self, method: &Method, route: Option<&str>, status: u16, took: Duration) {
        let labels = [
            KeyValue::new("http.request.method", method_label(method)),
            KeyValue::new("http.route", route.unwrap_or_default().to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        self.durations.record(took.as_secs_f64(), &labels);
    }

    /// A run of the canary came to this.
    pub(crate) fn canary(&self, sign: Sign, took: Duration, now: Timestamp) {
        self.canary_runs.add(1, &[KeyValue::new("outcome", sign.as_str())]);
        if matches!(sign, Sign::Alive | Sign::Failed) {
            self.canary_durations.record(took.as_secs_f64(), &[]);
        }
        if sign == Sign::Alive {
            self.canary_successes.record(now.as_duration().as_secs_f64(), &[]);
        }
    }

    /// A client begins to read an event stream; it reads as long as the answer lives.
    pub(crate) fn reader(&self) -> Reader {
        self.readers.add(1, &[]);
        Reader(self.readers.clone())
    }
}

/// A client that reads an event stream.
#[derive(Debug)]
pub struct Reader(UpDownCounter<i64>);

impl Reader {
    /// Makes a stream end this reading when it is dropped.
    pub fn of<S: Stream>(self, stream: S) -> impl Stream<Item = S::Item> {
        stream.inspect(move |_| {
            let _reading = &self;
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}

/// A method as it may stand in a label: a client can write any word.
pub fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
