//! What one address gets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use eastwest_compile::{
    Considered, Context, Explained, From, FrontendKey, FrontendKind, Outcome, Policy, Reason, ServiceKey,
    State, Verdict,
};
use eastwest_model::{
    EndpointSlice, Kind, LABEL_SERVICE_NAME, NodeState, Protocol, TraceBackend, TraceFrontend, TracePath,
    TraceVerdict,
};
use ipnet::IpNet;

use super::{Client, Place, World};
use crate::App;

/// The Services of a world, as the client's node has them.
pub struct Lookup<'a> {
    app: &'a App,
    world: &'a World,
    context: Context,
    client: &'a Client,
    node: Option<&'a NodeState>,
    /// Who has which frontend; of several Services the first by name, as none can be told to have come first.
    frontends: HashMap<FrontendKey, ServiceKey>,
    service_ranges: &'a [IpNet],
    ips: HashMap<IpAddr, ServiceKey>,
}

/// The slices of a Service.
pub fn slices_of(world: &World, namespace: &str, name: &str) -> Vec<EndpointSlice> {
    let of = world.slices.iter().filter(|o| {
        *o.key.namespace == *namespace && o.labels.get(LABEL_SERVICE_NAME).is_some_and(|s| s == name)
    });
    of.filter_map(|o| serde_json::from_slice(&o.json).ok()).collect()
}

impl<'a> Lookup<'a> {
    pub fn new(
        app: &'a App,
        world: &'a World,
        context: Context,
        client: &'a Client,
        node: Option<&'a NodeState>,
    ) -> Self {
        let mut state = State::new();
        if let Some(node) = world.node(&client.from.node) {
            state.put(context.node(node));
        }
        for object in &world.services {
            put(&mut state, &context, Kind::Service, &object.json);
        }
        let (mut frontends, mut ips) = (HashMap::new(), HashMap::new());
        for key in world.services.iter().map(|o| ServiceKey::new(&*o.key.namespace, &*o.key.name)) {
            for frontend in state.compile(&context, &key).map(|c| c.frontends).unwrap_or_default() {
                if frontend.kind == FrontendKind::ClusterIp {
                    ips.entry(frontend.key.addr).or_insert_with(|| key.clone());
                }
                frontends.entry(frontend.key).or_insert_with(|| key.clone());
            }
        }
        let service_ranges = &app.0.config.service_ranges;
        Self { app, world, context, client, node, frontends, service_ranges, ips }
    }

    pub fn path(&self, addr: IpAddr, port: u16, protocol: Protocol) -> TracePath {
        let key = FrontendKey { addr, port, protocol };
        let mut path = TracePath {
            address: format!("{}/{protocol:?}", SocketAddr::new(addr, port)),
            ..TracePath::default()
        };
        let Some(service) = self.frontends.get(&key) else {
            (path.verdict, path.reason) = self.no_frontend(addr);
            path.service = self.ips.get(&addr).map(ToString::to_string);
            if path.verdict != TraceVerdict::Direct {
                path.hooks.push(self.forward());
            }
            return path;
        };
        path.service = Some(service.to_string());
        let slices = slices_of(self.world, &service.namespace, &service.name);
        let state = self.state_of(service, &slices);
        let from = if self.client.place == Place::Outside { From::Outside } else { From::Inside };
        let source = self.client.address(addr.is_ipv4());
        let Some(why) = state.explain(&self.context, service, &key, from, source) else { return path };
        path.frontend = Some(TraceFrontend {
            kind: format!("{:?}", why.frontend.kind),
            port: why.frontend.port_name.to_string(),
            policy: policy(&why).into(),
            affinity_seconds: why.frontend.affinity_seconds,
            source_ranges: why.frontend.source_ranges.iter().map(ToString::to_string).collect(),
        });
        path.backends = why.considered.iter().map(|c| self.backend(c, &slices, source)).collect();
        (path.verdict, path.reason) = outcome(&why);
        path.hooks = self.hooks(&why);
        path
    }

    /// All that decides for one Service.
    fn state_of(&self, key: &ServiceKey, slices: &[EndpointSlice]) -> State {
        let mut state = State::new();
        if let Some(node) = self.world.node(&self.client.from.node) {
            state.put(self.context.node(node));
        }
        let service = self.world.services.iter().find(|o| of_name(&o.key, key));
        service.into_iter().for_each(|o| put(&mut state, &self.context, Kind::Service, &o.json));
        slices.iter().for_each(|slice| drop(state.put(self.context.slice(slice))));
        let splits: Vec<_> = self.world.splits.iter().filter(|o| o.key.namespace == key.namespace).collect();
        if !splits.is_empty() {
            splits.iter().for_each(|o| put(&mut state, &self.context, Kind::TrafficSplit, &o.json));
            let workloads: Vec<_> = self
                .app
                .store()
                .read(|view| view.range(Kind::Workload, Some(&key.namespace), None).cloned().collect());
            workloads.iter().for_each(|o| put(&mut state, &self.context, Kind::Workload, &o.json));
        }
        state
    }

    /// An address at which nothing is served on this port.
    fn no_frontend(&self, addr: IpAddr) -> (TraceVerdict, String) {
        if let Some(service) = self.ips.get(&addr) {
            let reason = format!("Service {service} has the address, but not this port");
            (TraceVerdict::Refused, reason)
        } else if let Some(range) = self.service_ranges.iter().find(|r| r.contains(&addr)) {
            (TraceVerdict::Dropped, format!("no Service has this address of the service range {range}"))
        } else {
            (TraceVerdict::Direct, "no Service has this address and port: it goes there as it is".into())
        }
    }

    fn backend(&self, c: &Considered, slices: &[EndpointSlice], source: Option<IpAddr>) -> TraceBackend {
        let addr = c.backend.addr;
        let of = |e: &&eastwest_model::Endpoint| e.addresses.first().is_some_and(|a| a.parse() == Ok(addr));
        let endpoint = slices.iter().flat_map(|s| &s.endpoints).find(of);
        let target = endpoint.and_then(|e| e.target_ref.as_ref());
        let node = endpoint.and_then(|e| e.node_name.clone()).unwrap_or_default();
        let sees = match self.client.place {
            _ if c.share == 0.0 => String::new(),
            Place::Pod if source == Some(addr) => "an address of its node, as it would be its own".into(),
            Place::Pod | Place::Host | Place::Inside => shown(source, "the client's own address"),
            Place::Outside if c.backend.local => shown(source, "the client's own address"),
            Place::Outside => {
                let own = self.world.node(&self.client.from.node);
                let ip = own.and_then(|n| n.internal_ips().find(|ip| ip.is_ipv4() == addr.is_ipv4()));
                shown(ip, "an address of the node")
            }
        };
        TraceBackend {
            address: SocketAddr::new(addr, c.backend.port).to_string(),
            target: target.map(|t| format!("{} {}", t.kind, t.name)).unwrap_or_default(),
            node,
            share: c.share,
            reason: reason(c).into(),
            sees,
        }
    }

    fn device(&self, role: &str) -> String {
        let devices = self.node.into_iter().flat_map(|n| &n.status.devices);
        let mode = devices.filter(|d| d.role == role).map(|d| d.mode.as_str()).find(|m| !m.is_empty());
        mode.unwrap_or("its hook").to_owned()
    }

    /// Where the first packet meets a program.
    fn forward(&self) -> String {
        let node = &self.client.from.node;
        match self.client.place {
            Place::Pod => format!("forward: {} on ingress of the pod's device on {node}", self.device("pod")),
            Place::Host => format!("forward: connect() or sendmsg() of the process on {node}"),
            Place::Outside | Place::Inside => {
                format!("forward: {} on ingress of the NIC of {node}", self.device("nic"))
            }
        }
    }

    fn hooks(&self, why: &Explained) -> Vec<String> {
        let mut hooks = vec![self.forward()];
        let node = &self.client.from.node;
        let chosen = || why.considered.iter().filter(|c| c.share > 0.0);
        match self.client.place {
            _ if why.outcome != Outcome::Translated => {}
            Place::Pod => hooks.push(format!("back: tc on egress of the pod's device on {node}")),
            Place::Host => {
                hooks.push("back: recvmsg() and getpeername(); no packet is changed".into());
            }
            Place::Outside | Place::Inside => {
                if chosen().any(|c| c.backend.local) {
                    hooks.push(format!("back, from a backend here: tc on egress of the NIC of {node}"));
                }
                if chosen().any(|c| !c.backend.local) {
                    let mode = self.device("nic");
                    hooks.push(format!("back, from another node: {mode} on ingress of the NIC of {node}"));
                }
            }
        }
        hooks
    }
}

fn of_name(object: &eastwest_store::Key, key: &ServiceKey) -> bool {
    object.namespace == key.namespace && object.name == key.name
}

fn shown(ip: Option<IpAddr>, otherwise: &str) -> String {
    ip.map_or_else(|| otherwise.to_owned(), |ip| ip.to_string())
}

fn put(state: &mut State, context: &Context, kind: Kind, json: &[u8]) {
    let text = std::str::from_utf8(json).unwrap_or_default();
    match context.decode(kind, text) {
        Ok(decoded) => drop(state.put(decoded)),
        Err(error) => tracing::error!(%error, "stored object does not decode"),
    }
}

fn policy(why: &Explained) -> &'static str {
    match why.policy {
        Policy::Cluster => "Cluster",
        Policy::Local => "Local",
    }
}

fn outcome(why: &Explained) -> (TraceVerdict, String) {
    let chosen = why.considered.iter().filter(|c| c.share > 0.0).count();
    match why.outcome {
        Outcome::Translated if chosen == 1 => {
            (TraceVerdict::Translated, "to the one backend there is".into())
        }
        Outcome::Translated => {
            (TraceVerdict::Translated, format!("to one of {chosen} backends, by their shares"))
        }
        Outcome::Refused if why.considered.is_empty() => {
            (TraceVerdict::Refused, "the Service port has no endpoints".into())
        }
        Outcome::Refused => (TraceVerdict::Refused, "no endpoint may be chosen".into()),
        Outcome::DroppedNoLocal => {
            (TraceVerdict::Dropped, "the policy is Local, and only other nodes have endpoints".into())
        }
        Outcome::DroppedSource => {
            (TraceVerdict::Dropped, "the client is in none of loadBalancerSourceRanges".into())
        }
    }
}

fn reason(c: &Considered) -> &'static str {
    match c.reason {
        Reason::By(Verdict::Chosen) => "may be chosen",
        Reason::By(Verdict::NotReady) => "not ready",
        Reason::By(Verdict::Terminating) => "terminating, and others are ready",
        Reason::By(Verdict::OtherNode) => "on another node, and the policy is Local",
        Reason::By(Verdict::HintedForOtherNodes) => "hinted for other nodes",
        Reason::By(Verdict::HintedForOtherZones) => "hinted for other zones",
        Reason::NoGroup => "in no group of the TrafficSplit",
        Reason::NoWeight => "weight 0 in the TrafficSplit",
    }
}
