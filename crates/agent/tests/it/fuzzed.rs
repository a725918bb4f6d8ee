//! The fuzz targets on their corpora, and on mutations of them from a seed: the part of fuzzing that any toolchain does.
//! `make fuzz` does the rest.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "../../../../fuzz/src/lib.rs"]
mod targets;

/// Mutations of each target: a second or so of a test build.
const MUTATIONS: u64 = 4_000;
/// The longest input that is tried, in bytes.
const MAX_INPUT: usize = 16 * 1024;

#[test]
fn events_of_the_model() {
    run(
        "sse",
        targets::sse,
        &["data: ", "event: ", "\n\n", "\r\n", "{\"type\":\"ping\"}", "\u{feff}", "\":{\"", "e999"],
    );
}

#[test]
fn lines_of_hosts() {
    run(
        "frames",
        targets::frames,
        &["\"type\":\"user\"", "null", "{\"subtype\":\"x\"}", "[[[[", "1e999", "\\ud800", "\n", "-0.0"],
    );
}

#[test]
fn permission_rules() {
    run(
        "rules",
        targets::rules,
        &[
            "*", ":*", "(", ")", "&&", "|", ";", "$(", "`", ">", "<<E", "\\", "'", "\"", "../", "~/", "//",
            "\n", "{a,b}", "mcp__", "&",
        ],
    );
}

#[test]
fn transcripts() {
    run(
        "transcript",
        targets::transcript,
        &[
            "\n",
            "\"isSidechain\":true",
            "\"tool_use\"",
            "\"role\":\"user\"",
            "toolu_1",
            "toolu_2",
            "\"isPrompt\":true",
            "null",
            "wardian_rewound",
            "compact_boundary",
        ],
    );
}

fn run(name: &str, target: fn(&[u8]), tokens: &[&str]) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(corpus.len() >= 3, "a corpus of {}", corpus.len());
    for input in &corpus {
        check(name, target, input);
    }
    let mut dice = Dice(0x5eed);
    for _ in 0..MUTATIONS {
        let mut input = corpus[dice.below(corpus.len())].clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut input, &corpus, tokens, &mut dice);
        }
        input.truncate(MAX_INPUT);
        check(name, target, &input);
    }
}

fn check(name: &str, target: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("a file for fuzz/corpus/{name}: b\"{}\"", input.escape_ascii());
    }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], tokens: &[&str], dice: &mut Dice) {
    let (from, to) = dice.range(input.len());
    match dice.below(7) {
        0 => drop(input.drain(from..to)),
        1 => {
            let part = input[from..to].to_vec();
            input.splice(from..from, part);
        }
        2 => {
            let token = tokens[dice.below(tokens.len())].bytes();
            input.splice(from..from, token);
        }
        3 => {
            let token = tokens[dice.below(tokens.len())].bytes();
            input.splice(from..to, token);
        }
        4 => {
            let other = &corpus[dice.below(corpus.len())];
            let (other_from, other_to) = dice.range(other.len());
            let part = other[other_from..other_to].to_vec();
            input.splice(from..to, part);
        }
        5 => input.truncate(from),
        _ => {
            if let Some(byte) = input.get_mut(from) {
                *byte ^= 1 << dice.below(8);
            }
        }
    }
}

/// Marsaglia's xorshift: the same row each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        (one.min(other), one.max(other))
    }
}
