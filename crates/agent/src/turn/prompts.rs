//! The prompts of a turn: those that it begins with, and those that it takes in on its way.

use super::{Cause, Turn};
use crate::frames::Out;
use crate::queue::Fate;
use crate::session::Session;
use crate::{Message, UserMessage, random};

impl Session {
    /// Tells hosts that the prompts of a turn are taken; gives the ids of those that have one.
    pub(super) async fn begin_prompts(&mut self) -> Vec<String> {
        // That they were queued first.
        self.tell_news().await;
        let uuids: Vec<String> = self.taken.iter().filter_map(|prompt| prompt.uuid.clone()).collect();
        self.queue.note(&uuids, Fate::Started);
        self.tell_news().await;
        // Those before the last are heard under its id, and are not taken again.
        self.prompts.extend(uuids.iter().rev().skip(1).cloned());
        uuids
    }

    /// Gives the prompt that a turn begins with an id if it has none: hosts that are given it back find it by that id, in
    /// the transcript and among the checkpoints.
    pub(super) fn name_prompts(&mut self, cause: Cause) -> Cause {
        let Cause::Prompt(mut prompt) = cause else { return cause };
        let uuid = prompt.uuid.get_or_insert_with(random::uuid);
        if let Some(last) = self.taken.last_mut() {
            last.uuid.get_or_insert_with(|| uuid.clone());
        }
        Cause::Prompt(prompt)
    }

    /// Gives a prompt back as a message, where hosts want that.
    pub(super) async fn replay(&self, prompt: &UserMessage) {
        if self.setup.replay_user_messages {
            self.setup.out.replay(prompt).await;
        }
    }

    /// Takes in the prompts that wait for the next round.
    pub(super) async fn fold(&mut self, turn: &mut Turn) {
        let known = self.prompts.clone();
        let is_new = |prompt: &UserMessage| prompt.uuid.as_ref().is_none_or(|uuid| !known.contains(uuid));
        for mut prompt in self.queue.take_between(is_new) {
            let uuid = prompt.uuid.clone();
            prompt.uuid.get_or_insert_with(random::uuid);
            self.replay(&prompt).await;
            self.queue.note(&uuid, Fate::Started);
            self.tell_news().await;
            turn.spending.prompts.extend(uuid.clone());
            turn.folded.extend(uuid);
            self.hear_prompt(prompt, Vec::new()).await;
        }
    }
}

impl Out {
    async fn replay(&self, prompt: &UserMessage) {
        let mut prompt = prompt.clone();
        prompt.uuid.get_or_insert_with(random::uuid);
        prompt.session_id = Some(self.session_id.clone());
        prompt.extra.insert("timestamp".to_owned(), self.timestamp().into());
        prompt.extra.insert("isReplay".to_owned(), true.into());
        self.send(Message::User(prompt)).await;
    }
}
