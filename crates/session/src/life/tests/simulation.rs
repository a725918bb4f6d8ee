//! Thousands of schedules of everything that can happen to a session, each from its seed, on a clock of its own, with an
//! agent that keeps a transcript on a disk that survives crashes. After every step the invariants are looked at; in the
//! end the faults stop, and everything must come to rest.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Schedules in a test run, and the steps of each.
const SCHEDULES: u64 = 2_000;
const STEPS: usize = 150;
/// Into so many tests they are divided.
const PARTS: u64 = 4;

/// A small generator of numbers: the same seed, the same schedule.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % sides as u64).unwrap()
    }
}

/// A call in the transcript.
#[derive(Clone, Debug, Default)]
struct Written {
    name: &'static str,
    is_started: bool,
    is_done: bool,
}

/// The agent: what it has on the disk, and, while it is up, what it waits for.
#[derive(Debug, Default)]
struct Agent {
    prompts: Vec<EventId>,
    calls: BTreeMap<String, Written>,
    /// Whether the conversation ends with something that the model has to answer.
    is_unanswered: bool,
    is_up: bool,
    /// Whether it is in a turn.
    is_working: bool,
    /// Whether it was told to go on with what it does not have.
    is_refusing: bool,
    questions: BTreeMap<String, String>,
    request: Option<RequestId>,
}

struct Simulation {
    session: Session,
    agent: Agent,
    dice: Dice,
    /// How often each call's side effect happened.
    effects: BTreeMap<String, u32>,
    /// Calls by their events, and what was answered.
    events: BTreeMap<EventId, (String, &'static str)>,
    confirmed: BTreeMap<String, bool>,
    accepted: BTreeSet<EventId>,
    trace: Vec<Note>,
}

/// What happened, for the one who looks into a seed.
#[expect(dead_code, reason = "read by who looks into a seed")]
#[derive(Clone, Debug)]
enum Note {
    Input(Input),
    Step(Step),
}

const NAMES: [&str; 3] = ["Read", "Bash", "mcp__custom__weather"];

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            session: Session::new("always_ask"),
            agent: Agent::default(),
            dice: Dice(seed),
            effects: BTreeMap::new(),
            events: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            accepted: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    /// One thing that can happen, by the dice.
    fn happen(&mut self) {
        match self.dice.roll(28) {
            0..=4 => self.reconcile_once(),
            5..=9 => self.agent_works(),
            10 => self.client_answers(),
            11 => self.request_ends(),
            12 => self.pass(self.session.now + Duration::from_secs(1)),
            13 | 14 => self.client_writes(),
            15 => self.client_interrupts(),
            16 => self.client_lies(),
            17 => self.agent_dies(),
            18 => self.server_crashes(),
            19 => {
                let seconds = self.dice.roll(200) as u64;
                self.pass(self.session.now + Duration::from_secs(seconds));
            }
            20 => self.pass(self.session.now - Duration::from_secs(3600)),
            21 => self.money_is_short(),
            22 => self.step(Input::BudgetChanged),
            23 => self.step(Input::Draining),
            24 => {
                if self.dice.roll(8) == 0 {
                    self.conversation_is_lost();
                }
            }
            25 if !self.agent.is_up => self.step(Input::AgentNotStarted("no room".to_owned())),
            _ => self.step(Input::AgentStale),
        }
    }

    fn step(&mut self, input: Input) {
        self.trace.push(Note::Input(input.clone()));
        self.session.step(input);
        for (question, answer) in self.session.answers() {
            self.agent_hears(&question, &answer);
        }
        self.check();
    }

    fn pass(&mut self, now: Timestamp) {
        self.session.now = now;
        self.step(Input::Tick);
    }

    fn client_writes(&mut self) {
        if self.session.life.status() == SessionStatus::Terminated || self.session.life.queued() > 3 {
            return;
        }
        let id = self.session.id();
        let events = vec![(id.clone(), UserEvent::Message { content: vec![] })];
        if self.session.life.check(&events).is_ok() {
            self.accepted.insert(id);
            self.step(Input::Posted(events));
        }
    }

    fn client_interrupts(&mut self) {
        let id = self.session.id();
        self.step(Input::Posted(vec![(id, UserEvent::Interrupt)]));
    }

    /// Answers a call that waits, one way or the other.
    fn client_answers(&mut self) {
        let waiting: Vec<EventId> = (self.session.life.calls.values())
            .filter(|call| call.wait.as_ref().is_some_and(|wait| wait.answer.is_none()))
            .map(|call| call.event_id.clone())
            .collect();
        if waiting.is_empty() {
            return;
        }
        let event = waiting[self.dice.roll(waiting.len())].clone();
        let (call, name) = self.events[&event].clone();
        let allow = self.dice.roll(3) > 0;
        let answer = if name == "Bash" {
            confirm(event, allow)
        } else {
            UserEvent::CustomToolResult { custom_tool_use_id: event, content: vec![], is_error: false }
        };
        let events = vec![(self.session.id(), answer)];
        assert_eq!(self.session.life.check(&events), Ok(()), "what is announced can be answered");
        assert!(self.confirmed.insert(call, allow).is_none(), "a call is answered once");
        self.step(Input::Posted(events));
    }

    /// Answers what was answered, or what there is not.
    fn client_lies(&mut self) {
        let made_up = self.session.id();
        let answered = self.events.iter().find(|(_, (call, _))| self.confirmed.contains_key(call));
        for event in [Some(made_up), answered.map(|(event, _)| event.clone())].into_iter().flatten() {
            let lie = vec![(self.session.id(), confirm(event, true))];
            assert!(self.session.life.check(&lie).is_err(), "{:#?}", self.trace);
        }
    }

    fn money_is_short(&mut self) {
        if self.agent.is_working && self.agent.request.is_none() && self.agent.is_unanswered {
            self.step(Input::BudgetRefused);
            self.agent.is_working = false;
            let stop = Stop::Failed { status: Some(429), message: String::new() };
            self.step(Input::Fact(Fact::Ended(stop)));
        }
    }

    fn agent_dies(&mut self) {
        if self.agent.is_up {
            self.settle_request();
            self.agent_is_gone();
            self.step(Input::AgentEnded("died".to_owned()));
        }
    }

    /// The agent's files are removed, by the agent maybe.
    fn conversation_is_lost(&mut self) {
        if !self.agent.is_up {
            self.agent.prompts.clear();
            self.agent.is_unanswered = false;
            self.agent.calls.values_mut().for_each(|call| call.is_done = true);
        }
    }

    fn agent_is_gone(&mut self) {
        self.agent.is_refusing = false;
        self.agent.is_up = false;
        self.agent.is_working = false;
        self.agent.questions.clear();
    }

    fn settle_request(&mut self) {
        if let Some(id) = self.agent.request.take() {
            self.step(Input::RequestEnded { id, is_error: true, spent: Spent::default() });
        }
    }

    /// The process is gone, and with it the sandbox and all that was not stored.
    fn server_crashes(&mut self) {
        self.agent.request = None;
        self.agent_is_gone();
        self.session.life.process = Process::default();
        let usage = *self.session.life.usage();
        self.step(Input::Recovered { usage });
    }

    fn reconcile_once(&mut self) {
        let Some(step) = self.session.life.next_step() else { return };
        self.trace.push(Note::Step(step.clone()));
        match step {
            Step::TakeSlot => self.step(Input::SlotTaken),
            Step::GiveSlot => self.step(Input::SlotReleased),
            Step::StartAgent { resume } => {
                assert!(!self.agent.is_up, "one agent at a time");
                // What is on the disk is known to the log, or else the agent would refuse to begin anew.
                assert!(resume || self.agent.prompts.is_empty(), "{:#?}", self.trace);
                self.agent.is_up = true;
                self.step(Input::AgentStarted);
                if resume && self.agent.prompts.is_empty() {
                    let message = "No conversation found with session ID: x".to_owned();
                    self.agent.is_refusing = true;
                    self.step(Input::Fact(Fact::Ended(Stop::Failed { status: None, message })));
                }
            }
            Step::Tell(message) => {
                self.step(Input::AgentTold);
                // The server may be gone before the message is there.
                if self.agent.is_refusing {
                    return;
                }
                if self.dice.roll(30) == 0 {
                    return self.server_crashes();
                }
                self.agent_is_told(message);
            }
            Step::Interrupt => {
                self.step(Input::AgentInterrupted);
                self.settle_request();
                self.interrupt_calls();
                self.agent.is_working = false;
                self.agent.is_unanswered = false;
                self.step(Input::Fact(Fact::Ended(Stop::EndTurn)));
            }
            Step::StopAgent => {
                self.step(Input::AgentStops);
                self.settle_request();
                self.agent_is_gone();
                self.step(Input::AgentEnded(String::new()));
            }
        }
    }

    fn agent_is_told(&mut self, message: EventId) {
        // A message that it has had is the order to go on.
        if self.agent.prompts.last() != Some(&message) {
            // What was left open is over.
            self.agent.calls.values_mut().for_each(|call| call.is_done = true);
            self.agent.prompts.push(message);
            self.agent.is_unanswered = true;
        }
        self.agent_goes_on();
    }

    /// As the agent does when it is resumed: what had started is over, what had not is asked about again.
    fn agent_goes_on(&mut self) {
        self.agent.is_working = true;
        self.step(Input::Fact(Fact::Began));
        let open: Vec<_> = self.agent.calls.iter().filter(|(_, call)| !call.is_done).collect();
        let open: Vec<(String, Written)> =
            open.into_iter().map(|(id, call)| (id.clone(), call.clone())).collect();
        for (id, call) in open {
            if call.is_started {
                self.finish_call(&id, true);
            } else {
                self.begin_call(&id, call.name);
            }
        }
    }

    /// Something that an agent in a turn may do next.
    fn agent_works(&mut self) {
        if !self.agent.is_working || self.agent.request.is_some() {
            return;
        }
        let mut open = self.agent.calls.iter().filter(|(_, call)| !call.is_done);
        let started = open.clone().find(|(_, call)| call.is_started).map(|(id, _)| id.clone());
        if let Some(id) = started {
            return self.finish_call(&id, false);
        }
        if open.next().is_some() {
            return;
        }
        if self.agent.is_unanswered {
            self.session.next += 1;
            let id = RequestId::from_random(self.session.next.to_be_bytes());
            self.agent.request = Some(id.clone());
            self.step(Input::RequestStarted { id });
        } else {
            self.agent.is_working = false;
            self.step(Input::Fact(Fact::Ended(Stop::EndTurn)));
        }
    }

    /// The model's reply is there: text, or calls.
    fn request_ends(&mut self) {
        let Some(id) = self.agent.request.take() else { return };
        let spent = Spent { cost: NanoUsd(1), ..Spent::default() };
        self.step(Input::RequestEnded { id, is_error: false, spent });
        self.agent.is_unanswered = false;
        for _ in 0..self.dice.roll(4) {
            let name = NAMES[self.dice.roll(NAMES.len())];
            let id = format!("toolu_{}", self.agent.calls.len());
            // First on the disk, then said.
            self.agent.calls.insert(id.clone(), Written { name, ..Written::default() });
            let rows = self.session.rows.len();
            let fact = Fact::Call { call: id.clone(), name: name.to_owned(), input: json!({"of": id}) };
            self.step(Input::Fact(fact));
            let event = self.session.rows[rows]["id"].as_str().unwrap().parse().unwrap();
            self.events.insert(event, (id, name));
        }
        let begun: Vec<(String, &'static str)> = self
            .agent
            .calls
            .iter()
            .filter(|(_, call)| !call.is_done)
            .map(|(id, call)| (id.clone(), call.name))
            .collect();
        for (id, name) in begun {
            self.begin_call(&id, name);
        }
    }

    fn begin_call(&mut self, call: &str, name: &'static str) {
        let question = format!("question-{}-{}", call, self.trace.len());
        let (request_id, call_id, input) = (question.clone(), call.to_owned(), json!({"of": call}));
        match name {
            "Read" => self.start_call(call),
            "Bash" => {
                self.agent.questions.insert(question, call.to_owned());
                self.step(Input::Fact(Fact::Asked { request_id, call: call_id, input }));
            }
            _ => {
                self.agent.questions.insert(question, call.to_owned());
                self.step(Input::Fact(Fact::CustomCalled { request_id, call: call_id, input }));
            }
        }
    }

    fn start_call(&mut self, call: &str) {
        self.agent.calls.get_mut(call).unwrap().is_started = true;
        *self.effects.entry(call.to_owned()).or_default() += 1;
    }

    fn finish_call(&mut self, call: &str, is_error: bool) {
        self.agent.calls.get_mut(call).unwrap().is_done = true;
        self.agent.is_unanswered = true;
        let fact = Fact::Outcome { call: call.to_owned(), content: json!("done"), is_error };
        self.step(Input::Fact(fact));
    }

    fn agent_hears(&mut self, question: &str, answer: &str) {
        let Some(call) = self.agent.questions.remove(question) else { return };
        if answer == "allow" {
            assert_eq!(
                self.confirmed.get(&call),
                Some(&true),
                "only what was allowed runs: {:#?}",
                self.trace
            );
            self.start_call(&call);
        } else {
            self.finish_call(&call, true);
        }
    }

    fn interrupt_calls(&mut self) {
        let open: Vec<String> =
            self.agent.calls.iter().filter(|(_, call)| !call.is_done).map(|(id, _)| id.clone()).collect();
        self.agent.questions.clear();
        for call in open {
            self.finish_call(&call, true);
        }
    }

    /// What holds after every step.
    fn check(&mut self) {
        let life = &self.session.life;
        assert!(self.effects.values().all(|count| *count == 1), "no call runs twice: {:#?}", self.trace);
        let is_active = matches!(life.status(), SessionStatus::Running | SessionStatus::Rescheduling);
        assert_eq!(life.active_turn().is_some(), is_active, "{:#?}", self.trace);
        assert!(
            !is_active || life.wake_at(self.session.now).is_some(),
            "found after a crash: {:#?}",
            self.trace
        );
        if let Some(row) = self.session.rows.last().filter(|row| row["type"] == "session.status_idle") {
            assert!(life.spans.is_empty(), "idle with a request under way: {:#?}", self.trace);
            let waiting: BTreeSet<&str> = life.waiting().map(|(_, call)| call.event_id.as_str()).collect();
            let named: BTreeSet<&str> = (row["stop_reason"]["event_ids"].as_array().into_iter().flatten())
                .map(|id| id.as_str().unwrap())
                .collect();
            let is_blocked = row["stop_reason"]["type"] == "requires_action";
            assert!(!is_blocked || named == waiting, "{:#?}", self.trace);
        }
    }

    /// Without faults, with a client that answers: everything comes to rest.
    fn come_to_rest(&mut self) {
        // Another server, that does not stop.
        self.server_crashes();
        self.step(Input::BudgetChanged);
        for _ in 0..2_000 {
            let life = &self.session.life;
            if life.turn.is_none() && life.next_step().is_none() {
                return;
            }
            self.reconcile_once();
            self.agent_works();
            self.client_answers();
            self.request_ends();
        }
        panic!("stuck: {:#?}\n{:#?}", self.session.life, &self.trace[self.trace.len().saturating_sub(60)..]);
    }

    /// What holds in the end.
    fn check_log(&self) {
        let rows = &self.session.rows;
        let of = |kind: &'static str| rows.iter().filter(move |row| row["type"] == kind);
        let mut results = BTreeSet::new();
        for row in of("agent.tool_result") {
            assert!(results.insert(text(row, "tool_use_id")), "one result a call: {:#?}", self.trace);
        }
        for row in of("agent.tool_use") {
            assert!(results.contains(text(row, "id")), "a result for each call: {row} {:#?}", self.trace);
        }
        let starts: BTreeSet<_> = of("span.model_request_start").map(|row| text(row, "id")).collect();
        let ends: Vec<_> =
            of("span.model_request_end").map(|row| text(row, "model_request_start_id")).collect();
        assert_eq!(ends.len(), starts.len(), "one end for each request: {:#?}", self.trace);
        let mut processed = BTreeSet::new();
        for row in of("user.message").filter(|row| !row["processed_at"].is_null()) {
            assert!(processed.insert(text(row, "id")), "taken once: {:#?}", self.trace);
        }
        let is_over = matches!(self.session.life.status(), SessionStatus::Idle | SessionStatus::Terminated);
        assert!(is_over && self.session.life.queued() == 0);
    }
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap()
}

/// Runs a part of the schedules, so that the parts run at one time; with a seed of one's own, the first runs that alone.
fn simulate(part: u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("WARDIAN_SIMULATION_SEED");
    let schedules = number("WARDIAN_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let seeds: Vec<u64> = match seed {
        Some(seed) => Vec::from_iter((part == 0).then_some(seed)),
        None => (0..schedules).filter(|seed| seed % PARTS == part).collect(),
    };
    let mut effects = 0;
    for seed in seeds {
        let mut simulation = Simulation::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            simulation.client_writes();
            for _ in 0..STEPS {
                simulation.happen();
            }
            simulation.come_to_rest();
            simulation.check_log();
        }));
        assert!(outcome.is_ok(), "seed {seed}: WARDIAN_SIMULATION_SEED={seed} shows it alone");
        effects += simulation.effects.len();
    }
    assert!(seed.is_some() || effects > 100, "the schedules do something: {effects}");
}

#[test]
fn whatever_happens_nothing_is_lost_run_twice_or_stuck() {
    simulate(0);
}

#[test]
fn whatever_happens_nothing_is_lost_run_twice_or_stuck_part_2() {
    simulate(1);
}

#[test]
fn whatever_happens_nothing_is_lost_run_twice_or_stuck_part_3() {
    simulate(2);
}

#[test]
fn whatever_happens_nothing_is_lost_run_twice_or_stuck_part_4() {
    simulate(3);
}
