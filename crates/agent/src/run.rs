//! Wires the core to the kernel, the disk, the network and the controller, in the order of a start.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use eastwest_client::sync::{Machine, Position};
use eastwest_client::{Follow, Following, Received, follow};
use eastwest_compile::Context;
use eastwest_dataplane::devices::{DeviceOptions, Follower, NicMode, PodHook as Hook};
use eastwest_dataplane::{Beside, Capacities, Options, Programs};
use eastwest_dns::{
    ForwardOptions, Forwarder, Index, IndexOptions, Resolver, follow_resolv_conf, load_resolv_conf,
    tls_config,
};
use eastwest_model::DeviceState;
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::core::Core;
use crate::corefile::Plans;
use crate::discovery::Discovery;
use crate::dns::{Dns, keep_addresses};
use crate::flows::Flows;
use crate::health::{self, Health};
use crate::health_check;
use crate::http;
use crate::journal;
use crate::kernel::{Kernel, Opened};
use crate::metrics::{self, SyncMetrics};
use crate::names;
use crate::node::{Identity, all_addresses, cgroup2_mount, memory, node_port_addresses};
use crate::problems::Problems;
use crate::report;
use crate::settings::{Nic, NodePortAddress, PodHook, Settings};
use crate::snapshot::Snapshots;
use crate::worker::{Worker, levels_of};

/// Events that wait for the core; beyond that the stream waits, and the controller with it.
const QUEUE: usize = 4096;
const RETRY: Duration = Duration::from_secs(5);
/// Looks for kube-proxy's rules between two for the connections that they have left.
const LOOKS: u32 = 5;
/// Time for everything to end.
const STOP: Duration = Duration::from_secs(5);

/// Questions that are here when others begin to be asked are answered in this time.
const HANDED_OVER: Duration = Duration::from_millis(100);

/// Longest time that a Corefile may hold up the end.
const LAMEDUCK: Duration = Duration::from_secs(20);

/// The certificate of DNS over TLS.
fn dns_tls(settings: &Settings) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    match (&settings.dns_tls_cert, &settings.dns_tls_key) {
        (Some(cert), Some(key)) => Ok(Some(tls_config(cert, key).context("DNS over TLS")?)),
        (None, None) => Ok(None),
        _ => anyhow::bail!("DNS over TLS needs both --dns-tls-cert and --dns-tls-key"),
    }
}

/// What the dataplane is opened with.
pub fn dataplane_options(settings: &Settings, identity: &Identity) -> Options {
    let sized = Capacities::for_memory(memory());
    let or = |setting: u32, sized: u32| if setting == 0 { sized } else { setting };
    let skip = settings.cluster_dns.iter().chain(&settings.node_local_dns).copied();
    Options {
        pin_dir: settings.pin_dir.clone(),
        cgroup_root: settings.cgroup_root.clone().or_else(cgroup2_mount),
        capacities: Capacities {
            frontends: settings.capacity_frontends.0,
            backends: settings.capacity_backends.0,
            slots: settings.capacity_slots.0,
            connections4: or(settings.capacity_connections4.0, sized.connections4),
            connections6: or(settings.capacity_connections6.0, sized.connections6),
            sockets: settings.capacity_sockets.0,
            affinities: settings.capacity_affinities.0,
            fragments: settings.capacity_fragments.0,
            answers: settings.capacity_dns_answers.max(1),
        },
        node_addresses: identity.addresses.clone(),
        skip_addresses: skip.collect(),
        address_ranges: settings.service_cidr.clone(),
        cluster_ranges: settings.cluster_cidr.clone(),
        masquerade_all: settings.masquerade_all,
        ..Options::default()
    }
}

fn device_options(settings: &Settings, identity: &Identity) -> DeviceOptions {
    DeviceOptions {
        pin_dir: settings.pin_dir.clone(),
        pod_hook: match settings.pod_hook {
            PodHook::Tc => Hook::Tc,
            PodHook::Xdp => Hook::Xdp,
        },
        pod_devices: settings.pod_devices.clone(),
        nic_mode: match settings.nic {
            Nic::Auto => NicMode::Auto,
            Nic::XdpNative => NicMode::XdpNative,
            Nic::XdpGeneric => NicMode::XdpGeneric,
            Nic::Tc => NicMode::Tc,
        },
        nic_devices: settings.nic_devices.clone(),
        node_addresses: identity.addresses.clone(),
    }
}

/// Runs the agent until SIGTERM or SIGINT; `reload` is called at SIGHUP.
///
/// # Errors
/// When the kernel programs cannot be had, or the core has died: without them the node is better off restarted.
pub async fn run(mut settings: Settings, reload: impl Fn()) -> anyhow::Result<()> {
    let started = jiff::Timestamp::now();
    let mut signals = Signals::new()?;
    let problems = Problems::default();
    let identity = Identity::find(&settings.node_name, &settings.node_ip, &settings.pod_cidr)?;
    let no_address = "found no address of this node: set it with --node-ip".to_owned();
    problems.set("nodeIp", identity.addresses.is_empty().then_some(no_address));
    info!(node = identity.name, addresses = ?identity.addresses, version = env!("CARGO_PKG_VERSION"), "starting");

    let discovery = tokio::select! {
        opened = Discovery::open(&mut settings, &problems) => opened.context("cannot ask Kubernetes")?,
        () = signals.end() => return Ok(()),
    };
    let network = discovery.network_watcher();
    let options = dataplane_options(&settings, &identity);
    if options.cgroup_root.is_none() {
        let text = "no cgroup2 is mounted: processes on the host reach no virtual IP by their sockets";
        problems.set("cgroup", Some(text.into()));
    }
    let (beside_tx, is_beside) = watch::channel(eastwest_dataplane::beside::has_rules().unwrap_or_default());

    let index = Arc::new(Index::new(IndexOptions {
        zones: vec![settings.zone.clone()],
        ns_addresses: settings.cluster_dns.clone(),
        ..IndexOptions::default()
    })?);
    let dns_metrics = eastwest_dns::Metrics::new();
    let forwarder = Forwarder::new(forward_options(&settings), dns_metrics.clone());
    let resolver = Resolver::new(index.clone(), forwarder.clone(), dns_metrics.clone());
    let dns_addresses: Vec<_> =
        settings.node_local_dns.iter().chain(&settings.cluster_dns).copied().collect();
    let kernel = Kernel {
        options,
        devices: device_options(&settings, &identity),
        dns: dns_addresses.clone(),
        xdp: settings.pod_hook == PodHook::Xdp,
        resolver: settings.dns_in_kernel.then(|| resolver.clone()),
        metrics: dns_metrics.clone(),
    };
    let told = problems.clone();
    let mut opening = tokio::task::spawn_blocking(move || kernel.open(&told));
    let peer_addresses = Arc::default();
    let mut plans = Plans::new(
        resolver.clone(),
        &settings,
        &identity,
        dns_addresses.clone(),
        Arc::clone(&peer_addresses),
        problems.clone(),
    );
    let context = Context {
        node: identity.name.as_str().into(),
        service_cidrs: settings.service_cidr.clone(),
        node_port_addresses: node_port_addresses(
            &settings.nodeport_addresses,
            &identity.addresses,
            &all_addresses(),
        ),
        pod_names: plans.pod_names(),
    };
    plans.load();
    let node_ports = context.node_port_addresses.clone();
    let sync_metrics = Arc::new(SyncMetrics::default());
    let mut core = Core::new(context.clone(), index.clone(), sync_metrics.clone());
    let snapshots = Snapshots::new(&settings.data_dir, context);
    let cluster_dns = settings.cluster_dns.clone();
    match snapshots.read() {
        Ok(Some(snapshot)) => {
            info!(
                objects = snapshot.objects.len(),
                revision = snapshot.position.revision.0,
                changes = snapshot.changes.len(),
                "snapshot found"
            );
            core.restore(snapshot);
        }
        Ok(None) => info!("no snapshot: nothing is changed before the first full list"),
        Err(e) => {
            warn!(error = %e, "snapshot cannot be used");
            problems.set("snapshot", Some(e.to_string()));
        }
    }
    core.set_journal(Box::new(journal::Files::new(&settings.data_dir)));

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (node_ports_tx, node_ports) = watch::channel(node_ports);
    let (devices_tx, devices) = watch::channel(Vec::new());
    let ranges = settings.service_cidr.clone();
    tasks.spawn(keep_addresses(dns_addresses.clone(), ranges, is_beside, problems.clone(), stop.clone()));
    let others = identity.addresses.iter().filter(|_| settings.dns_peer_port != 0);
    let (serving_tx, serving) = watch::channel(false);
    let dns = Dns {
        addresses: dns_addresses.into_iter().map(|ip| (ip, 53).into()).collect(),
        for_others: others.map(|ip| (*ip, settings.dns_peer_port).into()).collect(),
        serving: serving_tx,
        resolver: resolver.clone(),
        tls: dns_tls(&settings)?,
        problems: problems.clone(),
    };
    tasks.spawn(dns.run(stop.clone()));
    let down = CancellationToken::new();
    let (plans_now, plans_due) = watch::channel(0);
    tasks.spawn(plans.run(plans_due, stop.clone()));
    let resolv_conf = settings.upstream_resolv_conf.clone();
    let upstreams = forwarder.clone();
    let following_resolv_conf =
        tokio::spawn(async move { follow_resolv_conf(&resolv_conf, upstreams, RETRY).await });

    let held = core.held().cloned();
    let (status_tx, status) = watch::channel(core.status());
    let (levels_tx, levels) = watch::channel(levels_of(&core));
    let (connections_tx, connections) = watch::channel(Vec::new());
    let (events, received) = mpsc::channel(QUEUE);
    let (following_tx, following) = watch::channel(Following::default());
    let health = Health::new(sync_metrics.clone());
    let sources = report::Sources {
        identity: identity.clone(),
        started_at: started.to_string(),
        status: status.clone(),
        devices: devices.clone(),
        following: following.clone(),
        problems: problems.clone(),
    };

    let (ring_tx, ring) = watch::channel(None);
    let flows = Flows::new(ring, settings.flow_sampling);

    let mut registry = Registry::default();
    sync_metrics.register(&mut registry);
    health.register(&mut registry);
    registry.register_collector(Box::new(metrics::Node {
        status: status.clone(),
        following,
        devices,
        levels,
        connections,
        problems: problems.clone(),
    }));
    let mut dns_registry = Registry::default();
    dns_metrics.register(&mut dns_registry);
    sync_metrics.register_dns(&mut dns_registry);
    let ending = Arc::new(AtomicBool::new(false));
    let listeners = [
        ("metrics", settings.metrics_listen, http::metrics(registry)),
        ("dnsMetrics", settings.dns_metrics_listen, http::metrics(dns_registry)),
        ("dnsReady", settings.dns_ready_listen, health::dns_ready(index.clone(), status, ending.clone())),
        ("dnsHealth", settings.dns_health_listen, health::dns_health()),
    ];
    for (name, address, router) in listeners {
        tasks.spawn(http::serve(name, address, router, problems.clone(), stop.clone()));
    }

    // What begins once the kernel's side is open.
    let (dataplane_tx, dataplane_opened) = oneshot::channel();
    let (serves_tx, serves_names) = mpsc::unbounded_channel();
    let mut hook = Some({
        let (peers, checks) = (core.peers(), core.health_checks());
        let (tasks, health, problems, stop, down) =
            (tasks.clone(), health.clone(), problems.clone(), stop.clone(), down.clone());
        let (name, port) = (identity.name.clone(), settings.dns_peer_port);
        let node_ports = NodePorts {
            wanted: settings.nodeport_addresses.clone(),
            primary: identity.addresses.clone(),
            serving: node_ports_tx,
        };
        let devices = device_options(&settings, &identity);
        let (healthz, pin_dir) = (settings.healthz_listen, settings.pin_dir.clone());
        move |opened: Opened| -> anyhow::Result<()> {
            let Opened { mut dataplane, names, programs, beside, found } = opened;
            beside_tx.send_if_modified(|old| std::mem::replace(old, found) != found);
            ring_tx.send_replace(dataplane.take_events()?.map(|ring| Arc::new(Mutex::new(ring))));
            let (programmed_tx, programmed) = oneshot::channel();
            // The core may have died; that is seen elsewhere.
            drop(dataplane_tx.send((dataplane, programmed_tx)));
            let hooking =
                follow_devices(programs, devices, devices_tx, node_ports, problems.clone(), stop.clone());
            tasks.spawn(async move {
                // Hooks that know nothing would take away what works.
                drop(programmed.await);
                hooking.await;
            });
            tasks.spawn(follow_kube_proxy(beside, pin_dir, beside_tx, problems.clone(), stop.clone()));
            tasks.spawn(names::beat(names.clone(), index, serving, serves_tx, problems.clone(), down));
            let follow = names::follow_peers(
                names.clone(),
                name,
                port,
                peers,
                peer_addresses,
                problems.clone(),
                stop.clone(),
            );
            tasks.spawn(follow);
            tasks.spawn(http::serve("healthz", healthz, health.router(), problems.clone(), stop.clone()));
            tasks.spawn(health_check::run(checks, health, problems, stop));
            Ok(())
        }
    });

    let worker = Worker {
        core,
        opened: dataplane_opened,
        received,
        node_ports,
        serves_names,
        dns_addresses: cluster_dns,
        status: status_tx,
        levels: levels_tx,
        connections: connections_tx,
        snapshots,
        metrics: sync_metrics,
        health,
        problems: problems.clone(),
        stop: stop.clone(),
    };
    let mut core_done = worker.start()?;
    tasks.spawn(controller(discovery, held, events, following_tx, sources, flows, stop.clone()));
    tasks.close();

    let mut other_network = std::pin::pin!(Discovery::other_network(network));
    let ended = loop {
        tokio::select! {
            opened = &mut opening, if hook.is_some() => {
                let opened = opened.map_err(anyhow::Error::from).flatten();
                if let Err(e) = opened.and_then(|opened| hook.take().context("opened twice")?(opened)) {
                    break Err(e);
                }
            }
            () = &mut other_network => {
                info!("stopping, to be started with them; the kernel goes on with what is programmed");
                break Ok(());
            }
            signal = signals.next() => match signal {
                Signal::Reload => {
                    info!("reloading");
                    reload();
                    plans_now.send_modify(|n| *n += 1);
                    let loaded = load_resolv_conf(&settings.upstream_resolv_conf, &forwarder);
                    let path = settings.upstream_resolv_conf.display();
                    problems.set("upstreamResolvConf", loaded.err().map(|e| format!("{path}: {e}")));
                }
                Signal::Stop(name) => {
                    info!(signal = name, "stopping; the kernel goes on with what is programmed");
                    // Who asks is told elsewhere meanwhile, that this DNS is about to end.
                    ending.store(true, Relaxed);
                    down.cancel();
                    tokio::time::sleep(resolver.lameduck().clamp(HANDED_OVER, LAMEDUCK)).await;
                    break Ok(());
                }
            },
            _ = &mut core_done => break Err(anyhow::anyhow!("the core has died; see the log")),
        }
    };
    down.cancel();
    stop.cancel();
    following_resolv_conf.abort();
    let all = tokio::time::timeout(STOP, async {
        tasks.wait().await;
        if !core_done.is_terminated() {
            let _ = core_done.await;
        }
    });
    if all.await.is_err() {
        warn!("not everything ended in time");
    }
    if ended.is_ok() {
        info!("stopped");
    }
    ended
}

fn forward_options(settings: &Settings) -> ForwardOptions {
    let mut options = ForwardOptions::default();
    options.cache.capacity = settings.dns_cache_size;
    options
}

/// Follows a controller and reports to it; waits for one if need be, and takes another when that is due.
async fn controller(
    mut discovery: Discovery,
    held: Option<Position>,
    events: mpsc::Sender<Received>,
    following: watch::Sender<Following>,
    sources: report::Sources,
    flows: Flows,
    stop: CancellationToken,
) {
    let node = sources.identity.name.clone();
    // Agents that start together come back at different times.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = node.bytes().fold(u64::from(clock.subsec_nanos()), |a, b| a.wrapping_mul(31) ^ u64::from(b));
    let mut held = held;
    while !stop.is_cancelled() {
        let client = match discovery.next().await {
            Ok(client) => {
                sources.problems.set("controller", None);
                client
            }
            Err(e) => {
                sources.problems.set("controller", Some(e));
                tokio::select! {
                    () = tokio::time::sleep(discovery.pause()) => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
        };
        let machine = Machine::new(held.take(), seed, Instant::now());
        let follower = Follow {
            client: client.clone(),
            node: node.clone(),
            machine,
            events: events.clone(),
            status: following.clone(),
        };
        tokio::select! {
            () = follow(follower) => return,
            () = report::run(client.clone(), sources.clone(), stop.clone()) => return,
            () = flows.clone().run(client, node.clone()) => return,
            () = discovery.changed(following.subscribe()) => {}
            () = stop.cancelled() => return,
        }
        following.send_modify(|f| f.connected = false);
        held.clone_from(&sources.status.borrow().applied);
    }
}

/// Which addresses of the node serve NodePorts, as they come and go.
struct NodePorts {
    wanted: Vec<NodePortAddress>,
    primary: Vec<IpAddr>,
    serving: watch::Sender<Vec<IpAddr>>,
}

impl NodePorts {
    fn update(&self, all: &[IpAddr]) {
        let new = node_port_addresses(&self.wanted, &self.primary, all);
        self.serving.send_if_modified(|old| {
            let changed = *old != new;
            *old = new;
            changed
        });
    }
}

/// Hooks devices for ever; begins anew when netlink fails.
async fn follow_devices(
    programs: Programs,
    options: DeviceOptions,
    states: watch::Sender<Vec<DeviceState>>,
    node_ports: NodePorts,
    problems: Problems,
    stop: CancellationToken,
) {
    let once = async || -> Result<(), eastwest_dataplane::Error> {
        let (follower, mut receiver) = Follower::start(programs.clone(), options.clone()).await?;
        problems.set("devices", None);
        let mut addresses = follower.addresses();
        let forward = async {
            loop {
                states.send_replace(receiver.borrow_and_update().clone());
                node_ports.update(&addresses.borrow_and_update());
                let changed = tokio::select! {
                    changed = receiver.changed() => changed,
                    changed = addresses.changed() => changed,
                };
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            ended = follower.run() => ended.map(|_| ()),
            () = forward => Ok(()),
        }
    };
    loop {
        tokio::select! {
            ended = once() => {
                let reason = ended.err().map_or_else(|| "ended".to_owned(), |e| e.to_string());
                problems.set("devices", Some(reason));
            }
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Looks for kube-proxy's rules now and then, for ever.
async fn follow_kube_proxy(
    beside: Beside,
    pin_dir: PathBuf,
    found: watch::Sender<bool>,
    problems: Problems,
    stop: CancellationToken,
) {
    let beside = Arc::new(beside);
    // Looks until connections that its rules have left are looked for again; they may have gone before this agent began.
    let mut due = Some(0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
        let look = beside.clone();
        let looked = tokio::task::spawn_blocking(move || look.look().map_err(|e| e.to_string())).await;
        let looked = looked.map_err(|e| e.to_string()).flatten();
        if let Ok(new) = looked {
            found.send_if_modified(|old| {
                let changed = *old != new;
                if changed {
                    info!(found = new, "kube-proxy's rules");
                }
                *old = new;
                changed
            });
            due = match due {
                _ if new => Some(0),
                Some(0) => forget_kube_proxys_flows(&pin_dir).await.then_some(LOOKS),
                due => due.map(|looks| looks - 1),
            };
        }
        problems.set("kubeProxy", looked.err());
    }
}

/// What kube-proxy's rules, which are gone, have left in nf_conntrack. Whether some of it is still at work.
async fn forget_kube_proxys_flows(pin_dir: &Path) -> bool {
    let pin_dir = pin_dir.to_owned();
    let done =
        tokio::task::spawn_blocking(move || eastwest_dataplane::forget_kube_proxys_flows(&pin_dir)).await;
    match done.map_err(|e| e.to_string()).and_then(|d| d.map_err(|e| e.to_string())) {
        Ok(left) => left > 0,
        Err(error) => {
            warn!(error, "connections that kube-proxy has left may hold up new ones for two minutes");
            false
        }
    }
}

enum Signal {
    Stop(&'static str),
    Reload,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one that ends the agent.
    async fn end(&mut self) {
        while let Signal::Reload = self.next().await {}
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
