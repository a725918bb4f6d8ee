//! What a server shows of itself: one set of instruments, made here and passed down by value, read by the admin listener.

mod otlp;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use opentelemetry::global::BoxedTracer;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{Registry, TextEncoder};
use wardian_store::SqliteStore;

use self::otlp::Exporters;

/// From a fast disk to one that is far too slow, in seconds.
const COMMIT_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Writes in one commit.
const COMMIT_WRITES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Where all instruments are registered.
pub struct Telemetry {
    meters: SdkMeterProvider,
    registry: Registry,
    /// Where spans go, if anywhere.
    tracers: Option<SdkTracerProvider>,
}

/// How long the last batch may take when the server ends.
const FLUSH: Duration = Duration::from_secs(5);

impl Telemetry {
    /// A place for instruments that nothing shows yet; and with a collector's address, the export to it.
    pub fn new(collector: Option<&Uri>) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let scraped = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .expect("a new registry takes its first collector");
        let mut meters = SdkMeterProvider::builder().with_resource(resource()).with_reader(scraped);
        let mut tracers = None;
        if let Some(collector) = collector {
            let Exporters { spans, metrics } = otlp::exporters(collector)?;
            meters = meters.with_periodic_exporter(metrics);
            let builder = SdkTracerProvider::builder().with_resource(resource());
            tracers = Some(builder.with_batch_exporter(spans).build());
        }
        let telemetry = Self { meters: meters.build(), registry, tracers };
        watch_process(&telemetry.meter());
        Ok(telemetry)
    }

    /// Makes spans, where they go somewhere.
    pub fn tracer(&self) -> Option<Arc<BoxedTracer>> {
        let tracers = self.tracers.as_ref()?;
        Some(Arc::new(BoxedTracer::new(Box::new(tracers.tracer("wardian")))))
    }

    /// Sends what is left, and ends. Blocks for at most [`FLUSH`] each for traces and metrics.
    pub fn shut_down(self) {
        let Some(tracers) = self.tracers else { return };
        for ended in [tracers.shutdown_with_timeout(FLUSH), self.meters.shutdown_with_timeout(FLUSH)] {
            if let Err(error) = ended {
                tracing::warn!(%error, "the last traces and metrics may not have been exported");
            }
        }
    }

    /// Makes instruments.
    pub fn meter(&self) -> Meter {
        self.meters.meter("wardian")
    }

    /// Writes everything in the text format of Prometheus.
    pub fn scrape(&self) -> impl Fn() -> Result<String, String> + Send + Sync + 'static {
        let (meters, registry) = (self.meters.clone(), self.registry.clone());
        move || {
            // Without its provider an instrument shows nothing.
            let _alive = &meters;
            TextEncoder::new().encode_to_string(&registry.gather()).map_err(|error| error.to_string())
        }
    }
}

/// Who tells: `wardian`, unless the standard's own variables say otherwise (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`).
fn resource() -> Resource {
    let named = Resource::builder_empty().with_detector(Box::new(EnvResourceDetector::new())).build();
    let ours = [("service.name", "wardian"), ("service.version", env!("CARGO_PKG_VERSION"))];
    let missing = ours.into_iter().filter(|(name, _)| named.get(&Key::from_static_str(name)).is_none());
    let missing = missing.map(|(name, value)| KeyValue::new(name, value));
    Resource::builder().with_attributes(missing.collect::<Vec<_>>()).build()
}

/// Has the store's commits counted.
pub fn watch(meter: &Meter, store: &SqliteStore) {
    let commits = meter
        .f64_histogram("wardian.store.commit.duration")
        .with_description("Commits of the store, the wait for the disk included")
        .with_unit("s")
        .with_boundaries(COMMIT_SECONDS.to_vec())
        .build();
    let writes = meter
        .u64_histogram("wardian.store.commit.writes")
        .with_description("Writes in one commit of the store")
        .with_boundaries(COMMIT_WRITES.to_vec())
        .build();
    store.watch_commits(move |took, jobs| {
        commits.record(took.as_secs_f64(), &[]);
        writes.record(u64::try_from(jobs).unwrap_or(u64::MAX), &[]);
    });
}

/// Memory and descriptors of this process, read when somebody asks.
fn watch_process(meter: &Meter) {
    meter
        .u64_observable_gauge("process.memory.usage")
        .with_description("Resident memory of the server")
        .with_unit("By")
        .with_callback(|gauge| resident_bytes().into_iter().for_each(|bytes| gauge.observe(bytes, &[])))
        .build();
    meter
        .u64_observable_gauge("process.open_file_descriptor.count")
        .with_description("Open descriptors of the server")
        .with_callback(|gauge| open_descriptors().into_iter().for_each(|count| gauge.observe(count, &[])))
        .build();
}

/// None where the host does not tell.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))?;
    Some(resident.trim().parse::<u64>().ok()? * 1024)
}

fn open_descriptors() -> Option<u64> {
    u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_counted() {
        let telemetry = Telemetry::new(None).unwrap();
        let scrape = telemetry.scrape();
        telemetry.meter().u64_counter("wardian.test").build().add(3, &[]);
        let text = scrape().unwrap();
        for part in ["\nwardian_test_total 3\n", "service_version=", "\nprocess_memory_usage_bytes "] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("otel_scope"), "{text}");
    }
}
