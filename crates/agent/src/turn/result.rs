//! The result of a turn.
//!
//! source: the agent protocol reference, sections 1.3 and 2.7.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardian_protocol::Usage;
use wardian_protocol::frame::ModelUsage;

use super::Turn;
use crate::execute::Deferred;
use crate::session::Session;
use crate::spending::millis;
use crate::state::End;
use crate::{Message, ResultMessage, random};

impl Session {
    /// Gives the result, and says that the session rests.
    pub(crate) async fn give_result(&mut self, turn: Turn, end: End) {
        let subtype = end.subtype();
        let meter = self.setup.meter().clone();
        let extra = self.more_of_result(&turn, end, meter.by_model());
        let mut denials = turn.denials;
        let shown = turn.shown.filter(|_| !turn.result.is_empty()).unwrap_or(turn.result);
        denials.extend(self.setup.tasks.take_denials());
        let result = ResultMessage {
            subtype: subtype.to_owned(),
            is_error: end.is_error(),
            duration_ms: millis(turn.spending.times.began.elapsed()),
            duration_api_ms: millis(turn.spending.api_time),
            num_turns: if end == End::PromptRefused || turn.local_command.is_some() {
                0
            } else {
                turn.progress.num_turns()
            },
            result: (subtype == "success").then_some(shown),
            stop_reason: turn.stop_reason.clone(),
            session_id: self.setup.out.session_id.clone(),
            total_cost_usd: meter.total(),
            usage: whole(turn.spending.usage),
            model_usage: meter.by_model().clone(),
            permission_denials: denials,
            terminal_reason: end
                .terminal_reason()
                .filter(|_| turn.local_command.is_none())
                .map(str::to_owned),
            errors: match end {
                End::Unstructured => vec![turn.output.error()],
                end => end.errors(self.setup.limits, turn.stop_reason.as_deref()),
            },
            uuid: Some(random::uuid()),
            extra,
        };
        tracing::info!(
            subtype, turns = result.num_turns, took_ms = result.duration_ms, cost = %result.total_cost_usd,
            reason = result.terminal_reason.as_deref(), "turn ended"
        );
        self.results += 1;
        self.ended_well = end == End::Completed && turn.local_command.is_none();
        self.reported = meter.by_model().clone();
        let result = Message::Result(Box::new(result));
        self.setup.out.keep_turn_end(&result).await;
        self.setup.out.send(result).await;
    }

    fn more_of_result(
        &self,
        turn: &Turn,
        end: End,
        by_model: &BTreeMap<String, ModelUsage>,
    ) -> wardian_protocol::JsonMap {
        let mut extra = wardian_protocol::JsonMap::new();
        let spending = &turn.spending;
        if let Some(Deferred { id, name, input }) = &turn.deferred {
            extra.insert("deferred_tool_use".to_owned(), json!({"id": id, "name": name, "input": input}));
        }
        if let Some(command) = turn.local_command {
            extra.insert("local_command".to_owned(), command.into());
        } else if end.subtype() == "success" && !matches!(end, End::PromptRefused | End::Deferred) {
            let status = turn.api_error.as_ref().and_then(|error| error.status);
            extra.insert("api_error_status".to_owned(), status.into());
            if let Some(kind) = turn.api_error.as_ref().and_then(|error| error.kind.clone()) {
                extra.insert("api_error_type".to_owned(), kind.into());
            }
            if turn.api_error.as_ref().is_some_and(|error| error.lost) {
                extra.insert("api_error".to_owned(), "connection_failed".into());
            }
            if !end.is_error() {
                extra.extend(spending.times.fields(!spending.prompts.is_empty()));
            }
        }
        extra.extend(spending.marks());
        extra.extend(turn.origin.clone().map(|origin| ("origin".to_owned(), origin)));
        if self.setup.include_partial_messages {
            extra.insert("begun_message_ids".to_owned(), spending.begun.clone().into());
        }
        if let Some(output) = &turn.output.given {
            extra.insert("structured_output".to_owned(), output.clone());
        }
        let since = since(by_model, &self.reported);
        for (name, value) in [
            ("model_usage_since_last_result", json!(since)),
            ("fast_mode_state", json!("off")),
            ("fast_mode_disabled_reason", json!("unknown")),
            ("queued_turn_count", json!(self.queue.len())),
            ("result_index", json!(self.results)),
            ("safety_stops", json!(turn.progress.refusals)),
            ("subagent_stats", self.setup.tasks.stats()),
        ] {
            extra.insert(name.to_owned(), value);
        }
        extra
    }
}

/// The usage with every field that clients read without asking.
pub(crate) fn whole(mut usage: Usage) -> Usage {
    let uses = usage.server_tool_use.get_or_insert_default();
    uses.web_search_requests.get_or_insert(0);
    uses.web_fetch_requests.get_or_insert(0);
    let writes = usage.cache_creation.get_or_insert_default();
    writes.ephemeral_1h_input_tokens.get_or_insert(0);
    writes.ephemeral_5m_input_tokens.get_or_insert(0);
    usage.service_tier.get_or_insert_with(|| "standard".to_owned());
    usage.speed.get_or_insert_with(|| "standard".to_owned());
    usage.inference_geo.get_or_insert_default();
    usage.iterations.get_or_insert_default();
    let no_thinking = json!({"thinking_tokens": 0});
    usage.extra.entry("output_tokens_details").or_insert(no_thinking);
    usage.extra.entry("fallback_credit").or_insert(Value::Null);
    usage
}

/// The usage of a turn that made no request, with every field that clients read without asking.
#[must_use]
pub fn empty_usage() -> Usage {
    whole(crate::meter::no_usage())
}

/// What was used since another count.
fn since(
    now: &BTreeMap<String, ModelUsage>,
    then: &BTreeMap<String, ModelUsage>,
) -> BTreeMap<String, ModelUsage> {
    let used = |(model, now): (&String, &ModelUsage)| {
        let Some(then) = then.get(model) else { return Some((model.clone(), now.clone())) };
        (now != then).then(|| (model.clone(), difference(now, then)))
    };
    now.iter().filter_map(used).collect()
}

fn difference(now: &ModelUsage, then: &ModelUsage) -> ModelUsage {
    let mut used = now.clone();
    for (mine, theirs) in [
        (&mut used.input_tokens, then.input_tokens),
        (&mut used.output_tokens, then.output_tokens),
        (&mut used.cache_read_input_tokens, then.cache_read_input_tokens),
        (&mut used.cache_creation_input_tokens, then.cache_creation_input_tokens),
        (&mut used.web_search_requests, then.web_search_requests),
    ] {
        *mine = mine.saturating_sub(theirs);
    }
    used.cost_usd = used.cost_usd.saturating_sub(then.cost_usd);
    for (name, value) in &mut used.extra {
        if let (Some(mine), Some(theirs)) = (value.as_u64(), then.extra.get(name).and_then(Value::as_u64)) {
            *value = mine.saturating_sub(theirs).into();
        }
    }
    used
}
