//! TLS: to the model, and through a proxy to the web. Certificates of the test's own, which `SSL_CERT_FILE` makes trusted.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::process::{Agent, at};
use crate::support::{call, model, response};

/// Who has a certificate for some names.
struct Identity {
    acceptor: TlsAcceptor,
    folder: tempfile::TempDir,
}

impl Identity {
    fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("roots.pem"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), folder }
    }

    fn roots(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }

    /// Puts TLS before a server: gives the port. It ends with the guard.
    async fn before(&self, address: String) -> (u16, DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, acceptor) = (CancellationToken::new(), self.acceptor.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the guard")]
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that does not trust us breaks off.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut server = TcpStream::connect(&address).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            }
        }));
        (port, stop.drop_guard())
    }
}

/// Asks one prompt of an agent that trusts these roots: the result, and what tools answered.
async fn asked(base_url: &str, roots: &Path, proxy: Option<&str>) -> (Value, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let args = ["-p", "go", "--output-format=stream-json", "--verbose", "--allowedTools=WebFetch"];
    let mut command = at(base_url, folder.path(), &args);
    command.stdin(Stdio::null()).env("SSL_CERT_FILE", roots).env("CLAUDE_CODE_MAX_RETRIES", "0");
    command.envs(proxy.map(|proxy| ("HTTPS_PROXY", proxy)));
    let mut agent = Agent::spawn(command);
    let mut frames = Vec::new();
    while let Some(frame) = agent.next().await {
        frames.push(frame);
    }
    let result = frames.iter().rfind(|frame| frame["type"] == "result").unwrap().clone();
    let results = frames.iter().filter(|frame| frame["type"] == "user");
    (result, results.map(|frame| frame["message"]["content"][0].clone()).collect())
}

#[tokio::test]
async fn the_model_is_reached_by_tls_and_only_who_is_trusted_gets_the_key() {
    let server = model(&json!({"replies": [{"text": "Safe.", "repeat": true}]})).await;
    let identity = Identity::of(&["localhost"]);
    let address = server.base_url().strip_prefix("http://").unwrap().to_owned();
    let (port, _up) = identity.before(address).await;
    let (result, _) = asked(&format!("https://localhost:{port}"), &identity.roots(), None).await;
    assert_eq!(result["result"], "Safe.", "{result}");

    // Another name than the certificate's, and a certificate of nobody who is trusted.
    let stranger = Identity::of(&["localhost"]);
    for (host, roots) in [("127.0.0.1", identity.roots()), ("localhost", stranger.roots())] {
        let (result, _) = asked(&format!("https://{host}:{port}"), &roots, None).await;
        let said = result["result"].as_str().unwrap();
        assert!(result["is_error"] == true && said.contains("certificate"), "{result}");
    }
    assert_eq!(server.requests().len(), 1, "nothing was sent to who is not trusted");
}

/// A proxy with one tunnel, at whose other end a page is: what it was asked for, and what went through it.
async fn tunnel(identity: &Identity, page: String) -> (String, impl Future<Output = (String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:pass@{}", listener.local_addr().unwrap());
    let acceptor = identity.acceptor.clone();
    let served = async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let connect = head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { return (connect, String::new()) };
        let request = head(&mut stream).await;
        stream.write_all(page.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        (connect, request)
    };
    (url, served)
}

async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_page_comes_by_tls_through_the_tunnel_of_the_proxy() {
    let identity = Identity::of(&["example.com"]);
    let stranger = Identity::of(&["example.com"]);
    for (roots, trusted) in [(identity.roots(), true), (stranger.roots(), false)] {
        let server = model(&json!({"replies": [
            {"tool_use": [call("toolu_1", "WebFetch", json!({"url": "https://example.com/a", "prompt": "What?"}))]},
            {"text": "A plum.", "match": {"last_text_contains": "PLUM"}},
            {"text": "Done."},
        ]}))
        .await;
        let page = response("200 OK", "text/plain", "PLUM");
        let (proxy, served) = tunnel(&identity, page).await;
        let base_url = server.base_url();
        let ((result, results), (connect, request)) =
            tokio::join!(asked(&base_url, &roots, Some(&proxy)), served);
        assert_eq!(result["result"], "Done.", "{result}");
        assert!(connect.starts_with("CONNECT example.com:443 HTTP/1.1\r\n"), "{connect}");
        assert!(connect.contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"), "{connect}");
        let told = results[0]["content"].as_str().unwrap();
        if trusted {
            assert_eq!(told, "A plum.");
            assert!(request.starts_with("GET /a HTTP/1.1\r\n"), "{request}");
            assert!(!request.to_lowercase().contains("proxy-authorization"), "{request}");
        } else {
            assert!(told.contains("certificate"), "{told}");
            assert_eq!(request, "", "nothing was asked of who is not trusted");
        }
    }
}
