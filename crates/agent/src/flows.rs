//! Tells the controller of flows, while it wants to hear of them; it costs nothing when nobody does.
//!
//! One request waits at the controller until there is something to do. While flows are told of, one goes there twice a
//! second with what has come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use eastwest_abi::{self as abi, counter, event_flags};
use eastwest_client::Client;
use eastwest_dataplane::events::Events;
use eastwest_model::{Flow, FlowReport, FlowSampling};
use http::Method;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

/// Between two reports while flows are told of.
const PAUSE: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(5);
/// Flows in a report; more wait in the ring, and are lost when it is full.
const MOST: usize = 2000;

/// The ring, for one reader at a time.
pub type Ring = Arc<Mutex<Events>>;

/// What tells of flows, once there is a ring.
#[derive(Clone)]
pub struct Flows {
    events: watch::Receiver<Option<Ring>>,
    /// Of so many flows one is told of, whoever asks; 0: none unless the controller wants it.
    sampling: u32,
}

impl Flows {
    pub fn new(events: watch::Receiver<Option<Ring>>, sampling: u32) -> Self {
        Self { events, sampling }
    }

    /// Tells `client` of flows of `node` until dropped.
    pub async fn run(mut self, client: Client, node: String) {
        let ring = self.events.wait_for(Option::is_some).await.ok().and_then(|ring| ring.clone());
        let Some(ring) = ring else { return std::future::pending().await };
        let mut events = ring.lock().await;
        let mut current = None;
        let mut report = FlowReport { node: node.clone(), ..FlowReport::default() };
        loop {
            let body = serde_json::to_value(&report).unwrap_or_default();
            report.flows.clear();
            let answer = client.json(Method::POST, "/v1/agent/flows", &[], Some(&body)).await;
            let wanted = match answer {
                Ok::<FlowSampling, _>(wanted) => finest(wanted.sampling, self.sampling),
                Err(error) => {
                    debug!(%error, "flows");
                    set(&mut events, &mut current, self.sampling);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            set(&mut events, &mut current, wanted);
            report.sampling = wanted;
            if wanted != 0 {
                collect(&mut events, &node, &mut report.flows).await;
            }
        }
    }
}

/// The one by which more is told of.
fn finest(a: u32, b: u32) -> u32 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

fn set(events: &mut Events, current: &mut Option<u32>, wanted: u32) {
    if *current == Some(wanted) {
        return;
    }
    match events.sample(wanted) {
        Ok(()) => *current = Some(wanted),
        Err(error) => warn!(%error, "flows are told of as before"),
    }
}

async fn collect(events: &mut Events, node: &str, flows: &mut Vec<Flow>) {
    let end = Instant::now() + PAUSE;
    let mut read = Vec::new();
    while read.len() < MOST {
        match tokio::time::timeout_at(end, events.read(&mut read, MOST)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                debug!(%error, "events");
                tokio::time::sleep_until(end).await;
                break;
            }
            Err(_) => break,
        }
    }
    // What fills the ring within the pause must not fill the network.
    tokio::time::sleep_until(end).await;
    let now = jiff::Timestamp::now().to_string();
    flows.extend(read.iter().map(|event| flow(event, node, &now)));
}

fn flow(event: &abi::Event, node: &str, now: &str) -> Flow {
    let at = |words: [u32; 4], port: [u8; 2]| {
        let ip = if event.flags & event_flags::IPV6 == 0 {
            IpAddr::from(Ipv4Addr::from(words[0].to_ne_bytes()))
        } else {
            let mut octets = [0; 16];
            octets
                .chunks_exact_mut(4)
                .zip(words)
                .for_each(|(to, word)| to.copy_from_slice(&word.to_ne_bytes()));
            IpAddr::from(Ipv6Addr::from(octets))
        };
        SocketAddr::new(ip, u16::from_be_bytes(port)).to_string()
    };
    let socket = event.flags & event_flags::SOCKET != 0;
    let what = u32::from(event.what);
    let opened = what == counter::NEW || what == counter::SOCKET;
    let name = abi::counter::NAMES.get(what as usize).copied().unwrap_or_default();
    let (verdict, reason) = match name.split_once('_') {
        _ if opened => ("opened", ""),
        Some(("refused", reason)) => ("refused", reason),
        Some((_, reason)) => ("dropped", reason),
        None => ("dropped", name),
    };
    let from = match event.flags {
        _ if socket => "host",
        flags if flags & event_flags::OUTSIDE != 0 => "outside",
        _ => "pod",
    };
    let protocol = match event.protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    };
    Flow {
        time: now.to_owned(),
        node: node.to_owned(),
        from: from.to_owned(),
        client: if socket { String::new() } else { at(event.client, event.client_port) },
        asked: at(event.asked, event.asked_port),
        protocol,
        backend: if opened { at(event.backend, event.backend_port) } else { String::new() },
        verdict: verdict.to_owned(),
        reason: reason.to_owned(),
        ..Flow::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_as_flows() {
        let ip = |text: &str| [u32::from_ne_bytes(text.parse::<Ipv4Addr>().unwrap().octets()), 0, 0, 0];
        let event = abi::Event {
            client: ip("10.244.1.9"),
            asked: ip("10.96.0.1"),
            backend: ip("10.244.2.3"),
            client_port: 40000u16.to_be_bytes(),
            asked_port: 80u16.to_be_bytes(),
            backend_port: 8080u16.to_be_bytes(),
            protocol: 6,
            what: counter::NEW as u8,
            ..abi::Event::default()
        };
        let told = flow(&event, "node-1", "now");
        assert_eq!((told.client.as_str(), told.asked.as_str()), ("10.244.1.9:40000", "10.96.0.1:80"));
        assert_eq!((told.backend.as_str(), told.verdict.as_str()), ("10.244.2.3:8080", "opened"));
        assert_eq!((told.from.as_str(), told.protocol.as_str(), told.reason.as_str()), ("pod", "TCP", ""));
        let with = |what: u32, flags: u8| flow(&abi::Event { what: what as u8, flags, ..event }, "n", "now");
        let refused = with(counter::NO_ENDPOINTS, event_flags::OUTSIDE);
        assert_eq!((refused.verdict.as_str(), refused.reason.as_str()), ("refused", "no_endpoints"));
        assert_eq!((refused.backend.as_str(), refused.from.as_str()), ("", "outside"));
        let dropped = with(counter::LOCAL_POLICY, 0);
        assert_eq!((dropped.verdict.as_str(), dropped.reason.as_str()), ("dropped", "local_policy"));
        let socket = with(counter::SOCKET, event_flags::SOCKET | event_flags::IPV6);
        assert_eq!((socket.from.as_str(), socket.client.as_str()), ("host", ""));
        assert!(socket.backend.starts_with('['), "{}", socket.backend);
    }

    #[test]
    fn the_finer_wins() {
        assert_eq!([finest(0, 0), finest(0, 5), finest(5, 0), finest(10, 2)], [0, 5, 5, 2]);
    }
}
