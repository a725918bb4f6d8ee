//! The server at its border: real sockets, good and bad clients.
#![expect(clippy::unwrap_used, reason = "a test may panic where its expectations fail")]

#[path = "it/client.rs"]
mod client;
#[path = "it/docs.rs"]
mod docs;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/record.rs"]
mod record;
#[path = "it/replies.rs"]
mod replies;
#[path = "it/routes.rs"]
mod routes;
#[path = "it/script.rs"]
mod script;
#[path = "it/transport.rs"]
mod transport;
