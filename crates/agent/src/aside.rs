//! Questions that tools ask the model beside the conversation: what they cost is counted, nothing of them is shown or kept.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wardian_protocol::Message;

use crate::call::{Called, call_model};
use crate::models::api_name;
use crate::request::{ModelRequest, extend};
use crate::session::Setup;
use crate::spending::Spending;

/// The most tokens of an answer: a page's worth.
const MAX_TOKENS: u64 = 8_000;

impl Setup {
    /// Asks a model. `question`: the fields of the request besides its size and whose it is.
    pub(crate) async fn ask_aside(
        &self,
        model: &str,
        mut question: Value,
        stop: &CancellationToken,
    ) -> Result<Message, String> {
        if self.limits.before_call(self.spent()).is_some() {
            return Err("the budget is used up".to_owned());
        }
        question["model"] = api_name(model).into();
        question["stream"] = true.into();
        question["metadata"] = json!({"user_id": json!({"session_id": self.out.session_id}).to_string()});
        let write = |max_tokens: u64| {
            let mut body = question.clone();
            body["max_tokens"] = max_tokens.into();
            extend(&mut body, &self.extra_body);
            ModelRequest { body: Bytes::from(body.to_string()), model: model.to_owned() }
        };
        let max_tokens = self.max_tokens(model).min(MAX_TOKENS);
        match call_model(&self.quietly(), &mut Spending::new(), max_tokens, write, false, stop).await {
            Called::Replied(whole) => Ok(whole.message),
            Called::Broken(_, failure) | Called::Failed(failure) => Err(failure.describe()),
            Called::Interrupted(_) => Err("it was stopped".to_owned()),
        }
    }
}
