//! Everything outside the cluster's zones: upstreams, behind a cache that asks each question once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, oneshot};

use crate::cache::{Cache, CacheLimits, ForwardError, Key, Outcome, Question};
use crate::metrics::Metrics;
use crate::upstream;
use crate::wire::rcode;

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

#[derive(Debug)]
struct Upstream {
    addr: SocketAddr,
    /// Milliseconds after the forwarder's start until which it is asked last.
    avoid_until: AtomicU64,
}

/// Asks upstreams, and remembers what they said.
#[derive(Debug)]
pub struct Forwarder {
    options: ForwardOptions,
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// Our own listeners: an upstream among them would be a loop.
    own: ArcSwap<Vec<SocketAddr>>,
    cache: Cache,
    waiting: Mutex<HashMap<Question, Vec<oneshot::Sender<Outcome>>>>,
    slots: Semaphore,
    /// Counts replacements of the upstreams: an answer of former ones is not kept.
    generation: AtomicU64,
    metrics: Arc<Metrics>,
    started: Instant,
}

impl Forwarder {
    #[must_use]
    pub fn new(options: ForwardOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            cache: Cache::new(options.cache, metrics.clone()),
            slots: Semaphore::new(options.concurrent.min(Semaphore::MAX_PERMITS)),
            options,
            upstreams: ArcSwap::default(),
            generation: 0.into(),
            own: ArcSwap::default(),
            waiting: Mutex::default(),
            metrics,
            started: Instant::now(),
        })
    }

    /// Replaces the upstreams, in order of preference. Queries on their way end with the former ones; what the cache
    /// holds is forgotten, for other upstreams may see other names.
    pub fn set_upstreams(&self, addresses: Vec<SocketAddr>) {
        let old = self.upstreams.load();
        if old.iter().map(|u| u.addr).eq(addresses.iter().copied()) {
            return;
        }
        tracing::info!(?addresses, "upstream resolvers");
        let upstreams =
            addresses.into_iter().map(|addr| Arc::new(Upstream { addr, avoid_until: 0.into() })).collect();
        self.upstreams.store(Arc::new(upstreams));
        self.generation.fetch_add(1, SeqCst);
        self.cache.clear();
    }

    /// The upstreams as they were given, also those left out because they are ourselves.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.upstreams.load().iter().map(|u| u.addr).collect()
    }

    pub(crate) fn set_own(&self, addresses: Vec<SocketAddr>) {
        self.own.store(Arc::new(addresses));
    }

    /// What the cache has.
    pub(crate) fn cached(&self, key: &Key) -> Option<Outcome> {
        self.cache.get(key)
    }

    /// The upstreams' answer to `question`, from the cache, from one who asks the same right now, or by asking.
    pub(crate) async fn resolve(self: &Arc<Self>, question: Question) -> Outcome {
        let key = question.key();
        if let Some(outcome) = self.cache.get(&key) {
            return outcome;
        }
        if self.order().is_empty() {
            return Err(ForwardError::NoUpstreams);
        }
        let (tx, rx) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(askers) = waiting.get_mut(&question) {
                askers.push(tx);
            } else {
                // The permit is in the task's hands until it has answered all.
                if self.slots.try_acquire().map(|p| p.forget()).is_err() {
                    self.metrics.rejected.fetch_add(1, Relaxed);
                    return Err(ForwardError::Busy);
                }
                waiting.insert(question.clone(), vec![tx]);
                let lead = Lead { forwarder: self.clone(), question };
                // Apart from its askers: one that goes away does not take the answer from the others.
                tokio::spawn(async move {
                    let forwarder = &lead.forwarder;
                    let generation = forwarder.generation.load(SeqCst);
                    let outcome = forwarder.ask(&lead.question).await;
                    if forwarder.generation.load(SeqCst) == generation {
                        forwarder.cache.put(&lead.question.key(), outcome.clone());
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

    /// Upstreams to ask: those that answer first, each kind in the order given, never ourselves.
    fn order(&self) -> Vec<Arc<Upstream>> {
        let now = self.started.elapsed().as_millis() as u64;
        let own = self.own.load();
        let mut order: Vec<_> = (self.upstreams.load().iter())
            .filter(|u| !own.iter().any(|o| same_listener(*o, u.addr)))
            .cloned()
            .collect();
        order.sort_by_key(|u| u.avoid_until.load(Relaxed) > now);
        order
    }

    async fn ask(&self, question: &Question) -> Outcome {
        let order = self.order();
        let mut last = None;
        for upstream in order.iter().cycle().take(if order.is_empty() { 0 } else { self.options.attempts }) {
            let to = upstream.addr;
            self.metrics.asked(to);
            let begun = Instant::now();
            let asked =
                upstream::ask(to, question, self.options.timeout, self.options.cache, &self.metrics).await;
            match asked {
                Ok(reply) => {
                    self.metrics.replied(to, reply.rcode, begun.elapsed());
                    upstream.avoid_until.store(0, Relaxed);
                    let reply = Arc::new(reply);
                    if !matches!(reply.rcode, rcode::SERVFAIL | rcode::REFUSED | rcode::NOTIMP) {
                        return Ok(reply);
                    }
                    // Another may know better.
                    last = Some(reply);
                }
                Err(error) => {
                    tracing::debug!(%to, %error, "upstream resolver");
                    let until = self.started.elapsed() + self.options.avoid;
                    upstream.avoid_until.store(until.as_millis() as u64, Relaxed);
                }
            }
        }
        last.ok_or(ForwardError::NoAnswer)
    }
}

/// Whether `listener` takes what is sent to `to`.
fn same_listener(listener: SocketAddr, to: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    listener.port() == to.port()
        && (listener.ip() == to.ip() || (any(listener.ip()) && to.ip().is_loopback()) || any(to.ip()))
}

/// A question being asked; gives up its place however it ends.
struct Lead {
    forwarder: Arc<Forwarder>,
    question: Question,
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
    }
}
