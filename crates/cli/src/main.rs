//! The binary `wardian`.
fn main() {}
