//! Messages between servers and `rmcp`: read from JSON without believing their shapes, and held to limits.
//!
//! `rmcp` would type every result by trying one shape after the other, and lose what fits none. Here a result stays the
//! JSON that it was; only the answer to `initialize` is typed, because `rmcp` asks for that one.

use std::borrow::Cow;

use rmcp::RoleClient;
use rmcp::model::{
    CancelledNotification, CancelledNotificationParam, ClientRequest, CustomNotification, CustomRequest,
    CustomResult, ErrorCode, ErrorData, InitializeResult, JsonRpcError, JsonRpcMessage, RequestId,
    ServerNotification, ServerRequest, ServerResult,
};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Map, Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A message to a server.
pub(super) type Outgoing = TxJsonRpcMessage<RoleClient>;
/// A message of a server.
pub(super) type Incoming = RxJsonRpcMessage<RoleClient>;

/// The longest message of one server, in bytes; the same as rmcp's own limit for HTTP.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Questions of one server that wait for an answer; more are not heard. People answer them one by one.
const MAX_QUESTIONS: usize = 16;
/// What a server may say unasked between two answers; one that says more does nothing but that.
pub(super) const MAX_UNASKED: usize = 100_000;
/// Characters of a server's error that are told.
const MAX_ERROR_CHARS: usize = 2_000;
/// What is said of an answer that is none.
const NO_SENSE: &str = "its answer makes no sense";

/// Reads what a server says.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The request whose answer `rmcp` wants typed.
    initialize: Option<RequestId>,
}

impl Reader {
    /// Notes a message on its way to the server.
    pub(super) fn note(&mut self, message: &Outgoing) {
        if let JsonRpcMessage::Request(request) = message
            && matches!(request.request, ClientRequest::InitializeRequest(_))
        {
            self.initialize = Some(request.id.clone());
        }
    }

    /// Reads a message; `None` where it is none.
    pub(super) fn read(&self, message: Value) -> Option<Incoming> {
        let Value::Object(mut message) = message else { return None };
        let id = message.get("id").and_then(request_id);
        let Some(method) = message.get("method").and_then(Value::as_str).map(str::to_owned) else {
            return Some(self.answer(id?, message));
        };
        let params = message.shift_remove("params");
        match id {
            Some(id) => Some(JsonRpcMessage::request(
                ServerRequest::CustomRequest(CustomRequest::new(method, params)),
                id,
            )),
            None => notification(method, params).map(JsonRpcMessage::notification),
        }
    }

    /// Reads the answer to a request, whatever id it has itself.
    pub(super) fn reply(&self, id: RequestId, answer: Value) -> Incoming {
        match answer {
            Value::Object(answer) => self.answer(id, answer),
            _ => error(id, NO_SENSE),
        }
    }

    fn answer(&self, id: RequestId, mut answer: Map<String, Value>) -> Incoming {
        if let Some(failure) = answer.get("error").filter(|failure| !failure.is_null()) {
            let text = failure["message"].as_str().unwrap_or("it gave no reason");
            let code = failure["code"].as_i64().and_then(|code| i32::try_from(code).ok());
            let code = code.map_or(ErrorCode::INTERNAL_ERROR, ErrorCode);
            let text: String = text.chars().take(MAX_ERROR_CHARS).collect();
            let failure = ErrorData::new(code, Cow::Owned(text), None);
            return JsonRpcMessage::Error(JsonRpcError::new(Some(id), failure));
        }
        let Some(result) = answer.shift_remove("result") else { return error(id, NO_SENSE) };
        if self.initialize.as_ref() != Some(&id) {
            return JsonRpcMessage::response(ServerResult::CustomResult(CustomResult(result)), id);
        }
        match serde_json::from_value::<InitializeResult>(greeting(result)) {
            Ok(about) => JsonRpcMessage::response(ServerResult::InitializeResult(about), id),
            Err(_) => error(id, "its answer to initialize makes no sense"),
        }
    }
}

/// Adds to an answer to `initialize` what many servers leave out.
fn greeting(mut result: Value) -> Value {
    if let Some(about) = result.as_object_mut() {
        about.entry("capabilities").or_insert_with(|| json!({}));
        about.entry("serverInfo").or_insert_with(|| json!({"name": "", "version": ""}));
    }
    result
}

/// An answer that says what is wrong.
pub(super) fn error(id: RequestId, text: impl Into<Cow<'static, str>>) -> Incoming {
    JsonRpcMessage::Error(JsonRpcError::new(Some(id), ErrorData::new(ErrorCode::INTERNAL_ERROR, text, None)))
}

fn request_id(id: &Value) -> Option<RequestId> {
    match id {
        Value::Number(number) => number.as_i64().map(RequestId::Number),
        Value::String(text) => Some(RequestId::String(text.as_str().into())),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn notification(method: String, params: Option<Value>) -> Option<ServerNotification> {
    if method == "notifications/cancelled" {
        let id = request_id(&params?["requestId"])?;
        let params = CancelledNotificationParam::new(Some(id), None);
        return Some(ServerNotification::CancelledNotification(CancelledNotification::new(params)));
    }
    Some(ServerNotification::CustomNotification(CustomNotification::new(method, params)))
}

/// The result as the JSON that it was.
pub(super) fn raw(result: ServerResult) -> Value {
    match result {
        ServerResult::CustomResult(CustomResult(value)) => value,
        typed => serde_json::to_value(typed).unwrap_or_default(),
    }
}

/// A transport whose server is held to limits: what nobody here listens to is dropped, and who floods is hung up on.
pub(super) struct Limited<T> {
    inner: T,
    questions: usize,
    unasked: usize,
    /// Fires when nothing more comes.
    closed: CancellationToken,
    _gone: DropGuard,
}

impl<T> Limited<T> {
    pub(super) fn new(inner: T, closed: CancellationToken) -> Self {
        let gone = closed.clone().drop_guard();
        Self { inner, questions: 0, unasked: 0, closed, _gone: gone }
    }

    /// Whether a message is passed on.
    fn admits(&mut self, message: &Incoming) -> bool {
        match message {
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {
                self.unasked = 0;
                true
            }
            JsonRpcMessage::Request(_) => {
                self.unasked += 1;
                let admitted = self.questions < MAX_QUESTIONS;
                self.questions += usize::from(admitted);
                admitted
            }
            JsonRpcMessage::Notification(notification) => {
                self.unasked += 1;
                match &notification.notification {
                    ServerNotification::CancelledNotification(_)
                    | ServerNotification::ToolListChangedNotification(_) => true,
                    ServerNotification::CustomNotification(custom) => HEARD.contains(&custom.method.as_str()),
                    _ => false,
                }
            }
        }
    }
}

/// Notifications that something here listens to.
const HEARD: &[&str] = &["notifications/tools/list_changed", "notifications/elicitation/complete"];

impl<T: Transport<RoleClient>> Transport<RoleClient> for Limited<T> {
    type Error = T::Error;

    fn send(&mut self, item: Outgoing) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        if matches!(item, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_)) {
            self.questions = self.questions.saturating_sub(1);
        }
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<Incoming> {
        while self.unasked <= MAX_UNASKED {
            let Some(message) = self.inner.receive().await else { break };
            if self.admits(&message) {
                return Some(message);
            }
        }
        self.closed.cancel();
        None
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}
