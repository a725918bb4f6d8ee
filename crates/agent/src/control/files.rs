//! Requests about files: the way back to a checkpoint.

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
    /// source: the agent protocol reference, section 1.2: no checkpoint is an error, one that cannot be used is not.
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
                Err(RewindError::Unknown) => Err(RewindError::Unknown.to_string()),
                Err(error @ (RewindError::NotEnabled | RewindError::Failed(_))) => {
                    Ok(json!({"canRewind": false, "error": error.to_string()}))
                }
            }
        })))
    }
}
