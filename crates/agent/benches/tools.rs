//! What a tool round costs, beside the programs that do the same: `cargo bench -p wardian-agent --bench tools`.
//!
//! Medians, with the smallest and largest, of wall-clock and CPU time of this process and its children. Compare only
//! within one run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardian_agent::tool::{Tool, ToolContext};
use wardian_agent::tools::builtin;

const ROUNDS: usize = 51;
const FILES: usize = 2_000;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cwd = folder.path().canonicalize().expect("its real path");
    plant(&cwd);
    let place = Place::new(&cwd);
    println!("{:<40} {:>28} {:>10}", format!("{ROUNDS} rounds"), "wall ms, median [min..max]", "CPU ms");
    let edit = |new: &str| json!({"file_path": "edited", "old_string": "needle", "new_string": new});
    place.call("Read", json!({"file_path": "edited"}));
    measure("Read, 2,000 lines", || place.call("Read", json!({"file_path": "edited", "limit": 2_000})));
    measure("Edit, twice, flushed to disk", || {
        place.call("Edit", edit("thimble"));
        let back = json!({"file_path": "edited", "old_string": "thimble", "new_string": "needle"});
        place.call("Edit", back);
    });
    measure("Bash true", || place.call("Bash", json!({"command": "true"})));
    measure("  bash -c true", || run(&cwd, "bash", &["-c", "true"]));
    measure("Glob **/*.rs", || place.call("Glob", json!({"pattern": "**/*.rs"})));
    measure("  find -name *.rs", || run(&cwd, "find", &[".", "-name", "*.rs"]));
    for (name, pattern) in [("a word", "needle"), ("a class", r"n[a-e]{2}dle \d+")] {
        measure(&format!("Grep {name}, {FILES} files"), || {
            place.call("Grep", json!({"pattern": pattern, "output_mode": "content"}));
        });
        measure("  rg", || run(&cwd, "rg", &["-n", "--sort=path", "--hidden", pattern]));
        measure("  rg, in any order", || run(&cwd, "rg", &["-n", "--hidden", pattern]));
        measure("  grep -rn", || run(&cwd, "grep", &["-rnP", pattern, "."]));
    }
}

/// A tree like a project's: 2,000 files of a few KiB in 100 folders.
fn plant(cwd: &Path) {
    let body: String =
        (0..100).map(|line| format!("    let value_{line} = compute(line, {line});\n")).collect();
    for file in 0..FILES {
        let path = cwd.join(format!("src/module_{}/file_{file}.rs", file % 100));
        let needle = if file % 20 == 0 { format!("// needle {file}\n") } else { String::new() };
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        std::fs::write(path, format!("{body}{needle}{body}")).expect("a file");
    }
    let long: String = (0..1_999).map(|line| format!("line {line} of a file like any\n")).collect();
    std::fs::write(cwd.join("edited"), format!("{long}needle\n")).expect("a file");
}

struct Place {
    runtime: tokio::runtime::Runtime,
    context: ToolContext,
    tools: Vec<Arc<dyn Tool>>,
}

impl Place {
    fn new(cwd: &Path) -> Self {
        let mut context = ToolContext::new(cwd.to_owned(), PathBuf::from(cwd).join(".outputs"));
        context.env = Arc::new(vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, context, tools: builtin() }
    }

    fn call(&self, name: &str, input: Value) {
        let tool = self.tools.iter().find(|tool| tool.name() == name).expect("a built-in tool");
        let output = self.runtime.block_on(tool.call(input, &self.context));
        assert!(!output.is_error, "{name}: {}", output.content);
    }
}

fn run(cwd: &Path, program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    // Where it is not installed, its row shows how long nothing takes.
    let _ = command.args(args).current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::null()).status();
}

fn measure(name: &str, mut work: impl FnMut()) {
    work();
    let cpu_before = cpu();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    let cpu = (cpu() - cpu_before) / ROUNDS as f64;
    times.sort();
    let ms = |time: &Duration| time.as_secs_f64() * 1e3;
    let range =
        format!("{:.2} [{:.2}..{:.2}]", ms(&times[ROUNDS / 2]), ms(&times[0]), ms(&times[ROUNDS - 1]));
    println!("{name:<40} {range:>28} {cpu:>10.2}");
}

/// CPU time of this process and the children it has waited for, in milliseconds, in steps of 10.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        * 10.0
}
