//! The export of traces and metrics over OTLP/HTTP, where an endpoint is named.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    MetricExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// How long a collector may take for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer of a collector that is read: it says how much of a batch was not taken.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What traces and metrics are sent with.
pub struct Exporters {
    pub spans: SpanExporter,
    pub metrics: MetricExporter,
}

/// Exporters to the collector at this address, to which `/v1/traces` and `/v1/metrics` are added. Nothing is connected yet.
/// Headers, time-outs, batches and sampling are as the standard's own variables say (`OTEL_…`).
pub fn exporters(endpoint: &Uri) -> anyhow::Result<Exporters> {
    let client: Arc<dyn HttpClient> = Arc::new(Sender::new(endpoint)?);
    let base = endpoint.to_string();
    let at = |path: &str| format!("{}{path}", base.trim_end_matches('/'));
    let spans = SpanExporter::builder()
        .with_http()
        .with_shared_http_client(Arc::clone(&client))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(at("/v1/traces"))
        .build();
    let metrics = MetricExporter::builder()
        .with_http()
        .with_shared_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(at("/v1/metrics"))
        .build();
    Ok(Exporters {
        spans: spans.context("set up the export of traces")?,
        metrics: metrics.context("set up the export of metrics")?,
    })
}

/// Sends what the exporters' own threads have gathered, on this process's runtime.
struct Sender {
    send: Box<dyn Fn(Request<Full<Bytes>>) -> ResponseFuture + Send + Sync>,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Sender {
    fn new(endpoint: &Uri) -> anyhow::Result<Self> {
        let (runtime, tasks) = (Handle::current(), TaskTracker::new());
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PATIENCE));
        connector.enforce_http(false);
        let builder = Client::builder(Tracked { tasks: tasks.clone(), runtime: runtime.clone() });
        let send: Box<dyn Fn(_) -> _ + Send + Sync> = match endpoint.scheme_str() {
            Some("http") => {
                let client = builder.build(connector);
                Box::new(move |request| client.request(request))
            }
            Some("https") => {
                let tls = HttpsConnectorBuilder::new()
                    .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
                    .context("read the system's certificates")?;
                let client = builder.build(tls.https_only().enable_http1().wrap_connector(connector));
                Box::new(move |request| client.request(request))
            }
            _ => return Err(anyhow!("export to {endpoint}: expected http:// or https://")),
        };
        Ok(Self { send, runtime, tasks })
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = (self.send)(request.map(Full::new));
        let answering = async move {
            let (head, body) = sent.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        // The caller's thread is none of the runtime's: it can wait for a task, not for a socket.
        let timed = async move { tokio::time::timeout(PATIENCE, answering).await };
        self.tasks.spawn_on(timed, &self.runtime).await??
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// Runs the connections' tasks on the runtime, from whatever thread they are begun.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    runtime: Handle,
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}
