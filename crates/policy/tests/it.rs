//! The policy at its border.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod it {
    mod against_bash;
    mod attacks;
    mod bash;
    mod files;
    mod modes;
    mod props;
    mod rules;
    mod support;
}
