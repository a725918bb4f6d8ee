//! `POST /v1/x/run`: a prompt goes in, a report comes out, at once or as a stream.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use opentelemetry::trace::FutureExt as TraceExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wardian_protocol::{NanoUsd, RequestId, SessionId};
use wardian_session::{
    FieldError, LimitsAsked, Permissions, RunError, RunEvent, RunFile, RunReport, RunRequest, Runtime,
};
use wardian_store::Scope;

use crate::App;
use crate::auth::{Identity, authenticate};
use crate::body::read_json;
use crate::error::Error;
use crate::idempotency;
use crate::wire::Fields;

/// Events that wait for a slow client; then the agent waits.
const SINK_EVENTS: usize = 32;

/// What the body asks for.
#[derive(Debug)]
struct Asked {
    request: RunRequest,
    stream: bool,
    on_disconnect: OnDisconnect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisconnect {
    Cancel,
    Continue,
}

type Outcome = Result<RunReport, RunError>;

/// The handler.
pub async fn run(
    State(app): State<Arc<App>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    let identity = authenticate(&app, request.headers(), request.extensions().get()).await?;
    identity.require(&[Scope::Sessions, Scope::Admin])?;
    let keyed = request.headers().contains_key(idempotency::HEADER);
    let body = read_json(&app, request).await?;
    let asked = read(body, request_id.clone()).map_err(|errors| Error::fields(&errors))?;
    let streamed = asked.stream;
    if streamed && keyed {
        return Err(Error::invalid(
            "stream: a stream cannot be kept for its Idempotency-Key; leave one of the two out",
        ));
    }
    let (events, run) = start(&app, &identity, asked);
    if streamed { stream_run(&app, request_id, events, run).await } else { wait_for(events, run).await }
}

/// Begins the run. Dropping the future that comes back cancels it, unless it was asked to go on.
fn start(
    app: &Arc<App>,
    identity: &Identity,
    asked: Asked,
) -> (mpsc::Receiver<RunEvent>, BoxFuture<'static, Outcome>) {
    let (sink, events) = mpsc::channel(SINK_EVENTS);
    let (engine, caller) = (app.engine.clone(), identity.caller());
    let run = async move { engine.run(caller, asked.request, sink, CancellationToken::new()).await };
    let run = TraceExt::with_current_context(run);
    let run = match asked.on_disconnect {
        OnDisconnect::Cancel => run.boxed(),
        OnDisconnect::Continue => {
            let task = app.tasks.spawn(run);
            async move { task.await.unwrap_or(Err(RunError::Internal)) }.boxed()
        }
    };
    (events, run)
}

async fn wait_for(
    events: mpsc::Receiver<RunEvent>,
    run: BoxFuture<'static, Outcome>,
) -> Result<Response, Error> {
    drop(events);
    let report = run.await?;
    match Error::of_report(&report) {
        Some(error) => Err(error),
        None => Ok(Json(report).into_response()),
    }
}

/// What ends before it began is a plain error; after that, errors are events.
async fn stream_run(
    app: &App,
    request_id: RequestId,
    mut events: mpsc::Receiver<RunEvent>,
    mut run: BoxFuture<'static, Outcome>,
) -> Result<Response, Error> {
    let first = tokio::select! {
        biased;
        Some(first) = events.recv() => first,
        outcome = &mut run => return wait_for(events, std::future::ready(outcome).boxed()).await,
    };
    let keep_alive = KeepAlive::new().interval(app.config.keep_alive).text("keep-alive");
    let told = stream::iter([Told::Event(first)]).chain(follow(events, run, request_id));
    let told = told.map(|told| Ok::<_, Infallible>(told.into_event()));
    let told = app.config.metrics.reader().of(told);
    Ok(Sse::new(told).keep_alive(keep_alive).into_response())
}

/// What the client of a stream is told.
enum Told {
    Event(RunEvent),
    End { name: &'static str, body: Value },
}

impl Told {
    fn into_event(self) -> Event {
        let (name, body) = match self {
            Self::Event(RunEvent::Started { session_id, request_id, .. }) => {
                ("run_started", json!({"session_id": session_id, "request_id": request_id}))
            }
            Self::Event(RunEvent::Message(message)) => ("message", message),
            Self::Event(RunEvent::Output { stream, text }) => {
                ("output", json!({"stream": stream.as_str(), "text": text}))
            }
            Self::End { name, body } => (name, body),
        };
        // JSON has no line ends, which an event's data must not have.
        Event::default().event(name).data(body.to_string())
    }
}

/// The run's events, then its end. Dropping the stream drops the run.
fn follow(
    events: mpsc::Receiver<RunEvent>,
    run: BoxFuture<'static, Outcome>,
    request_id: RequestId,
) -> impl Stream<Item = Told> {
    enum Phase {
        Running(mpsc::Receiver<RunEvent>, BoxFuture<'static, Outcome>),
        Emptying(mpsc::Receiver<RunEvent>, Box<Outcome>),
        Over,
    }
    stream::unfold((Phase::Running(events, run), request_id), |(mut phase, request_id)| async move {
        loop {
            phase = match phase {
                Phase::Running(mut events, mut run) => tokio::select! {
                    biased;
                    Some(event) = events.recv() => {
                        return Some((Told::Event(event), (Phase::Running(events, run), request_id)));
                    }
                    outcome = &mut run => Phase::Emptying(events, Box::new(outcome)),
                },
                Phase::Emptying(mut events, outcome) => match events.try_recv() {
                    Ok(event) => {
                        return Some((Told::Event(event), (Phase::Emptying(events, outcome), request_id)));
                    }
                    Err(_) => {
                        let end = end_of(*outcome, &request_id);
                        return Some((end, (Phase::Over, request_id)));
                    }
                },
                Phase::Over => return None,
            };
        }
    })
}

fn end_of(outcome: Outcome, request_id: &RequestId) -> Told {
    let error = match outcome {
        Ok(report) => match Error::of_report(&report) {
            None => return Told::End { name: "run_result", body: json!(report) },
            Some(error) => error,
        },
        Err(error) => Error::from(error),
    };
    if let Some(cause) = error.cause() {
        tracing::error!(%request_id, cause, "the run failed");
    }
    Told::End { name: "error", body: json!(error.envelope(request_id)) }
}

fn read(body: Value, request_id: RequestId) -> Result<Asked, Vec<FieldError>> {
    let mut errors = Vec::new();
    let asked = read_fields(body, request_id, &mut errors);
    match asked {
        Some(asked) if errors.is_empty() => Ok(asked),
        _ => Err(errors),
    }
}

fn read_fields(body: Value, request_id: RequestId, errors: &mut Vec<FieldError>) -> Option<Asked> {
    let mut nested = Vec::new();
    let mut fields = Fields::of(body, "", errors)?;
    let prompt = fields.string("prompt");
    if prompt.is_none() {
        fields.error("prompt", "expected a text");
    }
    let mut request = RunRequest::new(request_id, prompt.unwrap_or_default());
    request.runtime = read_runtime(&mut fields);
    request.model = fields.string("model");
    request.system = fields.string("system");
    if let Some(rules) = fields.strings("allowed_tools") {
        request.permissions = Permissions::Only(rules);
    }
    for (index, file) in fields.list("files").unwrap_or_default().into_iter().enumerate() {
        // Their number is checked with everything else; the errors of so many are not all needed.
        if nested.len() < 20 {
            request.files.extend(read_file(file, index, &mut nested));
        }
    }
    request.user = fields.string("user");
    if let Some(limits) = fields.value("limits") {
        request.limits = read_limits(limits, &mut nested).unwrap_or_default();
    }
    request.session_id = fields.parsed("session_id", "a session's id, `sesn_…`", |value| {
        SessionId::from_str(value.as_str()?).ok()
    });
    let stream = fields.boolean("stream").unwrap_or(false);
    let on_disconnect = fields
        .word("on_disconnect", &[("cancel", OnDisconnect::Cancel), ("continue", OnDisconnect::Continue)])
        .unwrap_or(OnDisconnect::Cancel);
    fields.finish();
    errors.append(&mut nested);
    Some(Asked { request, stream, on_disconnect })
}

fn read_runtime(fields: &mut Fields<'_>) -> Runtime {
    let is_command = fields.word("runtime", &[("wardian", false), ("command", true)]);
    let command = fields.strings("command");
    match (is_command, command) {
        (Some(false), Some(_)) => {
            fields.error("command", "only runtime `command` has one");
            Runtime::Wardian
        }
        (Some(true), None) => {
            fields.error(
                "command",
                "expected a program and its arguments, such as [\"python3\", \"agent.py\"]",
            );
            Runtime::Wardian
        }
        (_, Some(command)) => Runtime::Command(command),
        (_, None) => Runtime::Wardian,
    }
}

fn read_file(value: Value, index: usize, errors: &mut Vec<FieldError>) -> Option<RunFile> {
    let mut fields = Fields::of(value, &format!("files[{index}]."), errors)?;
    let path = fields.string("path");
    let plain = fields.string("content");
    let encoded = fields.string("content_base64");
    if path.is_none() {
        fields.error("path", "expected a path in the workspace");
    }
    let content = match (plain, encoded) {
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(encoded)) => {
            let decoded = BASE64_STANDARD.decode(encoded.as_bytes()).ok();
            if decoded.is_none() {
                fields.error("content_base64", "expected base64 with padding");
            }
            decoded
        }
        (None, None) | (Some(_), Some(_)) => {
            fields.error("content", "expected either `content` or `content_base64`");
            None
        }
    };
    fields.finish();
    Some(RunFile { path: path?, content: content? })
}

fn read_limits(value: Value, errors: &mut Vec<FieldError>) -> Option<LimitsAsked> {
    let mut fields = Fields::of(value, "limits.", errors)?;
    let limits =
        LimitsAsked {
            max_turns: fields
                .parsed("max_turns", "a whole number above 0", |value| u32::try_from(value.as_u64()?).ok()),
            max_cost: fields.parsed("max_cost_usd", "dollars such as 0.25, up to a million", |value| {
                match value {
                    Value::Number(number) => NanoUsd::from_str(&number.to_string()).ok(),
                    _ => None,
                }
            }),
            timeout: fields.parsed("timeout_seconds", "a number of seconds above 0", |value| {
                Duration::try_from_secs_f64(value.as_f64()?).ok()
            }),
        };
    fields.finish();
    Some(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(body: Value) -> Vec<String> {
        match read(body, RequestId::from_random([1; 16])) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_whole_request_is_read() {
        let asked = read(
            json!({
                "prompt": "hi", "runtime": "command", "command": ["python3", "a.py", "$PROMPT"], "model": "opus",
                "files": [{"path": "a.py", "content": "1"}, {"path": "b", "content_base64": "AAE="}], "user": "ann",
                "limits": {"max_turns": 3, "max_cost_usd": 0.25, "timeout_seconds": 1.5}, "stream": true,
                "session_id": null, "on_disconnect": "continue",
            }),
            RequestId::from_random([1; 16]),
        )
        .unwrap();
        assert_eq!(asked.request.limits.max_cost, Some(NanoUsd(250_000_000)));
        assert_eq!(asked.request.limits.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(asked.request.files[1].content, [0, 1]);
        assert_eq!((asked.stream, asked.on_disconnect), (true, OnDisconnect::Continue));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let body = json!({
            "promt": "hi", "runtime": "claude", "files": [{"path": 1, "contents": "x"}],
            "limits": {"maxTurns": 3, "max_cost_usd": "0.25", "timeout_seconds": -1}, "session_id": "../etc",
            "stream": "yes", "allowed_tools": ["Read", 7],
        });
        assert_eq!(
            errors_of(body),
            [
                "prompt: expected a text",
                "runtime: \"claude\": expected `wardian` or `command`",
                "allowed_tools[1]: expected a string, found a number",
                "session_id: expected a session's id, `sesn_…`",
                "stream: expected a boolean, found a string",
                "promt: unknown field; did you mean `prompt`?",
                "files[0].path: expected a string, found a number",
                "files[0].path: expected a path in the workspace",
                "files[0].content: expected either `content` or `content_base64`",
                "files[0].contents: unknown field; did you mean `content`?",
                "limits.max_cost_usd: expected dollars such as 0.25, up to a million",
                "limits.timeout_seconds: expected a number of seconds above 0",
                "limits.maxTurns: unknown field; did you mean `max_turns`?",
            ]
        );
        assert_eq!(errors_of(json!([])), ["body: expected an object, found a list"]);
        assert_eq!(
            errors_of(json!({"prompt": "x", "runtime": "wardian", "command": ["x"]})),
            ["command: only runtime `command` has one"]
        );
    }
}
