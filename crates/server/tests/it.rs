//! The server at its own boundary: raw requests over TCP, and everything real behind it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod it {
    mod admin;
    mod app;
    mod boundaries;
    mod client;
    mod load;
    mod run;
    mod users;
}
