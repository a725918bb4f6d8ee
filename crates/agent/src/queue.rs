//! Prompts that wait: in their order, by their urgency, and what hosts are told of them.
//!
//! source: the agent protocol reference, sections 1.3 and 2.2, and the official CLI, observed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use wardian_protocol::ContentBlock;

use crate::frames::Out;
use crate::{Error, Message, UserMessage, random};

/// Prompts that may wait.
const MAX_QUEUED_PROMPTS: usize = 1024;

/// The prompts that wait, shared by a session and its turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<UserMessage>,
    /// What hosts are still to be told; at most three a prompt.
    news: VecDeque<Message>,
    session_id: String,
    told: bool,
    folded: bool,
    /// The model call under way.
    cut: Option<CancellationToken>,
}

/// How soon a prompt is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// The turn under way is ended for it.
    Now,
    /// Between two rounds of the turn under way.
    Next,
    /// After it.
    Later,
}

/// What becomes of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Queued,
    Started,
    Completed,
    Cancelled,
}

impl Fate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Queue {
    /// These, a turn each.
    pub(crate) fn of(first: Vec<UserMessage>) -> Self {
        Self(Arc::new(Mutex::new(State { waiting: first.into(), ..State::default() })))
    }

    /// `told`: hosts hear what becomes of prompts. `folded`: those that wait are taken into the turn under way, and what is
    /// left at its end together.
    pub(crate) fn set_up(&self, session_id: &str, told: bool, folded: bool) {
        let mut state = self.lock();
        session_id.clone_into(&mut state.session_id);
        (state.told, state.folded) = (told, folded);
    }

    /// Adds a prompt.
    pub(crate) fn push(&self, prompt: UserMessage) -> Result<(), Error> {
        let mut state = self.lock();
        if state.waiting.len() >= MAX_QUEUED_PROMPTS {
            return Err(Error::QueueFull { limit: MAX_QUEUED_PROMPTS });
        }
        state.note(prompt.uuid.as_deref(), Fate::Queued);
        if state.folded
            && urgency(&prompt) == Urgency::Now
            && let Some(cut) = state.cut.take()
        {
            cut.cancel();
        }
        state.waiting.push_back(prompt);
        Ok(())
    }

    /// The prompts of the next turn: the first, or where they are folded all.
    pub(crate) fn take(&self) -> Vec<UserMessage> {
        let mut state = self.lock();
        let count = match state.waiting.front() {
            Some(first) if state.folded && !is_command(first) => {
                state.waiting.iter().take_while(|prompt| !is_command(prompt)).count()
            }
            Some(_) => 1,
            None => 0,
        };
        state.waiting.drain(..count).collect()
    }

    /// Adds a prompt before all others.
    pub(crate) fn push_front(&self, prompt: UserMessage) {
        self.lock().waiting.push_front(prompt);
    }

    /// Gives what a prompt cancels that cannot wait.
    pub(crate) fn arm(&self, cut: CancellationToken) {
        if self.is_urgent() {
            cut.cancel();
        }
        self.lock().cut = Some(cut);
    }

    /// The prompts that the turn under way takes in between two rounds.
    pub(crate) fn take_between(&self, goes_along: impl Fn(&UserMessage) -> bool) -> Vec<UserMessage> {
        let mut state = self.lock();
        if !state.folded {
            return Vec::new();
        }
        let (taken, left) = std::mem::take(&mut state.waiting).into_iter().partition::<Vec<_>, _>(|prompt| {
            urgency(prompt) == Urgency::Next && !is_command(prompt) && goes_along(prompt)
        });
        state.waiting = left.into();
        taken
    }

    /// Whether a prompt waits for which the turn under way is to end.
    pub(crate) fn is_urgent(&self) -> bool {
        let state = self.lock();
        state.folded && state.waiting.iter().any(|prompt| urgency(prompt) == Urgency::Now)
    }

    /// Takes a prompt back. False: it does not wait.
    pub(crate) fn cancel(&self, uuid: &str) -> bool {
        let mut state = self.lock();
        let Some(place) = state.waiting.iter().position(|prompt| prompt.uuid.as_deref() == Some(uuid)) else {
            return false;
        };
        state.waiting.remove(place);
        state.note(Some(uuid), Fate::Cancelled);
        true
    }

    /// Takes all back; gives their ids.
    pub(crate) fn cancel_all(&self) -> Vec<String> {
        let uuids = self.uuids();
        let mut state = self.lock();
        state.waiting.clear();
        for uuid in &uuids {
            state.note(Some(uuid), Fate::Cancelled);
        }
        uuids
    }

    /// The ids of the prompts that wait.
    pub(crate) fn uuids(&self) -> Vec<String> {
        self.lock().waiting.iter().filter_map(|prompt| prompt.uuid.clone()).collect()
    }

    /// Whether what waits belongs to what goes on: hosts are not told of a rest between.
    pub(crate) fn goes_on(&self) -> bool {
        let state = self.lock();
        state.folded && !state.waiting.is_empty()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Notes what became of prompts, for hosts.
    pub(crate) fn note<'a>(&self, uuids: impl IntoIterator<Item = &'a String>, fate: Fate) {
        let mut state = self.lock();
        uuids.into_iter().for_each(|uuid| state.note(Some(uuid), fate));
    }

    /// Whether hosts are still to be told something.
    pub(crate) fn has_news(&self) -> bool {
        !self.lock().news.is_empty()
    }

    /// Tells hosts the next thing that they are to be told. Can be dropped while it waits without losing anything.
    pub(crate) async fn tell(&self, out: &Out) {
        // Nobody may be listening any more.
        let permit = out.sender.reserve().await.ok();
        let news = self.lock().news.pop_front();
        if let (Some(permit), Some(news)) = (permit, news) {
            permit.send(Ok(news));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, uuid: Option<&str>, fate: Fate) {
        let Some(uuid) = uuid.filter(|_| self.told) else { return };
        self.news.push_back(Message::Other(json!({
            "type": "command_lifecycle",
            "command_uuid": uuid,
            "state": fate.as_str(),
            "uuid": random::uuid(),
            "session_id": self.session_id,
        })));
    }
}

/// Whether a prompt is a command, or reads like one: it is a turn of its own.
fn is_command(prompt: &UserMessage) -> bool {
    matches!(prompt.message.content.first(), Some(ContentBlock::Text { text, .. }) if text.starts_with('/'))
}

fn urgency(prompt: &UserMessage) -> Urgency {
    match prompt.extra.get("priority").and_then(serde_json::Value::as_str) {
        Some("now") => Urgency::Now,
        Some("later") => Urgency::Later,
        Some(_) | None => Urgency::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(uuid: &str, priority: &str) -> UserMessage {
        let message = json!({"role": "user", "content": uuid});
        serde_json::from_value(json!({"uuid": uuid, "priority": priority, "message": message})).unwrap()
    }

    fn ids(prompts: &[UserMessage]) -> Vec<&str> {
        prompts.iter().filter_map(|prompt| prompt.uuid.as_deref()).collect()
    }

    fn filled(folded: bool) -> Queue {
        let queue = Queue::default();
        queue.set_up("s", true, folded);
        for (uuid, priority) in [("a", "next"), ("b", "later"), ("c", "now"), ("d", "")] {
            queue.push(prompt(uuid, priority)).unwrap();
        }
        queue
    }

    #[test]
    fn what_waits_goes_together_or_one_by_one() {
        assert_eq!(ids(&filled(true).take()), ["a", "b", "c", "d"]);
        assert_eq!(ids(&filled(false).take()), ["a"]);
        assert!(Queue::default().take().is_empty());
    }

    #[test]
    fn a_turn_takes_in_what_is_for_it() {
        let queue = filled(true);
        assert!(queue.is_urgent());
        assert_eq!(ids(&queue.take_between(|_| true)), ["a", "d"]);
        assert_eq!(queue.uuids(), ["b", "c"]);
        let queue = filled(false);
        assert!(!queue.is_urgent() && queue.take_between(|_| true).is_empty());
    }

    #[test]
    fn what_is_taken_back_is_told_once() {
        let queue = filled(true);
        assert!(queue.cancel("b") && !queue.cancel("b") && !queue.cancel("x"));
        assert_eq!(queue.cancel_all(), ["a", "c", "d"]);
        assert_eq!(queue.len(), 0);
        let told: Vec<String> = std::mem::take(&mut queue.lock().news)
            .into_iter()
            .map(|news| {
                let news = news.to_value();
                format!("{} {}", news["command_uuid"].as_str().unwrap(), news["state"].as_str().unwrap())
            })
            .collect();
        let queued = ["a queued", "b queued", "c queued", "d queued"];
        assert_eq!(told[..4], queued);
        assert_eq!(told[4..], ["b cancelled", "a cancelled", "c cancelled", "d cancelled"]);
        assert!(!queue.has_news());
    }

    #[test]
    fn too_many_are_refused() {
        let queue = Queue::default();
        queue.set_up("s", false, true);
        for _ in 0..MAX_QUEUED_PROMPTS {
            queue.push(prompt("a", "")).unwrap();
        }
        assert!(matches!(queue.push(prompt("a", "")), Err(Error::QueueFull { .. })));
        assert!(!queue.has_news(), "who does not ask is not told");
    }
}
