//! Requests about what the session holds: files as they were at a prompt, and what fills the context window.

use serde::Deserialize;
use serde_json::json;
use wardian_agent::{RewindError, Rewound};

use super::Front;
use super::request::{Answer, Asked, Done};

#[derive(Deserialize)]
struct RewindFiles {
    user_message_id: String,
    #[serde(default)]
    dry_run: bool,
}

impl Front {
    /// Counts are estimates, whatever detail is asked for: nothing is sent to the API.
    pub(super) fn context_usage(&self, asked: &Asked) -> Done {
        let detail = asked.field("detail");
        if !(detail.is_null() || detail == "summary" || detail == "full") {
            return Err("get_context_usage: detail must be 'summary' or 'full'".to_owned());
        }
        let Some(handle) = self.query.as_ref().map(|query| query.handle()) else {
            return Err("the session has not begun".to_owned());
        };
        Ok(Answer::Later(Box::pin(async move {
            handle.context_usage().await.map_err(|error| format!("failed to {error}"))
        })))
    }

    /// source: the agent protocol reference, section 1.2: what cannot be done is an error, but where only that was asked.
    pub(super) fn rewind_files(&self, asked: Asked) -> Done {
        let RewindFiles { user_message_id, dry_run } = asked.read()?;
        let Some(handle) = self.query.as_ref().map(|query| query.handle()) else {
            return Err(RewindError::NotEnabled.to_string());
        };
        Ok(Answer::Later(Box::pin(async move {
            match handle.rewind_files(&user_message_id, dry_run).await {
                Ok(Rewound { files_changed, insertions, deletions, .. }) if dry_run => Ok(json!({
                    "canRewind": true,
                    "filesChanged": files_changed,
                    "insertions": insertions,
                    "deletions": deletions,
                })),
                Ok(Rewound { skipped_links, .. }) => {
                    Ok(json!({"canRewind": true, "skippedLinks": skipped_links}))
                }
                Err(error) if dry_run => Ok(json!({"canRewind": false, "error": error.to_string()})),
                Err(error) => Err(error.to_string()),
            }
        })))
    }
}
