//! The admin listener: what it shows, to whom, and until when.

use std::net::SocketAddr;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;
use wardian_server::{Admin, Metrics, ServerConfig};

use super::app::App;
use super::client::{Reply, request, send};

/// A server with an admin listener, and a configuration that is changed.
pub async fn watched(script: &str, change: impl FnOnce(&mut ServerConfig)) -> (App, SocketAddr) {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
    let provider = SdkMeterProvider::builder().with_reader(exporter).build();
    let metrics = Metrics::new(&provider.meter("test"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scrape = move || {
        // The provider must live as long as it may be asked.
        let _alive = &provider;
        TextEncoder::new().encode_to_string(&registry.gather()).map_err(|error| error.to_string())
    };
    let app = App::with(script, |config| {
        config.metrics = metrics;
        config.admin = Some(Admin::new(listener, scrape));
        change(config);
    })
    .await;
    (app, address)
}

pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    send(address, &request("GET", path, headers, b""), false).await
}

/// Requests are counted by the template of their route; what a client wrote is in no label.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_shown_by_route_and_never_by_path() {
    let (app, admin) = watched(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#, |_| ()).await;
    assert_eq!(app.run(&json!({"prompt": "hi"})).await.status, 200);
    for path in ["/v1/x/sessions/sesn_secret", "/v1/x/secret-path", "/v1/x/usage?secret=1"] {
        app.get(&app.key, path).await;
    }
    send(app.address, b"SECRETVERB /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", false)
        .await;
    let scraped = get(admin, "/metrics", &[]).await;
    assert_eq!(scraped.status, 200);
    assert_eq!(scraped.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (method, route, status) in [
        ("POST", "/v1/x/run", "200"),
        ("GET", "/v1/x/sessions/{id}", "404"),
        ("GET", "", "404"),
        ("GET", "/v1/x/usage", "400"),
        ("_OTHER", "/livez", "405"),
    ] {
        let labels = [
            format!("http_request_method=\"{method}\""),
            format!("http_route=\"{route}\""),
            format!("http_response_status_code=\"{status}\""),
        ];
        let is_it = |line: &&str| {
            line.starts_with("http_server_request_duration_seconds_count")
                && labels.iter().all(|label| line.contains(label))
        };
        let line = scraped.body.lines().find(is_it);
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{labels:?} {line:?} in {}", scraped.body);
    }
    assert!(!scraped.body.to_ascii_lowercase().contains("secret"), "{}", scraped.body);
    app.stop().await;
}

/// It shows health and metrics and nothing else, and no web page may read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_little_and_not_to_browsers() {
    let (app, admin) = watched(r#"{"replies":[]}"#, |_| ()).await;
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 404),
        ("/v1/x/usage", 404),
        ("/v1/x/run", 404),
        ("/metrics/", 404),
    ] {
        assert_eq!(get(admin, path, &[("x-api-key", &app.key)]).await.status, status, "{path}");
    }
    assert_eq!(app.get(&app.key, "/metrics").await.status, 404, "not on the API's own address");
    for headers in
        [[("host", "evil.example"), ("x", "y")], [("host", "localhost"), ("origin", "http://evil")]]
    {
        let head: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let bytes = format!("GET /metrics HTTP/1.1\r\n{head}connection: close\r\n\r\n");
        let refused = send(admin, bytes.as_bytes(), false).await;
        assert_eq!((refused.status, refused.error_type().as_str()), (403, "permission_error"), "{head}");
        assert!(!refused.body.contains("http_server"));
    }
    app.stop().await;
    assert!(tokio::net::TcpStream::connect(admin).await.is_err(), "it ends with the server");
}
