//! One trace from the client's request to the tool, as a collector gets it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::support::{Options, PATIENCE, Wardian};

const REPLIES: &str = r#"{"replies": [
    {"match": {"tool_result_contains": "marker"}, "repeat": true, "model": "claude-haiku-4-5", "text": "Done.",
     "usage": {"input_tokens": 2000, "output_tokens": 10}},
    {"repeat": true, "model": "claude-haiku-4-5",
     "tool_use": [{"name": "Bash", "input": {"command": "echo marker"}}],
     "usage": {"input_tokens": 100, "output_tokens": 10}}
]}"#;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector that keeps what it gets.
struct Collector {
    address: SocketAddr,
    got: Arc<Mutex<Vec<(String, Bytes)>>>,
    _serving: JoinSet<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&got);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let service = service_fn(move |request: Request<Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let path = request.uri().path().to_owned();
                        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        kept.lock().unwrap().push((path, body));
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                let connection = connection.serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { connection.await.unwrap_or_default() });
            }
        });
        Self { address, got, _serving: serving }
    }

    fn bodies(&self, path: &str) -> Vec<Bytes> {
        let got = self.got.lock().unwrap();
        got.iter().filter(|(to, _)| to == path).map(|(_, body)| body.clone()).collect()
    }

    /// The spans, and the text of all that came with them.
    fn spans(&self) -> (Vec<Span>, String) {
        let requests = self.bodies("/otlp/v1/traces").into_iter();
        let requests: Vec<_> =
            requests.map(|body| ExportTraceServiceRequest::decode(body).unwrap()).collect();
        let text = format!("{requests:?}");
        let resources = requests.into_iter().flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        (scopes.flat_map(|scope| scope.spans).collect(), text)
    }

    fn metric_names(&self) -> Vec<String> {
        let requests = self.bodies("/otlp/v1/metrics").into_iter();
        let requests = requests.map(|body| ExportMetricsServiceRequest::decode(body).unwrap());
        let resources = requests.flat_map(|request| request.resource_metrics);
        let scopes = resources.flat_map(|resource| resource.scope_metrics);
        scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name).collect()
    }
}

fn exporting(endpoint: &str) -> Options {
    Options { args: vec!["--otlp-endpoint".to_owned(), endpoint.to_owned()], ..Options::default() }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = |pair: &&KeyValue| pair.key == name;
    match span.attributes.iter().find(found)?.value.clone()?.value? {
        Any::StringValue(text) => Some(text),
        Any::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A run with one more header; the head of the answer.
async fn run(wardian: &Wardian, header: &str) -> String {
    let body = json!({"prompt": "a secret prompt", "user": "secret-user"}).to_string();
    let request = format!(
        "POST /v1/x/run HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\ncontent-type: application/json\r\n{header}\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        wardian.key,
        body.len(),
    );
    let mut stream = TcpStream::connect(wardian.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split("\r\n\r\n").next().unwrap().to_owned()
}

/// The client's span, the request's below it, the turn's below that, model requests and tool calls below the turn's.
#[tokio::test]
async fn one_trace_goes_from_the_request_to_the_tool() {
    let collector = Collector::start().await;
    let mut wardian =
        Wardian::start(REPLIES, exporting(&format!("http://{}/otlp/", collector.address))).await;
    let head = run(&wardian, &format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n")).await;
    wardian.stop().await;

    let (spans, text) = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let request = named("POST /v1/x/run")[0];
    assert_eq!((hex(&request.trace_id).as_str(), hex(&request.parent_span_id).as_str()), (TRACE, CALLER));
    let returned = format!("traceparent: 00-{TRACE}-{}-01", hex(&request.span_id));
    assert!(head.contains(&returned), "{returned} in {head}");
    assert_eq!(attribute(request, "http.response.status_code").as_deref(), Some("200"));
    let turn = named("invoke_agent")[0];
    assert_eq!(turn.parent_span_id, request.span_id);
    assert_eq!(attribute(turn, "wardian.outcome").as_deref(), Some("completed"));
    let tools = named("execute_tool Bash");
    let chats: Vec<_> = spans.iter().filter(|span| span.name.starts_with("chat ")).collect();
    assert_eq!((tools.len(), chats.len()), (1, 2), "{text}");
    for span in tools.iter().chain(&chats) {
        assert_eq!((&span.parent_span_id, &span.trace_id), (&turn.span_id, &request.trace_id), "{span:?}");
        assert!(span.start_time_unix_nano >= turn.start_time_unix_nano, "{span:?}");
        assert!(span.end_time_unix_nano <= turn.end_time_unix_nano, "{span:?}");
        assert_eq!(span.status.as_ref().map_or(0, |status| status.code), 0, "{span:?}");
    }
    assert_eq!(attribute(tools[0], "wardian.source").as_deref(), Some("claimed"));
    assert_eq!(attribute(chats[0], "gen_ai.response.model").as_deref(), Some("claude-haiku-4-5"));
    assert_eq!(attribute(chats[1], "gen_ai.usage.input_tokens").as_deref(), Some("2000"));
    assert_eq!(attribute(chats[1], "gen_ai.conversation.id"), attribute(turn, "gen_ai.conversation.id"));
    assert!(text.contains("\"service.name\"") && text.contains("\"wardian\""), "{text}");
    for secret in ["secret", "marker", &wardian.key, &wardian.real_key] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(wardian.log().contains(TRACE), "log lines say the trace");
    let metrics = collector.metric_names();
    for name in ["gen_ai.client.operation.duration", "http.server.request.duration", "wardian.turn.duration"]
    {
        assert!(metrics.iter().any(|metric| metric == name), "{name} in {metrics:?}");
    }
}

/// A request without a sound header begins a trace of its own.
#[tokio::test]
async fn what_is_no_trace_is_no_parent() {
    let collector = Collector::start().await;
    let mut wardian = Wardian::start(REPLIES, exporting(&format!("http://{}/otlp", collector.address))).await;
    let head = run(&wardian, "traceparent: 00-0-secret\r\n").await;
    assert!(head.contains("traceparent: 00-"), "{head}");
    wardian.stop().await;
    let (spans, _) = collector.spans();
    let request = spans.iter().find(|span| span.name == "POST /v1/x/run").unwrap();
    assert!(request.parent_span_id.is_empty(), "{request:?}");
}

/// Without a collector's address there are no spans; with a collector that is away the server works and ends all the same.
#[tokio::test]
async fn a_collector_that_is_away_holds_nobody() {
    let off = Wardian::start(REPLIES, Options::default()).await;
    let head = run(&off, &format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n")).await;
    assert!(!head.contains("traceparent"), "{head}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut away = Wardian::start(REPLIES, exporting(&format!("http://{closed}"))).await;
    run(&away, "").await;
    away.stop().await;
}
