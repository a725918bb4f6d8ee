//! The server at its own boundary: raw requests over TCP, and everything real behind it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod it {
    mod admin;
    mod agents;
    mod app;
    mod boundaries;
    mod canary;
    mod client;
    mod clock;
    mod environments;
    mod events;
    mod files;
    mod foreign;
    mod forget;
    mod idempotency;
    mod load;
    mod paging;
    mod resources;
    mod run;
    mod sessions;
    mod stream;
    mod users;
}
