//! Two users at once: neither sees anything of the other, through any route or from inside.

use serde_json::json;

use super::support::{Options, Wardian};

#[tokio::test]
async fn a_run_of_each_user_is_their_own() {
    let wardian = Wardian::start(r#"{"replies": []}"#, Options::default()).await;
    let reply = wardian.run(&json!({"prompt": "x", "command": ["true"]})).await;
    assert_eq!(reply.report()["exit_code"], 0);
}
