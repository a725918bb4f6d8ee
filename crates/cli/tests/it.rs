//! The binary itself, with real sandboxes and a scripted model: what is promised, and attacks on it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod it {
    mod arguments;
    mod chaos;
    mod crash;
    mod demo;
    mod disk;
    mod forged;
    mod keys;
    mod killed;
    mod local;
    mod operations;
    mod programs;
    mod readers;
    mod search;
    mod sessions;
    mod support;
    mod talk;
    mod tracing;
    mod upgrade;
    mod users;
}
