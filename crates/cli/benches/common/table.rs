//! Rows of numbers, and where they come from.

use std::fs;
use std::time::Duration;

/// What `/proc` counts CPU time in: Linux has shown programs 100 a second on every machine since 2.6.
const TICKS_PER_SECOND: u64 = 100;

/// One row of a table.
pub struct Series {
    name: String,
    walls: Vec<Duration>,
    cpu: Option<Duration>,
    pub peaks_kib: Vec<u64>,
}

impl Series {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), walls: Vec::new(), cpu: None, peaks_kib: Vec::new() }
    }

    pub fn add(&mut self, keep: bool, wall: Duration) {
        if keep {
            self.walls.push(wall);
        }
    }

    pub fn add_cpu(&mut self, keep: bool, cpu: Duration) {
        if keep {
            self.cpu = Some(self.cpu.unwrap_or_default() + cpu);
        }
    }

    pub fn print(&mut self) {
        self.walls.sort_unstable();
        self.peaks_kib.sort_unstable();
        let at = |part: f64| {
            let index = ((self.walls.len() as f64 * part) as usize).min(self.walls.len() - 1);
            self.walls[index].as_secs_f64() * 1e3
        };
        let (min, p50, p99) = (at(0.0), at(0.5), at(0.99));
        let mean = |cpu: Duration| format!("{:.2}", cpu.as_secs_f64() * 1e3 / self.walls.len() as f64);
        let cpu = self.cpu.map(mean).unwrap_or_default();
        let peak = self.peaks_kib.get(self.peaks_kib.len() / 2);
        let peak = peak.map(|kib| format!("{:.1}", *kib as f64 / 1024.0)).unwrap_or_default();
        let name = &self.name;
        println!(
            "{}",
            format!("  {name:<48} {min:>8.2} {p50:>8.2} {p99:>8.2} {cpu:>9} {peak:>9}").trim_end()
        );
    }
}

pub fn heading(name: &str) {
    println!("\n{name:<50} {:>8} {:>8} {:>8} {:>9} {:>9}", "min ms", "p50 ms", "p99 ms", "CPU ms", "RSS MiB");
}

/// CPU time of a process and of all that it has waited for.
pub fn cpu_of(pid: u32) -> Duration {
    cpu_fields(&pid.to_string(), 0)
}

/// utime, stime, cutime and cstime, without the first `skip` of them.
pub fn cpu_fields(process: &str, skip: usize) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields = rest.split_whitespace().skip(11).take(4).skip(skip);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_micros(ticks * 1_000_000 / TICKS_PER_SECOND)
}

pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
