//! Upstreams that are asked for the same names: which one, how, and whether it lives.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::ForwardOptions;
use crate::cache::{CacheLimits, ForwardError, Outcome, Question};
use crate::metrics::Metrics;
use crate::upstream::{Manner, Tls, Upstream};
use crate::wire::{Name, rcode, rtype};

/// In which order upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Random,
    RoundRobin,
    Sequential,
}

/// What a group is made of.
#[derive(Clone, Debug)]
pub(crate) struct GroupOptions {
    /// Names in it are asked here.
    pub(crate) from: Name,
    /// But not these.
    pub(crate) except: Vec<Name>,
    pub(crate) policy: Policy,
    pub(crate) manner: Manner,
    /// Failures in a row after which an upstream counts as down. 0: never.
    pub(crate) max_fails: u32,
    /// Between probes of an upstream that has failed. Zero: no probes.
    pub(crate) health_check: Duration,
    pub(crate) health_domain: Name,
    /// Questions at once. 0: no bound of its own.
    pub(crate) max_concurrent: usize,
    /// When all are down none is asked.
    pub(crate) failfast: bool,
    pub(crate) cache: CacheLimits,
    /// Zones of which no records, and no denials, are kept.
    pub(crate) uncached: (Vec<Name>, Vec<Name>),
    /// resolv.conf files whose servers are asked, followed as they change.
    pub(crate) files: Vec<PathBuf>,
}

impl Default for GroupOptions {
    /// As a resolver library treats resolv.conf.
    fn default() -> Self {
        Self {
            from: Name::root(),
            except: Vec::new(),
            policy: Policy::Sequential,
            manner: Manner { tcp: false, expire: Duration::from_secs(10), mixed_case: true },
            max_fails: 2,
            health_check: Duration::from_millis(500),
            health_domain: Name::root(),
            max_concurrent: 0,
            failfast: false,
            cache: CacheLimits::default(),
            uncached: (Vec::new(), Vec::new()),
            files: Vec::new(),
        }
    }
}

/// How long a probe goes on before the next failure starts another.
const PROBING: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) options: GroupOptions,
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// Those of the Corefile itself, besides what files say.
    fixed: Vec<Arc<Upstream>>,
    turn: AtomicUsize,
    open: AtomicUsize,
    started: Instant,
}

impl Group {
    pub(crate) fn new(options: GroupOptions) -> Arc<Self> {
        Self::with(options, Vec::new())
    }

    pub(crate) fn with(options: GroupOptions, fixed: Vec<(SocketAddr, Option<Tls>)>) -> Arc<Self> {
        let fixed: Vec<_> = fixed.into_iter().map(|(a, tls)| Arc::new(Upstream::new(a, tls))).collect();
        Arc::new(Self {
            options,
            upstreams: ArcSwap::from_pointee(fixed.clone()),
            fixed,
            turn: 0.into(),
            open: 0.into(),
            started: Instant::now(),
        })
    }

    /// Whether names in `name`'s place are asked here.
    pub(crate) fn takes(&self, name: &Name) -> bool {
        name.below(&self.options.from).is_some()
            && !self.options.except.iter().any(|e| name.below(e).is_some())
    }

    /// Whether the cache may keep this outcome.
    pub(super) fn keeps(&self, question: &Question, outcome: &Outcome) -> bool {
        let (records, denials) = &self.options.uncached;
        let zones = if outcome.as_ref().is_ok_and(|r| r.is_denial()) { denials } else { records };
        if zones.is_empty() {
            return true;
        }
        let name = Name::read(&question.name, 0);
        !name.is_some_and(|(name, _)| zones.iter().any(|z| name.below(z).is_some()))
    }

    /// Puts `addresses` after the fixed ones; says whether that is a change. Who stays keeps its health.
    pub(crate) fn replace(&self, addresses: &[SocketAddr]) -> bool {
        let old = self.upstreams.load();
        if old.iter().skip(self.fixed.len()).map(|u| u.addr).eq(addresses.iter().copied()) {
            return false;
        }
        let known = |addr: &SocketAddr| old.iter().find(|u| u.addr == *addr && u.tls.is_none()).cloned();
        let others = addresses.iter().map(|a| known(a).unwrap_or_else(|| Arc::new(Upstream::new(*a, None))));
        self.upstreams.store(Arc::new(self.fixed.iter().cloned().chain(others).collect()));
        true
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.upstreams.load().iter().map(|u| u.addr).collect()
    }

    pub(crate) fn is_empty(&self, own: &[SocketAddr]) -> bool {
        !self.upstreams.load().iter().any(|u| is_other(u, own))
    }

    /// Takes a place; `false`: all are taken.
    pub(super) fn enter(&self) -> bool {
        let most = self.options.max_concurrent;
        if self.open.fetch_add(1, Relaxed) >= most && most > 0 {
            self.open.fetch_sub(1, Relaxed);
            return false;
        }
        true
    }

    pub(super) fn leave(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// Upstreams to ask, never ourselves: by the policy, and those that do not answer last.
    fn order(&self, own: &[SocketAddr]) -> Vec<Arc<Upstream>> {
        let now = self.started.elapsed().as_millis() as u64;
        let mut order: Vec<_> = self.upstreams.load().iter().filter(|u| is_other(u, own)).cloned().collect();
        if order.len() > 1 {
            match self.options.policy {
                Policy::Random => fastrand::shuffle(&mut order),
                Policy::RoundRobin => {
                    let n = order.len();
                    order.rotate_left(self.turn.fetch_add(1, Relaxed) % n);
                }
                Policy::Sequential => {}
            }
            order.sort_by_key(|u| (self.is_down(u), u.avoid_until.load(Relaxed) > now));
        }
        order
    }

    fn is_down(&self, upstream: &Upstream) -> bool {
        let most = self.options.max_fails;
        most > 0 && upstream.fails.load(Relaxed) >= most
    }

    pub(super) async fn ask(
        self: &Arc<Self>,
        question: &Question,
        own: &[SocketAddr],
        options: &ForwardOptions,
        metrics: &Arc<Metrics>,
    ) -> Outcome {
        let order = self.order(own);
        if self.options.failfast && order.iter().all(|u| self.is_down(u)) {
            return Err(ForwardError::NoAnswer);
        }
        let mut last = None;
        for upstream in order.iter().cycle().take(if order.is_empty() { 0 } else { options.attempts }) {
            let to = upstream.addr;
            metrics.asked(to);
            let begun = Instant::now();
            let asked = upstream
                .ask(question, options.timeout, self.options.manner, self.options.cache, metrics)
                .await;
            match asked {
                Ok(reply) => {
                    metrics.replied(to, reply.rcode, begun.elapsed());
                    upstream.avoid_until.store(0, Relaxed);
                    upstream.fails.store(0, Relaxed);
                    let reply = Arc::new(reply);
                    if !matches!(reply.rcode, rcode::SERVFAIL | rcode::REFUSED | rcode::NOTIMP) {
                        return Ok(reply);
                    }
                    // Another may know better.
                    last = Some(reply);
                }
                Err(error) => {
                    tracing::debug!(%to, %error, "upstream resolver");
                    let until = self.started.elapsed() + options.avoid;
                    upstream.avoid_until.store(until.as_millis() as u64, Relaxed);
                    upstream.fails.fetch_add(1, Relaxed);
                    self.probe(upstream, options.timeout, metrics);
                }
            }
        }
        last.ok_or(ForwardError::NoAnswer)
    }

    /// Asks an upstream that has failed until it answers.
    fn probe(self: &Arc<Self>, upstream: &Arc<Upstream>, timeout: Duration, metrics: &Arc<Metrics>) {
        let every = self.options.health_check;
        if every.is_zero() || upstream.probed.swap(true, Relaxed) {
            return;
        }
        let (group, upstream, metrics) = (self.clone(), upstream.clone(), metrics.clone());
        tokio::spawn(async move {
            let question = Question {
                name: group.options.health_domain.wire().into(),
                qtype: rtype::NS,
                dnssec_ok: false,
                checking_disabled: false,
            };
            let manner = Manner { mixed_case: false, ..group.options.manner };
            let end = Instant::now() + PROBING;
            while Instant::now() < end {
                tokio::time::sleep(every).await;
                let asked = upstream.ask(&question, timeout, manner, group.options.cache, &metrics).await;
                metrics.probed(upstream.addr, asked.is_ok());
                if asked.is_ok() {
                    upstream.fails.store(0, Relaxed);
                    upstream.avoid_until.store(0, Relaxed);
                    break;
                }
            }
            upstream.probed.store(false, Relaxed);
        });
    }
}

fn is_other(upstream: &Upstream, own: &[SocketAddr]) -> bool {
    !own.iter().any(|o| same_listener(*o, upstream.addr))
}

/// Whether `listener` takes what is sent to `to`.
fn same_listener(listener: SocketAddr, to: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    listener.port() == to.port()
        && (listener.ip() == to.ip() || (any(listener.ip()) && to.ip().is_loopback()) || any(to.ip()))
}
