use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eastwest_model::{Map, Revision};
use tokio::sync::{mpsc, oneshot, watch};

use crate::overlay::{Objects, Overlay};
use crate::window::Window;
use crate::{Change, Disk, Error, Event, Gone, Key, Object, View, WINDOW_BYTES, WINDOW_EVENTS, Watcher};

/// Transactions that may wait for the writing thread; more writers wait in turn.
const QUEUE: usize = 4096;
/// Most transactions, and most bytes of JSON, in one flush: bounds what a writer waits for others.
const BATCH_TRANSACTIONS: usize = 1024;
const BATCH_BYTES: usize = 16 << 20;

/// One batch made durable.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// Time the disk took.
    pub took: Duration,
    pub transactions: usize,
    pub writes: usize,
}

/// How a store is run.
#[derive(Clone)]
pub struct Options {
    /// Bounds of the history that watchers can come back to.
    pub window_events: usize,
    pub window_bytes: usize,
    /// Called after each flush, from the writing thread.
    pub on_flush: Option<Arc<dyn Fn(Flush) + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { window_events: WINDOW_EVENTS, window_bytes: WINDOW_BYTES, on_flush: None }
    }
}

/// What readers see: only what is durable.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) objects: Objects,
    pub(crate) window: Window,
    revision: Revision,
}

#[derive(Debug)]
pub(crate) struct Shared {
    store_id: String,
    state: RwLock<State>,
    pub(crate) head: watch::Sender<Revision>,
    pub(crate) watchers: AtomicUsize,
    /// The last write failed.
    failing: AtomicBool,
}

impl Shared {
    /// A panic cannot leave the state half-changed: it is changed by moves of values that were ready before.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on the store; clones share it. The writing thread ends when the last handle goes.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
    /// Dropped by the writing thread when it has ended.
    ended: watch::Receiver<()>,
}

type Job = Box<dyn Run + Send>;

/// A transaction with its writer's answer, type erased.
trait Run {
    /// Whether the transaction stands.
    fn run(&mut self, txn: &mut Txn<'_>) -> bool;
    fn answer(self: Box<Self>, outcome: Result<(), Error>);
}

struct Transaction<F, T, E> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<Result<T, E>, Error>>,
}

impl<F, T, E> Run for Transaction<F, T, E>
where
    F: FnOnce(&mut Txn<'_>) -> Result<T, E>,
{
    fn run(&mut self, txn: &mut Txn<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = work(txn);
        let stands = result.is_ok();
        self.result = Some(result);
        stands
    }

    fn answer(self: Box<Self>, outcome: Result<(), Error>) {
        let answer = match (outcome, self.result) {
            // The work's own refusal does not depend on the disk.
            (_, Some(Err(refused))) => Ok(Err(refused)),
            (Ok(()), Some(done)) => Ok(done),
            (Err(e), _) => Err(e),
            (Ok(()), None) => Err(Error::Closed),
        };
        // A writer that no longer waits loses only its answer.
        let _ = self.reply.send(answer);
    }
}

impl Store {
    /// Loads `disk` and starts the writing thread. Blocks while it loads.
    pub fn open(mut disk: impl Disk, options: Options) -> Result<Self, Error> {
        let loaded = disk.load()?;
        let objects = loaded.objects.into_iter().map(|o| (o.key.clone(), Arc::new(o))).collect();
        let state = State {
            objects,
            window: Window::new(loaded.head, options.window_events, options.window_bytes),
            revision: loaded.head,
        };
        let shared = Arc::new(Shared {
            store_id: loaded.store_id,
            state: RwLock::new(state),
            head: watch::Sender::new(loaded.head),
            watchers: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (running, ended) = watch::channel(());
        let writer = Writer { shared: shared.clone(), disk, options };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                writer.run(jobs);
                drop(running);
            })
            .map_err(|e| Error::Open(format!("cannot start the writing thread: {e}")))?;
        Ok(Self { shared, queue, ended })
    }

    /// Identity of this history.
    pub fn id(&self) -> &str {
        &self.shared.store_id
    }

    /// The newest durable revision.
    pub fn revision(&self) -> Revision {
        *self.shared.head.borrow()
    }

    /// Whether the last write went to disk.
    pub fn healthy(&self) -> bool {
        !self.shared.failing.load(Ordering::Relaxed)
    }

    /// Watchers that are open now.
    pub fn watchers(&self) -> usize {
        self.shared.watchers.load(Ordering::Relaxed)
    }

    /// Looks at the newest durable state. `look` should be short: a batch cannot be published meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        let state = self.shared.read();
        look(View::new(&state.objects, &Overlay::new(), state.revision))
    }

    /// Looks at the state as it was at `revision`, if the history still reaches there.
    pub fn read_at<T>(&self, revision: Revision, look: impl FnOnce(View<'_>) -> T) -> Result<T, Gone> {
        let state = self.shared.read();
        let undo = state.window.undo(revision)?;
        Ok(look(View::new(&state.objects, &undo, revision)))
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.read(|view| view.get(key).cloned())
    }

    /// Follows what happens after `after`.
    pub fn watch(&self, after: Revision) -> Result<Watcher, Gone> {
        Watcher::new(self.shared.clone(), after)
    }

    /// Runs `work` as one transaction: it sees all earlier ones, and either all its writes are kept or (when it gives an
    /// error) none. Answers when the writes are durable and visible. The transaction goes on when the caller stops
    /// waiting.
    pub async fn write<T, E, F>(&self, work: F) -> Result<Result<T, E>, Error>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Transaction { work: Some(work), result: None, reply });
        self.queue.send(job).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Gives this handle up and waits, when it is the last, until what was queued is on disk.
    pub async fn close(self) {
        let Self { shared, queue, mut ended } = self;
        drop((shared, queue));
        // The sender never sends: this ends when the thread has dropped it.
        let _ = ended.changed().await;
    }
}

/// A transaction in progress.
pub struct Txn<'a> {
    base: &'a Objects,
    batch: &'a mut Batch,
    /// What the overlay held before this transaction touched it, newest last.
    undo: Vec<(Key, Option<Option<Arc<Object>>>)>,
    events_before: usize,
    base_revision: Revision,
}

impl Txn<'_> {
    /// The state with this transaction's writes so far.
    pub fn view(&self) -> View<'_> {
        View::new(self.base, &self.batch.overlay, self.revision())
    }

    /// The revision of the last write, by this transaction or before it.
    pub fn revision(&self) -> Revision {
        self.batch.revision
    }

    /// The revision this transaction started from.
    pub fn base_revision(&self) -> Revision {
        self.base_revision
    }

    /// Creates or replaces an object. `encode` gives its JSON, which must hold the revision it is given.
    pub fn put(
        &mut self,
        key: Key,
        labels: Map,
        encode: impl FnOnce(Revision) -> Bytes,
    ) -> (Revision, Arc<Object>) {
        let revision = Revision(self.batch.revision.0 + 1);
        let object = Arc::new(Object { json: encode(revision), key: key.clone(), revision, labels });
        self.record(key, object.clone(), false);
        (revision, object)
    }

    /// Deletes an object; `encode` gives its last JSON, holding the deletion's revision. `None` when there is none.
    pub fn delete(&mut self, key: &Key, encode: impl FnOnce(Revision) -> Bytes) -> Option<Arc<Object>> {
        let labels = self.view().get(key)?.labels.clone();
        let revision = Revision(self.batch.revision.0 + 1);
        let object = Arc::new(Object { json: encode(revision), key: key.clone(), revision, labels });
        self.record(key.clone(), object.clone(), true);
        Some(object)
    }

    fn record(&mut self, key: Key, object: Arc<Object>, deleted: bool) {
        let previous = self.view().get(&key).cloned();
        self.batch.revision = object.revision;
        self.batch.bytes += object.json.len();
        let now = (!deleted).then(|| object.clone());
        let before = self.batch.overlay.insert(key.clone(), now);
        self.undo.push((key.clone(), before));
        let event = Event { revision: object.revision, key, previous, object, deleted };
        self.batch.events.push(Arc::new(event));
    }

    fn roll_back(self) {
        for (key, before) in self.undo.into_iter().rev() {
            match before {
                Some(before) => self.batch.overlay.insert(key, before),
                None => self.batch.overlay.remove(&key),
            };
        }
        self.batch.events.truncate(self.events_before);
        self.batch.revision = self.base_revision;
    }
}

/// Transactions that will be made durable together.
struct Batch {
    overlay: Overlay,
    events: Vec<Arc<Event>>,
    revision: Revision,
    bytes: usize,
}

struct Writer<D> {
    shared: Arc<Shared>,
    disk: D,
    options: Options,
}

impl<D: Disk> Writer<D> {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            self.batch(first, &mut jobs);
        }
    }

    fn batch(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) {
        let mut done: Vec<(Job, Result<(), Error>)> = Vec::new();
        let batch = {
            let state = self.shared.read();
            let mut batch =
                Batch { overlay: Overlay::new(), events: Vec::new(), revision: state.revision, bytes: 0 };
            let mut next = Some(first);
            while let Some(mut job) = next.take() {
                let outcome = transact(&state.objects, &mut batch, &mut job);
                done.push((job, outcome));
                if done.len() < BATCH_TRANSACTIONS && batch.bytes < BATCH_BYTES {
                    next = jobs.try_recv().ok();
                }
            }
            batch
        };
        let written = self.flush(&batch, done.len());
        if written.is_ok() {
            self.publish(batch);
        }
        for (job, outcome) in done {
            job.answer(outcome.and_then(|()| written.clone()));
        }
    }

    fn flush(&mut self, batch: &Batch, transactions: usize) -> Result<(), Error> {
        if batch.events.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> = batch
            .overlay
            .iter()
            .map(|(key, object)| Change {
                key: key.clone(),
                value: object.as_ref().map(|o| (o.revision, o.json.clone())),
            })
            .collect();
        let start = Instant::now();
        let written = self.disk.write(&changes, batch.revision);
        self.shared.failing.store(written.is_err(), Ordering::Relaxed);
        written.inspect_err(|error| tracing::error!(%error, "the store cannot write"))?;
        if let Some(on_flush) = &self.options.on_flush {
            on_flush(Flush { took: start.elapsed(), transactions, writes: batch.events.len() });
        }
        Ok(())
    }

    fn publish(&self, batch: Batch) {
        if batch.events.is_empty() {
            return;
        }
        {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            for (key, object) in batch.overlay {
                match object {
                    Some(object) => state.objects.insert(key, object),
                    None => state.objects.remove(&key),
                };
            }
            for event in batch.events {
                state.window.push(event);
            }
            state.revision = batch.revision;
        }
        self.shared.head.send_replace(batch.revision);
    }
}

/// Runs one transaction on top of `batch`, and takes it back if it fails.
fn transact(base: &Objects, batch: &mut Batch, job: &mut Job) -> Result<(), Error> {
    let (events_before, base_revision) = (batch.events.len(), batch.revision);
    let mut txn = Txn { base, batch, undo: Vec::new(), events_before, base_revision };
    match catch_unwind(AssertUnwindSafe(|| job.run(&mut txn))) {
        Ok(true) => Ok(()),
        Ok(false) => {
            txn.roll_back();
            Ok(())
        }
        Err(panic) => {
            txn.roll_back();
            Err(Error::Panicked(panic_text(&*panic)))
        }
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".into())
}
