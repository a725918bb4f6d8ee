//! The ledger at its border.

mod it {
    mod bounds;
    mod golden;
    mod oracle;
    mod tables;
}
