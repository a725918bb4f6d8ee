//! What a turn does next, decided over data alone.
//!
//! source: the agent protocol reference, sections 2.6 and 2.7.

use wardian_protocol::NanoUsd;

/// How often in a row a reply that hit its length limit is asked to go on.
const MAX_CONTINUATIONS: u32 = 3;
/// How often in a row the API may pause a reply.
const MAX_PAUSES: u32 = 16;
/// How often in a turn the model is asked again after a refusal. source: observed of the official CLI.
const MAX_RETELLINGS: u64 = 1;

/// What a turn may use up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) max_turns: Option<u64>,
    pub(crate) max_budget: Option<NanoUsd>,
}

/// How far a turn has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Replies of the model.
    pub(crate) replies: u64,
    /// User messages that the turn made.
    pub(crate) user_messages: u64,
    /// Replies that a safety check of the API stopped.
    pub(crate) refusals: u64,
    continuations: u32,
    pauses: u32,
}

/// What is known of a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyFacts<'a> {
    pub(crate) stop_reason: Option<&'a str>,
    pub(crate) tool_calls: usize,
    /// What the process has cost, this reply included.
    pub(crate) spent: NanoUsd,
}

/// What comes after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its calls.
    RunTools,
    /// It was cut at its length limit: the model is asked to go on.
    Continue,
    /// The API paused it: the same conversation is sent again.
    Resume,
    /// A safety check of the API stopped it: the model is told so, and asked once more.
    Retell,
    /// Nothing.
    End(End),
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    MaxTurns,
    Budget,
    ApiError,
    /// The API takes no prompt of this length.
    PromptTooLong,
    /// The API takes no request of this size.
    RequestTooLarge,
    Refused,
    ContextFull,
    AbortedStreaming,
    AbortedTools,
    /// A prompt that could not wait came while the model replied.
    CutStreaming,
    /// The same while tools ran: they ended, and the model does not hear of it in this turn.
    CutTools,
    HookStopped,
    /// A hook on the end of the turn ended it.
    StopHookPrevented,
    /// A hook refused the prompt.
    PromptRefused,
    Deferred,
    /// No structured output came that fits.
    Unstructured,
    /// The conversation could not be kept.
    Unkept,
}

impl Limits {
    /// Whether the next model call may be made at all.
    pub(crate) fn before_call(self, spent: NanoUsd) -> Option<End> {
        self.over_budget(spent).then_some(End::Budget)
    }

    fn over_budget(self, spent: NanoUsd) -> bool {
        self.max_budget.is_some_and(|budget| spent >= budget)
    }

    fn out_of_turns(self, progress: &Progress) -> bool {
        self.max_turns.is_some_and(|turns| progress.replies >= turns)
    }
}

impl Progress {
    /// Counts a reply in, and decides what follows it.
    pub(crate) fn after_reply(&mut self, limits: Limits, reply: &ReplyFacts<'_>) -> Step {
        self.replies += 1;
        let continuations = std::mem::take(&mut self.continuations);
        let pauses = std::mem::take(&mut self.pauses);
        // Money first: the reply was paid for, what it asks for is not done any more.
        if limits.over_budget(reply.spent) {
            return Step::End(End::Budget);
        }
        match reply.stop_reason {
            Some("refusal") => {
                self.refusals += 1;
                if self.refusals > MAX_RETELLINGS {
                    Step::End(End::Refused)
                } else if limits.out_of_turns(self) {
                    Step::End(End::MaxTurns)
                } else {
                    Step::Retell
                }
            }
            // The calls that the reply did finish are answered, so the model can go on from there.
            _ if reply.tool_calls > 0 => Step::RunTools,
            Some("max_tokens") if continuations < MAX_CONTINUATIONS => {
                self.continuations = continuations + 1;
                if limits.out_of_turns(self) { Step::End(End::MaxTurns) } else { Step::Continue }
            }
            Some("pause_turn") if pauses < MAX_PAUSES => {
                self.pauses = pauses + 1;
                if limits.out_of_turns(self) { Step::End(End::MaxTurns) } else { Step::Resume }
            }
            Some("model_context_window_exceeded") => Step::End(End::ContextFull),
            Some(_) | None => Step::End(End::Completed),
        }
    }

    /// Decides, when the calls of a reply were run, whether the model hears of it. The calls of the last reply do run.
    pub(crate) fn after_tools(&self, limits: Limits) -> Option<End> {
        limits.out_of_turns(self).then_some(End::MaxTurns)
    }

    /// One, and one for each user message that the turn made.
    pub(crate) const fn num_turns(&self) -> u64 {
        self.user_messages + 1
    }
}

impl End {
    pub(crate) const fn subtype(self) -> &'static str {
        match self {
            Self::MaxTurns => "error_max_turns",
            Self::Budget => "error_max_budget_usd",
            Self::Unstructured => "error_max_structured_output_retries",
            Self::AbortedStreaming | Self::AbortedTools | Self::Unkept => "error_during_execution",
            // An API error is a success with `is_error`: odd, but what every client of the protocol expects.
            Self::Completed
            | Self::ApiError
            | Self::PromptTooLong
            | Self::RequestTooLarge
            | Self::Refused
            | Self::ContextFull
            | Self::CutStreaming
            | Self::CutTools
            | Self::HookStopped
            | Self::StopHookPrevented
            | Self::PromptRefused
            | Self::Deferred => "success",
        }
    }

    pub(crate) const fn is_error(self) -> bool {
        !matches!(
            self,
            Self::CutStreaming
                | Self::CutTools
                | Self::Completed
                | Self::HookStopped
                | Self::StopHookPrevented
                | Self::PromptRefused
                | Self::Deferred
        )
    }

    /// `None`: there was no turn to end.
    pub(crate) const fn terminal_reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Completed => "completed",
            Self::MaxTurns => "max_turns",
            Self::Budget => "budget_exhausted",
            Self::ApiError | Self::Refused => "api_error",
            Self::PromptTooLong | Self::ContextFull => "prompt_too_long",
            Self::RequestTooLarge => "image_error",
            Self::AbortedStreaming | Self::CutStreaming => "aborted_streaming",
            Self::AbortedTools | Self::CutTools => "aborted_tools",
            Self::HookStopped => "hook_stopped",
            Self::Deferred => "tool_deferred",
            Self::StopHookPrevented => "stop_hook_prevented",
            Self::Unstructured => "structured_output_retry_exhausted",
            Self::Unkept => "session_writes_lost",
            Self::PromptRefused => return None,
        })
    }

    /// The texts of `errors`, for the error subtypes; the SDKs show them, and programs compare them.
    pub(crate) fn errors(self, limits: Limits, stop_reason: Option<&str>) -> Vec<String> {
        match self {
            Self::MaxTurns => {
                vec![format!("Reached maximum number of turns ({})", limits.max_turns.unwrap_or_default())]
            }
            Self::Budget => {
                vec![format!("Reached maximum budget (${})", limits.max_budget.unwrap_or_default().as_usd())]
            }
            Self::AbortedStreaming | Self::AbortedTools => {
                let (reason, stop) =
                    (self.terminal_reason().unwrap_or_default(), stop_reason.unwrap_or("null"));
                vec![format!("[ede_diagnostic] terminal_reason={reason} stop_reason={stop}")]
            }
            Self::Unkept => {
                vec!["failed to keep the conversation: its transcript cannot be written".to_owned()]
            }
            Self::Completed
            | Self::ApiError
            | Self::PromptTooLong
            | Self::RequestTooLarge
            | Self::Refused
            | Self::ContextFull
            | Self::CutStreaming
            | Self::CutTools
            | Self::HookStopped
            | Self::StopHookPrevented
            | Self::PromptRefused
            | Self::Deferred
            | Self::Unstructured => Vec::new(),
        }
    }
}

/// How a reply's calls are run: those that change nothing side by side, the others one after the other, in the order
/// of the reply. Gives the calls' indices, a group at a time.
pub(crate) fn groups(read_only: &[bool]) -> Vec<std::ops::Range<usize>> {
    let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
    for (index, &is_read_only) in read_only.iter().enumerate() {
        match groups.last_mut() {
            Some(last) if is_read_only && read_only[last.start] => last.end = index + 1,
            _ => groups.push(index..index + 1),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_turns: Option<u64>, cents: Option<i64>) -> Limits {
        Limits { max_turns, max_budget: cents.map(|cents| NanoUsd(cents * 10_000_000)) }
    }

    fn facts(stop_reason: Option<&str>, tool_calls: usize, cents: i64) -> ReplyFacts<'_> {
        ReplyFacts { stop_reason, tool_calls, spent: NanoUsd(cents * 10_000_000) }
    }

    #[test]
    fn what_follows_a_reply() {
        let free = limits(None, None);
        let budget = limits(None, Some(50));
        for (limits, stop_reason, calls, cents, expected) in [
            (free, Some("end_turn"), 0, 0, Step::End(End::Completed)),
            (free, Some("stop_sequence"), 0, 0, Step::End(End::Completed)),
            (free, None, 0, 0, Step::End(End::Completed)),
            (free, Some("tool_use"), 2, 0, Step::RunTools),
            // The stop reason lies: what counts is what the reply holds.
            (free, Some("tool_use"), 0, 0, Step::End(End::Completed)),
            (free, Some("end_turn"), 1, 0, Step::RunTools),
            (free, Some("a_reason_of_tomorrow"), 0, 0, Step::End(End::Completed)),
            (free, Some("max_tokens"), 0, 0, Step::Continue),
            (free, Some("max_tokens"), 1, 0, Step::RunTools),
            (free, Some("pause_turn"), 0, 0, Step::Resume),
            (free, Some("refusal"), 0, 0, Step::Retell),
            (free, Some("refusal"), 1, 0, Step::Retell),
            (limits_of_one_turn(), Some("refusal"), 0, 0, Step::End(End::MaxTurns)),
            (free, Some("model_context_window_exceeded"), 0, 0, Step::End(End::ContextFull)),
            (budget, Some("tool_use"), 1, 40, Step::RunTools),
            (budget, Some("tool_use"), 1, 50, Step::End(End::Budget)),
            (budget, Some("tool_use"), 1, 80, Step::End(End::Budget)),
            (budget, Some("end_turn"), 0, 80, Step::End(End::Budget)),
            (limits_of_one_turn(), Some("max_tokens"), 0, 0, Step::End(End::MaxTurns)),
            (limits_of_one_turn(), Some("pause_turn"), 0, 0, Step::End(End::MaxTurns)),
            (limits_of_one_turn(), Some("tool_use"), 1, 0, Step::RunTools),
            (limits_of_one_turn(), Some("end_turn"), 0, 0, Step::End(End::Completed)),
        ] {
            let step = Progress::default().after_reply(limits, &facts(stop_reason, calls, cents));
            assert_eq!(step, expected, "{stop_reason:?} {calls} {cents}");
        }
    }

    fn limits_of_one_turn() -> Limits {
        limits(Some(1), None)
    }

    #[test]
    fn the_calls_of_the_last_turn_run_and_then_it_ends() {
        let two = limits(Some(2), None);
        let mut progress = Progress::default();
        assert_eq!(progress.after_reply(two, &facts(Some("tool_use"), 1, 0)), Step::RunTools);
        assert_eq!(progress.after_tools(two), None);
        assert_eq!(progress.after_reply(two, &facts(Some("tool_use"), 1, 0)), Step::RunTools);
        assert_eq!(progress.after_tools(two), Some(End::MaxTurns));
    }

    #[test]
    fn a_reply_without_end_is_not_continued_for_ever() {
        let free = limits(None, None);
        let mut progress = Progress::default();
        let mut steps = || progress.after_reply(free, &facts(Some("max_tokens"), 0, 0));
        assert_eq!([steps(), steps(), steps()], [Step::Continue; 3]);
        assert_eq!(steps(), Step::End(End::Completed));
        let mut progress = Progress::default();
        let paused = (0..1000)
            .take_while(|_| progress.after_reply(free, &facts(Some("pause_turn"), 0, 0)) == Step::Resume);
        assert_eq!(paused.count(), 16);
    }

    #[test]
    fn a_refusal_is_asked_about_once() {
        let free = limits(None, None);
        let mut progress = Progress::default();
        let mut refused = || progress.after_reply(free, &facts(Some("refusal"), 0, 0));
        assert_eq!([refused(), refused()], [Step::Retell, Step::End(End::Refused)]);
    }

    #[test]
    fn an_old_debt_stops_the_next_call() {
        assert_eq!(limits(None, Some(50)).before_call(NanoUsd(500_000_000)), Some(End::Budget));
        assert_eq!(limits(None, Some(50)).before_call(NanoUsd(499_999_999)), None);
        assert_eq!(limits(None, Some(0)).before_call(NanoUsd::ZERO), Some(End::Budget));
    }

    #[test]
    fn reading_calls_go_side_by_side_and_writing_ones_alone() {
        let (r, w) = (true, false);
        for (calls, expected) in [
            (vec![], "[]"),
            (vec![r, r, r], "[0..3]"),
            (vec![w, w], "[0..1, 1..2]"),
            (vec![r, w, r, r, w], "[0..1, 1..2, 2..4, 4..5]"),
        ] {
            assert_eq!(format!("{:?}", groups(&calls)), expected, "{calls:?}");
        }
    }
}
