//! Follows one kind: a full list, then changes; again from a list when the server has lost the thread.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eastwest_api::{App, Mirrored, Served};
use eastwest_model::{Kind, Namespace};
use futures::{FutureExt, Stream, StreamExt};
use kube::api::ListParams;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::Options;
use crate::backoff::Backoff;
use crate::convert::FromKubernetes;
use crate::metrics::Metrics;
use crate::seen::Seen;
use crate::status::{KindStatus, Status};

/// Most objects in one transaction of the store.
const BATCH: usize = 256;
/// A watch that has not failed for so long after a failure is well. More than a connection may take.
const SETTLED: Duration = Duration::from_secs(40);
/// A server that starts does not know its own definitions for a moment; after so many answers it knows none.
const UNKNOWN: u32 = 4;
/// Time between questions to a server that does not answer.
const UNANSWERED: Duration = Duration::from_secs(1);
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What all kinds have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub app: App,
    pub options: Options,
    pub metrics: Metrics,
    pub status: Arc<watch::Sender<Status>>,
    /// The newest `resourceVersion` that the server is known to have had.
    newest: Arc<AtomicU64>,
    /// Some list or watch has failed, or a list has begun a new history.
    doubt: Arc<Notify>,
    /// Counts the times when everything had to be listed again.
    again: Arc<watch::Sender<u64>>,
}

impl Shared {
    pub(crate) fn new(app: App, options: Options, metrics: Metrics) -> Self {
        Self {
            app,
            options,
            metrics,
            status: Arc::default(),
            newest: Arc::default(),
            doubt: Arc::default(),
            again: Arc::default(),
        }
    }

    fn change(&self, kind: Kind, change: impl FnOnce(&mut KindStatus)) {
        self.status.send_modify(|s| change(s.kinds.entry(kind).or_default()));
    }
}

/// Asks every now and then where the API server stands. One that was restored from a backup is behind what was seen of
/// it; a watch from a revision that it has not reached yet would just be silent. After a failure it is asked at once:
/// none is restored without one, and before long it has revisions again as high as those seen.
pub(crate) async fn probe(client: &Client, shared: &Shared) {
    let api: Api<Seen<Namespace>> = Api::all_with(client.clone(), &PhantomData);
    let mut unanswered = false;
    loop {
        let wait = if unanswered { UNANSWERED.min(shared.options.probe) } else { shared.options.probe };
        tokio::select! {
            () = tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)) => {}
            () = shared.doubt.notified(), if !unanswered => {}
        }
        // Read first: whatever is seen meanwhile, the answer must not be older than this.
        let newest = shared.newest.load(Ordering::Acquire);
        let list = match api.list(&ListParams::default().limit(1)).await {
            Ok(list) => list,
            Err(error) => {
                debug!(%error, "the API server does not say where it stands");
                unanswered = true;
                continue;
            }
        };
        unanswered = false;
        let now: Option<u64> = list.metadata.resource_version.as_deref().and_then(|v| v.parse().ok());
        match now {
            Some(now) if now < newest => {
                warn!(
                    was = newest,
                    now, "the API server went back to an older state: listing everything again"
                );
                shared.metrics.turned_back();
                shared.newest.store(0, Ordering::Release);
                shared.again.send_modify(|n| *n += 1);
            }
            Some(now) => drop(shared.newest.fetch_max(now, Ordering::AcqRel)),
            None => {}
        }
    }
}

/// Follows one kind.
pub(crate) struct Follower<'a, T> {
    api: Api<Seen<T>>,
    shared: &'a Shared,
    backoff: Backoff,
    /// Whether the server sends its list by a watch (KEP-3157).
    streaming: bool,
    /// What a list has brought so far.
    listing: Option<HashSet<(String, String)>>,
    /// When it was whole; `None` before.
    listed_at: Option<Instant>,
    /// How often in a row the server did not know the kind.
    unknown: u32,
}

type Change<T> = Result<Event<Seen<T>>, watcher::Error>;

impl<'a, T: Served + FromKubernetes> Follower<'a, T> {
    pub(crate) fn new(client: &Client, shared: &'a Shared) -> Self {
        Self {
            api: Api::all_with(client.clone(), &PhantomData),
            shared,
            backoff: Backoff::new(shared.options.backoff),
            streaming: true,
            listing: None,
            listed_at: None,
            unknown: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.list_and_watch().await;
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::default().page_size(self.shared.options.page);
        config.field_selector = T::FIELD_SELECTOR.map(str::to_owned);
        if self.streaming { config.streaming_lists() } else { config }
    }

    /// Until there is a reason to begin anew.
    async fn list_and_watch(&mut self) {
        let mut again = self.shared.again.subscribe();
        let mut stream = pin!(watcher(self.api.clone(), self.config()));
        (self.listing, self.listed_at) = (None, None);
        loop {
            let patience = self.patience();
            let first = tokio::select! {
                _ = again.changed() => return,
                first = tokio::time::timeout(patience, stream.next()) => first,
            };
            match first {
                Ok(Some(first)) => {
                    let changes = ready(first, stream.as_mut());
                    if !self.take(changes).await {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) if self.listed_at.is_none() => {
                    self.streaming = !self.streaming;
                    self.failed("stalled", "a list brings nothing more".into());
                    return;
                }
                Err(_) if self.problem() => self.well(),
                Err(_) => {
                    debug!(kind = T::KUBERNETES_KIND, "looking again whether names are free now");
                    return;
                }
            }
        }
    }

    /// How long nothing may come.
    fn patience(&self) -> Duration {
        let Some(listed_at) = self.listed_at else { return self.shared.options.stalled };
        let status = self.shared.status.borrow();
        let status = status.kinds.get(&T::KIND);
        if status.is_some_and(|s| s.problem.is_some()) {
            SETTLED
        } else if status.is_some_and(|s| !s.conflicts.is_empty()) {
            self.shared.options.conflicts.saturating_sub(listed_at.elapsed())
        } else {
            FOREVER
        }
    }

    fn problem(&self) -> bool {
        self.shared.status.borrow().kinds.get(&T::KIND).is_some_and(|s| s.problem.is_some())
    }

    /// Takes changes over. `false`: begin anew.
    async fn take(&mut self, changes: Vec<Change<T>>) -> bool {
        let mut batch = Vec::with_capacity(changes.len());
        let (mut listed, mut error, mut objects) = (None, None, 0);
        for change in changes {
            match change {
                Ok(Event::Init) => {
                    self.listing = Some(HashSet::new());
                    self.shared.change(T::KIND, |s| s.conflicts.clear());
                }
                Ok(Event::InitApply(seen)) => {
                    objects += 1;
                    if !matches!(seen.object, Ok(None))
                        && let Some(listing) = &mut self.listing
                    {
                        listing.insert(seen.id());
                    }
                    self.seen(seen, &mut batch);
                }
                Ok(Event::InitDone) => {
                    let keep = self.listing.take().unwrap_or_default();
                    self.shared
                        .change(T::KIND, |s| s.unreadable.retain(|subject, _| keep.contains(&id(subject))));
                    listed = Some(keep.len());
                    batch.push(Mirrored::Keep(keep));
                }
                Ok(Event::Apply(seen)) => {
                    objects += 1;
                    self.seen(seen, &mut batch);
                }
                Ok(Event::Delete(seen)) => {
                    objects += 1;
                    self.note(&seen);
                    self.readable(&seen);
                    let (namespace, name) = seen.id();
                    batch.push(Mirrored::Delete { namespace, name });
                }
                Err(e) => error = Some(e),
            }
        }
        self.shared.metrics.event(T::KIND, objects);
        if !batch.is_empty() && !self.write(batch).await {
            return false;
        }
        if let Some(n) = listed {
            self.listed(n);
        }
        match error {
            None => {
                self.well();
                true
            }
            Some(e) => self.recover(e).await,
        }
    }

    fn seen(&mut self, seen: Seen<T>, batch: &mut Vec<Mirrored<T>>) {
        self.note(&seen);
        if seen.object.is_ok() {
            self.readable(&seen);
        }
        let (namespace, name) = seen.id();
        match seen.object {
            Ok(Some(object)) => batch.push(Mirrored::Put(object)),
            Ok(None) => batch.push(Mirrored::Delete { namespace, name }),
            Err(reason) => {
                let subject = text(&(namespace, name));
                self.shared.metrics.failed_object(T::KIND);
                self.shared.change(T::KIND, |s| {
                    if s.unreadable.get(&subject) != Some(&reason) {
                        let kind = T::KUBERNETES_KIND;
                        warn!(
                            kind,
                            object = subject,
                            reason,
                            "an object cannot be read and is left as it was"
                        );
                        s.unreadable.insert(subject, reason);
                    }
                });
            }
        }
    }

    fn note(&self, seen: &Seen<T>) {
        if let Some(revision) = seen.revision() {
            self.shared.newest.fetch_max(revision, Ordering::AcqRel);
        }
    }

    fn readable(&self, seen: &Seen<T>) {
        self.shared.status.send_if_modified(|s| {
            let unreadable = s.kinds.get_mut(&T::KIND).map(|k| &mut k.unreadable);
            unreadable.is_some_and(|u| !u.is_empty() && u.remove(&text(&seen.id())).is_some())
        });
    }

    async fn write(&mut self, batch: Vec<Mirrored<T>>) -> bool {
        match self.shared.app.mirror(batch).await {
            Ok((done, revision)) => {
                let (written, deleted) = (done.written, done.deleted);
                debug!(kind = T::KUBERNETES_KIND, written, deleted, %revision, "mirrored");
                if !done.conflicts.is_empty() {
                    warn!(
                        kind = T::KUBERNETES_KIND,
                        objects = done.conflicts.join(", "),
                        "left out: objects of our own API have these names"
                    );
                    self.shared.change(T::KIND, |s| {
                        s.conflicts.extend(done.conflicts);
                        s.conflicts.sort();
                        s.conflicts.dedup();
                    });
                }
                true
            }
            Err(e) => {
                self.failed("store", e.to_string());
                tokio::time::sleep(self.backoff.wait()).await;
                false
            }
        }
    }

    fn listed(&mut self, objects: usize) {
        self.listed_at = Some(Instant::now());
        self.shared.metrics.listed(T::KIND, objects);
        self.shared.change(T::KIND, |s| s.synced = true);
        info!(kind = T::KUBERNETES_KIND, objects, "listed");
        // The watch goes on from the list's revision, which may be newer than any object in it.
        self.shared.doubt.notify_one();
        if self.shared.status.borrow().complete() {
            self.shared.app.set_incomplete(false);
        }
    }

    fn well(&mut self) {
        self.backoff.reset();
        self.shared.metrics.well(T::KIND);
        let mut left_out = (0, 0);
        self.shared.status.send_if_modified(|s| {
            let status = s.kinds.entry(T::KIND).or_default();
            left_out = (status.unreadable.len(), status.conflicts.len());
            let Some((problem, since)) = status.problem.take() else { return false };
            let lasting_s = since.elapsed().as_secs();
            info!(kind = T::KUBERNETES_KIND, problem, lasting_s, "following the API server again");
            true
        });
        self.shared.metrics.left_out(T::KIND, left_out.0, left_out.1);
    }

    /// Says once what does not work; nothing of what is known is touched.
    fn failed(&self, reason: &'static str, problem: String) {
        self.shared.metrics.failed(T::KIND, reason);
        self.shared.doubt.notify_one();
        let kind = T::KUBERNETES_KIND;
        self.shared.status.send_if_modified(|s| {
            let status = s.kinds.entry(T::KIND).or_default();
            match &mut status.problem {
                Some((old, _)) if *old == problem => {
                    debug!(kind, reason, problem, "still not following the API server");
                    false
                }
                Some((old, _)) => {
                    debug!(kind, reason, problem, "still not following the API server");
                    *old = problem;
                    true
                }
                None => {
                    warn!(kind, reason, problem, "not following the API server: keeping what is known");
                    status.problem = Some((problem, Instant::now()));
                    true
                }
            }
        });
    }

    /// The cluster does not know the kind, so there is nothing to wait for; it may learn of it later.
    async fn absent(&mut self) -> bool {
        let known = self.shared.status.borrow().kinds.get(&T::KIND).is_some_and(|s| s.synced);
        if !known {
            self.listed(0);
        }
        self.well();
        tokio::time::sleep(self.shared.options.conflicts).await;
        false
    }

    /// After a failure. `false`: begin anew.
    async fn recover(&mut self, error: watcher::Error) -> bool {
        let reason = reason(&error);
        self.unknown = if reason == "not_found" { self.unknown + 1 } else { 0 };
        if T::OPTIONAL && self.unknown >= UNKNOWN {
            return self.absent().await;
        }
        if reason == "gone" {
            debug!(kind = T::KUBERNETES_KIND, "the server's history is gone: listing again");
            self.shared.metrics.lost_history(T::KIND);
            tokio::time::sleep(self.backoff.wait()).await;
            return false;
        } else if self.streaming && self.listing.is_none() && unsupported(&error) {
            info!(kind = T::KUBERNETES_KIND, "the server does not stream lists: asking page by page");
            self.streaming = false;
            return false;
        } else {
            self.failed(reason, chain(&error));
        }
        tokio::time::sleep(self.backoff.wait()).await;
        true
    }
}

/// `first` and what can be had without waiting, up to the first failure: what comes after that is asked for anew, and
/// must not be before its time.
fn ready<T>(first: Change<T>, mut stream: Pin<&mut impl Stream<Item = Change<T>>>) -> Vec<Change<T>> {
    let mut changes = vec![first];
    while changes.len() < BATCH
        && changes.last().is_some_and(Result::is_ok)
        && let Some(Some(next)) = stream.next().now_or_never()
    {
        changes.push(next);
    }
    changes
}

fn text((namespace, name): &(String, String)) -> String {
    if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
}

fn id(text: &str) -> (String, String) {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    (namespace.to_owned(), name.to_owned())
}

fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(s))
        | watcher::Error::WatchStartFailed(kube::Error::Api(s))
        | watcher::Error::WatchFailed(kube::Error::Api(s))
        | watcher::Error::WatchError(s) => Some(s),
        _ => None,
    }
}

/// A server that does not know `sendInitialEvents`, or has it switched off.
fn unsupported(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_))
        && status(error).is_some_and(|s| [400, 422].contains(&s.code))
}

/// For the metric: few words, for ever the same.
fn reason(error: &watcher::Error) -> &'static str {
    match status(error).map(|s| s.code) {
        Some(401) => "unauthorized",
        Some(403) => "forbidden",
        Some(404) => "not_found",
        Some(410) => "gone",
        Some(429) => "throttled",
        Some(500..) => "server",
        Some(_) => "refused",
        None => match error {
            watcher::Error::InitialListFailed(kube::Error::SerdeError(_))
            | watcher::Error::WatchStartFailed(kube::Error::SerdeError(_))
            | watcher::Error::WatchFailed(kube::Error::SerdeError(_))
            | watcher::Error::NoResourceVersion => "garbage",
            _ => "network",
        },
    }
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
