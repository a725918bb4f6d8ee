//! Questions to the model beside the conversation: what they cost is counted, nothing of them is shown or kept.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wardian_protocol::{ContentBlock, Message, MessageParam};

use crate::Thinking;
use crate::authorise::lock;
use crate::call::{Called, call_model};
use crate::compact::with_request;
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

    /// Asks the model one thing more about a conversation, by a request that begins as the conversation's own do, so that
    /// it costs little. Nobody waits for it: it is tried once. `max_tokens`: of the answer, besides a budget for thinking.
    pub(crate) async fn ask_about(
        &self,
        history: &[MessageParam],
        request: &str,
        max_tokens: u64,
        stop: &CancellationToken,
    ) -> Option<Vec<ContentBlock>> {
        let mut quiet = self.quietly();
        quiet.retry.max_retries = 0;
        let model = self.model();
        let asked = with_request(history, request);
        let thinking = lock(&self.live).thinking.unwrap_or(self.thinking);
        let budget = if let Thinking::Budget(tokens) = thinking { tokens } else { 0 };
        let max_tokens = self.max_tokens(&model).min(max_tokens.saturating_add(budget));
        let write = |max_tokens| self.request(&model, max_tokens, &asked);
        match call_model(&quiet, &mut Spending::new(), max_tokens, write, false, stop).await {
            Called::Replied(whole) => Some(whole.message.content),
            Called::Broken(..) | Called::Failed(_) | Called::Interrupted(_) => None,
        }
    }
}
