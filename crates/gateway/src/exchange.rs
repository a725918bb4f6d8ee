//! One request, from its head to its settlement, however it ends.
//!
//! An [`Exchange`] is owned by whatever carries the request on at the moment: the handler, then the body of the reply.
//! When it is dropped the request is over: it is settled at what is known then, and logged. So no way of ending, a
//! client that leaves among them, can skip the settlement.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::trace::SpanContext;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wardian_protocol::RequestId;
use wardian_store::{Error as StoreError, Settled, UsageEnd, UsageStart};

use crate::charge::{Charge, Fate, Reserved};
use crate::door::DoorState;
use crate::meter::{Certainty, Meter, Reading};
use crate::metrics::Done;
use crate::observer::{self, EndPlace};
use crate::route::Route;
use crate::trace::Chat;

/// The first pause before settling is tried again; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// One request.
pub struct Exchange {
    /// The door that it came through.
    pub door: Arc<DoorState>,
    /// Our id of it.
    pub id: RequestId,
    /// What it asks for.
    pub route: Route,
    /// The model that it names.
    pub model: Option<String>,
    /// The bytes of its body.
    pub request_bytes: usize,
    /// The status that the client gets; 0 as long as there is none.
    pub status: u16,
    /// The upstream's id of it.
    pub upstream_id: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The type of the error that it ended with.
    pub error: Option<String>,
    started: Instant,
    first_byte: Option<Duration>,
    first_token: Option<Duration>,
    reply_bytes: u64,
    money: Option<Money>,
    /// Where its end is told, once its beginning was.
    end_place: Option<EndPlace>,
    /// The span that its own stands below.
    trace: SpanContext,
    /// The door does not finish closing before this is over.
    _alive: TaskTrackerToken,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client left, or the door closed. What an exchange is until it is known otherwise.
    Aborted,
    /// Answered here, without the upstream.
    Local,
    /// Refused here.
    Refused,
    /// Answered by the upstream, to the end.
    Completed,
    /// The upstream answered with an error.
    UpstreamError,
    /// The upstream could not be reached, or its reply broke off.
    UpstreamLost,
}

impl Outcome {
    /// Its name in logs and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Local => "local",
            Self::Refused => "refused",
            Self::Completed => "completed",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamLost => "upstream_lost",
        }
    }
}

/// The money of a metered request.
struct Money {
    reserved: Reserved,
    stage: Stage,
    under_way: UnderWay,
}

/// Counts a request as under way in its door as long as it lives.
struct UnderWay(Arc<DoorState>);

impl UnderWay {
    fn new(door: &Arc<DoorState>) -> Self {
        door.in_flight.fetch_add(1, Ordering::SeqCst);
        door.shared.config.metrics.began();
        Self(Arc::clone(door))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.0.shared.config.metrics.ended();
    }
}

/// How far a metered request came.
enum Stage {
    /// The door has room for it.
    Reserved,
    /// Its record is open.
    Opened,
    /// It went upstream.
    Sent(Instant),
    /// The upstream began to answer.
    Answered(Instant, Meter),
    /// The upstream refused it.
    Free,
}

impl Exchange {
    /// A request that just came.
    pub fn begin(door: Arc<DoorState>, id: RequestId, route: Route) -> Box<Self> {
        let _alive = door.tracker.token();
        Box::new(Self {
            door,
            id,
            route,
            model: None,
            request_bytes: 0,
            status: 0,
            upstream_id: None,
            outcome: Outcome::Aborted,
            error: None,
            started: Instant::now(),
            first_byte: None,
            first_token: None,
            reply_bytes: 0,
            money: None,
            end_place: None,
            trace: SpanContext::NONE,
            _alive,
        })
    }

    /// Takes over a reservation that the door's budget has just made.
    pub fn hold(&mut self, reserved: Reserved) {
        let under_way = UnderWay::new(&self.door);
        self.trace = self.door.trace();
        self.money = Some(Money { reserved, stage: Stage::Reserved, under_way });
    }

    /// Opens the record of a metered request; only after that may a byte go upstream. The exchange goes into the call and
    /// comes back, so that a client that leaves meanwhile cannot part the two.
    pub async fn open(mut self: Box<Self>) -> (Box<Self>, Result<(), StoreError>) {
        let Some(money) = &mut self.money else { return (self, Ok(())) };
        let (grant, shared) = (&self.door.grant, &self.door.shared);
        let start = UsageStart {
            id: self.id.clone(),
            org_id: grant.org_id.clone(),
            user_id: grant.user_id.clone(),
            session_id: grant.session_id.clone(),
            run_id: grant.run_id.clone(),
            owner: shared.config.owner.clone(),
            model: money.reserved.model.clone(),
            bound: money.reserved.bound,
            at: money.reserved.at,
        };
        let opened = shared.store.open_usage(start).await;
        // After `Closed` the record may be open all the same: settling it at nothing does no harm.
        if matches!(opened, Ok(()) | Err(StoreError::Closed)) {
            money.stage = Stage::Opened;
        }
        (self, opened)
    }

    /// Tells the door's observer that the request goes upstream next.
    pub async fn announce(&mut self) {
        if let (Some(money), Some(observer)) = (&self.money, &self.door.observer) {
            let (id, model) = (self.id.clone(), money.reserved.model.clone());
            let at = (self.door.shared.config.clock)();
            self.end_place = observer.start(observer::Exchange::Started { id, model, at }).await;
        }
    }

    /// Notes that the request goes upstream now.
    pub fn sent(&mut self) {
        self.stage(|_| Stage::Sent(Instant::now()));
    }

    /// Notes that the request cannot have reached the upstream after all.
    pub fn not_sent(&mut self) {
        self.stage(|_| Stage::Opened);
    }

    /// Notes the head of the upstream's reply.
    pub fn answered(&mut self, status: u16, meter: Meter) {
        let success = (200..300).contains(&status);
        self.stage(|stage| match stage {
            Stage::Sent(at) if success => Stage::Answered(at, meter),
            _ => Stage::Free,
        });
        self.status = status;
        self.outcome = if success { Outcome::Aborted } else { Outcome::UpstreamError };
    }

    /// Notes a piece of the reply.
    pub fn received(&mut self, bytes: &[u8]) {
        self.first_byte.get_or_insert_with(|| self.started.elapsed());
        self.reply_bytes = self.reply_bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if let Some(Money { stage: Stage::Answered(_, meter), .. }) = &mut self.money {
            meter.feed(bytes);
            if self.first_token.is_none() && meter.has_answer() {
                self.first_token = Some(self.started.elapsed());
            }
        }
    }

    /// Ends a request whose reply came to its end.
    pub fn complete(mut self: Box<Self>) {
        if self.outcome == Outcome::Aborted {
            self.outcome = Outcome::Completed;
        }
    }

    /// Ends a request whose reply broke off.
    pub fn lost(mut self: Box<Self>) {
        self.outcome = Outcome::UpstreamLost;
    }

    fn stage(&mut self, next: impl FnOnce(Stage) -> Stage) {
        if let Some(money) = &mut self.money {
            money.stage = next(std::mem::replace(&mut money.stage, Stage::Free));
        }
    }

    /// Settles with the door at once and with the store in the background.
    fn settle(&mut self, money: Money) -> Charge {
        let Money { reserved, stage, under_way } = money;
        let (fate, opened) = match stage {
            Stage::Reserved => (Fate::Free, false),
            Stage::Opened | Stage::Free => (Fate::Free, true),
            Stage::Sent(at) => {
                // A reply in one piece has no head before it is done: the model may have written all the time.
                let reading = Reading { hidden: !reserved.stream, ..Reading::default() };
                (Fate::Sent { reading: Box::new(reading), seconds: at.elapsed().as_secs() }, true)
            }
            Stage::Answered(at, meter) => {
                let reading = meter.finish(self.outcome == Outcome::Completed);
                self.error = self.error.take().or_else(|| reading.error.clone());
                (Fate::Sent { reading: Box::new(reading), seconds: at.elapsed().as_secs() }, true)
            }
        };
        let charge = reserved.charge(self.door.shared.prices, &fate);
        match &fate {
            Fate::Free => self.door.budget.release(reserved.bound),
            Fate::Sent { .. } => {
                let model = charge.model.as_deref().unwrap_or(&reserved.model);
                self.door.budget.settle(reserved.bound, charge.cost, model, charge.tokens);
            }
        }
        if charge.cost > reserved.bound {
            tracing::warn!(
                request_id = %self.id,
                cost_nanousd = charge.cost.0,
                bound_nanousd = reserved.bound.0,
                "a model request cost more than the bound that was reserved for it",
            );
        }
        if opened {
            self.count(&charge, &reserved);
            let (door, end) = (Arc::clone(&self.door), self.end(&charge));
            let told = self.end_place.take().map(|place| (place, self.ended(&charge, &reserved, &fate)));
            self.door.spawn(async move {
                keep_settling(&door, end).await;
                drop(under_way);
                if let Some((place, ended)) = told {
                    place.tell(ended);
                }
            });
        }
        charge
    }

    fn end(&self, charge: &Charge) -> UsageEnd {
        UsageEnd {
            id: self.id.clone(),
            org_id: self.door.grant.org_id.clone(),
            model: charge.model.clone(),
            upstream_id: self.upstream_id.clone(),
            status: self.status,
            tokens: charge.tokens,
            cost: charge.cost,
            price_version: charge.price_version.clone(),
            unpriced: charge.unpriced,
            settled: charge.settled,
            at: (self.door.shared.config.clock)(),
        }
    }

    fn count(&self, charge: &Charge, reserved: &Reserved) {
        let shared = &self.door.shared;
        let done = Done {
            model: &reserved.model,
            answered: charge.model.as_deref(),
            outcome: self.outcome,
            status: self.status,
            took: self.started.elapsed(),
            first_token: self.first_token,
            tokens: charge.tokens,
            cost: charge.cost,
        };
        shared.config.metrics.done(shared.prices, &done);
        if let Some(tracer) = &shared.config.tracer {
            let chat = Chat {
                id: &self.id,
                upstream_id: self.upstream_id.as_deref(),
                session_id: &self.door.grant.session_id,
                from: reserved.at,
                to: (shared.config.clock)(),
                done: &done,
            };
            chat.write(tracer, self.trace.clone(), shared.prices);
        }
    }

    fn ended(&self, charge: &Charge, reserved: &Reserved, fate: &Fate) -> observer::Exchange {
        let whole = match fate {
            Fate::Free => false,
            Fate::Sent { reading, .. } => reading.certainty == Certainty::Final,
        };
        observer::Exchange::Ended {
            id: self.id.clone(),
            model: charge.model.as_ref().unwrap_or(&reserved.model).clone(),
            status: (self.status != 0).then_some(self.status),
            is_error: self.error.is_some() || !whole,
            tokens: charge.tokens,
            cost: charge.cost,
            at: (self.door.shared.config.clock)(),
        }
    }

    fn log(&self, charge: Option<&Charge>, bound: Option<i64>) {
        let grant = &self.door.grant;
        let tokens = charge.map(|charge| charge.tokens).unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            request_id = %self.id,
            upstream_request_id = self.upstream_id.as_deref(),
            org_id = %grant.org_id,
            user_id = grant.user_id.as_deref(),
            session_id = %grant.session_id,
            run_id = %grant.run_id,
            route = self.route.name(),
            request_model = self.model.as_deref(),
            response_model = charge.and_then(|charge| charge.model.as_deref()),
            status = self.status,
            outcome = self.outcome.name(),
            error_type = self.error.as_deref(),
            input_tokens = tokens.input_tokens,
            output_tokens = tokens.output_tokens,
            cache_read_tokens = tokens.cache_read_tokens,
            cache_write_5m_tokens = tokens.cache_write_5m_tokens,
            cache_write_1h_tokens = tokens.cache_write_1h_tokens,
            cost_nanousd = charge.map(|charge| charge.cost.0),
            reserved_nanousd = bound,
            price_version = charge.map(|charge| charge.price_version.as_str()),
            unpriced = charge.map(|charge| charge.unpriced),
            settled = charge.map(|charge| settled_name(charge.settled)),
            ttfb_ms = self.first_byte.map(millis),
            duration_ms = millis(self.started.elapsed()),
            request_bytes = self.request_bytes,
            reply_bytes = self.reply_bytes,
            "model request done",
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let money = self.money.take();
        let bound = money.as_ref().map(|money| money.reserved.bound.0);
        let charge = money.map(|money| self.settle(money));
        self.log(charge.as_ref(), bound);
    }
}

const fn settled_name(settled: Settled) -> &'static str {
    match settled {
        Settled::Exact => "exact",
        Settled::Estimated => "estimated",
        Settled::AtBound => "at_bound",
    }
}

/// Settles a record, again and again until it is done or the time for it is over. It is tried once more when the store
/// works again; a record that stays open is charged at its bound by the next start of the server.
async fn keep_settling(door: &DoorState, end: UsageEnd) {
    let shared = &door.shared;
    let deadline = Instant::now() + shared.config.timeouts.settle;
    let mut pause = FIRST_RETRY;
    let error = loop {
        match shared.store.settle_usage(end.clone()).await {
            Ok(_) => return settle_older(door).await,
            Err(error @ StoreError::Unknown { .. }) => break error,
            Err(error) if Instant::now() + pause > deadline => break error,
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    };
    tracing::error!(
        request_id = %end.id,
        session_id = %door.grant.session_id,
        cost_nanousd = end.cost.0,
        error = &error as &dyn std::error::Error,
        "failed to settle a model request; its record stays open for now",
    );
    if !matches!(error, StoreError::Unknown { .. }) {
        shared.health.unsettled(end);
    }
    shared.config.metrics.settle_failed();
}

/// Settles what could not be settled when the store did not work.
async fn settle_older(door: &DoorState) {
    for end in door.shared.health.take_unsettled() {
        match door.shared.store.settle_usage(end.clone()).await {
            Ok(_) | Err(StoreError::Unknown { .. }) => (),
            Err(_) => door.shared.health.unsettled(end),
        }
    }
}
