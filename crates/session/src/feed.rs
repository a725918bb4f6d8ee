//! A session's news for those who follow it.
//!
//! A follower is a place in the log. What it has not seen it takes from the few rows that the feed remembers, or, when it
//! is further behind, from the store: so a thousand followers cost one copy of a row, and a slow one costs nothing but
//! reads of its own. Nobody waits for a follower.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{broadcast, watch};
use wardian_protocol::{OrgId, SessionId};
use wardian_store::{EventRow, Store};

use crate::managed::{Followed, Previews, SessionError};

/// Rows that a feed remembers, and their bytes: what a turn says in a second or two.
const REMEMBERED_ROWS: usize = 256;
const REMEMBERED_BYTES: usize = 256 * 1024;
/// Previews that a follower may be behind; over it, it misses some, and the event itself comes all the same.
const PREVIEWS: usize = 1024;
/// Rows read from the store at a time.
const PAGE: u32 = 200;

/// The feeds that somebody needs.
#[derive(Debug, Default)]
pub struct Feeds {
    feeds: Mutex<HashMap<SessionId, Weak<Feed>>>,
}

/// The news of one session.
#[derive(Debug)]
pub struct Feed {
    recent: Mutex<Recent>,
    last: watch::Sender<Last>,
    previews: broadcast::Sender<Preview>,
}

#[derive(Debug, Default)]
struct Recent {
    rows: VecDeque<News>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Last {
    seq: u64,
    is_over: bool,
}

/// A row of the log.
#[derive(Clone, Debug)]
pub struct News {
    /// Its place.
    pub seq: u64,
    /// Its type.
    pub kind: Arc<str>,
    /// All of it as JSON text.
    pub data: Arc<str>,
}

#[derive(Clone, Debug)]
struct Preview {
    is_message: bool,
    kind: &'static str,
    data: Arc<str>,
}

impl Feeds {
    /// The feed of a session, whose last row is not before `last_seq`.
    pub fn of(&self, session: &SessionId, last_seq: u64) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let feed = match feeds.get(session).and_then(Weak::upgrade) {
            Some(feed) => feed,
            None => {
                feeds.retain(|_, feed| feed.strong_count() > 0);
                let feed = Arc::new(Feed {
                    recent: Mutex::default(),
                    last: watch::Sender::new(Last::default()),
                    previews: broadcast::Sender::new(PREVIEWS),
                });
                feeds.insert(session.clone(), Arc::downgrade(&feed));
                feed
            }
        };
        feed.reach(last_seq);
        feed
    }
}

impl Feed {
    /// Tells the followers about rows that are durable now.
    pub fn publish(&self, rows: Vec<News>) {
        let Some(last) = rows.last().map(|row| row.seq) else { return };
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            for row in rows {
                recent.bytes += row.data.len();
                recent.rows.push_back(row);
            }
            while recent.rows.len() > REMEMBERED_ROWS || recent.bytes > REMEMBERED_BYTES {
                let Some(oldest) = recent.rows.pop_front() else { break };
                recent.bytes -= oldest.data.len();
            }
        }
        self.reach(last);
    }

    /// Whether anybody wants previews.
    pub fn has_previewers(&self) -> bool {
        self.previews.receiver_count() > 0
    }

    /// Shows a preview to who wants it.
    pub fn preview(&self, is_message: bool, kind: &'static str, data: Arc<str>) {
        // Nobody there is fine.
        let _nobody = self.previews.send(Preview { is_message, kind, data });
    }

    /// The session is deleted: followers get what is left, and then the end.
    pub fn end(&self) {
        self.last.send_modify(|last| last.is_over = true);
    }

    fn reach(&self, seq: u64) {
        self.last.send_if_modified(|last| {
            let is_news = seq > last.seq;
            last.seq = last.seq.max(seq);
            is_news
        });
    }

    fn after(&self, seq: u64) -> Option<News> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recent.rows.front()?.seq;
        let index = usize::try_from((seq + 1).checked_sub(first)?).ok()?;
        recent.rows.get(index).cloned()
    }
}

/// Follows a session.
pub struct Follower {
    store: Arc<dyn Store>,
    org: OrgId,
    session: SessionId,
    feed: Arc<Feed>,
    last: watch::Receiver<Last>,
    previews: Option<broadcast::Receiver<Preview>>,
    wanted: Previews,
    seen: u64,
    page: VecDeque<EventRow>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Follower")
            .field("session", &self.session)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Follower {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        org: OrgId,
        session: SessionId,
        feed: Arc<Feed>,
        seen: u64,
        wanted: Previews,
    ) -> Self {
        let last = feed.last.subscribe();
        let previews = (wanted.message || wanted.thinking).then(|| feed.previews.subscribe());
        Self { store, org, session, feed, last, previews, wanted, seen, page: VecDeque::new() }
    }

    /// The next row or preview; none when the session was deleted. May be dropped and called again.
    ///
    /// # Errors
    /// [`SessionError::Store`] when the store cannot be read; what was seen so far is in order, and following again from
    /// there loses nothing.
    pub async fn next(&mut self) -> Result<Option<Followed>, SessionError> {
        loop {
            if let Some(preview) = self.waiting_preview() {
                return Ok(Some(preview));
            }
            let last = *self.last.borrow_and_update();
            if self.seen < last.seq {
                if let Some(event) = self.next_row().await? {
                    return Ok(Some(event));
                }
                // The rows went with the session, or by their age.
                self.seen = last.seq;
            }
            if last.is_over {
                return Ok(None);
            }
            tokio::select! {
                biased;
                preview = next_preview(&mut self.previews, self.wanted) => return Ok(Some(preview)),
                changed = self.last.changed() => if changed.is_err() {
                    return Ok(None);
                },
            }
        }
    }

    /// The place of the last row that was given.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    fn waiting_preview(&mut self) -> Option<Followed> {
        loop {
            match self.previews.as_mut()?.try_recv() {
                Ok(preview) => {
                    if let Some(shown) = shown(preview, self.wanted) {
                        return Some(shown);
                    }
                }
                Err(broadcast::error::TryRecvError::Lagged(_)) => (),
                Err(_) => return None,
            }
        }
    }

    async fn next_row(&mut self) -> Result<Option<Followed>, SessionError> {
        if let Some(news) = self.feed.after(self.seen) {
            self.page.clear();
            self.seen = news.seq;
            return Ok(Some(Followed::Event { seq: news.seq, kind: news.kind, data: news.data }));
        }
        if self.page.is_empty() {
            let rows = self.store.event_rows(&self.org, &self.session, self.seen, PAGE).await;
            self.page = rows.map_err(SessionError::Store)?.into();
        }
        Ok(self.page.pop_front().map(|row| {
            self.seen = row.seq;
            Followed::Event { seq: row.seq, kind: row.kind, data: row.payload }
        }))
    }
}

async fn next_preview(previews: &mut Option<broadcast::Receiver<Preview>>, wanted: Previews) -> Followed {
    loop {
        let Some(receiver) = previews else { return std::future::pending().await };
        match receiver.recv().await {
            Ok(preview) => {
                if let Some(shown) = shown(preview, wanted) {
                    return shown;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => (),
            Err(broadcast::error::RecvError::Closed) => *previews = None,
        }
    }
}

fn shown(preview: Preview, wanted: Previews) -> Option<Followed> {
    let is_wanted = if preview.is_message { wanted.message } else { wanted.thinking };
    is_wanted.then_some(Followed::Preview { kind: preview.kind, data: preview.data })
}
