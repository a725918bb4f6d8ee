//! `query` against the scripted model.

use serde_json::json;
use wardian_agent::query;

use crate::support::{messages, model, options, redacted, result};

#[tokio::test]
async fn a_text_turn() {
    let model = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let messages = messages(query("hi", options(&model, folder.path()))).await;
    assert!(redacted(&messages, folder.path()).contains("\"subtype\":\"init\""));
    assert_eq!(result(&messages).result.as_deref(), Some("Hello."));
}
