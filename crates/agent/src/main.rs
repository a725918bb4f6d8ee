//! The binary `wardian-agent`.

fn main() {}
