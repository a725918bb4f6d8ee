//! A small HTTP client that tells a whole answer from a cut one.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wardian_model::{Script, Server, ServerOptions};
use wardian_protocol::Message;
use wardian_protocol::sse::{SseDecoder, SseEvent};
use wardian_protocol::stream::{Assembler, StreamEvent};

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether the body came to its announced end.
    pub complete: bool,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `status type: message`.
    pub fn problem(&self) -> String {
        let error = self.json();
        assert_eq!(error["type"], "error");
        assert_eq!(error["request_id"], self.headers["request-id"].to_str().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        format!(
            "{} {}: {}",
            self.status.as_u16(),
            text(&error["error"]["type"]),
            text(&error["error"]["message"])
        )
    }

    pub fn events(&self) -> Vec<SseEvent> {
        let mut events = Vec::new();
        SseDecoder::default().feed(&self.body, &mut events).unwrap();
        events
    }

    pub fn event_names(&self) -> Vec<String> {
        self.events().into_iter().map(|event| event.event).collect()
    }

    /// The message that the stream amounts to.
    pub fn assembled(&self) -> Message {
        let mut assembler = Assembler::default();
        for event in self.events() {
            assembler.push(&StreamEvent::parse(&event).unwrap()).unwrap();
        }
        assembler.finish().unwrap()
    }
}

pub async fn serve(script: &Value) -> Server {
    serve_with(script, ServerOptions::default()).await
}

pub async fn serve_with(script: &Value, options: ServerOptions) -> Server {
    let script = Script::parse(&script.to_string()).unwrap();
    Server::bind(script, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options).await.unwrap()
}

/// A good body that asks `text`.
pub fn ask(text: &str, stream: bool) -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": text}]})
}

pub async fn send(server: &Server, body: &Value) -> Answer {
    try_send(server, body).await.unwrap()
}

/// `Err` when the connection ended without an answer.
pub async fn try_send(server: &Server, body: &Value) -> Result<Answer, hyper::Error> {
    let request = Request::post("/v1/messages?beta=true")
        .header("x-api-key", "k")
        .header("anthropic-version", "2023-06-01");
    request_with(server, request.body(Full::from(body.to_string())).unwrap()).await
}

pub async fn get(server: &Server, path: &str) -> Answer {
    let request = Request::get(path).header("authorization", "Bearer k");
    request_with(server, request.body(Full::default()).unwrap()).await.unwrap()
}

pub async fn call(
    server: &Server,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request_with(server, request.body(Full::from(body.to_owned())).unwrap()).await.unwrap()
}

async fn request_with(server: &Server, mut request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    request.headers_mut().insert("host", "localhost".parse().unwrap());
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let talk = async move {
        let mut response = sender.send_request(request).await?;
        let mut body = BytesMut::new();
        let mut complete = true;
        while let Some(frame) = response.body_mut().frame().await {
            match frame {
                Ok(frame) => body.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => {
                    complete = false;
                    break;
                }
            }
        }
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body: body.freeze(), complete })
    };
    let (answer, _) = tokio::join!(talk, connection);
    answer
}

/// Sends raw bytes and reads until the end; the error when it is a reset.
pub async fn raw(server: &Server, bytes: &[u8]) -> (Vec<u8>, std::io::Result<()>) {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    // The server may refuse and close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut got = Vec::new();
    let ended = stream.read_to_end(&mut got).await.map(drop);
    (got, ended)
}

/// A request as raw bytes, on a connection that is kept alive.
pub fn raw_request(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
