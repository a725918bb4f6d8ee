//! Requests about what goes on beside the turn.

use serde::Deserialize;
use serde_json::json;
use wardian_agent::TaskOutput;

use super::Front;
use super::request::{Answer, Asked, Done, done};

#[derive(Deserialize)]
struct Task {
    task_id: String,
}

#[derive(Deserialize)]
struct Call {
    tool_use_id: Option<String>,
}

impl Front {
    /// source: the agent protocol reference, section 1.2: an id that nobody has is no error.
    pub(super) fn stop_task(&self, asked: Asked) -> Done {
        let Task { task_id } = asked.read()?;
        let Some(handle) = self.query.as_ref().map(|query| query.handle()) else { return done() };
        Ok(Answer::Later(Box::pin(async move {
            // The query may have just ended, and its tasks with it.
            let _ = handle.stop_task(&task_id).await;
            Ok(json!({}))
        })))
    }

    /// A host that sets up again is told what goes on. source: the agent protocol reference, section 2.3.
    pub(super) async fn tell_tasks(&self) {
        if let Some(query) = &self.query {
            // It may have just ended.
            let _ = query.handle().tell_tasks().await;
        }
    }

    pub(super) fn background_tasks(&self, asked: Asked) -> Done {
        let Call { tool_use_id } = asked.read()?;
        if !self.setup.options.background_tasks {
            return Err("nothing goes to the background in this session".to_owned());
        }
        let handle = self.query.as_ref().map(|query| query.handle());
        Ok(Answer::Later(Box::pin(async move {
            let moved = match handle {
                // It may have just ended, and its tasks with it.
                Some(handle) => handle.background_tasks(tool_use_id.as_deref()).await.unwrap_or_default(),
                None => 0,
            };
            // source: the official CLI, observed: only who names a call is told that it was not moved.
            let says_nothing = moved == 0 && tool_use_id.is_none();
            Ok(if says_nothing { json!({}) } else { json!({"backgrounded": moved > 0}) })
        })))
    }

    pub(super) fn get_task_output(&self, asked: Asked) -> Done {
        let Task { task_id } = asked.read()?;
        let handle = self.query.as_ref().map(|query| query.handle());
        Ok(Answer::Later(Box::pin(async move {
            let output = match handle {
                Some(handle) => handle.task_output(&task_id).await.unwrap_or_default(),
                None => None,
            };
            let Some(TaskOutput { output, total_bytes, truncated }) = output else {
                return Err("there is no task of this id".to_owned());
            };
            Ok(json!({"output": output, "total_bytes": total_bytes, "truncated": truncated}))
        })))
    }
}
