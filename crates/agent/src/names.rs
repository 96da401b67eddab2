//! DNS of the node in the kernel: answers that are given there, the sign that this agent lives, and the nodes whose agents are
//! asked while it does not.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eastwest_abi::names::{ANSWER_MAX, Answer, NAME_MAX, PEERS, Question};
use eastwest_compile::Peers;
use eastwest_dataplane::NodeNames;
use eastwest_dns::{AnswerTable, Index, KernelCount, PUBLISHED_ANSWER_MAX, PUBLISHED_NAME_MAX, Published};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::problems::Problems;
use crate::worker::ServesNames;

const _: () = assert!(PUBLISHED_NAME_MAX == NAME_MAX && PUBLISHED_ANSWER_MAX == ANSWER_MAX);

/// How often the agent says that it lives: several times in [`BEAT_MAX`](eastwest_abi::names::BEAT_MAX).
const BEAT: Duration = Duration::from_millis(100);

/// Longest wait until those that stand in for this agent are programmed.
const STOOD_IN: Duration = Duration::from_secs(1);

/// The kernel's table of answers.
pub struct KernelAnswers(pub NodeNames);

impl AnswerTable for KernelAnswers {
    fn put(&self, name: &[u8], qtype: u16, answer: &Published) {
        let Some(question) = Question::new(name, qtype) else { return };
        let Published { counts, data, serial_at, udp_payload } = answer;
        match Answer::new(*counts, data, *serial_at, *udp_payload) {
            Some(answer) => self.0.put(&question, &answer),
            None => self.0.remove(&question),
        }
    }

    fn remove(&self, name: &[u8], qtype: u16) {
        if let Some(question) = Question::new(name, qtype) {
            self.0.remove(&question);
        }
    }

    fn clear(&self) {
        self.0.clear();
    }

    fn set_serial(&self, serial: u32) {
        self.0.set_serial(serial);
    }
}

/// The programs' counts for metrics.
pub fn counts(names: &NodeNames) -> Vec<KernelCount> {
    let counts = names.counts().unwrap_or_else(|error| {
        warn!(%error, "counters of names");
        Vec::new()
    });
    let one = |(ip, c): (IpAddr, eastwest_abi::names::NameCounts)| KernelCount {
        server: SocketAddr::new(ip, 53),
        types: [c.a, c.aaaa],
        dnssec_ok: c.dnssec_ok,
        request_bytes: c.request_bytes,
        response_bytes: c.response_bytes,
        request_100: c.request_100,
        response_100: c.response_100,
        response_200: c.response_200,
        elsewhere: c.elsewhere,
    };
    counts.into_iter().map(one).collect()
}

/// Says that this agent lives, as long as it serves all its addresses and knows all names; at its end that it does not.
pub async fn beat(
    names: NodeNames,
    index: Arc<Index>,
    serving: watch::Receiver<bool>,
    told: mpsc::UnboundedSender<ServesNames>,
    problems: Problems,
    stop: CancellationToken,
) {
    let mut interval = tokio::time::interval(BEAT);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lived = false;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => {
                // Those that stand in at the address first: until the programs know of them, the agent is still there.
                drop(tokio::time::timeout(STOOD_IN, tell(&told, false)).await);
                if let Err(error) = names.down() {
                    warn!(%error, "pods are not told that this DNS ends");
                }
                return;
            }
        }
        let lives = *serving.borrow() && index.synced();
        if lives != lived {
            info!(lives, "DNS for this node's pods");
        }
        let said = if lives { names.beat() } else { names.down() };
        problems.set("dnsBeat", said.err().map(|e| e.to_string()));
        if lives != lived {
            drop(tell(&told, lives));
        }
        lived = lives;
    }
}

/// Has the core note whether this agent answers names; ends when that is programmed.
fn tell(told: &mpsc::UnboundedSender<ServesNames>, serves: bool) -> oneshot::Receiver<()> {
    let (done, is_done) = oneshot::channel();
    // The core may have died; that is seen elsewhere.
    drop(told.send(ServesNames { serves, done }));
    is_done
}

/// Those whose agents stand in for this node's: a few, others for each node, so that no node has all the load of a broken one.
pub fn stand_ins(node: &str, peers: &Peers) -> Vec<IpAddr> {
    // FNV-1a.
    let hash = |name: &str| {
        let bytes = node.bytes().chain([0]).chain(name.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    };
    let mut sorted: Vec<_> = peers.iter().collect();
    sorted.sort_by_key(|(name, _)| (hash(name), name.clone()));
    let family = |v4: bool| {
        let first = |(_, ips): &&(Arc<str>, Arc<[IpAddr]>)| ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
        sorted.iter().filter_map(first).take(PEERS).collect::<Vec<_>>()
    };
    [family(true), family(false)].concat()
}

/// Keeps those that stand in up to date, and `addresses` on those of all other nodes. Without a port nobody stands in.
pub async fn follow_peers(
    names: NodeNames,
    node: String,
    port: u16,
    mut peers: watch::Receiver<Peers>,
    addresses: Arc<Mutex<Vec<IpAddr>>>,
    problems: Problems,
    stop: CancellationToken,
) {
    loop {
        let all = peers.borrow_and_update().clone();
        let chosen = if port == 0 { Vec::new() } else { stand_ins(&node, &all) };
        let every = all.iter().flat_map(|(_, ips)| ips.iter().copied()).collect();
        *addresses.lock().unwrap_or_else(PoisonError::into_inner) = every;
        problems.set("dnsPeers", names.set_peers(&chosen, port).err().map(|e| e.to_string()));
        tokio::select! {
            changed = peers.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_few_others_of_each_family() {
        let peers: Peers = (0..100u8)
            .map(|i| {
                let ips: Vec<IpAddr> =
                    vec![[10, 0, 0, i].into(), [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(i)].into()];
                (format!("node-{i}").into(), ips.into())
            })
            .collect();
        let (one, other) = (stand_ins("a", &peers), stand_ins("b", &peers));
        for chosen in [&one, &other] {
            assert_eq!(chosen.iter().filter(|ip| ip.is_ipv4()).count(), PEERS);
            assert_eq!(chosen.len(), 2 * PEERS);
        }
        assert_ne!(one, other);
        let fewer: Peers = peers.iter().filter(|(_, ips)| ips[0] != one[0]).cloned().collect();
        assert_eq!(stand_ins("a", &fewer)[..PEERS - 1], one[1..PEERS], "the rest stays");
        assert_eq!(stand_ins("a", &Peers::new()), [] as [IpAddr; 0]);
    }
}
