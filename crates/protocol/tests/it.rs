//! The protocol at its border.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod it {
    mod control;
    mod frames;
    mod money;
    mod sse;
    mod stream;
    mod usage;
}
