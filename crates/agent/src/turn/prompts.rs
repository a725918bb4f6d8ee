//! The prompts of a turn, as hosts hear of them.

use crate::frames::Out;
use crate::session::Session;
use crate::{Message, UserMessage};

impl Session {
    /// Gives a prompt back as a message, where hosts want that.
    pub(super) async fn replay(&self, prompt: &UserMessage) {
        if self.setup.replay_user_messages {
            self.setup.out.replay(prompt).await;
        }
    }
}

impl Out {
    async fn replay(&self, prompt: &UserMessage) {
        let mut prompt = prompt.clone();
        prompt.uuid.get_or_insert_with(crate::random::uuid);
        prompt.session_id = Some(self.session_id.clone());
        prompt.extra.insert("timestamp".to_owned(), self.timestamp().into());
        prompt.extra.insert("isReplay".to_owned(), true.into());
        self.send(Message::User(prompt)).await;
    }
}
