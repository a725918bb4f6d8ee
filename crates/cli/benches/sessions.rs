//! Sessions over HTTP, through a real `wardian serve`: `make bench`, or `cargo bench -p wardian --bench sessions` after
//! `make guest`; with `-- create post messages fan-out idle`, those tables only.
//!
//! The clients are threads of this program and take their share of the processor, which is a large one with a thousand
//! readers on a machine of two cores. CPU time is that of the server and its launcher, with what they have waited for:
//! a sandbox counts once it has ended.

#[path = "common/serve.rs"]
mod serve;
#[path = "common/sse.rs"]
mod sse;
#[path = "common/table.rs"]
mod table;

mod sessions {
    pub mod broadcast;
    pub mod client;
    pub mod create;
    pub mod fan_out;
    pub mod idle;
    pub mod messages;
    pub mod post;
    pub mod reader;
}

use std::path::PathBuf;

use serve::libexec_dir;
use sessions::{broadcast, create, fan_out, idle, messages, post};
use table::load;
use tokio::runtime::Runtime;

/// What every table needs.
struct Bench {
    runtime: Runtime,
    libexec: PathBuf,
}

type Table = fn(&Bench);

const TABLES: [(&str, Table); 5] = [
    ("create", create::measure),
    ("post", post::measure),
    ("messages", messages::measure),
    ("fan-out", fan_out::measure),
    ("idle", idle::measure),
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` builds and calls this, too; it is nothing to wait for there.
    if asked.iter().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    if let [name, frames] = asked.as_slice()
        && name == broadcast::COMMAND
    {
        return broadcast::run(frames.as_ref());
    }
    let chosen = |name: &str| asked.iter().any(|argument| argument == name);
    let all = !TABLES.iter().any(|(name, _)| chosen(name));
    let bench = Bench { runtime: Runtime::new().expect("a runtime"), libexec: libexec_dir() };
    for (name, table) in TABLES {
        if all || chosen(name) {
            println!("\nload {}", load());
            table(&bench);
        }
    }
    println!("\nload {} at the end", load());
}
