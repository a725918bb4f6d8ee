//! The gateway at its own boundary: real sockets, a scripted model API, a real store.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod it {
    mod basics;
    mod client;
    mod faulty;
    mod hostile;
    mod log;
    mod metrics;
    mod money;
    mod observer;
    mod raw;
    mod rig;
    mod streams;
}
