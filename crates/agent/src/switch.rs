//! Another model while a query runs: the API is asked whether it has it, hooks are heard, and from the next model call on
//! it holds. Both may take a while, and hooks may need the host's own answers, so it is done beside the session's task;
//! prompts that come meanwhile are for the new model, and wait.
//!
//! source: the agent protocol reference, sections 1.2 and 1.4, and what the official CLI was seen to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};
use tokio::time::{Instant, timeout};
use wardian_ledger::PriceTable;
use wardian_protocol::Usage;
use wardian_protocol::hook::PermissionDecision;

use crate::authorise::{Live, lock};
use crate::client::Client;
use crate::hook::{HookEvent, HookOutcome, SessionHooks};
use crate::later::Later;
use crate::task::Tasks;
use crate::{Error, models, view, words};

/// How long the API may take to say whether it has a model; then it is taken for one that it has.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the API keeps a prefix that nobody asks for; ours are all of the short kind.
const CACHE_LIFE: Duration = Duration::from_secs(5 * 60);

/// What came of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSwitch {
    /// The id of the model that the next request is for.
    pub model: String,
    /// Whether that is another than before.
    pub changed: bool,
}

/// A wish for another model.
#[derive(Debug)]
pub(crate) struct Wish {
    /// An id or an alias; `None`: the one that the query began with.
    pub(crate) model: Option<String>,
    /// Whether the API is asked first.
    pub(crate) probe: bool,
    pub(crate) reply: oneshot::Sender<Result<ModelSwitch, Error>>,
}

/// The last reply of the main thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastReply {
    /// What the next request sends again.
    pub(crate) tokens: u64,
    pub(crate) at: Instant,
}

/// The switches of a query. Clones are the same.
#[derive(Clone)]
pub(crate) struct Switches(Arc<Inner>);

struct Inner {
    live: Arc<Mutex<Live>>,
    client: Arc<Client>,
    /// They change when a new conversation begins.
    hooks: Mutex<SessionHooks>,
    /// One after the other.
    turn: AsyncMutex<()>,
    /// How many are under way.
    open: watch::Sender<usize>,
    /// Gets what hooks have for the model.
    later: Later,
}

impl Switches {
    pub(crate) fn new(
        live: &Arc<Mutex<Live>>,
        client: &Arc<Client>,
        hooks: &SessionHooks,
        later: &Later,
    ) -> Self {
        Self(Arc::new(Inner {
            live: Arc::clone(live),
            client: Arc::clone(client),
            hooks: Mutex::new(hooks.clone()),
            turn: AsyncMutex::default(),
            open: watch::Sender::new(0),
            later: later.clone(),
        }))
    }

    /// The hooks are these from now on.
    pub(crate) fn heard_by(&self, hooks: &SessionHooks) {
        *self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner) = hooks.clone();
    }

    /// Begins a switch; it is done, or given up when the query ends.
    pub(crate) fn begin(&self, wish: Wish, tasks: &Tasks) {
        self.0.open.send_modify(|open| *open += 1);
        let (switches, ended) = (self.clone(), tasks.ended());
        let under_way = UnderWay(self.clone());
        tasks.spawn(async move {
            let _under_way = under_way;
            let _turn = switches.0.turn.lock().await;
            tokio::select! {
                biased;
                () = ended.cancelled() => (),
                () = switches.run(wish) => (),
            }
        });
    }

    /// Whether none is under way.
    pub(crate) fn is_settled(&self) -> bool {
        *self.0.open.borrow() == 0
    }

    /// Waits until none is under way.
    pub(crate) async fn settled(&self) {
        // The sender is our own.
        let _ = self.0.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// The hooks of this moment.
    pub(crate) fn hooks(&self) -> SessionHooks {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn run(&self, Wish { model, probe, reply }: Wish) {
        let (from, to) = {
            let live = lock(&self.0.live);
            let named = model.as_deref().map(models::resolve);
            (live.model.clone(), named.unwrap_or_else(|| live.first_model.clone()))
        };
        let changed = from != to;
        if probe && changed && model.is_some() {
            let asked = timeout(PROBE_PATIENCE, view::probe(&self.0.client, &to)).await;
            if let Ok(Err(error)) = asked {
                // Who asked may not wait for the answer, here and below.
                let _ = reply.send(Err(error));
                return;
            }
        }
        if !changed {
            let _ = reply.send(Ok(ModelSwitch { model: to, changed }));
            return;
        }
        let hooks = self.hooks();
        let heard = hooks.listens(HookEvent::PreModelSwitch) || hooks.listens(HookEvent::PostModelSwitch);
        let fields = if heard { self.fields(&from, &to, model.as_deref(), &hooks) } else { Value::Null };
        let said = hooks.run(HookEvent::PreModelSwitch, &to, fields.clone()).await;
        if let Some(reason) = refusal(&said) {
            let _ = reply.send(Err(Error::SwitchBlocked { reason }));
            return;
        }
        lock(&self.0.live).model.clone_from(&to);
        let _ = reply.send(Ok(ModelSwitch { model: to.clone(), changed }));
        let said = hooks.run(HookEvent::PostModelSwitch, &to, fields).await;
        let name = HookEvent::PostModelSwitch.as_str();
        self.0.later.tell(said.context.iter().map(|text| words::hook_context(name, text)));
    }

    fn fields(&self, from: &str, to: &str, asked: Option<&str>, hooks: &SessionHooks) -> Value {
        let last = lock(&self.0.live).last_reply;
        let tokens = last.map_or(0, |last| last.tokens);
        let usage = Usage { cache_creation_input_tokens: Some(tokens), ..Usage::default() };
        let cost = PriceTable::embedded().cost(models::api_name(to), &usage, &hooks.today());
        json!({
            "from_model": from,
            "to_model": to,
            "requested_model": asked,
            "source": "sdk",
            "context_tokens": tokens,
            "prompt_cache_warm": last.is_some_and(|last| last.at.elapsed() < CACHE_LIFE),
            "cache_ttl": "5m",
            "estimated_cache_write_usd": rounded(cost.nano.as_usd()),
            "pricing": if cost.unpriced { "default" } else { "catalog" },
        })
    }
}

/// A switch under way; it is over when this is dropped, however it went.
struct UnderWay(Switches);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.open.send_modify(|open| *open -= 1);
    }
}

/// Why hooks do not let a switch happen. Nobody can be asked here, so what is to be asked about is refused.
fn refusal(said: &HookOutcome) -> Option<String> {
    let decided = |wanted: PermissionDecision| {
        let mut all = said.specific.iter();
        all.find(|said| said.permission_decision == Some(wanted))
            .map(|said| said.permission_decision_reason.clone().unwrap_or_default())
    };
    let asks = || decided(PermissionDecision::Ask).map(|_| words::NOBODY_TO_ASK.to_owned());
    said.block.clone().or_else(|| decided(PermissionDecision::Deny)).or_else(asks)
}

/// To a hundredth of a cent.
fn rounded(dollars: f64) -> f64 {
    (dollars * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use wardian_protocol::hook::HookSpecificOutput;

    use super::*;

    #[test]
    fn the_strictest_of_what_hooks_say_holds() {
        let said = |decision, reason: &str| HookSpecificOutput {
            permission_decision: Some(decision),
            permission_decision_reason: Some(reason.to_owned()),
            ..HookSpecificOutput::default()
        };
        let (allow, ask) = (said(PermissionDecision::Allow, ""), said(PermissionDecision::Ask, "x"));
        let deny = said(PermissionDecision::Deny, "no");
        let of =
            |specific: Vec<HookSpecificOutput>| refusal(&HookOutcome { specific, ..HookOutcome::default() });
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![allow.clone()]), None);
        assert_eq!(of(vec![allow.clone(), ask.clone()]), Some(words::NOBODY_TO_ASK.to_owned()));
        assert_eq!(of(vec![ask, deny, allow]), Some("no".to_owned()));
        let blocked = HookOutcome { block: Some("never".to_owned()), ..HookOutcome::default() };
        assert_eq!(refusal(&blocked), Some("never".to_owned()));
    }
}
