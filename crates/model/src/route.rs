//! Answers one HTTP request.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wardian_protocol::{ApiError, ApiErrorKind};

use crate::body::Body;
use crate::check;
use crate::conversation::{fits, last_user_text};
use crate::models::Models;
use crate::plan::{self, Step};
use crate::record::{Patience, Recorded, Recorder, hide_keys, key_of, log_line};
use crate::render::{self, Ids};
use crate::script::{Answer, Failure, Reply, Script};
use crate::wire::CutSwitch;

/// The largest body of a request: the API's own limit.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// How much of a body that is too large is still read, so that the client reads the refusal before it sees the end.
const MAX_DRAINED_BYTES: usize = 2 * MAX_BODY_BYTES;
/// How long a body may take: local clients need milliseconds, a stuck one should not stay for ever.
const BODY_DEADLINE: Duration = Duration::from_mins(1);
/// The organisation that every answer names.
const ORGANIZATION: &str = "00000000-0000-4000-8000-000000000001";

/// What all connections of one server share.
pub(crate) struct Shared {
    replies: Vec<Arc<Reply>>,
    /// Which replies were given, by index.
    used: Mutex<Vec<bool>>,
    models: Models,
    expect_key: Option<String>,
    pub recorder: Arc<Recorder>,
    pub shutdown: CancellationToken,
    ids: Ids,
}

/// An answer that is not on its way yet.
struct Outcome {
    what: What,
    delay: Duration,
    /// Never answer at all.
    hold: bool,
    /// Counts the client that leaves before the end, for answers of the script.
    patience: Option<Patience>,
}

enum What {
    Json(Value),
    Failure(Failure),
    Scripted { steps: Vec<Step>, length: Option<u64>, headers: HeaderMap },
    Drop,
}

impl From<What> for Outcome {
    fn from(what: What) -> Self {
        Self { what, delay: Duration::ZERO, hold: false, patience: None }
    }
}

impl What {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Json(_) | Self::Scripted { .. } => Some(StatusCode::OK),
            Self::Failure(failure) => Some(failure.status),
            Self::Drop => None,
        }
    }
}

/// A body as it was read: its value, or the problem with it (and the text, for the record).
struct Got {
    body: Value,
    problem: Option<Failure>,
}

impl Shared {
    pub(crate) fn new(script: Script, expect_key: Option<String>, recorder: Recorder) -> Self {
        Self {
            used: Mutex::new(vec![false; script.replies.len()]),
            replies: script.replies.into_iter().map(Arc::new).collect(),
            models: Models::new(script.models),
            expect_key,
            recorder: Arc::new(recorder),
            shutdown: CancellationToken::new(),
            ids: Ids::default(),
        }
    }

    /// How many replies were never given.
    pub(crate) fn unused(&self) -> usize {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter().filter(|used| !**used).count()
    }

    /// Answers a request; an error ends its connection without an answer.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        switch: CutSwitch,
    ) -> io::Result<Response<Body>> {
        let request_id = self.ids.next("req");
        let (parts, body) = request.into_parts();
        let got = tokio::time::timeout(BODY_DEADLINE, read(body)).await??;
        let recorded = self.record(parts, got.body);
        let outcome = self.route(&recorded, got.problem, &request_id);
        if self.recorder.logs() {
            let status = outcome.what.status().map(|status| status.as_u16());
            self.recorder.log(&log_line(&recorded, self.expect_key.is_some(), status)).await;
        }
        drop(recorded);
        self.wait(&outcome).await?;
        respond(outcome, &request_id, switch)
    }

    fn record(&self, mut parts: http::request::Parts, body: Value) -> Recorded {
        let key_accepted = self.accepts_key_of(&parts.headers);
        hide_keys(&mut parts.headers);
        let recorded = Recorded {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            key_accepted,
        };
        self.recorder.push(&recorded);
        recorded
    }

    /// Whether there is a key, and every key is the expected one when one is expected.
    fn accepts_key_of(&self, headers: &HeaderMap) -> bool {
        let mut keys =
            headers.get_all("x-api-key").iter().chain(headers.get_all(header::AUTHORIZATION)).peekable();
        let is_right = |value: &HeaderValue| {
            let key = key_of(value.as_bytes());
            self.expect_key.as_ref().map_or(!key.is_empty(), |expected| key == expected.as_bytes())
        };
        keys.peek().is_some() && keys.all(is_right)
    }

    fn route(&self, request: &Recorded, problem: Option<Failure>, request_id: &str) -> Outcome {
        match (&request.method, request.path.as_str()) {
            (&Method::HEAD | &Method::GET, "/api/hello") => What::Json(json!({})).into(),
            _ if !request.key_accepted => refuse_key(request).into(),
            (&Method::POST, "/v1/messages") => match problem.or_else(|| problem_of(request, check::messages))
            {
                Some(problem) => What::Failure(problem).into(),
                None => self.reply(&request.body, request_id),
            },
            (&Method::POST, "/v1/messages/count_tokens") => {
                let problem = problem.or_else(|| problem_of(request, check::count_tokens));
                problem.map_or_else(|| What::Json(count_tokens(&request.body)), What::Failure).into()
            }
            (&Method::GET, "/v1/models") => {
                let page = self.models.page(&request.query);
                page.map_or_else(invalid, What::Json).into()
            }
            (method, path) => {
                match (method, path.strip_prefix("/v1/models/").map(|id| self.models.one(id))) {
                    (&Method::GET, Some(Some(model))) => What::Json(model).into(),
                    _ if matches!(path, "/v1/messages" | "/v1/messages/count_tokens" | "/v1/models") => {
                        let mut failure = failure(ApiErrorKind::InvalidRequestError, "method not allowed");
                        failure.status = StatusCode::METHOD_NOT_ALLOWED;
                        What::Failure(failure).into()
                    }
                    _ => What::Failure(failure(ApiErrorKind::NotFoundError, format!("not found: {path}")))
                        .into(),
                }
            }
        }
    }

    /// Takes the reply of the script that answers this request.
    fn reply(&self, body: &Value, request_id: &str) -> Outcome {
        let Some(reply) = self.pick(body) else { return self.no_reply(body).into() };
        let streams = body["stream"] == true;
        let what = match (&reply.answer, &reply.error_in_stream) {
            (Answer::Drop, _) => What::Drop,
            (Answer::Error(failure), _) => What::Failure(failure.clone()),
            (Answer::Content(_) | Answer::Echo, Some((_, failure))) if !streams => {
                What::Failure(failure.clone())
            }
            (Answer::Content(_) | Answer::Echo, _) => self.message(&reply, body, request_id, streams),
        };
        Outcome {
            hold: reply.hold && !(streams && matches!(what, What::Scripted { .. })),
            what,
            delay: reply.delay,
            patience: Some(Patience::new(Arc::clone(&self.recorder), self.shutdown.clone())),
        }
    }

    fn message(&self, reply: &Reply, body: &Value, request_id: &str, streams: bool) -> What {
        let message = render::message(reply, body, &self.ids);
        let headers = reply.headers.clone();
        if streams {
            let steps = plan::streamed(reply, render::events(reply, &message), request_id);
            return What::Scripted { steps, length: None, headers };
        }
        let bytes = Bytes::from(message.to_string());
        let length = Some(bytes.len() as u64);
        What::Scripted { steps: plan::whole(reply, bytes), length, headers }
    }

    /// The first unused reply that fits; used from now on, unless it repeats.
    fn pick(&self, body: &Value) -> Option<Arc<Reply>> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.replies.iter().zip(used.iter_mut());
        let (reply, used) =
            free.into_iter().find(|(reply, used)| (reply.repeat || !**used) && fits(&reply.matches, body))?;
        *used = true;
        Some(Arc::clone(reply))
    }

    fn no_reply(&self, body: &Value) -> What {
        let text: String = last_user_text(body).unwrap_or_default().chars().take(120).collect();
        invalid(format!(
            "the script has no reply for this request: {} of {} replies are unused and none of them fits; the last user text is {text:?}",
            self.unused(),
            self.replies.len(),
        ))
    }

    /// Waits as the reply asks. Dropped meanwhile, `outcome` counts the client that left.
    async fn wait(&self, outcome: &Outcome) -> io::Result<()> {
        if outcome.delay.is_zero() && !outcome.hold {
            return Ok(());
        }
        let waited = async {
            tokio::time::sleep(outcome.delay).await;
            if outcome.hold {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = waited => Ok(()),
            () = self.shutdown.cancelled() => Err(io::Error::other("the server is shutting down")),
        }
    }
}

fn respond(outcome: Outcome, request_id: &str, switch: CutSwitch) -> io::Result<Response<Body>> {
    let Outcome { what, mut patience, .. } = outcome;
    let (status, kind, more, body) = match what {
        What::Json(value) => (StatusCode::OK, JSON, HeaderMap::new(), Body::plain(value.to_string().into())),
        What::Failure(failure) => {
            let error = ApiError::new(kind_named(&failure.kind), failure.message).with_request_id(request_id);
            let text = serde_json::to_string(&error).map_err(io::Error::other)?;
            (failure.status, JSON, failure.headers, Body::plain(text.into()))
        }
        What::Scripted { steps, length, headers } => {
            let kind = if length.is_some() { JSON } else { EVENTS };
            let body = match patience.take() {
                Some(patience) => Body::scripted(steps, length, switch, patience),
                None => return Err(io::Error::other("a scripted answer without its watch")),
            };
            (StatusCode::OK, kind, headers, body)
        }
        What::Drop => {
            patience.iter_mut().for_each(Patience::end);
            switch.cut(&Bytes::new(), false);
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the script drops the connection here",
            ));
        }
    };
    patience.iter_mut().for_each(Patience::end);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if kind == EVENTS {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    headers.insert("anthropic-organization-id", HeaderValue::from_static(ORGANIZATION));
    headers.insert("request-id", HeaderValue::from_str(request_id).map_err(io::Error::other)?);
    for (name, value) in &more {
        headers.insert(name, value.clone());
    }
    Ok(response)
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

async fn read(mut incoming: Incoming) -> io::Result<Got> {
    let mut bytes = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > MAX_DRAINED_BYTES {
            break;
        }
        if length <= MAX_BODY_BYTES {
            bytes.extend_from_slice(&data);
        }
    }
    if length > MAX_BODY_BYTES {
        let problem = failure(
            ApiErrorKind::RequestTooLarge,
            format!("the request is larger than the limit of {MAX_BODY_BYTES} bytes"),
        );
        return Ok(Got { body: Value::Null, problem: Some(problem) });
    }
    if bytes.is_empty() {
        let problem = failure(ApiErrorKind::InvalidRequestError, "the request body is empty");
        return Ok(Got { body: Value::Null, problem: Some(problem) });
    }
    Ok(match serde_json::from_slice(&bytes) {
        Ok(body) => Got { body, problem: None },
        Err(error) => {
            let why = format!("the request body is not valid JSON: {error}");
            let body = Value::String(String::from_utf8_lossy(&bytes).into_owned());
            Got { body, problem: Some(failure(ApiErrorKind::InvalidRequestError, why)) }
        }
    })
}

fn problem_of(request: &Recorded, check: fn(&Value) -> Result<(), String>) -> Option<Failure> {
    if !request.headers.contains_key("anthropic-version") {
        return Some(failure(ApiErrorKind::InvalidRequestError, "anthropic-version: header is required"));
    }
    check(&request.body).err().map(|why| failure(ApiErrorKind::InvalidRequestError, why))
}

fn refuse_key(request: &Recorded) -> What {
    let has_key = ["x-api-key", "authorization"].iter().any(|name| request.headers.contains_key(*name));
    let why = if has_key { "invalid API key" } else { "x-api-key: header is required" };
    What::Failure(failure(ApiErrorKind::AuthenticationError, why))
}

fn invalid(why: String) -> What {
    What::Failure(failure(ApiErrorKind::InvalidRequestError, why))
}

fn failure(kind: ApiErrorKind, message: impl Into<String>) -> Failure {
    let status = StatusCode::from_u16(kind.status()).expect("every kind has an HTTP status");
    Failure { status, kind: kind.as_str().to_owned(), message: message.into(), headers: HeaderMap::new() }
}

fn kind_named(name: &str) -> ApiErrorKind {
    serde_json::from_value(Value::String(name.to_owned()))
        .unwrap_or_else(|_| ApiErrorKind::Other(name.to_owned()))
}

/// An estimate: a token for every four bytes, begun ones included, of what the model reads, as compact JSON.
fn count_tokens(body: &Value) -> Value {
    let parts =
        ["system", "messages", "tools"].map(|name| body.get(name).map_or(0, |part| part.to_string().len()));
    json!({"input_tokens": parts.iter().sum::<usize>().div_ceil(4)})
}
