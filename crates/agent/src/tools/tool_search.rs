//! ToolSearch: the model looks for tools whose definitions it does not have yet. What is found is named by references,
//! and from the next request on its definition is there.
//!
//! source: the agent protocol reference, section 1.6, and the Messages API, "tool search".

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::input::parse_input;
use crate::tool::{Tool, ToolContext, ToolOutput};

/// The name that the model calls it by.
pub(crate) const NAME: &str = "ToolSearch";
/// Tools that a search gives when it does not say how many.
const DEFAULT_RESULTS: usize = 5;
/// The most tools that a search gives.
const MAX_RESULTS: usize = 50;
/// Words of a query that count.
const MAX_WORDS: usize = 32;

const DESCRIPTION: &str = "\
Finds tools that you know only by name, and loads their definitions so that you can call them.

Ask for tools by name with `select:NAME,NAME`, or describe what you need in a few words. A word with a plus before it \
(`+github issue`) must be in the name of the tool or of its server. The tools found can be called from your next reply on.";

/// The tools that are there to be found, and those that were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deferred(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    tools: Vec<DeferredTool>,
    loaded: BTreeSet<String>,
}

/// A tool whose definition the model gets only when it asks.
#[derive(Clone, Debug)]
pub(crate) struct DeferredTool {
    pub(crate) name: String,
    pub(crate) description: String,
}

impl Deferred {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what there is to be found.
    pub(crate) fn set(&self, tools: Vec<DeferredTool>) {
        self.lock().tools = tools;
    }

    /// Whether there is anything to be found.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().tools.is_empty()
    }

    /// Notes tools that the model has been given.
    pub(crate) fn load(&self, names: impl IntoIterator<Item = String>) {
        self.lock().loaded.extend(names);
    }

    /// The tools that the model has been given, some of which may be gone.
    pub(crate) fn loaded(&self) -> BTreeSet<String> {
        self.lock().loaded.clone()
    }

    /// How many tools the model has been given.
    pub(crate) fn count(&self) -> usize {
        self.lock().loaded.len()
    }
}

/// The tool.
#[derive(Debug)]
pub(crate) struct ToolSearch(pub(crate) Deferred);

#[derive(Deserialize)]
struct Input {
    query: String,
    max_results: Option<usize>,
}

impl Tool for ToolSearch {
    fn name(&self) -> &str {
        NAME
    }
    fn description(&self) -> &str {
        DESCRIPTION
    }
    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "`select:NAME,NAME`, or words for what you need"},
                "max_results": {"type": "integer", "description": "How many tools to load at the most (default 5)"},
            },
            "required": ["query"],
            "additionalProperties": false,
        })
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn call<'a>(&'a self, input: Value, _: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(std::future::ready(self.search(input)))
    }
}

impl ToolSearch {
    fn search(&self, input: Value) -> ToolOutput {
        let input: Input = match parse_input(NAME, &self.input_schema(), input) {
            Ok(input) => input,
            Err(failure) => return failure.into(),
        };
        let most = input.max_results.unwrap_or(DEFAULT_RESULTS).clamp(1, MAX_RESULTS);
        let mut known = self.0.lock();
        let found = find(&known.tools, &input.query, most);
        known.loaded.extend(found.iter().cloned());
        let structured = json!({
            "matches": found,
            "query": input.query,
            "total_deferred_tools": known.tools.len(),
        });
        if found.is_empty() {
            return ToolOutput::ok("No tool that can be loaded fits this.", structured);
        }
        let references = found.iter().map(|name| json!({"type": "tool_reference", "tool_name": name}));
        ToolOutput { content: references.collect(), ..ToolOutput::ok("", structured) }
    }
}

/// The names of the tools that fit a query, the best first.
fn find(tools: &[DeferredTool], query: &str, most: usize) -> Vec<String> {
    let query = query.trim();
    if let Some(names) = query.strip_prefix("select:") {
        let mut found: Vec<String> = Vec::new();
        for name in names.split(',').map(str::trim) {
            let is_known = tools.iter().any(|tool| tool.name == name);
            if is_known && !found.iter().any(|other| other == name) && found.len() < MAX_RESULTS {
                found.push(name.to_owned());
            }
        }
        return found;
    }
    let words = query.split_whitespace().take(MAX_WORDS).map(str::to_lowercase);
    let (needed, wanted): (Vec<String>, Vec<String>) = words.partition(|word| word.starts_with('+'));
    let needed: Vec<&str> = needed.iter().map(|word| &word[1..]).filter(|word| !word.is_empty()).collect();
    let mut scored: Vec<(usize, &DeferredTool)> = Vec::new();
    for tool in tools {
        let name = tool.name.to_lowercase();
        if !needed.iter().all(|word| name.contains(word)) {
            continue;
        }
        let description = tool.description.to_lowercase();
        let score: usize = wanted.iter().map(|word| fit(word, &name, &description)).sum();
        if score > 0 || !needed.is_empty() {
            scored.push((score, tool));
        }
    }
    scored.sort_by(|(one, first), (other, second)| other.cmp(one).then_with(|| first.name.cmp(&second.name)));
    scored.into_iter().take(most).map(|(_, tool)| tool.name.clone()).collect()
}

/// How well a tool fits a word: its whole name, a part of its name between underscores, a piece of it, or its
/// description.
fn fit(word: &str, name: &str, description: &str) -> usize {
    if name == word {
        20
    } else if name.split(['_', '-']).any(|part| part == word) {
        10
    } else if name.contains(word) {
        5
    } else if description.split(|c: char| !c.is_alphanumeric()).any(|part| part == word) {
        3
    } else {
        usize::from(word.len() > 3 && description.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Vec<DeferredTool> {
        [
            ("mcp__github__create_issue", "Opens an issue in a repository."),
            ("mcp__github__list_issues", "Lists the issues of a repository."),
            ("mcp__lab__add", "Adds two numbers."),
            ("mcp__slack__send_message", "Writes to a channel."),
        ]
        .map(|(name, description)| DeferredTool {
            name: name.to_owned(),
            description: description.to_owned(),
        })
        .to_vec()
    }

    #[test]
    fn tools_are_found_by_name_and_by_words() {
        for (query, most, expected) in [
            ("select:mcp__lab__add,mcp__none__x,mcp__lab__add", 5, &["mcp__lab__add"][..]),
            (
                "select: mcp__lab__add , mcp__slack__send_message",
                1,
                &["mcp__lab__add", "mcp__slack__send_message"],
            ),
            ("adds numbers", 5, &["mcp__lab__add"]),
            ("issue", 5, &["mcp__github__create_issue", "mcp__github__list_issues"]),
            ("issue", 1, &["mcp__github__create_issue"]),
            ("+github nothing", 5, &["mcp__github__create_issue", "mcp__github__list_issues"]),
            ("+slack issue", 5, &["mcp__slack__send_message"]),
            ("+SLACK", 5, &["mcp__slack__send_message"]),
            ("+", 5, &[]),
            ("qqqq", 5, &[]),
            ("", 5, &[]),
            ("select:", 5, &[]),
        ] {
            assert_eq!(find(&tools(), query, most), expected, "{query}");
        }
        assert!(find(&tools(), &"x ".repeat(1 << 20), 5).is_empty());
    }

    #[test]
    fn what_is_found_is_loaded() {
        let deferred = Deferred::default();
        assert!(deferred.is_empty());
        deferred.set(tools());
        let search = ToolSearch(deferred.clone());
        let output = search.search(json!({"query": "adds", "max_results": 3}));
        assert_eq!(output.content, json!([{"type": "tool_reference", "tool_name": "mcp__lab__add"}]));
        assert_eq!(
            output.structured,
            json!({"matches": ["mcp__lab__add"], "query": "adds", "total_deferred_tools": 4})
        );
        assert_eq!(deferred.loaded().into_iter().collect::<Vec<_>>(), ["mcp__lab__add"]);
        let nothing = search.search(json!({"query": "qqqq"}));
        assert!(nothing.content.is_string() && !nothing.is_error);
        assert!(search.search(json!({"query": 7})).is_error);
        assert_eq!(deferred.count(), 1);
    }
}
