use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eastwest_model::{Kind, Namespace, NodeState, ObjectMeta, Revision, Service, ServicePort, ServiceSpec};
use eastwest_store::{Error, Key, Memory, Store};
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::transaction::{Realm, Refused, Tx};
use crate::write::{self, SYSTEM_NAMESPACES, Update, Written};
use crate::{ApiError, Config};

/// One answered request, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// `GET`, `LIST`, `WATCH`, `POST`, `PUT`, `PATCH`, `DELETE`, as kube-apiserver's metrics name them.
    pub verb: &'static str,
    /// The plural, or empty for a path that is not a resource's.
    pub resource: &'a str,
    pub code: u16,
    pub took: Duration,
}

/// Told of each request.
pub type Observer = Arc<dyn Fn(Observation<'_>) + Send + Sync>;

/// The API: the objects, who may do what, and who is connected. Clones share it.
#[derive(Clone)]
pub struct App(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    /// What is stored.
    pub(crate) main: Realm,
    /// NodeStates: in memory, with revisions of their own.
    pub(crate) states: Realm,
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Auth,
    /// Open agent streams by node.
    connected: Mutex<HashMap<String, usize>>,
    pub(crate) closing: CancellationToken,
    pub(crate) flows: crate::flows::Flows,
    /// The mirrored objects are not all here yet.
    incomplete: AtomicBool,
    pub(crate) observer: Option<Observer>,
    pub(crate) requests: tokio::sync::Semaphore,
}

/// Why agents have to wait after the start of a mirroring controller.
pub(crate) const INCOMPLETE: &str = "the objects of the Kubernetes API server are not all here yet";

/// Requests at work at once; more are told to come again. Watches and streams do not count.
const REQUESTS_MAX: usize = 1024;

impl App {
    /// `store` holds the objects. Blocks for a moment.
    pub fn new(store: Store, config: Config, auth: Auth, observer: Option<Observer>) -> Result<Self, Error> {
        let config = Arc::new(config);
        let options = eastwest_store::Options {
            window_events: 4096,
            window_bytes: 32 << 20,
            ..eastwest_store::Options::default()
        };
        let states = Store::open(Memory, options)?;
        Ok(Self(Arc::new(Inner {
            main: Realm::new(store, config.clone()),
            states: Realm::new(states, config.clone()),
            config,
            auth,
            connected: Mutex::default(),
            closing: CancellationToken::new(),
            flows: crate::flows::Flows::default(),
            incomplete: AtomicBool::new(false),
            observer,
            requests: tokio::sync::Semaphore::new(REQUESTS_MAX),
        })))
    }

    /// The store of the lasting objects.
    pub fn store(&self) -> &Store {
        &self.0.main.store
    }

    /// Ends watches and streams, and makes `/readyz` fail.
    pub fn close(&self) {
        self.0.closing.cancel();
    }

    pub fn closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    /// Why requests should go elsewhere; `None` when all is well.
    pub fn unready(&self) -> Option<&'static str> {
        if self.closing() {
            Some("shutting down")
        } else if self.incomplete() {
            Some(INCOMPLETE)
        } else if !self.store().healthy() {
            Some("the store cannot write to disk")
        } else {
            None
        }
    }

    /// Says whether objects are still missing that are mirrored from elsewhere. Meanwhile agents are sent away: a full
    /// list that is not full would make them drop what is in use.
    pub fn set_incomplete(&self, incomplete: bool) {
        self.0.incomplete.store(incomplete, Ordering::Release);
    }

    pub(crate) fn incomplete(&self) -> bool {
        self.0.incomplete.load(Ordering::Acquire)
    }

    pub(crate) fn realm(&self, kind: Kind) -> &Realm {
        if kind == Kind::NodeState { &self.0.states } else { &self.0.main }
    }

    /// Nodes whose agent is connected now.
    pub fn connected_nodes(&self) -> usize {
        self.0.connected.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn is_connected(&self, node: &str) -> bool {
        self.0.connected.lock().unwrap_or_else(PoisonError::into_inner).contains_key(node)
    }

    /// Counts an agent stream until the guard is dropped.
    pub(crate) fn connect(&self, node: &str) -> Connected {
        let mut connected = self.0.connected.lock().unwrap_or_else(PoisonError::into_inner);
        *connected.entry(node.to_owned()).or_default() += 1;
        drop(connected);
        self.publish_connected(node.to_owned());
        Connected { app: self.clone(), node: node.to_owned() }
    }

    /// Writes into the NodeState what is true when the write runs.
    fn publish_connected(&self, node: String) {
        let app = self.clone();
        tokio::spawn(async move {
            let realm = app.0.states.clone();
            let written = realm
                .write(move |tx| {
                    let how = Update { or_create: app.is_connected(&node), ..Update::default() };
                    write::update::<NodeState>(tx, "", &node, how, |old| {
                        let mut state = old.cloned().unwrap_or_default();
                        state.api_version = Kind::NodeState.api_version().into();
                        state.kind = Kind::NodeState.name().into();
                        state.metadata.name.clone_from(&node);
                        state.status.connected = app.is_connected(&node);
                        if state.status.connected {
                            state.metadata.annotations.remove(crate::peers::ANNOTATION_CONTROLLER);
                        }
                        Ok(state)
                    })
                })
                .await;
            if let Err(error) = written {
                tracing::debug!(%error, "node state not updated");
            }
        });
    }

    /// Creates what every cluster has: the system namespaces and the DNS Service.
    pub async fn bootstrap(&self) -> Result<(), ApiError> {
        for name in SYSTEM_NAMESPACES {
            let mut namespace: Namespace = blank(Kind::Namespace)?;
            namespace.metadata.name = name.into();
            self.ensure(Key::new(Kind::Namespace, "", name), move |tx| write::create(tx, namespace, false))
                .await?;
        }
        if self.0.config.dns_service_ips.is_empty() {
            return Ok(());
        }
        let dns = dns_service(&self.0.config)?;
        self.ensure(Key::new(Kind::Service, "kube-system", "kube-dns"), move |tx| {
            write::create(tx, dns, false)
        })
        .await
    }

    async fn ensure<F>(&self, key: Key, create: F) -> Result<(), ApiError>
    where
        F: FnOnce(&mut Tx<'_, '_>) -> Result<Written, Refused<Written>> + Send + 'static,
    {
        if self.0.main.store.get(&key).is_some() {
            return Ok(());
        }
        self.0.main.write(create).await.map(drop)
    }

    /// The store's newest revision.
    pub fn revision(&self) -> Revision {
        self.0.main.store.revision()
    }
}

fn blank<T: serde::de::DeserializeOwned>(kind: Kind) -> Result<T, ApiError> {
    let value = serde_json::json!({"apiVersion": kind.api_version(), "kind": kind.name()});
    serde_json::from_value(value).map_err(ApiError::internal)
}

/// `kube-dns`: agents answer at its addresses by themselves, so it selects nothing.
fn dns_service(config: &Config) -> Result<Service, ApiError> {
    let base: Service = blank(Kind::Service)?;
    let ips: Vec<String> = config.dns_service_ips.iter().map(ToString::to_string).collect();
    let port =
        |name: &str, protocol| ServicePort { name: name.into(), port: 53, protocol, ..Default::default() };
    let labels = [("k8s-app", "kube-dns"), ("kubernetes.io/name", "CoreDNS")];
    Ok(Service {
        metadata: ObjectMeta {
            name: "kube-dns".into(),
            namespace: "kube-system".into(),
            labels: labels.map(|(k, v)| (k.into(), v.into())).into(),
            ..ObjectMeta::default()
        },
        spec: ServiceSpec {
            ports: vec![
                port("dns", eastwest_model::Protocol::UDP),
                port("dns-tcp", eastwest_model::Protocol::TCP),
            ],
            cluster_ip: ips[0].clone(),
            ip_family_policy: (ips.len() == 2).then_some(eastwest_model::IpFamilyPolicy::RequireDualStack),
            cluster_ips: ips,
            ..ServiceSpec::default()
        },
        ..base
    })
}

/// An open agent stream.
pub(crate) struct Connected {
    app: App,
    node: String,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut connected = self.app.0.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = connected.get_mut(&self.node) {
            *n -= 1;
            if *n == 0 {
                connected.remove(&self.node);
            }
        }
        drop(connected);
        if tokio::runtime::Handle::try_current().is_ok() {
            self.app.publish_connected(std::mem::take(&mut self.node));
        }
    }
}
