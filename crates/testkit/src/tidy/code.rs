//! Rules on Rust code.

use super::source::{Source, has_word};
use super::{Problem, Repository, problem};

/// Lines of one file beside its tests. Beyond it, a file has more than one subject.
const MAX_LINES: usize = 700;

pub(super) fn length(repository: &Repository) -> Vec<Problem> {
    let sources = repository.ending(".rs").filter(|(path, _)| !is_test(path));
    let long =
        sources.map(|(path, text)| (path, lines_beside_tests(text))).filter(|(_, lines)| *lines > MAX_LINES);
    long.map(|(path, lines)| {
        problem("length", path, MAX_LINES + 1, format!("{lines} lines beside tests; split it at {MAX_LINES}"))
    })
    .collect()
}

/// Lines up to the inline tests, which stand last.
fn lines_beside_tests(text: &str) -> usize {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].lines().count()
}

pub(super) fn forgotten_test(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, _) in repository.ending(".rs") {
        let Some((folder, file)) = path.split_once("/tests/") else { continue };
        if folder.matches('/').count() != 1 {
            continue; // Modules called `tests` further down are the compiler's to find.
        }
        let Some(name) = file.strip_suffix(".rs") else { continue };
        if let Some(module) = name.strip_prefix("it/").filter(|module| !module.contains('/')) {
            let root = repository.get(&format!("{folder}/tests/it.rs")).map(|text| Source::new(text).code);
            if !root.is_some_and(|code| {
                code.lines().any(|line| has_word(line, module, ";") && has_word(line, "mod", ""))
            }) {
                problems.push(problem(
                    "forgotten-test",
                    path,
                    1,
                    "tests/it.rs has no `mod` for it, so it never runs",
                ));
            }
        } else if !name.contains('/') && name != "it" && path != "crates/testkit/tests/tidy.rs" {
            let what = "one test binary a crate: make it a module of tests/it.rs";
            problems.push(problem("forgotten-test", path, 1, what));
        }
    }
    problems
}

pub(super) fn leftovers(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, _, source) in repository.sources() {
        for name in ["dbg", "todo", "unimplemented"] {
            for line in source.lines_with(name, "!") {
                problems.push(problem(
                    "leftovers",
                    path,
                    line,
                    format!("the macro {name}! is for the moment"),
                ));
            }
        }
    }
    problems
}

pub(super) fn attributes(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text, source) in repository.sources() {
        for (line, attribute) in source.attributes() {
            let given = |word, then| {
                let conditional =
                    attribute.trim_start().starts_with("cfg_attr") && has_word(attribute, word, then);
                conditional || (has_word(attribute, word, then) && attribute.trim_start().starts_with(word))
            };
            let unwraps = given("expect", "(") && has_word(attribute, "unwrap_used", "");
            let what = if given("ignore", "") {
                "an ignored test is none: assert today's wrong answer with a FIXME"
            } else if given("allow", "(") {
                "use #[expect(…, reason = \"…\")], which tells when it is no longer needed"
            } else if unwraps && !is_test(path) && line <= lines_beside_tests(text) {
                "no unwrap outside tests: expect(\"why it cannot fail\")"
            } else {
                continue;
            };
            problems.push(problem("attributes", path, line, what));
        }
    }
    problems
}

pub(super) fn unsafe_outside(repository: &Repository) -> Vec<Problem> {
    let others = repository.sources().filter(|(path, ..)| !path.starts_with("crates/sandbox/"));
    let found = others.flat_map(|(path, _, source)| {
        let lines = source.lines_with("unsafe", "");
        lines.map(move |line| problem("unsafe", path, line, "only crates/sandbox has unsafe code"))
    });
    found.collect()
}

pub(super) fn sql_outside(repository: &Repository) -> Vec<Problem> {
    let elsewhere = |path: &str| !path.starts_with("crates/store/");
    let mut problems = Vec::new();
    for (path, _, source) in repository.sources().filter(|(path, ..)| elsewhere(path)) {
        for (line, literal) in &source.strings {
            if is_sql(literal) {
                problems.push(problem(
                    "sql",
                    path,
                    *line,
                    "only crates/store knows SQL: ask the Store trait",
                ));
            }
        }
    }
    let files = repository.ending(".sql").filter(|(path, _)| elsewhere(path));
    problems.extend(files.map(|(path, _)| problem("sql", path, 1, "only crates/store knows SQL")));
    problems
}

/// Whether a text begins as a statement does. Prose may have these words too, but not in this order.
fn is_sql(text: &str) -> bool {
    let words: Vec<_> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["insert", "into", ..] | ["insert", "or", _, "into", ..] | ["delete", "from", ..] => true,
        ["create" | "drop" | "alter", "table" | "index" | "unique" | "view" | "trigger", ..] => true,
        ["pragma", _, ..] => true,
        ["update", _, "set", rest @ ..] => rest.iter().any(|word| word.contains('=')),
        ["select", columns @ ..] => {
            columns.contains(&"from")
                && (columns[0] == "*" || columns.contains(&"where") || text.starts_with("SELECT"))
        }
        _ => false,
    }
}

/// What does no I/O and reads no clock, and so can be tested by tables alone.
const PURE: &[&str] = &[
    "crates/protocol/src/",
    "crates/ledger/src/",
    "crates/policy/src/",
    "crates/session/src/life",
    "crates/session/src/state",
    "crates/session/src/tools",
    "crates/session/src/translate",
];

/// What would be I/O, a clock or chance.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::os",
    "tokio",
    "getrandom",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

pub(super) fn pure(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text, source) in repository.sources() {
        if !PURE.iter().any(|pure| path.starts_with(pure)) || is_test(path) {
            continue;
        }
        let last = lines_beside_tests(text);
        for (line, code) in source.lines().take_while(|(line, _)| *line <= last) {
            for word in IMPURE.iter().filter(|word| has_word(code, word, "")) {
                let what = format!("{word}: this part does no I/O, reads no clock and throws no dice");
                problems.push(problem("pure", path, line, what));
            }
        }
    }
    problems
}

fn is_test(path: &str) -> bool {
    ["/tests/", "/benches/", "/examples/"].iter().any(|part| path.contains(part))
        || path.ends_with("/tests.rs")
}
