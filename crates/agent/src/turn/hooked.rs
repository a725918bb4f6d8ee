//! Hooks on the beginning and the end of a turn.

use tokio_util::sync::CancellationToken;
use wardian_protocol::ContentBlock;

use super::{Cause, Turn, text_of};
use crate::hook::{Heard, STOP_CAP, Stopping};
use crate::session::Session;
use crate::state::End;

impl Session {
    /// Lets hooks see a prompt before anything else is done with it.
    pub(super) async fn show_hooks(&self, cause: &Cause, stop: &CancellationToken) -> Heard {
        let Cause::Prompt(prompt) = cause else { return Heard::default() };
        self.setup.hooks.begin_prompt(prompt.uuid.as_deref());
        let text = text_of(&prompt.message.content);
        tokio::select! {
            biased;
            () = stop.cancelled() => Heard::default(),
            heard = self.setup.hooks.submitted(&text) => heard,
        }
    }

    /// Lets hooks see that the model is done. `None`: they want it to go on.
    pub(super) async fn stopping(&mut self, turn: &mut Turn, stop: &CancellationToken) -> Option<End> {
        let blocks = turn.stop_blocks;
        let stopping = tokio::select! {
            biased;
            () = stop.cancelled() => Stopping::End,
            stopping = self.setup.hooks.stopping(&turn.result, blocks, self.setup.tasks.listing()) => stopping,
        };
        match stopping {
            Stopping::End => return Some(End::Completed),
            Stopping::Prevented => return Some(End::StopHookPrevented),
            Stopping::Told(context) => self.be_told(context).await,
            Stopping::Blocked(text) => {
                self.say(turn, &text).await;
                if blocks == 0 {
                    self.setup.hooks.stop_blocked().await;
                }
            }
        }
        turn.stop_blocks += 1;
        if turn.stop_blocks > STOP_CAP {
            self.setup.hooks.stop_cap_reached(turn.stop_blocks).await;
            turn.result.clear();
            return Some(End::Completed);
        }
        turn.progress.after_tools(self.setup.limits)
    }

    /// Tells the model what nobody else is shown.
    pub(crate) async fn be_told(&mut self, context: Vec<String>) {
        if context.is_empty() {
            return;
        }
        let context: Vec<ContentBlock> = context.into_iter().map(ContentBlock::text).collect();
        self.setup.out.keep_context(context.clone()).await;
        self.hear(context);
    }
}
