//! The agent, but for the kernel, against the real API in this process: what is written there is programmed here, and
//! told back; and what happens when the controller goes and comes.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastwest_agent::core::{Core, Status};
use eastwest_agent::health::Health;
use eastwest_agent::metrics::SyncMetrics;
use eastwest_agent::node::Identity;
use eastwest_agent::problems::Problems;
use eastwest_agent::report;
use eastwest_agent::snapshot::Snapshots;
use eastwest_agent::worker::Worker;
use eastwest_api::{App, Auth, Config, Role, router};
use eastwest_client::sync::Machine;
use eastwest_client::{Client, Follow, Following, WriteOptions, follow};
use eastwest_compile::Context;
use eastwest_dataplane::Recording;
use eastwest_dns::{Index, IndexOptions};
use eastwest_model::{Node, NodeState, Service};
use eastwest_store::{Memory, Options, Store};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A controller without a disk, on loopback.
struct Controller {
    app: App,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

async fn app() -> App {
    let store = Store::open(Memory, Options::default()).unwrap();
    let tokens = [("admin-token".to_owned(), Role::Admin), ("agent-token".to_owned(), Role::Agent)];
    let app = App::new(store, Config::default(), Auth::new(tokens), None).unwrap();
    app.bootstrap().await.unwrap();
    app
}

impl Controller {
    async fn start(app: App, address: Option<SocketAddr>) -> Self {
        let address = address.unwrap_or((IpAddr::from([127, 0, 0, 1]), 0).into());
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router(app.clone(), None);
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { app, address, task }
    }

    /// As a killed process: open streams break.
    async fn kill(self) -> SocketAddr {
        self.app.close();
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

async fn client(address: SocketAddr, token: &str) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, text.to_string()).unwrap();
    Client::from_path(Some(&file), None).await.unwrap()
}

/// An agent with a recording dataplane.
struct Agent {
    status: watch::Receiver<Status>,
    following: watch::Receiver<Following>,
    index: Arc<Index>,
    stop: CancellationToken,
    done: tokio::sync::oneshot::Receiver<()>,
}

impl Agent {
    async fn start(address: SocketAddr, data: &Path, node: &str) -> Self {
        let context = Context {
            node: node.into(),
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            node_port_addresses: Vec::new(),
            pod_names: false,
        };
        let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
        let metrics = Arc::new(SyncMetrics::default());
        let mut core = Core::new(context.clone(), index.clone(), metrics.clone());
        let snapshots = Snapshots::new(data, context);
        if let Some(snapshot) = snapshots.read().unwrap() {
            core.restore(snapshot);
        }
        let held = core.held().cloned();
        let (status_tx, status) = watch::channel(core.status());
        let (events, received) = mpsc::channel(64);
        let (following_tx, following) = watch::channel(Following::default());
        let (stop, problems) = (CancellationToken::new(), Problems::default());
        let (open, opened) = tokio::sync::oneshot::channel();
        assert!(open.send((Recording::default(), tokio::sync::oneshot::channel().0)).is_ok());
        let worker = Worker {
            core,
            opened,
            received,
            node_ports: watch::channel(Vec::new()).1,
            serves_names: mpsc::unbounded_channel().1,
            dns_addresses: Vec::new(),
            status: status_tx,
            levels: watch::channel(Vec::new()).0,
            connections: watch::channel(Vec::new()).0,
            snapshots,
            health: Health::new(metrics.clone()),
            metrics,
            problems: problems.clone(),
            stop: stop.clone(),
        };
        let done = worker.start().unwrap();
        let (devices_tx, devices) = watch::channel(Vec::new());
        let identity = Identity {
            name: node.to_owned(),
            addresses: vec!["192.0.2.7".parse().unwrap()],
            pod_cidrs: vec!["10.244.7.0/24".parse().unwrap()],
        };
        let sources = report::Sources {
            identity,
            started_at: "2026-01-01T00:00:00Z".into(),
            status: status.clone(),
            devices,
            following: following.clone(),
            problems,
        };
        let client = client(address, "agent-token").await;
        let machine = Machine::new(held, 7, Instant::now());
        let follower =
            Follow { client: client.clone(), node: node.into(), machine, events, status: following_tx };
        let token = stop.clone();
        tokio::spawn(async move {
            let _devices = devices_tx;
            tokio::select! {
                () = follow(follower) => {}
                () = report::run(client, sources, token.clone()) => {}
                () = token.cancelled() => {}
            }
        });
        Self { status, following, index, stop, done }
    }

    async fn stop(self) {
        self.stop.cancel();
        let _ = self.done.await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < end, "{what}: not within 10 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

fn workload(name: &str, app: &str, address: &str) -> Value {
    json!({
        "apiVersion": "eastwest.dev/v1", "kind": "Workload",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"addresses": [address], "node": "node-1"},
    })
}

fn waiting() -> WriteOptions {
    WriteOptions { wait_programmed: Some(Duration::from_secs(5)), ..WriteOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_programmed_and_told_back() {
    let controller = Controller::start(app().await, None).await;
    let admin = client(controller.address, "admin-token").await;
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::start(controller.address, data.path(), "node-1").await;
    until("the node is registered", async || admin.get::<Node>("", "node-1").await.is_ok()).await;
    let node: Node = admin.get("", "node-1").await.unwrap();
    assert_eq!(node.internal_ips().map(|ip| ip.to_string()).collect::<Vec<_>>(), ["192.0.2.7"]);
    assert_eq!(node.spec.pod_cidr, "10.244.7.0/24");

    // The answer comes when this node, the only one, has programmed it.
    let start = Instant::now();
    admin.apply(&service("web"), None, &waiting()).await.unwrap();
    let done = admin.apply(&workload("w1", "web", "10.244.7.2"), None, &waiting()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let written: u64 = done.object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let status = agent.status.borrow().clone();
    assert!(
        status.applied.as_ref().is_some_and(|p| p.revision.0 >= written),
        "{:?} {written}",
        status.applied
    );
    assert_eq!(status.backends, 1, "{status:?}");
    let state: NodeState = admin.get("", "node-1").await.unwrap();
    assert!(state.status.applied_revision.0 >= written && state.status.connected);
    assert_eq!(state.status.services, status.services);
    assert!(state.status.programming_latency_us > 0 && state.status.programming_latency_us < 1_000_000);

    // What agents do not read is waited for as well.
    admin.apply(&workload("other", "nobody", "10.244.7.3"), None, &waiting()).await.unwrap();
    admin.delete(eastwest_model::Kind::Workload, "default", "w1", &waiting()).await.unwrap();
    assert_eq!(agent.status.borrow().backends, 0);
    agent.stop().await;
    controller.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_and_agents_come_and_go() {
    let app1 = app().await;
    let controller = Controller::start(app1.clone(), None).await;
    let admin = client(controller.address, "admin-token").await;
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::start(controller.address, data.path(), "node-1").await;
    until("connected", async || agent.following.borrow().connected).await;
    admin.apply(&service("web"), None, &waiting()).await.unwrap();
    admin.apply(&workload("w1", "web", "10.244.7.2"), None, &waiting()).await.unwrap();
    agent.stop().await;

    // A new process knows what the old one knew, with nobody there.
    let address = controller.kill().await;
    let agent = Agent::start(address, data.path(), "node-1").await;
    assert!(agent.index.synced());
    assert_eq!((agent.status.borrow().services, agent.status.borrow().backends), (2, 1));
    until("says why", async || agent.following.borrow().problem.is_some()).await;
    let problem = agent.following.borrow().problem.clone().unwrap();
    assert!(problem.contains("refused"), "{problem}");

    // Another store at the same address: its list replaces what is held, when it is whole.
    let app2 = app().await;
    let controller = Controller::start(app2.clone(), Some(address)).await;
    until("follows the new store", async || {
        let status = agent.status.borrow().clone();
        status.applied.is_some_and(|p| p.store_id == *app2.store().id()) && status.services == 1
    })
    .await;
    let web: Service = serde_json::from_value(service("web")).unwrap();
    admin.create(&web, &waiting()).await.unwrap();
    assert_eq!(agent.status.borrow().services, 2);

    // The same store after a break: only what is new comes.
    let connections = agent.following.borrow().connections;
    let app3 = App::new(
        app2.store().clone(),
        Config::default(),
        Auth::new([("agent-token".to_owned(), Role::Agent), ("admin-token".to_owned(), Role::Admin)]),
        None,
    )
    .unwrap();
    let address = controller.kill().await;
    let controller = Controller::start(app3, Some(address)).await;
    until("back", async || agent.following.borrow().connections > connections).await;
    until("writes again", async || {
        admin.apply(&workload("w2", "web", "10.244.7.4"), None, &waiting()).await.is_ok()
    })
    .await;
    assert_eq!(agent.status.borrow().backends, 1);
    agent.stop().await;
    controller.kill().await;
}
