//! Rules on manifests: who may depend on whom.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{Problem, Repository, problem};

/// Dependencies point one way. A crate may use those on its line and what these may use, in turn; and its tests also the
/// scripted model and the test kit. A new line or edge is rare, and argued for.
const EDGES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("ledger", &["protocol"]),
    ("policy", &["protocol"]),
    ("agent", &["protocol", "policy", "ledger"]),
    ("sandbox", &["protocol"]),
    ("store", &["protocol"]),
    ("gateway", &["ledger", "store", "policy"]),
    ("session", &["sandbox", "gateway", "store", "policy"]),
    ("server", &["session"]),
    ("model", &["protocol"]),
    ("cli", &["server", "model"]),
    ("testkit", &["model"]),
];

/// What only tests may use, whatever the crate.
const FOR_TESTS: &[&str] = &["model", "testkit"];

/// Crates of others that have one place here, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("rusqlite", &["store"], "only the store knows SQL"),
    ("sqlx", &["store"], "only the store knows SQL"),
    ("anyhow", &["cli"], "a library has errors that a caller can tell apart"),
    ("axum", &["server", "model"], "only the server, and what plays the model's, speak our HTTP"),
    ("libc", &["sandbox"], "only the sandbox has unsafe code"),
    ("clap", &["cli"], "flags are the program's; below it are values"),
];

pub(super) fn direction(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for_manifests(repository, "direction", &mut problems, |folder, manifest| {
        if !EDGES.iter().any(|(name, _)| *name == folder) {
            return vec![
                "a new crate: give it a line in EDGES of crates/testkit, and argue for it".to_owned(),
            ];
        }
        let allowed = reachable(folder);
        let ours =
            dependencies(manifest).filter_map(|(name, for_tests)| Some((our_folder(name)?, for_tests)));
        let wrong = ours.filter(|(name, for_tests)| {
            !(allowed.contains(name) || *for_tests && (FOR_TESTS.contains(name) || *name == folder))
        });
        wrong
            .map(|(name, _)| format!("{folder} must not depend on {name}: dependencies point one way"))
            .collect()
    });
    problems
}

pub(super) fn only_in(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for_manifests(repository, "only-in", &mut problems, |folder, manifest| {
        let normal = dependencies(manifest).filter(|(_, for_tests)| !for_tests).map(|(name, _)| name);
        let rules = normal.filter_map(|name| ONLY_IN.iter().find(|(only, _, _)| *only == name));
        let broken = rules.filter(|(_, homes, _)| !homes.contains(&folder));
        broken.map(|(name, homes, why)| format!("{name} is for {}: {why}", homes.join(" and "))).collect()
    });
    problems
}

/// Every crate has the lints of the workspace; the sandbox, which has unsafe code, writes its own and must explain each block.
pub(super) fn lints(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for_manifests(repository, "lints", &mut problems, |folder, manifest| {
        let lint = |group: &str| manifest.get("lints").and_then(|lints| lints.get(group));
        let explained = lint("clippy").and_then(|clippy| clippy.get("undocumented_unsafe_blocks"));
        let explains = folder == "sandbox" && explained.and_then(Value::as_str) == Some("deny");
        if explains || lint("workspace").and_then(Value::as_bool) == Some(true) {
            Vec::new()
        } else {
            vec!["[lints] workspace = true is missing".to_owned()]
        }
    });
    problems
}

pub(super) fn packages(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for_manifests(repository, "packages", &mut problems, |folder, manifest| {
        let expected = if folder == "cli" { "wardian".to_owned() } else { format!("wardian-{folder}") };
        let name = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
        if name == Some(&expected) { Vec::new() } else { vec![format!("the package is called {expected}")] }
    });
    problems
}

/// Runs a rule on every crate's manifest; one that cannot be read is a problem of its own.
fn for_manifests(
    repository: &Repository,
    rule: &'static str,
    problems: &mut Vec<Problem>,
    check: impl Fn(&str, &Table) -> Vec<String>,
) {
    for folder in repository.crates() {
        let path = format!("crates/{folder}/Cargo.toml");
        let whats = match repository.get(&path).unwrap_or_default().parse::<Table>() {
            Ok(manifest) => check(folder, &manifest),
            Err(error) => vec![error.message().to_owned()],
        };
        problems.extend(whats.into_iter().map(|what| problem(rule, &path, 1, what)));
    }
}

/// The packages that a manifest names, and whether only for tests.
fn dependencies(manifest: &Table) -> impl Iterator<Item = (&str, bool)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let sections = std::iter::once(manifest).chain(targets);
    sections.flat_map(|section| {
        let kinds = [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
        kinds.into_iter().flat_map(move |(kind, for_tests)| {
            let table = section.get(kind).and_then(Value::as_table);
            let named = table.into_iter().flatten();
            named.map(move |(key, value)| {
                let package = value.get("package").and_then(Value::as_str);
                (package.unwrap_or(key), for_tests)
            })
        })
    })
}

fn our_folder(package: &str) -> Option<&str> {
    if package == "wardian" { Some("cli") } else { package.strip_prefix("wardian-") }
}

/// Everything that a crate's line allows.
fn reachable(folder: &str) -> BTreeSet<&'static str> {
    let line = EDGES.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, edges)| *edges);
    let further = line.iter().flat_map(|name| reachable(name));
    line.iter().copied().chain(further).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_point_upwards_only() {
        for (at, (name, edges)) in EDGES.iter().enumerate() {
            for edge in *edges {
                assert!(EDGES[..at].iter().any(|(above, _)| above == edge), "{name} -> {edge}");
            }
        }
    }
}
