//! Everything outside the cluster's zones: upstreams, behind a cache that asks each question once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, oneshot};

use crate::cache::{Age, Cache, CacheLimits, ForwardError, Key, Outcome, Question};
use crate::metrics::Metrics;

mod group;
pub(crate) use group::{Group, GroupOptions, Policy};

/// How upstreams are asked.
#[derive(Clone, Copy, Debug)]
pub struct ForwardOptions {
    pub cache: CacheLimits,
    /// For one attempt. Two of them must end before a stub resolver's own 5 s do.
    pub timeout: Duration,
    /// Attempts at most; each goes to the next upstream.
    pub attempts: usize,
    /// Different questions that wait for upstreams at once; more are answered SERVFAIL.
    pub concurrent: usize,
    /// How long an upstream that did not answer is asked last.
    pub avoid: Duration,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            cache: CacheLimits::default(),
            timeout: Duration::from_secs(2),
            attempts: 2,
            concurrent: 4096,
            avoid: Duration::from_secs(10),
        }
    }
}

/// An old answer is given when none has come after so long (RFC 8767 §5: client response timer).
const CLIENT_TIMER: Duration = Duration::from_millis(1800);

/// Asks upstreams, and remembers what they said.
#[derive(Debug)]
pub struct Forwarder {
    options: ForwardOptions,
    /// Who is asked for what no Corefile gives to others.
    default: Arc<Group>,
    /// Our own listeners: an upstream among them would be a loop.
    own: ArcSwap<Vec<SocketAddr>>,
    cache: Cache,
    waiting: Mutex<HashMap<Question, Vec<oneshot::Sender<Outcome>>>>,
    slots: Semaphore,
    /// Counts replacements of the upstreams: an answer of former ones is not kept.
    generation: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Forwarder {
    #[must_use]
    pub fn new(options: ForwardOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            cache: Cache::new(options.cache, metrics.clone()),
            slots: Semaphore::new(options.concurrent.min(Semaphore::MAX_PERMITS)),
            default: Group::new(GroupOptions { cache: options.cache, ..GroupOptions::default() }),
            options,
            generation: 0.into(),
            own: ArcSwap::default(),
            waiting: Mutex::default(),
            metrics,
        })
    }

    /// Replaces the upstreams, in order of preference. Queries on their way end with the former ones; what the cache
    /// holds is forgotten, for other upstreams may see other names.
    pub fn set_upstreams(&self, addresses: Vec<SocketAddr>) {
        if self.default.replace(&addresses) {
            tracing::info!(?addresses, "upstream resolvers");
            self.forget();
        }
    }

    /// The upstreams as they were given, also those left out because they are ourselves.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.default.addresses()
    }

    /// The answers of other upstreams than now are no longer good.
    pub(crate) fn forget(&self) {
        self.generation.fetch_add(1, SeqCst);
        self.cache.clear();
    }

    pub(crate) fn default_group(&self) -> &Arc<Group> {
        &self.default
    }

    /// Our own listeners besides those known, for ever: who has given one up may take it again.
    pub(crate) fn add_own(&self, addresses: impl Iterator<Item = SocketAddr> + Clone) {
        self.own.rcu(|known| {
            let mut own = Vec::clone(known);
            own.extend(addresses.clone().filter(|a| !known.contains(a)));
            own
        });
    }

    /// What the cache has and may be given at once; a renewal that is due goes on behind.
    pub(crate) fn cached(
        self: &Arc<Self>,
        key: &Key,
        group: &Arc<Group>,
        query: &crate::wire::Query,
    ) -> Option<Outcome> {
        let outcome = self.cache.get(key)?;
        let Ok(reply) = &outcome else { return Some(outcome) };
        match reply.age(Instant::now()) {
            Age::Fresh => Some(outcome),
            Age::Stale => None,
            Age::Renew => {
                self.renew(Question::of(query), group.clone());
                Some(outcome)
            }
        }
    }

    /// Asks again although the cache has an answer.
    fn renew(self: &Arc<Self>, question: Question, group: Arc<Group>) {
        let forwarder = self.clone();
        tokio::spawn(async move {
            drop(forwarder.ask_once(question, &group).await);
        });
    }

    /// The upstreams' answer to `question`, from the cache, from one who asks the same right now, or by asking.
    pub(crate) async fn resolve(self: &Arc<Self>, question: Question, group: &Arc<Group>) -> Outcome {
        let cached = self.cache.get(&question.key());
        let mut old = None;
        match &cached {
            Some(Ok(reply)) => match reply.age(Instant::now()) {
                Age::Fresh => return Ok(reply.clone()),
                Age::Renew => {
                    self.renew(question, group.clone());
                    return Ok(reply.clone());
                }
                Age::Stale => old = Some(reply.clone()),
            },
            Some(Err(error)) => return Err(*error),
            None => {}
        }
        let Some(old) = old else { return self.ask_once(question, group).await };
        match tokio::time::timeout(CLIENT_TIMER, self.ask_once(question, group)).await {
            Ok(Ok(reply)) if !reply.is_failure() => Ok(reply),
            _ => {
                old.not_renewed(Instant::now());
                self.metrics.cache_stale.fetch_add(1, Relaxed);
                Ok(old)
            }
        }
    }

    async fn ask_once(self: &Arc<Self>, question: Question, group: &Arc<Group>) -> Outcome {
        if group.is_empty(&self.own.load()) {
            return Err(ForwardError::NoUpstreams);
        }
        let (tx, rx) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(askers) = waiting.get_mut(&question) {
                askers.push(tx);
            } else {
                let busy = !group.enter();
                // The permit is in the task's hands until it has answered all.
                if busy || self.slots.try_acquire().map(|p| p.forget()).is_err() {
                    if !busy {
                        group.leave();
                    }
                    self.metrics.rejected.fetch_add(1, Relaxed);
                    return Err(ForwardError::Busy);
                }
                waiting.insert(question.clone(), vec![tx]);
                let lead = Lead { forwarder: self.clone(), question, group: group.clone() };
                // Apart from its askers: one that goes away does not take the answer from the others.
                tokio::spawn(async move {
                    let forwarder = &lead.forwarder;
                    let generation = forwarder.generation.load(SeqCst);
                    let own = forwarder.own.load_full();
                    let outcome =
                        lead.group.ask(&lead.question, &own, &forwarder.options, &forwarder.metrics).await;
                    if forwarder.generation.load(SeqCst) == generation
                        && lead.group.keeps(&lead.question, &outcome)
                    {
                        forwarder.remember(&lead.question.key(), &outcome);
                    }
                    for asker in lead.askers() {
                        // An asker that has gone needs no answer.
                        let _ = asker.send(outcome.clone());
                    }
                });
            }
        }
        rx.await.unwrap_or(Err(ForwardError::NoAnswer))
    }

    /// Keeps an outcome; a failure does not take the place of an old answer that may still serve.
    fn remember(&self, key: &Key, outcome: &Outcome) {
        let failed = outcome.as_ref().map_or(true, |r| r.is_failure());
        if failed
            && let Some(Ok(old)) = self.cache.get(key)
            && !old.is_failure()
        {
            old.not_renewed(Instant::now());
            return;
        }
        self.cache.put(key, outcome.clone());
    }
}

/// A question being asked; gives up its place however it ends.
struct Lead {
    forwarder: Arc<Forwarder>,
    question: Question,
    group: Arc<Group>,
}

impl Lead {
    fn askers(&self) -> Vec<oneshot::Sender<Outcome>> {
        let mut waiting = self.forwarder.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.question).unwrap_or_default()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Empty unless the task was cut off: then dropping the senders tells the askers.
        drop(self.askers());
        self.forwarder.slots.add_permits(1);
        self.group.leave();
    }
}
