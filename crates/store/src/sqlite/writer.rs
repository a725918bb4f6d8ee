//! The one writer: a thread that takes jobs from a bounded queue and commits many at once.
//!
//! Each job runs in a savepoint of its own, so that a failing one takes nothing with it; one commit, and so one wait for
//! the disk, makes all of them durable; only then is anyone told.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::Error;

/// Jobs that may wait. Whoever comes then waits to be let in.
const QUEUE: usize = 1024;

/// Jobs in one commit.
const MAX_BATCH: usize = 512;

/// How long a commit takes jobs in before it is closed.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// The writer's front: cheap to call from many tasks. Dropping it ends the thread once the queue is empty.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    pub(super) watch: Watch,
}

/// Who is told of each commit: how long it took, the wait for the disk included, and how many jobs were in it.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<OnceLock<Box<CommitWatcher>>>);

/// See [`Watch`].
pub(super) type CommitWatcher = dyn Fn(Duration, usize) + Send + Sync;

impl Watch {
    /// Sets who is told, once.
    pub(super) fn set(&self, watcher: Box<CommitWatcher>) {
        if self.0.set(watcher).is_err() {
            tracing::error!("the store's commits have a watcher already");
        }
    }

    fn tell(&self, took: Duration, jobs: usize) {
        if let Some(watcher) = self.0.get() {
            watcher(took, jobs);
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Watch").field("set", &self.0.get().is_some()).finish()
    }
}

impl Writer {
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let watch = Watch::default();
        let told = watch.clone();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(&connection, jobs, &told))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), watch })
    }

    /// Runs the work on the writer's thread and returns once what it wrote is durable. The work may be run a second time
    /// after its first try was rolled back.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        let job = Box::new(Task { work, outcome: Err(Error::Closed), reply });
        queue.send(job).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Jobs that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| QUEUE - queue.capacity())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

/// Work with a place for its outcome and someone who waits for it.
trait Job: Send {
    /// Does the work; the outcome is kept, and the error, if it is one, also returned.
    fn run(&mut self, connection: &Connection) -> Result<(), Error>;
    /// Tells the outcome.
    fn tell(self: Box<Self>);
    /// Tells that it came to nothing.
    fn fail(self: Box<Self>, error: Error);
}

struct Task<T, F> {
    work: F,
    outcome: Result<T, Error>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, Error> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), Error> {
        self.outcome = (self.work)(connection);
        self.outcome.as_ref().map(|_| ()).map_err(Error::clone)
    }

    // Whoever waited may be gone by now; what was written stays written.
    fn tell(self: Box<Self>) {
        let _gone = self.reply.send(self.outcome);
    }

    fn fail(self: Box<Self>, error: Error) {
        let _gone = self.reply.send(Err(error));
    }
}

fn serve(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Job>>, watch: &Watch) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        let begun = Instant::now();
        match commit(connection, &mut batch, &mut queue) {
            Ok(()) => {
                watch.tell(begun.elapsed(), batch.len());
                batch.into_iter().for_each(Job::tell);
            }
            // One large job must not take the small ones with it, which may still fit.
            Err(Error::Full) if batch.len() > 1 => batch.into_iter().for_each(|job| alone(connection, job)),
            Err(error) => batch.into_iter().for_each(|job| job.fail(error.clone())),
        }
    }
}

fn alone(connection: &Connection, mut job: Box<dyn Job>) {
    match transact(connection, || step(connection, job.as_mut())) {
        Ok(()) => job.tell(),
        Err(error) => job.fail(error),
    }
}

/// Runs the first job and those that come while it lasts, in one transaction.
fn commit(
    connection: &Connection,
    batch: &mut Vec<Box<dyn Job>>,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
) -> Result<(), Error> {
    let begun = Instant::now();
    transact(connection, || {
        let mut next = 0;
        loop {
            step(connection, batch[next].as_mut())?;
            next += 1;
            if next == MAX_BATCH || begun.elapsed() >= BATCH_TIME {
                return Ok(());
            }
            match queue.try_recv() {
                Ok(job) => batch.push(job),
                Err(_) => return Ok(()),
            }
        }
    })
}

/// Runs one job in a savepoint. An error is one of the transaction; the job's own is in its outcome.
fn step(connection: &Connection, job: &mut dyn Job) -> Result<(), Error> {
    perform(connection, "SAVEPOINT job")?;
    match job.run(connection) {
        Ok(()) => perform(connection, "RELEASE job"),
        // A full disk and the like may end the whole transaction.
        Err(error) if connection.is_autocommit() => Err(error),
        Err(_) => perform(connection, "ROLLBACK TO job").and_then(|()| perform(connection, "RELEASE job")),
    }
}

fn transact(connection: &Connection, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    perform(connection, "BEGIN IMMEDIATE")?;
    let result = work().and_then(|()| perform(connection, "COMMIT"));
    // Some errors end the transaction by themselves; none may be left open for the next one to fall over.
    if result.is_err()
        && !connection.is_autocommit()
        && let Err(error) = perform(connection, "ROLLBACK")
    {
        tracing::error!(%error, "could not roll back a transaction of the store");
    }
    result
}

fn perform(connection: &Connection, statement: &str) -> Result<(), Error> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}
