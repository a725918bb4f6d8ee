//! The way to a server in the host's own process: each message is a call of a closure.
//!
//! source: the agent protocol reference, section 2.5.

use std::collections::HashMap;
use std::convert::Infallible;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;
use rmcp::RoleClient;
use rmcp::model::{ClientNotification, ClientRequest, JsonRpcMessage, RequestId};
use rmcp::transport::Transport;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::wire::{Incoming, Outgoing, Reader, error};
use super::{McpHost, McpManifest};

/// Messages of a server on their way to us.
pub(super) const INBOUND: usize = 256;

/// What a message came to: its request, and the answer or why there is none; nothing for a notification.
type Answered = Option<(RequestId, Result<Value, String>)>;

/// The host's server.
pub(super) struct HostTransport {
    host: McpHost,
    manifest: Option<McpManifest>,
    /// What the server says by itself.
    inbound: mpsc::Receiver<Value>,
    answers: FuturesUnordered<Abortable<BoxFuture<'static, Answered>>>,
    /// Requests that are out: dropping one tells the host that nobody waits.
    out: HashMap<RequestId, AbortHandle>,
    reader: Reader,
}

impl HostTransport {
    pub(super) fn new(host: McpHost, manifest: Option<McpManifest>, inbound: mpsc::Receiver<Value>) -> Self {
        Self {
            host,
            manifest: manifest.filter(|manifest| manifest.initialize["protocolVersion"] == super::PROTOCOL),
            inbound,
            answers: FuturesUnordered::new(),
            out: HashMap::new(),
            reader: Reader::default(),
        }
    }

    fn begin(&mut self, id: Option<RequestId>, answer: BoxFuture<'static, Answered>) {
        let (handle, registration) = AbortHandle::new_pair();
        if let Some(id) = id {
            self.out.insert(id, handle);
        }
        self.answers.push(Abortable::new(answer, registration));
    }

    /// What the manifest knows of a request.
    fn known(&mut self, request: &ClientRequest) -> Option<Value> {
        let manifest = self.manifest.as_mut()?;
        match request {
            ClientRequest::InitializeRequest(_) => Some(manifest.initialize.clone()),
            ClientRequest::ListToolsRequest(list)
                if list.params.as_ref().is_none_or(|params| params.cursor.is_none()) =>
            {
                // Once: a list asked for again has changed.
                manifest.tools.take()
            }
            _ => None,
        }
    }

    fn take(&mut self, item: Outgoing) {
        self.reader.note(&item);
        match &item {
            JsonRpcMessage::Request(request) => {
                let id = request.id.clone();
                let answered = match self.known(&request.request) {
                    Some(result) => Box::pin(std::future::ready(Some((id, Ok(json!({"result": result}))))))
                        as BoxFuture<'static, Answered>,
                    None => {
                        let answer = (self.host)(serde_json::to_value(&item).unwrap_or_default());
                        Box::pin(async move { Some((id, answer.await)) })
                    }
                };
                self.begin(Some(request.id.clone()), answered);
            }
            JsonRpcMessage::Notification(notification) => match &notification.notification {
                ClientNotification::CancelledNotification(cancelled) => {
                    let gone = cancelled.params.request_id.as_ref().and_then(|id| self.out.remove(id));
                    if let Some(handle) = gone {
                        handle.abort();
                    }
                }
                // Whoever asked the server already has told it so.
                ClientNotification::InitializedNotification(_) if self.manifest.is_some() => (),
                _ => self.tell(&item),
            },
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => self.tell(&item),
        }
    }

    /// Passes on what has no answer.
    fn tell(&mut self, item: &Outgoing) {
        let told = (self.host)(serde_json::to_value(item).unwrap_or_default());
        self.begin(
            None,
            Box::pin(async move {
                let _ = told.await;
                None
            }),
        );
    }
}

impl Transport<RoleClient> for HostTransport {
    type Error = Infallible;

    fn send(&mut self, item: Outgoing) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        self.take(item);
        std::future::ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<Incoming> {
        loop {
            tokio::select! {
                biased;
                Some(answered) = self.answers.next(), if !self.answers.is_empty() => {
                    let Ok(Some((id, answer))) = answered else { continue };
                    self.out.remove(&id);
                    return Some(match answer {
                        Ok(answer) => self.reader.reply(id, answer),
                        Err(failure) => error(id, failure),
                    });
                }
                said = self.inbound.recv() => {
                    // The registry holds the other end for as long as the server is wanted.
                    if let Some(message) = self.reader.read(said?) {
                        return Some(message);
                    }
                }
            }
        }
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        self.answers.clear();
        self.out.clear();
        Ok(())
    }
}
