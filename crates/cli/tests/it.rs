//! The binary itself, with real sandboxes and a scripted model: what is promised, and attacks on it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod it {
    mod arguments;
    mod crash;
    mod demo;
    mod forged;
    mod keys;
    mod local;
    mod operations;
    mod programs;
    mod search;
    mod sessions;
    mod support;
    mod tracing;
    mod users;
}
