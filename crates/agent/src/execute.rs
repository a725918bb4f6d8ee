//! Runs the calls of a reply: permission, the tool itself, and what the model hears of it.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_protocol::ContentBlock;
use wardian_protocol::frame::PermissionDenial;

use crate::authorise::{Asked, Authority, Rejected, Ruling, lock};
use crate::hook::{HookDecision, HookOutcome, Ran};
use crate::session::{Offered, Setup, file_name};
use crate::spending::millis;
use crate::tool::{ToolContext, ToolOutput, Within};
use crate::tools::file;
use crate::{schema, state, words};

/// Calls of one reply that run at the same time.
const SIDE_BY_SIDE: usize = 8;
/// The same for calls that others run.
const ELSEWHERE: usize = 64;
/// How long a tool may take to end what it started when the turn is stopped.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The most bytes of a result that the model gets; Bash and Read stay far below by themselves.
const MAX_RESULT_BYTES: usize = 256 * 1024;

/// What the calls of a reply came to.
pub(crate) struct Executed {
    /// For the model, in the order of the calls.
    pub(crate) results: Vec<ContentBlock>,
    /// What tools say after all results.
    said: Vec<String>,
    /// What hooks add.
    pub(crate) context: Vec<String>,
    pub(crate) denials: Vec<PermissionDenial>,
    /// User messages that were given.
    pub(crate) messages: u64,
    pub(crate) ended: ToolsEnd,
    /// The call that a hook left for later.
    pub(crate) deferred: Option<Deferred>,
    /// The calls that failed: the tool, and what it said.
    failures: Vec<(String, String)>,
}

/// A call that a hook left for later.
#[derive(Clone, Debug)]
pub(crate) struct Deferred {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) input: Value,
}

/// How the calls of a reply ended, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ToolsEnd {
    Done,
    Deferred,
    HookStopped,
    Interrupted,
}

/// One call of a reply.
struct Planned {
    id: String,
    name: String,
    input: Value,
    verdict: HookOutcome,
    /// The reply was cut in it.
    cut: bool,
    before: Before,
}

/// What became of a call before a restart.
enum Before {
    Nothing,
    /// It was begun.
    Started,
    /// It has its result.
    Answered(ContentBlock),
}

/// What became of a reply's calls before a restart; nothing, where there was none.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) started: HashSet<String>,
    pub(crate) answered: HashMap<String, ContentBlock>,
}

impl Past {
    /// Whether a block is a call that is not to be run.
    pub(crate) fn settles(&self, block: &ContentBlock) -> bool {
        matches!(block, ContentBlock::ToolUse { id, .. } if self.started.contains(id) || self.answered.contains_key(id))
    }

    fn take(&mut self, id: &str) -> Before {
        match self.answered.remove(id) {
            Some(result) => Before::Answered(result),
            None if self.started.contains(id) => Before::Started,
            None => Before::Nothing,
        }
    }
}

/// What one call came to.
struct Answer {
    output: ToolOutput,
    denial: Option<PermissionDenial>,
    ended: ToolsEnd,
    /// What hooks add.
    context: Vec<String>,
    /// Who decided about it.
    meta: Option<Value>,
}

impl Answer {
    const fn of(output: ToolOutput) -> Self {
        Self { output, denial: None, ended: ToolsEnd::Done, context: Vec::new(), meta: None }
    }

    fn failed(text: impl Into<String>) -> Self {
        Self::of(ToolOutput::error(text))
    }
}

/// Runs the calls of a reply and gives their results as messages, in the order of the calls.
pub(crate) async fn run_tools(
    setup: &Arc<Setup>,
    reply: &wardian_protocol::Message,
    verdicts: HashMap<String, HookOutcome>,
    past: Past,
    stop: &CancellationToken,
) -> Executed {
    let calls = planned(setup, reply, verdicts, past);
    let alongside: Vec<bool> = calls.iter().map(|call| setup.runs_alongside(&call.name)).collect();
    let mut executed = Executed {
        results: Vec::new(),
        said: Vec::new(),
        context: Vec::new(),
        denials: Vec::new(),
        messages: 0,
        ended: ToolsEnd::Done,
        deferred: None,
        failures: Vec::new(),
    };
    for group in state::groups(&alongside) {
        let skipped = executed.ended == ToolsEnd::Interrupted;
        let answers =
            calls[group.clone()].iter().map(|call| answer(setup, call, skipped, stop)).collect::<Vec<_>>();
        let mut answers = stream::iter(answers).buffered(setup.at_once(&calls[group.clone()]));
        for call in &calls[group] {
            let Some(answer) = answers.next().await else { break };
            if let Before::Answered(result) = &call.before {
                executed.results.push(result.clone());
                continue;
            }
            executed.take_in(setup, call, answer).await;
        }
    }
    executed.say(setup).await;
    executed.close(setup, &calls).await;
    executed
}

impl Executed {
    /// What a tool's failed calls said.
    pub(crate) fn failures_of(&self, tool: &str) -> impl Iterator<Item = &str> {
        let failed = move |(name, text): &'_ (String, String)| name == tool && !text.is_empty();
        self.failures.iter().filter(move |failure| failed(failure)).map(|(_, text)| text.as_str())
    }

    async fn take_in(&mut self, setup: &Setup, call: &Planned, answer: Answer) {
        self.context.extend(call.verdict.context.iter().cloned());
        self.context.extend(answer.context);
        self.denials.extend(answer.denial);
        self.ended = self.ended.max(answer.ended);
        if answer.output.is_error {
            let text = answer.output.content.as_str().unwrap_or_default();
            self.failures.push((call.name.clone(), text.to_owned()));
        }
        let block = ContentBlock::ToolResult {
            tool_use_id: call.id.clone(),
            content: answer.output.content,
            // Bash says it both ways, as the official CLI does.
            is_error: (answer.output.is_error || call.name == "Bash").then_some(answer.output.is_error),
            extra: wardian_protocol::JsonMap::new(),
        };
        self.results.push(block.clone());
        if answer.ended == ToolsEnd::Deferred {
            // Nobody is told of a result: the call is still to be made.
            let Planned { id, name, input, .. } = call;
            self.deferred = Some(Deferred { id: id.clone(), name: name.clone(), input: input.clone() });
            return;
        }
        self.messages += 1;
        self.said.extend(answer.output.followed_by);
        setup.out.tool_result(block, answer.output.structured, answer.meta).await;
    }

    /// Gives what tools said besides: the API takes results only before anything else.
    async fn say(&mut self, setup: &Setup) {
        for text in std::mem::take(&mut self.said) {
            let block = ContentBlock::text(text);
            self.messages += 1;
            setup.out.user(vec![block.clone()], None, true).await;
            self.results.push(block);
        }
    }

    /// Lets the hooks on a reply's calls see them all.
    async fn close(&mut self, setup: &Setup, calls: &[Planned]) {
        if !matches!(self.ended, ToolsEnd::Done | ToolsEnd::HookStopped) {
            return;
        }
        let results = self.results.iter().filter_map(|result| match result {
            ContentBlock::ToolResult { tool_use_id, content, .. } => Some((tool_use_id, content)),
            _ => None,
        });
        let results: HashMap<_, _> = results.collect();
        let batch = calls.iter().filter(|call| matches!(call.before, Before::Nothing)).filter_map(|call| {
            Some((call.name.as_str(), &call.input, call.id.as_str(), *results.get(&call.id)?))
        });
        let after = setup.hooks.after_batch(batch.collect()).await;
        self.context.extend(after.context);
        if after.stops {
            self.ended = self.ended.max(ToolsEnd::HookStopped);
        }
    }
}

impl Setup {
    fn runs_alongside(&self, name: &str) -> bool {
        self.tool(name).is_none_or(|offered| offered.tool.runs_alongside())
    }

    /// How many of these calls run at once. Those that others run cost nothing here.
    fn at_once(&self, calls: &[Planned]) -> usize {
        let is_elsewhere =
            |call: &Planned| self.tool(&call.name).is_none_or(|offered| offered.tool.is_repeatable());
        if calls.iter().all(is_elsewhere) { ELSEWHERE } else { SIDE_BY_SIDE }
    }
}

fn planned(
    setup: &Setup,
    reply: &wardian_protocol::Message,
    mut verdicts: HashMap<String, HookOutcome>,
    mut past: Past,
) -> Vec<Planned> {
    let was_cut = reply.stop_reason.as_deref() == Some("max_tokens");
    let last = reply.content.len().saturating_sub(1);
    let call = |(index, block): (usize, &ContentBlock)| match block {
        ContentBlock::ToolUse { id, name, input, .. } => Some(Planned {
            id: id.clone(),
            name: setup.real_name(name).to_owned(),
            input: input.clone(),
            verdict: verdicts.remove(id).unwrap_or_default(),
            cut: was_cut && index == last,
            before: past.take(id),
        }),
        ContentBlock::Text { .. }
        | ContentBlock::Thinking { .. }
        | ContentBlock::ToolResult { .. }
        | ContentBlock::Other(_) => None,
    };
    reply.content.iter().enumerate().filter_map(call).collect()
}

async fn answer(setup: &Arc<Setup>, call: &Planned, skipped: bool, stop: &CancellationToken) -> Answer {
    match call.before {
        Before::Nothing => (),
        Before::Started => return Answer::failed(words::INTERRUPTED_BY_RESTART),
        // It was given before the restart.
        Before::Answered(_) => return Answer::failed(String::new()),
    }
    if skipped {
        return Answer::failed(words::NOT_RUN);
    }
    if stop.is_cancelled() {
        return Answer { ended: ToolsEnd::Interrupted, ..Answer::failed(words::NOT_RUN) };
    }
    if call.cut {
        return Answer::failed(words::CUT);
    }
    let Some(offered) = setup.tool(&call.name) else {
        let known: Vec<&str> = setup.tools.iter().map(|offered| offered.tool.name()).collect();
        return Answer::failed(words::unknown_tool(&call.name, &known));
    };
    if let Err(text) = readable(offered, &call.name, &call.input) {
        return Answer::failed(text);
    }
    let mut answer = permitted(setup, offered, call, stop).await;
    if call.verdict.stop.is_some() {
        // The turn ends behind the call, not before it: what it may do was decided already.
        answer.ended = answer.ended.max(ToolsEnd::HookStopped);
    }
    answer
}

/// Runs a call if it may run.
async fn permitted(
    setup: &Arc<Setup>,
    offered: &Offered,
    call: &Planned,
    stop: &CancellationToken,
) -> Answer {
    if call.verdict.timed_out {
        return Answer::failed(words::LATE_HOOK);
    }
    if call.verdict.decision == HookDecision::Defer {
        return Answer { ended: ToolsEnd::Deferred, ..Answer::failed(words::NOT_RUN) };
    }
    let refused = |message: String, input: Value| Answer {
        denial: Some(PermissionDenial {
            tool_name: call.name.clone(),
            tool_use_id: call.id.clone(),
            tool_input: input,
        }),
        ..Answer::failed(message)
    };
    let input = match &call.verdict.input {
        None => call.input.clone(),
        Some(updated) => match readable(offered, &call.name, updated) {
            Ok(()) => updated.clone(),
            Err(text) => {
                let answer = refused(words::hook_rewrote(&text), call.input.clone());
                return Answer { meta: Some(Rejected::Hook.meta(&call.id)), ..answer };
            }
        },
    };
    let asked = Asked { tool: &call.name, id: &call.id, input, verdict: &call.verdict };
    let shell_cwd =
        { setup.context.bash_cwd.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone() };
    match setup.authority().decide(asked, &shell_cwd, stop).await {
        Ruling::Run { input, by } => {
            let answer = execute(setup, offered, call, input, stop).await;
            let meta = match answer.ended {
                ToolsEnd::Interrupted => Rejected::AndStopped.meta(&call.id),
                ToolsEnd::Done | ToolsEnd::Deferred | ToolsEnd::HookStopped => by.meta(&call.id),
            };
            Answer { meta: Some(meta), ..answer }
        }
        // Who stopped the turn refused what was being decided.
        Ruling::Stopped => Answer {
            ended: ToolsEnd::Interrupted,
            meta: Some(Rejected::AndStopped.meta(&call.id)),
            ..refused(words::NOT_RUN.to_owned(), call.input.clone())
        },
        Ruling::Refused { message, by, input } => {
            tracing::debug!(tool = %call.name, id = %call.id, ?by, "tool: refused");
            Answer {
                ended: if by.stops() { ToolsEnd::Interrupted } else { ToolsEnd::Done },
                meta: Some(by.meta(&call.id)),
                ..refused(message, input)
            }
        }
    }
}

impl Setup {
    fn authority(&self) -> Authority<'_> {
        Authority {
            live: &self.live,
            can_use_tool: self.can_use_tool.as_ref(),
            hooks: &self.hooks,
            files: &self.settings_files,
            out: &self.out,
            servers: &self.servers,
            state_events: self.state_events,
            cwd: &self.context.cwd,
            home: self.home.as_deref(),
            waiting: &self.waiting,
            order: &self.order,
        }
    }
}

/// Says what is wrong with an input, if anything is.
fn readable(offered: &Offered, tool: &str, input: &Value) -> Result<(), String> {
    // The decoder leaves an input that is no JSON as the text that it was.
    if let Value::String(text) = input {
        return Err(words::broken_input(tool, text));
    }
    if offered.tool.checks_input() {
        return Ok(());
    }
    let mut problems = schema::problems(&offered.schema, input);
    if problems.is_empty() {
        problems.extend(offered.tool.objection(input));
    }
    if problems.is_empty() { Ok(()) } else { Err(words::bad_input(tool, &problems)) }
}

/// Tells now and then that a call still runs.
async fn heartbeats(setup: &Setup, call: &Planned) -> Infallible {
    let began = Instant::now();
    let mut count = 0;
    loop {
        tokio::time::sleep_until(began + setup.tool_heartbeat * (count + 1)).await;
        setup.out.still_running(&call.name, &call.id, count, began.elapsed()).await;
        count += 1;
    }
}

async fn execute(
    setup: &Arc<Setup>,
    offered: &Offered,
    call: &Planned,
    input: Value,
    stop: &CancellationToken,
) -> Answer {
    // A hook or the host may have written another input.
    if let Err(text) = readable(offered, &call.name, &input) {
        return Answer::failed(text);
    }
    if !offered.tool.is_repeatable() && setup.out.keep_started(&call.id).await.is_err() {
        return Answer::failed(words::NOT_RUN);
    }
    let context = ToolContext {
        tool_use_id: call.id.clone(),
        cancel: stop.child_token(),
        within: Within::of(setup),
        env: lock(&setup.live).env.clone().unwrap_or_else(|| Arc::clone(&setup.context.env)),
        ..setup.context.clone()
    };
    let shell_cwd = || context.bash_cwd.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let before = shell_cwd();
    let began = Instant::now();
    let run = AssertUnwindSafe(offered.tool.call(input.clone(), &context)).catch_unwind();
    let mut output = tokio::select! {
        biased;
        output = run => output.unwrap_or_else(|_| ToolOutput::error(words::CRASHED)),
        () = long_after(stop) => ToolOutput::error(words::STOPPED),
        never = heartbeats(setup, call) => match never {},
    };
    if stop.is_cancelled() {
        let mut text = words::STOPPED.to_owned();
        if let Some(given) = output.content.as_str().filter(|given| !given.is_empty() && *given != text) {
            text.push_str("\n\nIt had given:\n");
            text.push_str(given);
        }
        output = ToolOutput::error(text);
    }
    let interrupted = stop.is_cancelled();
    tracing::debug!(
        tool = %call.name, id = %call.id, took_ms = millis(began.elapsed()), failed = output.is_error, interrupted,
        "tool"
    );
    let server = setup.servers.origin(&call.name).map(|origin| origin.provenance());
    let (tool, id, took) = (&call.name, &call.id, began.elapsed());
    let ran = Ran { tool, id, input: &input, took, interrupted, server };
    let after = setup.hooks.after_call(ran, &mut output).await;
    let now = shell_cwd();
    if now != before {
        setup.hooks.cwd_changed(&before, &now).await;
    }
    let ended = match (interrupted, after.stops) {
        (true, _) => ToolsEnd::Interrupted,
        (false, true) => ToolsEnd::HookStopped,
        (false, false) => ToolsEnd::Done,
    };
    Answer { ended, context: after.context, ..Answer::of(fit(setup, &call.id, output).await) }
}

async fn long_after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_GRACE).await;
}

/// Cuts a result that is too long for the model, and keeps the whole of it on disk.
async fn fit(setup: &Setup, id: &str, mut output: ToolOutput) -> ToolOutput {
    if let Value::Array(blocks) = &mut output.content {
        fit_blocks(blocks);
    }
    let Value::String(text) = &mut output.content else { return output };
    if text.len() <= MAX_RESULT_BYTES {
        return output;
    }
    let path = setup.context.output_dir.join(format!("{}.txt", file_name(id)));
    let kept = file::keep(&path, text.clone().into_bytes())
        .await
        .map_err(|error| tracing::warn!(%error, "a long tool result was not kept"))
        .is_ok();
    let whole = text.len();
    text.truncate(text.floor_char_boundary(MAX_RESULT_BYTES));
    let note = words::spilled(text.len(), whole, kept.then_some(path.as_path()));
    text.push_str(&note);
    output
}

/// Cuts the texts of a result that is a list of blocks where they are too long together.
fn fit_blocks(blocks: &mut [Value]) {
    let mut room = MAX_RESULT_BYTES;
    for block in blocks {
        let Some(Value::String(text)) = block.get_mut("text") else { continue };
        let whole = text.len();
        if whole > room {
            text.truncate(text.floor_char_boundary(room));
            text.push_str(&words::spilled(text.len(), whole, None));
        }
        room = room.saturating_sub(whole);
    }
}
