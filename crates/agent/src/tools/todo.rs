//! TaskCreate, TaskGet, TaskList and TaskUpdate: the model's own list of what there is to do.
//!
//! source: the agent protocol reference, section 1.6. The list lasts as long as the session's process.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::input::parse_input;
use crate::hook::HookEvent;
use crate::tool::{Tool, ToolContext, ToolOutput};

/// The most tasks of a list: more than anybody follows, and little enough to be listed whole.
const MAX_TASKS: usize = 1_000;
/// The longest text of a task.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The four tools, over one list.
pub(super) fn tools() -> [Arc<dyn Tool>; 4] {
    let list = Arc::<Mutex<List>>::default();
    [Kind::Create, Kind::Get, Kind::List, Kind::Update]
        .map(|kind| Arc::new(TaskTool { kind, list: Arc::clone(&list) }) as Arc<dyn Tool>)
}

#[derive(Clone, Copy)]
enum Kind {
    Create,
    Get,
    List,
    Update,
}

struct TaskTool {
    kind: Kind,
    list: Arc<Mutex<List>>,
}

#[derive(Default)]
struct List {
    tasks: Vec<Task>,
    /// Numbers are not given twice.
    last: u64,
}

#[derive(Clone, Default)]
struct Task {
    id: String,
    subject: String,
    description: String,
    active_form: Option<String>,
    status: Status,
    owner: Option<String>,
    blocks: Vec<String>,
    blocked_by: Vec<String>,
    metadata: Map<String, Value>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    #[default]
    Pending,
    InProgress,
    Completed,
    Deleted,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Deleted => "deleted",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Create {
    subject: String,
    description: String,
    active_form: Option<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Get {
    task_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Update {
    task_id: String,
    subject: Option<String>,
    description: Option<String>,
    active_form: Option<String>,
    status: Option<Status>,
    #[serde(default)]
    add_blocks: Vec<String>,
    #[serde(default)]
    add_blocked_by: Vec<String>,
    owner: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl Tool for TaskTool {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Create => "TaskCreate",
            Kind::Get => "TaskGet",
            Kind::List => "TaskList",
            Kind::Update => "TaskUpdate",
        }
    }

    fn description(&self) -> &str {
        match self.kind {
            Kind::Create => {
                "Adds a task to your list of what there is to do. For work of three steps or more; a single step needs no list. \
                 It begins as pending."
            }
            Kind::Get => {
                "Shows a task of your list, whole: its description, its status, and which tasks it waits for. Read it before you \
                 begin the task."
            }
            Kind::List => {
                "Shows your list of tasks, a line each: number, status, subject, and what a task waits for. Look at it when a task \
                 is done, for what comes next."
            }
            Kind::Update => {
                "Changes a task of your list: its status (in_progress when you begin it, completed when it is wholly done, deleted \
                 when nobody needs it), its texts, or what it waits for."
            }
        }
    }

    fn input_schema(&self) -> Value {
        let id = json!({"type": "string", "description": "The task's number"});
        let text = |what: &str| json!({"type": "string", "description": what});
        let numbers = |what: &str| json!({"type": "array", "items": {"type": "string"}, "description": what});
        match self.kind {
            Kind::Create => json!({"type": "object", "properties": {
                "subject": {"type": "string", "description": "What is to be done, in a few words"},
                "description": {"type": "string", "description": "What it takes to be done"},
                "activeForm": {"type": "string", "description": "The subject while it is worked on: 'Running the tests'"},
                "metadata": {"type": "object", "description": "What else belongs to it"},
            }, "required": ["subject", "description"], "additionalProperties": false}),
            Kind::Get => {
                json!({"type": "object", "properties": {"taskId": id}, "required": ["taskId"], "additionalProperties": false})
            }
            Kind::List => json!({"type": "object", "properties": {}}),
            Kind::Update => json!({"type": "object", "properties": {
                "taskId": id,
                "subject": text("Another subject"), "description": text("Another description"),
                "activeForm": text("Another form for while it is worked on"), "owner": text("Who does it"),
                "status": {"type": "string", "enum": ["pending", "in_progress", "completed", "deleted"], "description": "How far it is"},
                "addBlocks": numbers("Tasks that wait for this one"), "addBlockedBy": numbers("Tasks that this one waits for"),
                "metadata": {"type": "object", "description": "Joined to what is there; null takes a key away"},
            }, "required": ["taskId"], "additionalProperties": false}),
        }
    }

    fn is_read_only(&self) -> bool {
        matches!(self.kind, Kind::Get | Kind::List)
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            let schema = self.input_schema();
            let done = match self.kind {
                Kind::List => Ok(self.lock().told()),
                Kind::Get => {
                    parse_input(self.name(), &schema, input).map(|input: Get| self.lock().get(&input.task_id))
                }
                Kind::Create => match parse_input(self.name(), &schema, input) {
                    Ok(input) => Ok(self.create(input, context).await),
                    Err(failure) => Err(failure),
                },
                Kind::Update => match parse_input(self.name(), &schema, input) {
                    Ok(input) => Ok(self.update(input, context).await),
                    Err(failure) => Err(failure),
                },
            };
            done.unwrap_or_else(ToolOutput::from)
        })
    }
}

impl TaskTool {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&self, input: Create, context: &ToolContext) -> ToolOutput {
        let Create { subject, description, active_form, metadata } = input;
        if subject.len() + description.len() > MAX_TEXT_BYTES {
            return ToolOutput::error(format!("a task has at most {MAX_TEXT_BYTES} bytes of text"));
        }
        let task = Task { subject, description, active_form, metadata, ..Task::default() };
        let made = self.lock().add(task);
        let task = match made {
            Ok(task) => task,
            Err(text) => return ToolOutput::error(text),
        };
        if let Some(reason) = refused(context, HookEvent::TaskCreated, &task).await {
            self.lock().tasks.retain(|other| other.id != task.id);
            return ToolOutput::error(format!("the task was not made: {reason}"));
        }
        let Task { id, subject, description, .. } = task;
        let text = format!("Task #{id} created successfully: {subject}");
        ToolOutput::ok(text, json!({"task": {"id": id, "subject": subject, "description": description}}))
    }

    async fn update(&self, input: Update, context: &ToolContext) -> ToolOutput {
        let id = input.task_id.clone();
        let found = self.lock().find(&id).cloned();
        let Some(task) = found else {
            let structured =
                json!({"success": false, "taskId": id, "updatedFields": [], "error": "Task not found"});
            return ToolOutput::ok("Task not found", structured);
        };
        let completes = input.status == Some(Status::Completed) && task.status != Status::Completed;
        if completes && let Some(reason) = refused(context, HookEvent::TaskCompleted, &task).await {
            return ToolOutput::error(format!("the task is not completed: {reason}"));
        }
        self.lock().update(input)
    }
}

impl List {
    fn find(&self, id: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.id == id)
    }

    fn add(&mut self, task: Task) -> Result<Task, String> {
        if self.tasks.len() >= MAX_TASKS {
            return Err(format!("the list has {MAX_TASKS} tasks already; delete what is done"));
        }
        self.last += 1;
        let task = Task { id: self.last.to_string(), ..task };
        self.tasks.push(task.clone());
        Ok(task)
    }

    fn told(&self) -> ToolOutput {
        let mut text = String::new();
        for task in &self.tasks {
            let _ = write!(text, "#{} [{}] {}", task.id, task.status.as_str(), task.subject);
            let open: Vec<&str> = self.waits_for(task).collect();
            if !open.is_empty() {
                let _ = write!(text, " [blocked by #{}]", open.join(", #"));
            }
            text.push('\n');
        }
        let text = if text.is_empty() { "No tasks found" } else { text.trim_end() };
        let tasks = self.tasks.iter().map(|task| {
            let open: Vec<&str> = self.waits_for(task).collect();
            let mut told = json!({"id": task.id, "subject": task.subject, "status": task.status.as_str(), "blockedBy": open});
            if let Some(owner) = &task.owner {
                told["owner"] = owner.as_str().into();
            }
            told
        });
        ToolOutput::ok(text, json!({"tasks": tasks.collect::<Vec<_>>()}))
    }

    /// The tasks that are to be done before this one.
    fn waits_for<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = &'a str> {
        let is_open = |id: &&String| self.find(id).is_some_and(|other| other.status != Status::Completed);
        task.blocked_by.iter().filter(is_open).map(String::as_str)
    }

    fn get(&self, id: &str) -> ToolOutput {
        let Some(task) = self.find(id) else {
            return ToolOutput::ok("Task not found", json!({"task": null}));
        };
        let text = format!(
            "Task #{id}: {}\nStatus: {}\nDescription: {}",
            task.subject,
            task.status.as_str(),
            task.description
        );
        let structured = json!({"task": {
            "id": task.id, "subject": task.subject, "description": task.description, "status": task.status.as_str(),
            "blocks": task.blocks, "blockedBy": task.blocked_by,
        }});
        ToolOutput::ok(text, structured)
    }

    fn update(&mut self, input: Update) -> ToolOutput {
        let Update {
            task_id,
            subject,
            description,
            active_form,
            status,
            add_blocks,
            add_blocked_by,
            owner,
            metadata,
        } = input;
        let bytes: usize =
            [&subject, &description, &active_form, &owner].into_iter().flatten().map(String::len).sum();
        if bytes > MAX_TEXT_BYTES {
            return ToolOutput::error(format!("a task has at most {MAX_TEXT_BYTES} bytes of text"));
        }
        let unknown =
            add_blocks.iter().chain(&add_blocked_by).find(|id| self.find(id).is_none() || **id == task_id);
        if let Some(unknown) = unknown {
            return ToolOutput::error(format!("no other task has the number {unknown}"));
        }
        let mut fields = Vec::new();
        for id in &add_blocks {
            self.link(&task_id, id);
        }
        for id in &add_blocked_by {
            self.link(id, &task_id);
        }
        fields.extend((!add_blocks.is_empty()).then_some("blocks"));
        fields.extend((!add_blocked_by.is_empty()).then_some("blockedBy"));
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == task_id) else {
            return ToolOutput::error("the task is gone");
        };
        let before = task.status;
        for (name, new, old) in
            [("subject", subject, &mut task.subject), ("description", description, &mut task.description)]
        {
            if let Some(new) = new.filter(|new| new != old) {
                *old = new;
                fields.push(name);
            }
        }
        for (name, new, old) in
            [("activeForm", active_form, &mut task.active_form), ("owner", owner, &mut task.owner)]
        {
            if new.is_some() && new != *old {
                *old = new;
                fields.push(name);
            }
        }
        for (key, value) in metadata.into_iter().flatten() {
            if value.is_null() {
                task.metadata.shift_remove(&key);
            } else {
                task.metadata.insert(key, value);
            }
            if !fields.contains(&"metadata") {
                fields.push("metadata");
            }
        }
        let mut structured = json!({"success": true, "taskId": task_id});
        if let Some(status) = status.filter(|status| *status != before) {
            task.status = status;
            fields.push(if status == Status::Deleted { "deleted" } else { "status" });
            structured["statusChange"] = json!({"from": before.as_str(), "to": status.as_str()});
            if status == Status::Deleted {
                self.remove(&task_id);
            }
        }
        structured["updatedFields"] = json!(fields);
        let what =
            if fields.is_empty() { "nothing: it was so already".to_owned() } else { fields.join(", ") };
        ToolOutput::ok(format!("Updated task #{task_id} {what}"), structured)
    }

    fn link(&mut self, first: &str, then: &str) {
        for task in &mut self.tasks {
            if task.id == first && !task.blocks.iter().any(|id| id == then) {
                task.blocks.push(then.to_owned());
            }
            if task.id == then && !task.blocked_by.iter().any(|id| id == first) {
                task.blocked_by.push(first.to_owned());
            }
        }
    }

    fn remove(&mut self, id: &str) {
        self.tasks.retain(|task| task.id != id);
        for task in &mut self.tasks {
            task.blocks.retain(|other| other != id);
            task.blocked_by.retain(|other| other != id);
        }
    }
}

/// Why a hook does not let a task be made, or be completed.
async fn refused(context: &ToolContext, event: HookEvent, task: &Task) -> Option<String> {
    let setup = context.within.setup()?;
    let fields =
        json!({"task_id": task.id, "task_subject": task.subject, "task_description": task.description});
    let outcome = setup.hooks.run(event, "", fields).await;
    outcome.block.or(outcome.stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(tools: &[Arc<dyn Tool>; 4], name: &str, input: Value) -> ToolOutput {
        let context = ToolContext::new("/".into(), "/".into());
        let tool = tools.iter().find(|tool| tool.name() == name).unwrap();
        tool.call(input, &context).await
    }

    #[tokio::test]
    async fn tasks_are_made_changed_and_listed() {
        let tools = tools();
        for subject in ["one", "two"] {
            let made = call(&tools, "TaskCreate", json!({"subject": subject, "description": "d"})).await;
            assert!(!made.is_error, "{made:?}");
        }
        let update = json!({"taskId": "2", "addBlockedBy": ["1"], "owner": "me", "status": "in_progress"});
        let updated = call(&tools, "TaskUpdate", update).await.structured;
        assert_eq!(updated["statusChange"], json!({"from": "pending", "to": "in_progress"}));
        assert_eq!(updated["updatedFields"], json!(["blockedBy", "owner", "status"]));
        let listed = call(&tools, "TaskList", json!({})).await;
        assert_eq!(listed.content, "#1 [pending] one\n#2 [in_progress] two [blocked by #1]");
        assert_eq!(listed.structured["tasks"][1]["blockedBy"], json!(["1"]));
        assert_eq!(
            call(&tools, "TaskGet", json!({"taskId": "1"})).await.structured["task"]["blocks"],
            json!(["2"])
        );
        call(&tools, "TaskUpdate", json!({"taskId": "1", "status": "deleted"})).await;
        let listed = call(&tools, "TaskList", json!({})).await;
        assert_eq!(listed.content, "#2 [in_progress] two");
        // A number is not given again.
        let made = call(&tools, "TaskCreate", json!({"subject": "three", "description": ""})).await;
        assert_eq!(made.structured["task"]["id"], "3");
    }

    #[tokio::test]
    async fn nonsense_is_told_and_changes_nothing() {
        let tools = tools();
        call(&tools, "TaskCreate", json!({"subject": "one", "description": "d"})).await;
        for (name, input) in [
            ("TaskCreate", json!({})),
            ("TaskCreate", json!({"subject": "x".repeat(MAX_TEXT_BYTES), "description": "y"})),
            ("TaskUpdate", json!({"taskId": "1", "status": "maybe"})),
            ("TaskUpdate", json!({"taskId": "1", "addBlocks": ["1"]})),
            ("TaskUpdate", json!({"taskId": "1", "addBlocks": ["9"]})),
            ("TaskUpdate", json!({"taskId": "1", "what": 1})),
            ("TaskGet", json!({"taskId": {}})),
        ] {
            assert!(call(&tools, name, input.clone()).await.is_error, "{name} {input}");
        }
        let missing = call(&tools, "TaskUpdate", json!({"taskId": "9", "status": "completed"})).await;
        assert_eq!((missing.is_error, &missing.structured["success"]), (false, &json!(false)));
        assert_eq!(call(&tools, "TaskGet", json!({"taskId": "9"})).await.structured, json!({"task": null}));
        for number in 1..MAX_TASKS {
            call(&tools, "TaskCreate", json!({"subject": number.to_string(), "description": ""})).await;
        }
        let full = call(&tools, "TaskCreate", json!({"subject": "s", "description": ""})).await;
        assert!(full.is_error);
    }
}
