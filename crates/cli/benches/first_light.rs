//! What a user waits for, and what it costs: `make bench`, or `cargo bench -p wardian --bench first_light` after `make guest`.
//!
//! Two tables, on the scripted model without any delay. `wardian-agent` from its start to its result, beside the least
//! that starting a program costs here and beside what the stock CLI was measured to take elsewhere. And `POST
//! /v1/x/run` of a real `wardian serve`, up to its first message, for a new session and for one that goes on.
//!
//! The kinds take turns, ten rounds of each, and the first turn is a warm-up that is left out; how far apart `min` and
//! `p99` are tells how quiet the machine was. Wall time is to the line as the reader gets it. CPU time is user and
//! system of the program and of all that it ran, from its start to its end: a mean, because `/proc` shows ticks of
//! 10 ms, which over a hundred rounds leaves an error of some 0.2 ms.

#[path = "common/serve.rs"]
mod serve;
#[path = "common/sse.rs"]
mod sse;
#[path = "common/table.rs"]
mod table;

mod first_light {
    pub mod agents;
    pub mod runs;
}

use first_light::{agents, runs};
use serve::libexec_dir;
use tokio::runtime::Runtime;

/// Batches of each kind, beside one to warm up; `BATCHES` in the environment says otherwise.
const BATCHES: usize = 10;
/// Rounds of one kind in a row. CPU time is read before and after them.
const BATCH: usize = 10;
/// As in the stock CLI's measurement.
const MODEL: &str = "claude-sonnet-5";

fn main() {
    // `cargo test --benches` builds and calls this, too; it is nothing to wait for there.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let asked = std::env::var("BATCHES").ok().and_then(|batches| batches.parse().ok());
    let batches: usize = asked.filter(|batches| *batches > 0).unwrap_or(BATCHES);
    let libexec = libexec_dir();
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    println!("load {}; n = {} of each after {BATCH} to warm up", table::load(), batches * BATCH);
    agents::measure(&runtime, folder.path(), &libexec.join("wardian-agent"), batches);
    runs::measure(&runtime, folder.path(), &libexec, batches);
    println!("\nload {} at the end", table::load());
}
