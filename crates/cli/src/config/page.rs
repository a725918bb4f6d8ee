//! `docs/configuration.md`, made from the commented example and from the flags of `wardian serve`.

use std::path::Path;

use clap::{Args as _, Command};

use super::EXAMPLE;

const HEAD: &str = "\
# Configuration

What `wardian serve` is told: flags stand over environment variables, those over the file of `--config`, that over the defaults. `wardian config`
prints the file with every key and its default. Unknown keys and wrong values are errors, all at once, and nothing is started. How to operate it is in
[operations](operations.md). This page is made from the code, and a test compares the two.
";

const ENVIRONMENT: &str = "
Only from the environment: `ANTHROPIC_API_KEY`, the provider's key; `WARDIAN_LOG`, what is logged (`info`, `debug`, `info,wardian_gateway=debug`); and the
standard's own `OTEL_…`.
";

/// The page as the code says it; `WARDIAN_WRITE_CONFIGURATION=1` writes it.
#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = format!("{HEAD}{}{ENVIRONMENT}{}", flags(), keys());
    if std::env::var_os("WARDIAN_WRITE_CONFIGURATION").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stale =
        "docs/configuration.md is stale: WARDIAN_WRITE_CONFIGURATION=1 cargo nextest run -p wardian page";
    assert!(std::fs::read_to_string(&path).unwrap() == page, "{stale}");
}

/// The flags of `wardian serve`, a row each.
fn flags() -> String {
    let mut table = "\n## Flags and environment\n\n| flag | environment | |\n|---|---|---|\n".to_owned();
    let command = crate::serve::Arguments::augment_args(Command::new("serve"));
    for flag in command.get_arguments() {
        let name = flag.get_long().unwrap();
        let takes = flag.get_action().takes_values();
        let value = flag.get_value_names().filter(|_| takes).map(|names| format!(" {}", names.join(" ")));
        let env = flag.get_env().map_or("—".to_owned(), |name| format!("`{}`", name.to_string_lossy()));
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        table += &format!("| `--{name}{}` | {env} | {} |\n", value.unwrap_or_default(), sentence(&help));
    }
    table
}

/// The keys of the file, a table for each of its tables. A comment is of the keys that follow it without an empty line.
fn keys() -> String {
    const COLUMNS: &str = "| key | default | |\n|---|---|---|\n";
    let mut page = format!("\n## The file\n\n{COLUMNS}");
    let mut comment: Vec<&str> = Vec::new();
    for line in EXAMPLE.lines().skip_while(|line| !line.is_empty()) {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else if let Some(table) = line.strip_prefix('[') {
            let words = std::mem::take(&mut comment).join(" ");
            let words = if words.is_empty() { words } else { format!("{words}\n\n") };
            page += &format!("\n### `[{}]`\n\n{words}{COLUMNS}", table.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ") {
            // What is said once of several keys stands with the first.
            let words = std::mem::take(&mut comment).join(" ");
            page += &format!("| `{key}` | `{value}` | {} |\n", sentence(&words));
        }
    }
    page
}

/// Words as they may stand in a cell.
fn sentence(words: &str) -> String {
    let words = words.replace('|', "\\|");
    if words.is_empty() || words.ends_with(['.', ']']) { words } else { format!("{words}.") }
}
