//! The canary: a tiny run from time to time, on the way that a user's takes, so that an operator hears of a broken way before
//! users do. Its money is its own, and counted where everybody's is: a restart does not give it another day's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use wardian_protocol::{NanoUsd, OrgId, RequestId, SessionId};
use wardian_session::{Caller, LimitsAsked, Permissions, RunError, RunReport, RunRequest, RunStatus};
use wardian_store::{NewSession, UsageQuery};

use crate::App;

/// Whose the canary's runs are, in the default organisation.
pub const USER: &str = "canary";
/// What it is asked, and what has to be in the answer.
const PROMPT: &str = "Reply with the single word: alive.";
const WORD: &str = "alive";
/// One answer, and one more round if the model is chatty.
const MAX_TURNS: u32 = 2;
/// A way that takes longer is broken.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How the canary is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryConfig {
    /// From the start of one run to that of the next.
    pub every: Duration,
    /// The model that it asks; a name or an alias.
    pub model: String,
    /// What one run may cost.
    pub max_cost: NanoUsd,
    /// What the runs of a day, by UTC, may cost. A run is begun only where all that it may cost is left.
    pub max_cost_per_day: NanoUsd,
    /// Whether a run that failed takes the server out of rotation, until one succeeds.
    pub affects_readiness: bool,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answered.
    Alive,
    /// It did not.
    Failed,
    /// It was not begun: the day's money is used up.
    OverBudget,
    /// It was not begun, or cut off, because the server is full or stops.
    Skipped,
}

impl Sign {
    /// The sign as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Failed => "failed",
            Self::OverBudget => "over_budget",
            Self::Skipped => "skipped",
        }
    }
}

/// What is known of the canary.
#[derive(Debug, Default)]
pub struct Canary(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Whether the last run that came to an end answered.
    is_alive: Option<bool>,
    is_over_budget: bool,
}

impl Canary {
    /// What `/readyz` shows.
    pub fn shown(&self) -> Value {
        let state = self.state();
        let status = match state.is_alive {
            None => "unknown",
            Some(true) => "ok",
            Some(false) => "failed",
        };
        json!({"status": status, "over_budget": state.is_over_budget})
    }

    /// Whether its last run failed.
    pub fn has_failed(&self) -> bool {
        self.state().is_alive == Some(false)
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note, and says in the log what is new.
    fn note(&self, sign: Sign, why: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *state;
        state.is_over_budget = sign == Sign::OverBudget;
        match sign {
            Sign::Alive => state.is_alive = Some(true),
            Sign::Failed => state.is_alive = Some(false),
            Sign::OverBudget | Sign::Skipped => {}
        }
        let now = *state;
        drop(state);
        if now.is_over_budget && !before.is_over_budget {
            tracing::warn!(why, "the canary's money is used up for today: it rests until tomorrow, by UTC");
        }
        match (before.is_alive, now.is_alive) {
            (None | Some(false), Some(true)) => tracing::info!("the canary is alive"),
            (None | Some(true), Some(false)) => tracing::error!(why, "the canary's run failed"),
            _ => {}
        }
    }
}

/// Runs the canary until the server stops.
pub async fn keep(app: Arc<App>, config: CanaryConfig) {
    let mut ticks = tokio::time::interval(config.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = app.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let begun = Instant::now();
        let (sign, why) = match once(&app, &config).await {
            Ok(sign) => sign,
            Err(error) => (Sign::Failed, error.to_string()),
        };
        app.config.metrics.canary(sign, begun.elapsed(), (app.config.clock)());
        app.canary.note(sign, &why);
    }
}

/// One run, if there is money for it, and what became of it.
async fn once(app: &App, config: &CanaryConfig) -> Result<(Sign, String), wardian_store::Error> {
    let org_id = app.store.default_org().await?;
    let now = (app.config.clock)();
    let spent = spent_today(app, &org_id, now).await?;
    if NanoUsd(spent.0.saturating_add(config.max_cost.0)) > config.max_cost_per_day {
        return Ok((Sign::OverBudget, format!("{spent} of {} are spent", config.max_cost_per_day)));
    }
    let id = SessionId::from_random(crate::random_bits());
    let user_id = Some(USER.to_owned());
    let session =
        NewSession { id: id.clone(), org_id: org_id.clone(), user_id, created_at: now, managed: None };
    app.store.create_session(session).await?;
    let caller = Caller { org_id, user_id: Some(USER.to_owned()), key_id: None };
    // Nobody listens; the report says all.
    let (sink, events) = mpsc::channel(1);
    drop(events);
    let request = request(config, id.clone());
    let ran = app.engine.run(caller.clone(), request, sink, app.stopping.child_token()).await;
    // It leaves nothing behind but what it cost.
    app.engine.delete_runs(&caller, &id).await?;
    Ok(judge(ran))
}

fn request(config: &CanaryConfig, session_id: SessionId) -> RunRequest {
    RunRequest {
        model: Some(config.model.clone()),
        permissions: Permissions::Only(Vec::new()),
        limits: LimitsAsked {
            max_turns: Some(MAX_TURNS),
            max_cost: Some(config.max_cost),
            timeout: Some(TIMEOUT),
        },
        session_id: Some(session_id),
        ..RunRequest::new(RequestId::from_random(crate::random_bits()), PROMPT)
    }
}

/// What the canary has cost since midnight, by UTC, with what is reserved.
async fn spent_today(app: &App, org_id: &OrgId, now: Timestamp) -> Result<NanoUsd, wardian_store::Error> {
    let midnight = now.to_zoned(TimeZone::UTC).start_of_day().map_or(now, |midnight| midnight.timestamp());
    let user_id = Some(USER.to_owned());
    let query = UsageQuery { user_id, from: Some(midnight), ..UsageQuery::default() };
    let rows = app.store.usage(org_id, query).await?;
    Ok(NanoUsd(rows.iter().map(|row| row.cost.0.saturating_add(row.reserved.0)).fold(0, i64::saturating_add)))
}

fn judge(ran: Result<RunReport, RunError>) -> (Sign, String) {
    let report = match ran {
        Ok(report) => report,
        Err(error @ (RunError::Full(_) | RunError::Stopping)) => return (Sign::Skipped, error.to_string()),
        Err(error) => return (Sign::Failed, crate::error::describe(&error)),
    };
    let answers = report.result.as_deref().is_some_and(|text| text.to_ascii_lowercase().contains(WORD));
    match report.status {
        RunStatus::Completed if answers && !report.is_error => (Sign::Alive, String::new()),
        RunStatus::Completed => (Sign::Failed, "the answer was another".to_owned()),
        RunStatus::Cancelled => (Sign::Skipped, "the server stops".to_owned()),
        status @ (RunStatus::Failed
        | RunStatus::MaxTurns
        | RunStatus::BudgetReached
        | RunStatus::TimedOut
        | RunStatus::Interrupted) => (Sign::Failed, format!("it ended as {}", status.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_says_whether_it_lives() {
        let canary = Canary::default();
        let status = |canary: &Canary| canary.shown()["status"].as_str().unwrap().to_owned();
        assert_eq!(status(&canary), "unknown");
        canary.note(Sign::OverBudget, "");
        assert_eq!(canary.shown(), json!({"status": "unknown", "over_budget": true}));
        for (sign, expected) in [
            (Sign::Skipped, "unknown"),
            (Sign::Alive, "ok"),
            (Sign::OverBudget, "ok"),
            (Sign::Failed, "failed"),
            (Sign::Skipped, "failed"),
            (Sign::OverBudget, "failed"),
            (Sign::Alive, "ok"),
        ] {
            canary.note(sign, "");
            assert_eq!((status(&canary).as_str(), canary.has_failed()), (expected, expected == "failed"));
            assert_eq!(canary.shown()["over_budget"], json!(sign == Sign::OverBudget));
        }
    }
}
