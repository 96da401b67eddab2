//! What all servers of a node share: names, upstreams, and the plan that is followed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::access::Access;
use crate::corefile::{Corefile, CorefileError, Environment};
use crate::plan::{Autopath, Plan};
use crate::published::{AnswerTable, Publisher};
use crate::writer::Limits;
use crate::{Forwarder, Index, Metrics, ServerOptions};

/// Answers queries; give it to each [`crate::Server`].
#[derive(Debug)]
pub struct Resolver {
    pub(crate) index: Arc<Index>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) plan: ArcSwap<Plan>,
    /// Makes cookies that nobody else can.
    secret: RandomState,
}

/// A cookie is good for so long, seconds, and for half of that without a new one (RFC 9018 §4.3).
const COOKIE_LIFE: u32 = 3600;

impl Resolver {
    /// Treats queries as kubeadm's Corefile would have it, and serves everybody.
    #[must_use]
    pub fn new(index: Arc<Index>, forwarder: Arc<Forwarder>, metrics: Arc<Metrics>) -> Arc<Self> {
        let plan = ArcSwap::from_pointee(Plan::simple(
            forwarder.default_group().clone(),
            Some(Autopath { pods: true, search: Vec::new(), careful: true }),
        ));
        Arc::new(Self { index, forwarder, metrics, plan, secret: RandomState::new() })
    }

    /// Follows another plan from the next query on: the Corefile's, or without one the usual. Queries on their way end
    /// by the plan they began with.
    ///
    /// # Errors
    /// What in the Corefile cannot be followed; nothing has changed then.
    pub fn configure(
        &self,
        corefile: Option<&Corefile>,
        access: Access,
        environment: &Environment,
    ) -> Result<(), CorefileError> {
        let mut plan = match corefile {
            Some(corefile) => {
                let (plan, options) = corefile.build(environment)?;
                if let Some(options) = options {
                    let wrong = |e: crate::IndexError| CorefileError::new(1, e.to_string());
                    self.index.configure(&options).map_err(wrong)?;
                }
                plan
            }
            None => {
                let search = crate::plan::read_search(&environment.resolv_conf);
                let autopath = environment.autopath.then_some(Autopath { pods: true, search, careful: true });
                Plan::simple(self.forwarder.default_group().clone(), autopath)
            }
        };
        plan.access = access;
        plan.node.clone_from(&environment.node);
        plan.refresh();
        let plan = Arc::new(plan);
        self.plan.store(plan.clone());
        self.index.publish_by(plan);
        if corefile.is_some() {
            self.forwarder.forget();
        }
        Ok(())
    }

    /// Keeps the answers that `table` gives in place of a server with `options` on what is known, from now on. Only the first
    /// table is taken.
    pub fn publish(&self, table: Arc<dyn AnswerTable>, options: &ServerOptions) {
        let limits = Limits { udp: options.udp_payload() };
        // Another plan may come at the same time: the one of the moment, in the index's turn.
        self.index.publish(|| Publisher::new(table, self.plan.load_full(), limits));
    }

    /// Reads hosts files and resolv.conf files of the plan again; call it every few seconds.
    pub fn refresh(&self) {
        if self.plan.load().refresh() {
            self.forwarder.forget();
        }
    }

    /// How long after a stop health is still said to be good.
    pub fn lameduck(&self) -> std::time::Duration {
        self.plan.load().lameduck
    }

    pub(crate) fn allows(&self, plan: &Plan, client: IpAddr) -> bool {
        plan.access.allows(client, |ip| self.index.state().pod_namespace(ip).is_some())
    }

    /// The server cookie for a client and its cookie (RFC 9018's form; the hash is ours, as the secret is).
    pub(crate) fn cookie(&self, client: IpAddr, cookie: [u8; 8], now: u32) -> [u8; 16] {
        let mut out = [0; 16];
        out[0] = 1;
        out[4..8].copy_from_slice(&now.to_be_bytes());
        let mut hasher = self.secret.build_hasher();
        hasher.write(&cookie);
        hasher.write(&out[..8]);
        match client {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        out[8..].copy_from_slice(&hasher.finish().to_be_bytes());
        out
    }

    /// The cookie to send back: the one that came, while it is good, or a new one.
    pub(crate) fn renewed(&self, client: SocketAddr, cookie: [u8; 8], server: Option<[u8; 16]>) -> [u8; 16] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as u32);
        if let Some(server) = server {
            let made = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
            let age = now.wrapping_sub(made);
            if age < COOKIE_LIFE / 2 && server == self.cookie(client.ip(), cookie, made) {
                return server;
            }
        }
        self.cookie(client.ip(), cookie, now)
    }
}
