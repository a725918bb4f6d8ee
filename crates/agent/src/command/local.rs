//! Commands that the model is not asked for: `/clear`, `/compact`, `/context`, `/cost`.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wardian_protocol::{ContentBlock, MessageParam, NanoUsd, Role};

use super::{Typed, tags, typed};
use crate::authorise::lock;
use crate::compact::{Fill, Trigger, Uncompacted};
use crate::context;
use crate::meter::Meter;
use crate::session::Session;
use crate::state::End;
use crate::turn::Turn;
use crate::{Message, UserMessage, prompt, random, words};

/// A command that is done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Clear,
    Compact,
    Context,
    Cost,
    Usage,
}

impl Local {
    /// The command that a prompt is, if it is one of these.
    pub(crate) fn of(prompt: &UserMessage) -> Option<(Self, Typed)> {
        let typed = typed(prompt)?;
        let local = match typed.name.as_str() {
            "clear" | "reset" | "new" => Self::Clear,
            "compact" => Self::Compact,
            "context" => Self::Context,
            "cost" => Self::Cost,
            "usage" => Self::Usage,
            _ => return None,
        };
        Some((local, typed))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Compact => "compact",
            Self::Context => "context",
            Self::Cost => "cost",
            Self::Usage => "usage",
        }
    }
}

impl Session {
    /// Does a command in the place of a turn, from what it does to its result.
    pub(crate) async fn run_local(
        &mut self,
        mut turn: Turn,
        (local, typed): (Local, Typed),
        prompt: UserMessage,
        stop: &CancellationToken,
    ) {
        let uuid = prompt.uuid.unwrap_or_else(random::uuid);
        self.prompts.insert(uuid.clone());
        turn.local_command = Some(local.name());
        self.settle().await;
        let mut end = End::Completed;
        match local {
            Local::Clear => {
                self.clear(&uuid).await;
                self.give_init(&turn).await;
            }
            Local::Compact => {
                let instructions = Some(typed.arguments.as_str()).filter(|text| !text.is_empty());
                match self.compact(&turn, Trigger::Manual, instructions, stop).await {
                    Ok(()) => self.note_output(&uuid, &typed, "Compacted ", true).await,
                    Err(Uncompacted::Empty) => {
                        self.give_init(&turn).await;
                        self.say_output(&uuid, &typed, words::NOTHING_TO_COMPACT, json!({})).await
                    }
                    Err(Uncompacted::Stopped) => {
                        end = End::AbortedStreaming;
                        turn.local_command = None;
                        self.note_output(&uuid, &typed, words::INTERRUPTED, true).await;
                    }
                    Err(Uncompacted::Failed(message)) => {
                        let text = format!("{}{message}", words::NOT_COMPACTED);
                        self.say_output(&uuid, &typed, &text, json!({})).await;
                    }
                }
            }
            Local::Context => {
                self.give_init(&turn).await;
                let usage = self.context_usage();
                turn.result = context::report(&usage);
                let more = json!({"context_usage": context::summary(&usage)});
                self.say_output(&uuid, &typed, &turn.result, more).await;
            }
            Local::Cost | Local::Usage => {
                self.give_init(&turn).await;
                turn.result = self.costs();
                let more = json!({"local_command_run": {"command": "usage", "args": typed.arguments}});
                self.say_output(&uuid, &typed, &turn.result, more).await;
            }
        }
        if self.setup.out.lost().is_some() {
            end = End::Unkept;
        }
        self.give_result(turn, end).await;
    }

    /// Begins a new conversation, with an id of its own. What this query may cost stays what it was.
    async fn clear(&mut self, uuid: &str) {
        self.setup.hooks.session_ended("clear").await;
        let id = random::uuid();
        let fields = json!({
            "type": "conversation_reset",
            "new_conversation_id": id,
            "uuid": id,
            "trigger": "clear",
            "user_message_uuid": uuid,
            "timestamp": self.setup.out.timestamp(),
            "session_id": self.setup.out.session_id,
        });
        self.setup.out.send(Message::Other(fields)).await;
        let spent = self.spent();
        let setup = Arc::make_mut(&mut self.setup);
        setup.spent_before = spent;
        setup.carried = NanoUsd::ZERO;
        *setup.meter() = Meter::default();
        setup.out.session_id = id;
        let id = setup.out.session_id.clone();
        setup.out.journal = setup.out.journal.as_ref().map(|journal| Arc::new(journal.beside(&id)));
        if let Some(checkpoints) = &setup.context.checkpoints {
            checkpoints.begin_anew(&id);
        }
        setup.hooks = setup.hooks.heard_by(&setup.out);
        setup.switches.heard_by(&setup.hooks);
        self.history.clear();
        self.open = None;
        self.fill = Fill::default();
        self.waiting_prompt = None;
        self.is_new = true;
        self.told = self.setup.hooks.session_started("clear", None).await;
    }

    /// Keeps what was typed and what came of it, and gives the latter as the model's words.
    async fn say_output(&mut self, uuid: &str, typed: &Typed, text: &str, more: Value) {
        let mut fields = json!({"local_command_source": stdout(text)});
        if let (Some(fields), Some(more)) = (fields.as_object_mut(), more.as_object()) {
            fields.extend(more.clone());
        }
        self.note_output(uuid, typed, text, false).await;
        self.setup.out.local_output(text, fields).await;
    }

    /// Keeps what was typed and what came of it; the model finds both before the next prompt. `given`: the host gets the
    /// latter as a message of the user's.
    async fn note_output(&mut self, uuid: &str, typed: &Typed, text: &str, given: bool) {
        if self.history.is_empty() {
            // Nobody needs to know of it.
            if given {
                self.setup.out.replayed(vec![ContentBlock::text(stdout(text))], &random::uuid()).await;
            }
            return;
        }
        let out = &self.setup.out;
        let caveat = ContentBlock::text(prompt::reminder(words::LOCAL_COMMAND));
        let command = ContentBlock::text(tags(typed));
        let output = ContentBlock::text(stdout(text));
        let mode = lock(&self.setup.live).policy.mode.as_str();
        let message = MessageParam::new(Role::User, vec![caveat.clone(), command.clone()]);
        // What was not written is found out when the turn ends.
        let _ = out.keep_command(uuid, &message, mode).await;
        let id = random::uuid();
        let _ = out.keep_said(&id, vec![output.clone()]).await;
        if given {
            out.replayed(vec![output.clone()], &id).await;
        }
        self.hear(vec![caveat, command, output]);
    }

    fn costs(&self) -> String {
        let meter = self.setup.meter().clone();
        let mut lines =
            vec![format!("Estimated cost: ${:.4}", dollars(meter.total())), "Usage by model:".to_owned()];
        lines.extend(meter.by_model().iter().map(|(model, used)| {
            format!(
                "  {model}: {} input, {} output, {} cache read, {} cache write (${:.4})",
                used.input_tokens,
                used.output_tokens,
                used.cache_read_input_tokens,
                used.cache_creation_input_tokens,
                dollars(used.cost_usd)
            )
        }));
        lines.join("\n")
    }
}

fn dollars(amount: NanoUsd) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "four decimals are shown")]
    let nano = amount.0 as f64;
    nano / 1e9
}

/// The tag is known to hosts and to the SDKs' helpers.
fn stdout(text: &str) -> String {
    format!("<local-command-stdout>{text}</local-command-stdout>")
}
