//! What a session does, and what it never does: tables, and a simulation with seeds.

mod simulation;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use wardian_protocol::control::PermissionAnswer;
use wardian_protocol::{EventId, NanoUsd, RequestId};
use wardian_store::{SessionStatus, Tokens};

use super::*;
use crate::managed::{Confirmation, UserEvent};

fn rules(policy: &str) -> Rules {
    let tools = json!([
        {"type": "agent_toolset_20260401", "configs": [
            {"name": "read", "enabled": true, "permission_policy": {"type": "always_allow"}},
         ], "default_config": {"enabled": true, "permission_policy": {"type": policy}}},
        {"type": "custom", "name": "weather", "description": "", "input_schema": {"type": "object"}},
    ]);
    Rules { tools: Tools::read(&tools), approval_ttl: Duration::from_secs(100), budget: None }
}

/// A session with a clock and a count for ids, whose rows are kept.
struct Session {
    life: Life,
    rules: Rules,
    now: Timestamp,
    next: u128,
    rows: Vec<Value>,
    commands: Vec<Command>,
}

impl Session {
    fn new(policy: &str) -> Self {
        let now = Timestamp::from_second(1_000_000).unwrap();
        Self { life: Life::new(), rules: rules(policy), now, next: 0, rows: vec![], commands: vec![] }
    }

    fn id(&mut self) -> EventId {
        self.next += 1;
        EventId::from_random(self.next.to_be_bytes())
    }

    /// Takes an input in, as the actor does: with the state stored and read again in between.
    fn step(&mut self, input: Input) {
        let next = &mut self.next;
        let mut random = || {
            *next += 1;
            next.to_be_bytes()
        };
        let mut context = Context { now: self.now, rules: &self.rules, random: &mut random };
        let output = self.life.step(input, &mut context);
        self.rows.extend(output.rows.into_iter().map(|row| row.payload));
        if let Some(message) = output.taken {
            self.rows.push(json!({"id": message, "type": "user.message", "processed_at": self.now}));
        }
        self.commands.extend(output.commands);
        if !self.next.is_multiple_of(8) {
            return;
        }
        let stored: Life = serde_json::from_value(serde_json::to_value(&self.life).unwrap()).unwrap();
        let mut stored = Life { process: self.life.process.clone(), ..stored };
        if let (Some(stored), Some(turn)) = (&mut stored.turn, &self.life.turn) {
            stored.dropped = turn.dropped;
        }
        assert_eq!(stored, self.life);
    }

    fn post(&mut self, event: UserEvent) -> EventId {
        let id = self.id();
        let events = vec![(id.clone(), event)];
        assert_eq!(self.life.check(&events), Ok(()));
        self.step(Input::Posted(events));
        id
    }

    fn message(&mut self) -> EventId {
        self.post(UserEvent::Message { content: vec![json!({"type": "text", "text": "go"})] })
    }

    /// Does all that is to be done, with an agent that takes its message.
    fn reconcile(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = self.life.next_step() {
            steps.push(step.clone());
            assert!(steps.len() < 20, "{steps:?}");
            match step {
                Step::TakeSlot => self.step(Input::SlotTaken),
                Step::GiveSlot => self.step(Input::SlotReleased),
                Step::StartAgent { .. } => self.step(Input::AgentStarted),
                Step::Tell(_) => {
                    self.step(Input::AgentTold);
                    self.step(Input::Fact(Fact::Began));
                }
                Step::Interrupt => self.step(Input::AgentInterrupted),
                Step::StopAgent => {
                    self.step(Input::AgentStops);
                    self.step(Input::AgentEnded(String::new()));
                }
            }
        }
        steps
    }

    fn begin(policy: &str) -> Self {
        let mut session = Self::new(policy);
        session.message();
        session.reconcile();
        session
    }

    fn call(&mut self, call: &str, name: &str, input: Value) -> EventId {
        let row = self.rows.len();
        self.step(Input::Fact(Fact::Call { call: call.to_owned(), name: name.to_owned(), input }));
        self.rows[row]["id"].as_str().unwrap().parse().unwrap()
    }

    fn ask(&mut self, question: &str, call: &str, input: Value) {
        let (request_id, call) = (question.to_owned(), call.to_owned());
        self.step(Input::Fact(Fact::Asked { request_id, call, input }));
    }

    fn kinds(&mut self) -> Vec<String> {
        let rows = std::mem::take(&mut self.rows);
        rows.iter()
            .map(|row| {
                let kind = row["type"].as_str().unwrap();
                match row["stop_reason"]["type"].as_str() {
                    Some(stop) => format!("{kind} {stop}"),
                    None => kind.to_owned(),
                }
            })
            .collect()
    }

    fn answers(&mut self) -> Vec<(String, String)> {
        let commands = std::mem::take(&mut self.commands);
        let shown = commands.into_iter().map(|command| match command {
            Command::Answer { request_id, answer: PermissionAnswer::Allow { .. } } => {
                (request_id, "allow".to_owned())
            }
            Command::Answer { request_id, answer: PermissionAnswer::Deny { message, .. } } => {
                (request_id, message)
            }
            Command::AnswerCustom { request_id, event_id } => {
                (request_id, event_id.map_or("nothing".to_owned(), |id| id.to_string()))
            }
        });
        shown.collect()
    }
}

fn confirm(tool_use_id: EventId, allow: bool) -> UserEvent {
    let result = if allow { Confirmation::Allow } else { Confirmation::Deny { message: None } };
    UserEvent::ToolConfirmation { tool_use_id, result }
}

#[test]
fn a_turn_from_message_to_idle() {
    let mut session = Session::new("always_allow");
    session.message();
    assert_eq!(session.life.status(), SessionStatus::Running);
    assert_eq!(session.life.wake_at(session.now), Some(session.now));
    let steps = session.reconcile();
    assert!(matches!(steps.as_slice(), [Step::TakeSlot, Step::StartAgent { resume: false }, Step::Tell(_)]));
    assert_eq!(session.kinds(), ["user.message", "session.status_running", "user.message"]);
    let request = RequestId::from_random([7; 16]);
    session.step(Input::RequestStarted { id: request.clone() });
    session.step(Input::Fact(Fact::Ended(Stop::EndTurn)));
    assert_eq!(session.kinds(), ["span.model_request_start"], "not idle while a request is under way");
    let tokens = Tokens { input_tokens: 3, ..Tokens::default() };
    let spent = Spent { tokens, cost: NanoUsd(5) };
    session.step(Input::RequestEnded { id: request, is_error: false, spent });
    assert_eq!(session.kinds(), ["span.model_request_end", "session.usage", "session.status_idle end_turn"]);
    assert_eq!(session.reconcile(), [Step::GiveSlot]);
    assert_eq!((session.life.usage().cost_nano, session.life.usage().tokens.input_tokens), (5, 3));
    assert_eq!(session.life.wake_at(session.now), None);
    session.step(Input::AgentStale);
    assert_eq!(session.reconcile(), [Step::StopAgent]);
    assert!(session.life.is_at_rest());
    // The next one goes on with the conversation.
    session.message();
    assert!(session.reconcile().contains(&Step::StartAgent { resume: true }));
}

#[test]
fn an_answer_is_for_one_call_with_one_input_and_is_given_once() {
    let mut session = Session::begin("always_ask");
    let input = json!({"command": "ls"});
    session.call("toolu_1", "Bash", input.clone());
    session.ask("q1", "toolu_1", json!({"command": "rm -rf /"}));
    assert_eq!(
        session.answers(),
        [("q1".to_owned(), "the input is another than the one that was shown".to_owned())]
    );
    session.ask("q2", "toolu_unknown", input.clone());
    session.ask("q3", "toolu_1", input.clone());
    let refused = "this call is not known, or was answered before".to_owned();
    assert_eq!(session.answers(), [("q2".to_owned(), refused.clone()), ("q3".to_owned(), refused.clone())]);

    let mut session = Session::begin("always_ask");
    let event = session.call("toolu_1", "Bash", input.clone());
    // The answer may come before the question.
    session.post(confirm(event.clone(), true));
    assert_eq!(session.answers(), []);
    session.ask("q1", "toolu_1", input.clone());
    session.ask("q2", "toolu_1", input);
    assert_eq!(session.answers(), [("q1".to_owned(), "allow".to_owned()), ("q2".to_owned(), refused)]);
    let again = vec![(session.id(), confirm(event, true))];
    assert_eq!(session.life.check(&again).unwrap_err()[0].field, "events[0].tool_use_id");
}

#[test]
fn it_is_idle_for_its_client_when_the_agent_has_asked_though_other_calls_stand_behind() {
    let mut session = Session::begin("always_ask");
    let asked = session.call("toolu_1", "Bash", json!({}));
    session.call("toolu_2", "Read", json!({}));
    let behind = session.call("toolu_3", "Bash", json!({}));
    assert!(!session.kinds().contains(&"session.status_idle requires_action".to_owned()));
    session.ask("q1", "toolu_1", json!({}));
    let named: BTreeSet<EventId> =
        serde_json::from_value(session.rows.last().unwrap()["stop_reason"]["event_ids"].clone()).unwrap();
    assert_eq!(named, [asked.clone(), behind.clone()].into());
    assert_eq!(session.kinds(), ["session.status_idle requires_action"]);
    session.post(confirm(behind, true));
    assert_eq!(session.answers(), []);
    // The place is given back, the agent may go, the approval stays.
    assert_eq!(session.reconcile(), [Step::GiveSlot]);
    session.step(Input::AgentStale);
    assert_eq!(session.reconcile(), [Step::StopAgent]);
    assert!(session.life.is_at_rest());
    assert_eq!(session.life.wake_at(session.now), Some(session.now + Duration::from_secs(100)));
    session.post(confirm(asked, true));
    let steps = session.reconcile();
    assert_eq!(steps[..2], [Step::TakeSlot, Step::StartAgent { resume: true }], "a resumed agent asks again");
    session.ask("q2", "toolu_1", json!({}));
    assert_eq!(session.answers(), [("q2".to_owned(), "allow".to_owned())]);
}

#[test]
fn what_nobody_answers_is_denied_when_its_time_is_over() {
    let mut session = Session::begin("always_ask");
    session.call("toolu_1", "Bash", json!({}));
    session.ask("q1", "toolu_1", json!({}));
    session.now += Duration::from_secs(99);
    session.step(Input::Tick);
    assert_eq!(session.answers(), []);
    session.now += Duration::from_secs(1);
    session.step(Input::Tick);
    let denied = "Nobody confirmed this call in time, so it was denied.".to_owned();
    assert_eq!(session.answers(), [("q1".to_owned(), denied)]);
    assert_eq!(session.life.status(), SessionStatus::Running);
}

#[test]
fn a_message_behind_a_call_that_waits_does_not_hide_when_its_time_is_over() {
    let mut session = Session::begin("always_ask");
    session.call("toolu_1", "Bash", json!({}));
    session.ask("q1", "toolu_1", json!({}));
    session.message();
    let over = session.now + Duration::from_secs(100);
    assert_eq!((session.life.wake_at(session.now), session.life.next_expiry()), (Some(over), Some(over)));
}

#[test]
fn custom_tools_are_answered_by_events_of_the_log() {
    let mut session = Session::begin("always_allow");
    let call = session.call("toolu_1", "mcp__custom__weather", json!({"city": "Kew"}));
    let called = |question: &str| {
        let (request_id, call) = (question.to_owned(), "toolu_1".to_owned());
        Input::Fact(Fact::CustomCalled { request_id, call, input: json!({"city": "Kew"}) })
    };
    session.step(called("q1"));
    assert_eq!(session.kinds().last().unwrap(), "session.status_idle requires_action");
    let result = UserEvent::CustomToolResult { custom_tool_use_id: call, content: vec![], is_error: false };
    let event = session.post(result);
    assert_eq!(session.answers(), [("q1".to_owned(), event.to_string())]);
    // An agent that dies before it used the answer gets it again.
    session.step(Input::AgentEnded("died".to_owned()));
    session.reconcile();
    session.step(called("q2"));
    assert_eq!(session.answers(), [("q2".to_owned(), event.to_string())]);
}

#[test]
fn an_agent_that_dies_three_times_ends_the_session() {
    let mut session = Session::begin("always_allow");
    for _ in 0..2 {
        session.step(Input::AgentEnded("it died".to_owned()));
        assert_eq!(session.life.status(), SessionStatus::Rescheduling);
        assert!(session.reconcile().contains(&Step::StartAgent { resume: true }));
        assert_eq!(session.life.status(), SessionStatus::Running);
    }
    session.kinds();
    session.step(Input::AgentEnded("it died".to_owned()));
    assert_eq!(session.kinds(), ["session.error", "session.status_terminated"]);
    assert_eq!(session.reconcile(), [Step::GiveSlot]);
    assert!(session.life.is_at_rest());
}

#[test]
fn a_turn_without_money_waits_for_more_and_goes_on() {
    let mut session = Session::begin("always_allow");
    session.kinds();
    session.step(Input::BudgetRefused);
    let stop = Stop::Failed { status: Some(429), message: "no money".to_owned() };
    session.step(Input::Fact(Fact::Ended(stop)));
    assert_eq!(session.kinds(), ["session.usage", "session.status_idle budget_reached"]);
    assert_eq!(session.reconcile(), [Step::GiveSlot, Step::StopAgent]);
    assert!(session.life.is_at_rest());
    session.step(Input::BudgetChanged);
    assert_eq!(session.reconcile()[..2], [Step::TakeSlot, Step::StartAgent { resume: true }]);
    assert_eq!(session.kinds(), ["session.status_running"]);
}

#[test]
fn after_a_crash_the_turn_goes_on_and_what_waits_still_waits() {
    let mut session = Session::begin("always_ask");
    session.step(Input::RequestStarted { id: RequestId::from_random([7; 16]) });
    session.kinds();
    session.life.process = Process::default();
    session.step(Input::Recovered { usage: Usage::default() });
    assert_eq!(session.kinds(), ["span.model_request_end", "session.status_rescheduled"]);
    assert!(session.reconcile().contains(&Step::StartAgent { resume: true }));

    session.call("toolu_1", "Bash", json!({}));
    session.kinds();
    session.life.process = Process::default();
    session.step(Input::Recovered { usage: Usage::default() });
    assert_eq!(session.kinds(), ["session.status_idle requires_action"]);
    assert_eq!(session.life.status(), SessionStatus::Idle);
    assert!(session.life.is_at_rest());
}

#[test]
fn what_would_not_fit_the_log_is_refused_before_anything_changes() {
    let mut session = Session::begin("always_ask");
    let call = session.call("toolu_1", "mcp__custom__weather", json!({}));
    let text = |bytes: usize| vec![json!({"type": "text", "text": "x".repeat(bytes)})];
    let result =
        |content| UserEvent::CustomToolResult { custom_tool_use_id: call.clone(), content, is_error: false };
    let message = |content| UserEvent::Message { content };
    let fits = client::MAX_POSTED_BYTES - 100;
    let mut check = |events: Vec<UserEvent>| {
        let events: Vec<_> = events.into_iter().map(|event| (session.id(), event)).collect();
        session.life.check(&events).map_err(|errors| errors[0].field.clone())
    };
    assert_eq!(check(vec![message(text(fits))]), Ok(()));
    assert_eq!(check(vec![message(text(fits + 200))]), Err("events[0].content".to_owned()));
    // Escaped, a quarter of it is too much.
    let escaped = vec![json!({"type": "text", "text": "\u{1}".repeat(fits / 4)})];
    assert_eq!(check(vec![message(escaped)]), Err("events[0].content".to_owned()));
    // The result of a custom tool is written twice, and all in one go.
    assert_eq!(check(vec![result(text(fits / 2))]), Ok(()));
    assert_eq!(check(vec![result(text(fits))]), Err("events".to_owned()));
    assert_eq!(check(vec![message(text(fits)), message(text(fits))]), Err("events".to_owned()));
}

#[test]
fn a_hostile_agent_reaches_its_limits_and_no_further() {
    let mut session = Session::begin("always_ask");
    for index in 0..2 * MAX_OPEN_CALLS {
        session.step(Input::Fact(Fact::Call {
            call: format!("toolu_{index}"),
            name: "Bash".to_owned(),
            input: json!({}),
        }));
    }
    assert_eq!(session.life.calls.len(), MAX_OPEN_CALLS);
    let mut session = Session::begin("always_ask");
    for index in 0..MAX_TURN_ROWS + 100 {
        let id = EventId::from_random(u128::from(index).to_be_bytes());
        let mut random = || [0; 16];
        let mut context = Context { now: session.now, rules: &session.rules, random: &mut random };
        let fact = Fact::Text { id, text: "flood".to_owned() };
        let output = session.life.step(Input::Fact(fact), &mut context);
        session.rows.extend(output.rows.into_iter().map(|row| row.payload));
    }
    assert!(session.rows.len() as u64 <= MAX_TURN_ROWS + 10);
    assert!(session.life.turn.as_ref().unwrap().dropped >= 100);
    // What is over its share changes nothing that is stored: it is no reason to write.
    let stored = serde_json::to_value(&session.life).unwrap();
    session.step(Input::FrameSeen("01234567-89ab-cdef-0123-456789abcdef".to_owned()));
    session.step(Input::Fact(Fact::Text { id: EventId::from_random([2; 16]), text: "more".to_owned() }));
    assert!(!session.life.may_say(1));
    assert_eq!(serde_json::to_value(&session.life).unwrap(), stored);
    // The end of the turn is heard all the same.
    session.step(Input::Fact(Fact::Ended(Stop::EndTurn)));
    assert_eq!(session.life.status(), SessionStatus::Idle);
    // Between turns it is not.
    session.rows.clear();
    session.step(Input::Fact(Fact::Text { id: EventId::from_random([1; 16]), text: "psst".to_owned() }));
    assert_eq!(session.rows, [] as [Value; 0]);
}
