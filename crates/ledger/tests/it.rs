//! The ledger at its border.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod it {
    mod bounds;
    mod golden;
    mod oracle;
    mod tables;
}
