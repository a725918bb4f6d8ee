//! The tools as the engine calls them: an input goes in, an output comes out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::builtin;
use crate::tool::{Tool, ToolContext, ToolLimits, ToolOutput};

mod bash;
mod edit;
mod glob;
mod grep;
mod hostile;
mod notebook;
mod read;
mod write;

/// A working directory with the tools.
struct Place {
    _folder: TempDir,
    /// The working directory.
    cwd: PathBuf,
    context: ToolContext,
    tools: Vec<Arc<dyn Tool>>,
}

impl Place {
    fn new() -> Self {
        Self::with_limits(ToolLimits::default())
    }

    fn with_limits(limits: ToolLimits) -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let cwd = root.join("work");
        std::fs::create_dir(&cwd).unwrap();
        let context = ToolContext {
            env: Arc::new(vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
            limits: Arc::new(limits),
            ..ToolContext::new(cwd.clone(), root.join("outputs"))
        };
        Self { _folder: folder, cwd, context, tools: builtin() }
    }

    fn tool(&self, name: &str) -> &dyn Tool {
        self.tools.iter().find(|tool| tool.name() == name).unwrap().as_ref()
    }

    async fn call(&self, name: &str, input: Value) -> ToolOutput {
        self.tool(name).call(input, &self.context).await
    }

    /// Calls a tool that must not fail, and gives its text.
    async fn ok(&self, name: &str, input: Value) -> String {
        let output = self.call(name, input).await;
        assert!(!output.is_error, "{}", output.content);
        text(&output)
    }

    /// Calls a tool that must fail, and gives its text.
    async fn fails(&self, name: &str, input: Value) -> String {
        let output = self.call(name, input).await;
        assert!(output.is_error, "{}", output.content);
        assert_eq!(output.structured, json!(format!("Error: {}", text(&output))));
        text(&output)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cwd.join(name)
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn get(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names in a folder, sorted.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn text(output: &ToolOutput) -> String {
    output.content.as_str().expect("a text").to_owned()
}

fn make_fifo(path: &Path) {
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Sets when a file was modified, in seconds since 1970.
fn set_modified(path: &Path, seconds: u64) {
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn all_tools_are_described() {
    let tools = builtin();
    let names: Vec<_> = tools.iter().map(|tool| tool.name()).collect();
    assert_eq!(
        names,
        [
            "Agent",
            "AskUserQuestion",
            "Bash",
            "Edit",
            "EnterPlanMode",
            "ExitPlanMode",
            "Glob",
            "Grep",
            "NotebookEdit",
            "Read",
            "TaskStop",
            "WebFetch",
            "WebSearch",
            "Write",
            "TaskCreate",
            "TaskGet",
            "TaskList",
            "TaskUpdate"
        ]
    );
    for tool in &tools {
        let schema = tool.input_schema();
        assert_eq!(schema["type"], "object");
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().unwrap().len() > 5, "{} {name}", tool.name());
        }
        assert!(tool.description().len() > 100);
        assert_eq!(
            tool.is_read_only(),
            ["AskUserQuestion", "Glob", "Grep", "Read", "TaskGet", "TaskList"].contains(&tool.name())
        );
    }
}

#[tokio::test]
async fn each_tool_checks_its_input() {
    let place = Place::new();
    for (tool, missing) in [
        ("Bash", "command"),
        ("Edit", "old_string"),
        ("Glob", "pattern"),
        ("Grep", "pattern"),
        ("Read", "file_path"),
        ("Write", "content"),
    ] {
        let error = place.fails(tool, json!({"wat": 1})).await;
        let start = format!(
            "<tool_use_error>InputValidationError: {tool} failed due to the following issues:\n\
             `"
        );
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains(&format!("`{missing}` is missing")), "{error}");
        let input = place.tool(tool).input_schema()["required"].clone();
        let names =
            input.as_array().unwrap().iter().map(|name| (name.as_str().unwrap().to_owned(), json!("x")));
        let mut input: serde_json::Map<String, Value> = names.collect();
        input.insert("wat".to_owned(), json!(1));
        let error = place.fails(tool, Value::Object(input)).await;
        assert!(error.contains("`wat` is not known") || error.contains("unknown field `wat`"), "{error}");
    }
}
