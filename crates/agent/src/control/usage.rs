//! What the session has used.

use std::fmt::Write as _;

use serde_json::json;
use wardian_agent::UsageReport;

use super::Front;
use super::request::{Answer, Done};

impl Front {
    pub(super) fn get_usage(&mut self) -> Done {
        let handle = self.handle();
        Ok(Answer::Later(Box::pin(async move {
            let used = handle.usage().await.map_err(|error| format!("failed to {error}"))?;
            let UsageReport { total_cost, api_time, wall_time, by_model } = used;
            Ok(json!({
                "session": {
                    "total_cost_usd": total_cost,
                    "total_api_duration_ms": u64::try_from(api_time.as_millis()).unwrap_or(u64::MAX),
                    "total_duration_ms": u64::try_from(wall_time.as_millis()).unwrap_or(u64::MAX),
                    "total_lines_added": 0,
                    "total_lines_removed": 0,
                    "model_usage": by_model,
                },
                "subscription_type": null,
                "rate_limits_available": false,
                "rate_limits": null,
                "behaviors": null,
            }))
        })))
    }

    pub(super) async fn get_session_cost(&mut self) -> Done {
        let used = self.handle().usage().await.map_err(|error| format!("failed to {error}"))?;
        Ok(Answer::Now(json!({"text": in_words(&used)})))
    }
}

fn in_words(used: &UsageReport) -> String {
    let UsageReport { total_cost, api_time, wall_time, by_model } = used;
    let mut text = format!(
        "Cost by list price: ${:.4}\nTime: {:.1} s, {:.1} s of it waiting for models",
        total_cost.as_usd(),
        wall_time.as_secs_f64(),
        api_time.as_secs_f64(),
    );
    for (model, usage) in by_model {
        // Writing into a string does not fail.
        let _ = write!(
            text,
            "\n{model}: {} in, {} out, {} read from the cache, {} written to it (${:.4})",
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
            usage.cost_usd.as_usd(),
        );
    }
    text
}
