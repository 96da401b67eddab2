//! Packets and what becomes of them, in words: one table for every engine. Each case runs from empty connection tables,
//! in both families, over every kind of program and of checksum.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use eastwest_abi::{CLUSTER_CLIENTS, backend_flags, config_flags, frontend_flags};

use crate::host::Program::{self, NicEgress, NicIngress, PodEgress, PodIngress};
use crate::host::{HostMaps, LINK, Spec, check, reply_to};
use crate::traits::{Hop, Verdict};
use crate::wire::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
use Outcome::{Back, Drop, Pass, Refuse, Same, Sent};

/// What a packet must become.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// It passes as it is.
    Same,
    /// It passes as this.
    Pass(&'static str),
    /// It goes back into its device as this.
    Back(&'static str),
    /// It is sent on to the next hop as this, one hop older.
    Sent(&'static str),
    /// It is refused, to its sender, out of its device.
    Refuse,
    /// It is dropped.
    Drop,
}

/// A packet at a program. Port 0 in an outcome's source is any other than the packet's own; port 0 in a packet's
/// destination is the last such port.
pub type Step = (Program, &'static str, Outcome);

/// Steps in order.
pub struct Case {
    pub name: &'static str,
    /// `config_flags` that are set besides those of every case.
    pub flags: u32,
    pub steps: &'static [Step],
}

const fn case(name: &'static str, steps: &'static [Step]) -> Case {
    Case { name, flags: 0, steps }
}

/// Who is who (IPv6 by [`six`]): clients 10.244.1.9 and 192.0.2.7 (outside), this node 10.0.0.1.
/// 10.96.0.1 and .2 lead to 10.244.1.2 on this node, .5 to 10.244.2.2 on another; .3 has no endpoints, .4 drops.
/// .6 leads to both and .7 to the other alone, as one Service port that keeps its clients. .10 is answered by the node,
/// and the rest of 10.96.0.0/16 nobody's. At the node, 30080 leads to the other node's pod for clients inside and to this
/// node's for clients outside; 30081 to the other's, and drops clients outside; 30082 refuses them. 203.0.113.1 leads to
/// this node's and lets 192.0.2.0/24 and 10.244.1.0/24 in. 10.244.0.0/16 is inside the cluster.
pub const CASES: &[Case] = &[
    case(
        "tcp through a frontend and back",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 S.",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 S."),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 P. len=100",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 P. len=100"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 P. len=1447",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 P. len=1447"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 . len=1",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 . len=1"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 R",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 R"),
            ),
        ],
    ),
    case(
        "udp through a frontend and back",
        &[
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353"),
            ),
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=63",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=63"),
            ),
            (
                PodEgress,
                "udp 10.244.1.2:5353 > 10.244.1.9:40000 len=512",
                Pass("udp 10.96.0.1:53 > 10.244.1.9:40000 len=512"),
            ),
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=20 nosum",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=20 nosum"),
            ),
        ],
    ),
    case(
        "options stay where they are",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S options=40",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S options=40"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 S. options=4",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 S. options=4"),
            ),
        ],
    ),
    case(
        "two frontends and the backend itself from one port: frontends first",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.2:80 S",
                Pass("tcp 10.244.1.9:0 > 10.244.1.2:8080 S"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:0 S.",
                Pass("tcp 10.96.0.2:80 > 10.244.1.9:40000 S."),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.244.1.2:8080 S",
                Pass("tcp 10.244.1.9:0 > 10.244.1.2:8080 S"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:0 S.",
                Pass("tcp 10.244.1.2:8080 > 10.244.1.9:40000 S."),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 S.",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 S."),
            ),
        ],
    ),
    case(
        "the backend itself and two frontends from one port: itself first",
        &[
            (PodIngress, "udp 10.244.1.9:40000 > 10.244.1.2:5353", Same),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.2:53", Pass("udp 10.244.1.9:0 > 10.244.1.2:5353")),
            (PodEgress, "udp 10.244.1.2:5353 > 10.244.1.9:0", Pass("udp 10.96.0.2:53 > 10.244.1.9:40000")),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.1:53", Pass("udp 10.244.1.9:0 > 10.244.1.2:5353")),
            (PodEgress, "udp 10.244.1.2:5353 > 10.244.1.9:0", Pass("udp 10.96.0.1:53 > 10.244.1.9:40000")),
            (PodEgress, "udp 10.244.1.2:5353 > 10.244.1.9:40000", Same),
        ],
    ),
    case(
        "a pod reaches itself",
        &[
            (
                PodIngress,
                "tcp 10.244.1.2:40000 > 10.96.0.1:80 S",
                Back("tcp 169.254.20.1:40000 > 10.244.1.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.2:8080 > 169.254.20.1:40000 S.",
                Back("tcp 10.96.0.1:80 > 10.244.1.2:40000 S."),
            ),
            (
                PodIngress,
                "tcp 10.244.1.2:40000 > 10.96.0.1:80 .",
                Back("tcp 169.254.20.1:40000 > 10.244.1.2:8080 ."),
            ),
            (
                PodIngress,
                "udp 10.244.1.2:40000 > 10.96.0.1:53 len=9",
                Back("udp 169.254.20.1:40000 > 10.244.1.2:5353 len=9"),
            ),
            (
                PodIngress,
                "udp 10.244.1.2:5353 > 169.254.20.1:40000 len=8",
                Back("udp 10.96.0.1:53 > 10.244.1.2:40000 len=8"),
            ),
            (PodIngress, "udp 10.244.1.2:5353 > 169.254.20.1:40001", Same),
        ],
    ),
    case(
        "no endpoints: refused at once",
        &[
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 S", Refuse),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 P. len=33 ack=77", Refuse),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 F len=1460", Refuse),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 S options=12", Refuse),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 R", Drop),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.3:53", Refuse),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.3:53 len=1400", Refuse),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.3:53 len=3 options=40", Refuse),
        ],
    ),
    case(
        "a port that the address does not have: refused",
        &[
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:81 S", Refuse),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.1:80 len=5", Refuse),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.1:81 S", Refuse),
        ],
    ),
    case(
        "dropped by policy",
        &[
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.4:80 S", Drop),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.4:80 S", Drop),
        ],
    ),
    case(
        "nothing of ours",
        &[
            (PodIngress, "tcp 10.244.1.9:40000 > 10.244.1.3:8080 S", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.244.1.2:22 S", Same),
            (PodEgress, "tcp 10.244.1.2:8080 > 10.244.1.9:40000 S.", Same),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.0.0.1:22 S", Same),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.0.0.1:20100 S", Same),
            (NicIngress, "tcp 10.0.0.1:40000 > 10.96.0.1:80 S", Same),
            (NicEgress, "tcp 10.244.1.2:8080 > 192.0.2.7:40000 .", Same),
        ],
    ),
    case(
        "a port used again after the end",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 F.",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 F."),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 F.",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 F."),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.2:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 S.",
                Pass("tcp 10.96.0.2:80 > 10.244.1.9:40000 S."),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S",
                Pass("tcp 10.244.1.9:0 > 10.244.1.2:8080 S"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:0 S.",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 S."),
            ),
        ],
    ),
    case(
        "a client is kept by one backend at all addresses of a Service port",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.7:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.2.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40001 > 10.96.0.6:80 S",
                Pass("tcp 10.244.1.9:40001 > 10.244.2.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40002 > 10.96.0.6:80 S",
                Pass("tcp 10.244.1.9:40002 > 10.244.2.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40003 > 10.96.0.6:80 S",
                Pass("tcp 10.244.1.9:40003 > 10.244.2.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40004 > 10.96.0.6:80 S",
                Pass("tcp 10.244.1.9:40004 > 10.244.2.2:8080 S"),
            ),
            // The same source port again: the backend stays, the port gives way.
            (
                PodIngress,
                "tcp 10.244.1.9:40004 > 10.96.0.7:80 S",
                Pass("tcp 10.244.1.9:0 > 10.244.2.2:8080 S"),
            ),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.7:80 S", Sent("tcp 10.0.0.1:0 > 10.244.2.2:8080 S")),
            (NicIngress, "tcp 192.0.2.7:40001 > 10.96.0.6:80 S", Sent("tcp 10.0.0.1:0 > 10.244.2.2:8080 S")),
            (NicIngress, "tcp 192.0.2.7:40002 > 10.96.0.6:80 S", Sent("tcp 10.0.0.1:0 > 10.244.2.2:8080 S")),
            (NicIngress, "tcp 192.0.2.7:40003 > 10.96.0.6:80 S", Sent("tcp 10.0.0.1:0 > 10.244.2.2:8080 S")),
        ],
    ),
    case(
        "from outside to a backend here: it sees the client",
        &[
            (
                NicIngress,
                "tcp 192.0.2.7:40000 > 10.96.0.1:80 S",
                Pass("tcp 192.0.2.7:40000 > 10.244.1.2:8080 S"),
            ),
            (
                NicEgress,
                "tcp 10.244.1.2:8080 > 192.0.2.7:40000 S.",
                Pass("tcp 10.96.0.1:80 > 192.0.2.7:40000 S."),
            ),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.2:80 S", Pass("tcp 192.0.2.7:0 > 10.244.1.2:8080 S")),
            (
                NicEgress,
                "tcp 10.244.1.2:8080 > 192.0.2.7:0 S.",
                Pass("tcp 10.96.0.2:80 > 192.0.2.7:40000 S."),
            ),
            (PodEgress, "tcp 10.244.1.2:8080 > 192.0.2.7:40000 S.", Same),
        ],
    ),
    case(
        "from outside to a backend elsewhere: sent on, in the node's name",
        &[
            (
                NicIngress,
                "udp 192.0.2.7:40000 > 10.96.0.5:53 len=11",
                Sent("udp 10.0.0.1:0 > 10.244.2.2:5353 len=11"),
            ),
            (
                NicIngress,
                "udp 10.244.2.2:5353 > 10.0.0.1:0 len=12 ttl=60",
                Sent("udp 10.96.0.5:53 > 192.0.2.7:40000 len=12 ttl=59"),
            ),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.5:80 S", Sent("tcp 10.0.0.1:0 > 10.244.2.2:8080 S")),
            (
                NicIngress,
                "tcp 10.244.2.2:8080 > 10.0.0.1:0 S. ttl=2",
                Sent("tcp 10.96.0.5:80 > 192.0.2.7:40000 S. ttl=1"),
            ),
        ],
    ),
    case(
        "a node port: clients outside get the node's own pods, and these see them",
        &[
            (
                NicIngress,
                "tcp 192.0.2.7:40000 > 10.0.0.1:30080 S",
                Pass("tcp 192.0.2.7:40000 > 10.244.1.2:8080 S"),
            ),
            (
                NicEgress,
                "tcp 10.244.1.2:8080 > 192.0.2.7:40000 S.",
                Pass("tcp 10.0.0.1:30080 > 192.0.2.7:40000 S."),
            ),
            (
                NicIngress,
                "udp 192.0.2.7:40000 > 10.0.0.1:30080 len=7",
                Pass("udp 192.0.2.7:40000 > 10.244.1.2:5353 len=7"),
            ),
            (
                NicEgress,
                "udp 10.244.1.2:5353 > 192.0.2.7:40000 len=70",
                Pass("udp 10.0.0.1:30080 > 192.0.2.7:40000 len=70"),
            ),
        ],
    ),
    case(
        "a node port: clients inside get the whole cluster's pods, by whichever way they come",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.0.0.1:30080 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.2.2:8080 S"),
            ),
            (
                PodEgress,
                "tcp 10.244.2.2:8080 > 10.244.1.9:40000 S.",
                Pass("tcp 10.0.0.1:30080 > 10.244.1.9:40000 S."),
            ),
            (
                NicIngress,
                "tcp 10.244.3.9:40000 > 10.0.0.1:30080 S",
                Sent("tcp 10.0.0.1:0 > 10.244.2.2:8080 S"),
            ),
            (
                NicIngress,
                "tcp 10.244.3.9:40000 > 10.0.0.1:30081 S",
                Sent("tcp 10.0.0.1:0 > 10.244.2.2:8080 S"),
            ),
        ],
    ),
    case(
        "a node port without a pod of the node: dropped, or refused where no node has one; other ports are the node's",
        &[
            (NicIngress, "tcp 192.0.2.7:40000 > 10.0.0.1:30081 S", Drop),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.0.0.1:30082 S", Refuse),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.0.0.1:30083 S", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.0.0.1:30083 S", Same),
        ],
    ),
    case(
        "a load balancer's address lets its source ranges in, inside the cluster too",
        &[
            (
                NicIngress,
                "tcp 192.0.2.7:40000 > 203.0.113.1:80 S",
                Pass("tcp 192.0.2.7:40000 > 10.244.1.2:8080 S"),
            ),
            (NicIngress, "tcp 192.0.3.7:40000 > 203.0.113.1:80 S", Drop),
            (NicIngress, "tcp 10.244.3.9:40000 > 203.0.113.1:80 S", Drop),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 203.0.113.1:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
            ),
            (PodIngress, "tcp 10.244.1.9:40000 > 203.0.113.1:81 S", Same),
            (NicIngress, "tcp 192.0.2.7:40000 > 203.0.113.1:81 S", Same),
        ],
    ),
    case(
        "a virtual address that no Service has: dropped; the node's own are left alone",
        &[
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.7.7:80 S", Drop),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.7.7:53", Drop),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.96.7.7:80 S", Drop),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.10:53", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.97.0.1:80 S", Same),
        ],
    ),
    case(
        "a pod's flow does not come in by the NIC",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.5:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.2.2:8080 S"),
            ),
            (NicIngress, "tcp 10.244.2.2:8080 > 10.244.1.9:40000 S.", Same),
            (NicEgress, "tcp 10.244.2.2:8080 > 10.244.1.9:40000 S.", Same),
            (
                PodEgress,
                "tcp 10.244.2.2:8080 > 10.244.1.9:40000 S.",
                Pass("tcp 10.96.0.5:80 > 10.244.1.9:40000 S."),
            ),
        ],
    ),
    case(
        "pings to virtual addresses",
        &[
            (PodIngress, "ping 10.244.1.9:1 > 10.96.0.1:1", Back("pong 10.96.0.1:1 > 10.244.1.9:1")),
            (
                PodIngress,
                "ping 10.244.1.9:1 > 10.96.0.3:1 len=57 ttl=9 options=8 extensions=h",
                Back("pong 10.96.0.3:1 > 10.244.1.9:1 len=57 options=8 extensions=h"),
            ),
            (
                NicIngress,
                "ping 192.0.2.7:1 > 10.96.0.5:1 len=1400",
                Back("pong 10.96.0.5:1 > 192.0.2.7:1 len=1400"),
            ),
            (PodIngress, "ping 10.244.1.9:1 > 10.96.0.1:1 len=80 cut=64..88", Drop),
            (
                PodIngress,
                "ping 10.244.1.9:1 > 10.96.0.1:1 len=80 cut=0..64",
                Back("pong 10.96.0.1:1 > 10.244.1.9:1 len=80 cut=0..64"),
            ),
            (
                PodIngress,
                "ping 10.244.1.9:1 > 10.96.0.1:1 len=80 cut=64..88",
                Back("pong 10.96.0.1:1 > 10.244.1.9:1 len=80 cut=64..88"),
            ),
            // An address of the range that nobody has, a pod, and a reply.
            (PodIngress, "ping 10.244.1.9:1 > 10.96.0.99:1 len=9", Drop),
            (PodIngress, "ping 10.244.1.9:1 > 10.244.1.2:1 len=9", Same),
            (PodIngress, "pong 10.244.1.9:1 > 10.96.0.1:1 len=9", Same),
            // A load balancer's address, and the node's: whose they are otherwise answers, or nobody.
            (PodIngress, "ping 10.244.1.9:1 > 203.0.113.1:1 len=9", Same),
            (NicIngress, "ping 192.0.2.7:1 > 203.0.113.1:1 len=9", Same),
            (NicIngress, "ping 192.0.2.7:1 > 10.0.0.1:1 len=9", Same),
            (PodEgress, "ping 10.96.0.2:1 > 10.96.0.1:1 len=9", Same),
        ],
    ),
    case(
        "errors about what a pod has sent to a frontend",
        &[
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=20",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=20"),
            ),
            // The backend's, and of a router on the way, which stays who it is.
            (
                PodEgress,
                "udp 10.244.1.9:40000 > 10.244.1.2:5353 len=20 error=port by=10.244.1.2",
                Pass("udp 10.244.1.9:40000 > 10.96.0.1:53 len=20 error=port by=10.96.0.1"),
            ),
            (
                PodEgress,
                "udp 10.244.1.9:40000 > 10.244.1.2:5353 len=20 nosum error=expired by=10.0.0.1 quote=8",
                Pass("udp 10.244.1.9:40000 > 10.96.0.1:53 len=20 nosum error=expired by=10.0.0.1 quote=8"),
            ),
            // About a first fragment, and behind all that may be before a header.
            (
                PodEgress,
                "udp 10.244.1.9:40000 > 10.244.1.2:5353 len=90 cut=0..24 error=mtu by=10.0.0.1 options=12 extensions=hd",
                Pass(
                    "udp 10.244.1.9:40000 > 10.96.0.1:53 len=90 cut=0..24 error=mtu by=10.0.0.1 options=12 extensions=hd",
                ),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.9:40000 > 10.244.1.2:8080 . len=500 error=mtu by=10.0.0.1",
                Pass("tcp 10.244.1.9:40000 > 10.96.0.1:80 . len=500 error=mtu by=10.0.0.1"),
            ),
            // Without the checksum, as RFC 792 would have it.
            (
                PodEgress,
                "tcp 10.244.1.9:40000 > 10.244.1.2:8080 . len=500 error=mtu by=10.0.0.1 quote=8",
                Pass("tcp 10.244.1.9:40000 > 10.96.0.1:80 . len=500 error=mtu by=10.0.0.1 quote=8"),
            ),
            // Too little of it, of another flow, of a later fragment, of no packet of ours.
            (PodEgress, "tcp 10.244.1.9:40000 > 10.244.1.2:8080 . error=mtu by=10.0.0.1 quote=7", Same),
            (PodEgress, "tcp 10.244.1.9:40001 > 10.244.1.2:8080 . error=mtu by=10.0.0.1", Same),
            (
                PodEgress,
                "udp 10.244.1.9:40000 > 10.244.1.2:5353 len=90 cut=24..48 error=mtu by=10.0.0.1",
                Same,
            ),
            (PodEgress, "ping 10.244.1.9:1 > 10.244.1.2:1 error=expired by=10.0.0.1", Same),
        ],
    ),
    case(
        "errors about what a pod gets from a frontend",
        &[
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=20",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=20"),
            ),
            (
                PodIngress,
                "udp 10.96.0.1:53 > 10.244.1.9:40000 len=30 error=port by=10.244.1.9",
                Pass("udp 10.244.1.2:5353 > 10.244.1.9:40000 len=30 error=port by=10.244.1.9"),
            ),
            (PodIngress, "udp 10.96.0.1:53 > 10.244.1.9:40009 len=30 error=port by=10.244.1.9", Same),
            (PodIngress, "udp 10.96.0.2:53 > 10.244.1.9:40000 len=30 error=port by=10.244.1.9", Same),
        ],
    ),
    case(
        "errors of a pod to itself",
        &[
            (
                PodIngress,
                "udp 10.244.1.2:40000 > 10.96.0.1:53 len=9",
                Back("udp 169.254.20.1:40000 > 10.244.1.2:5353 len=9"),
            ),
            (
                PodIngress,
                "udp 169.254.20.1:40000 > 10.244.1.2:5353 len=9 error=port by=10.244.1.2",
                Back("udp 10.244.1.2:40000 > 10.96.0.1:53 len=9 error=port by=10.96.0.1"),
            ),
            (
                PodIngress,
                "udp 10.96.0.1:53 > 10.244.1.2:40000 len=9 error=port by=10.244.1.2",
                Back("udp 10.244.1.2:5353 > 169.254.20.1:40000 len=9 error=port by=169.254.20.1"),
            ),
        ],
    ),
    case(
        "errors between clients outside and backends here",
        &[
            (
                NicIngress,
                "udp 192.0.2.7:40000 > 10.96.0.1:53 len=20",
                Pass("udp 192.0.2.7:40000 > 10.244.1.2:5353 len=20"),
            ),
            (
                NicEgress,
                "udp 192.0.2.7:40000 > 10.244.1.2:5353 len=20 error=port by=10.244.1.2",
                Pass("udp 192.0.2.7:40000 > 10.96.0.1:53 len=20 error=port by=10.96.0.1"),
            ),
            (
                NicIngress,
                "udp 10.96.0.1:53 > 192.0.2.7:40000 len=400 error=mtu by=198.51.100.1",
                Pass("udp 10.244.1.2:5353 > 192.0.2.7:40000 len=400 error=mtu by=198.51.100.1"),
            ),
            (NicIngress, "udp 10.96.0.1:53 > 192.0.2.7:41000 len=400 error=mtu by=198.51.100.1", Same),
        ],
    ),
    case(
        "errors between clients outside and backends elsewhere",
        &[
            (
                NicIngress,
                "udp 192.0.2.7:40000 > 10.96.0.5:53 len=11",
                Sent("udp 10.0.0.1:0 > 10.244.2.2:5353 len=11"),
            ),
            (
                NicIngress,
                "udp 10.0.0.1:0 > 10.244.2.2:5353 len=11 error=port by=10.244.2.2",
                Sent("udp 192.0.2.7:40000 > 10.96.0.5:53 len=11 error=port by=10.96.0.5"),
            ),
            (
                NicIngress,
                "udp 10.0.0.1:0 > 10.244.2.2:5353 len=11 error=expired by=10.0.0.2",
                Sent("udp 192.0.2.7:40000 > 10.96.0.5:53 len=11 error=expired by=10.0.0.2"),
            ),
            (
                NicIngress,
                "udp 10.96.0.5:53 > 192.0.2.7:40000 len=400 error=mtu by=198.51.100.1",
                Sent("udp 10.244.2.2:5353 > 10.0.0.1:0 len=400 error=mtu by=198.51.100.1"),
            ),
            (
                NicIngress,
                "udp 10.96.0.5:53 > 192.0.2.7:40000 len=400 error=port by=192.0.2.7",
                Sent("udp 10.244.2.2:5353 > 10.0.0.1:0 len=400 error=port by=10.0.0.1"),
            ),
        ],
    ),
    case(
        "too many hops to a backend elsewhere: the node says so",
        &[
            (
                NicIngress,
                "udp 192.0.2.7:40000 > 10.96.0.5:53 len=11 ttl=1",
                Back("udp 192.0.2.7:40000 > 10.96.0.5:53 len=11 ttl=1 error=expired by=10.0.0.1 quote=8"),
            ),
            (
                NicIngress,
                "tcp 192.0.2.7:40000 > 10.96.0.5:80 S ttl=1",
                Back("tcp 192.0.2.7:40000 > 10.96.0.5:80 S ttl=1 error=expired by=10.0.0.1 quote=20"),
            ),
        ],
    ),
    case(
        "fragments follow their first one",
        &[
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.1:53 len=90 cut=48..98", Drop),
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=90 cut=0..48",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=90 cut=0..48"),
            ),
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=90 cut=48..98",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=90 cut=48..98"),
            ),
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=90 nosum cut=0..48 extensions=h options=4",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=90 nosum cut=0..48 extensions=h options=4"),
            ),
            (
                PodEgress,
                "udp 10.244.1.2:5353 > 10.244.1.9:40000 len=90 cut=0..48",
                Pass("udp 10.96.0.1:53 > 10.244.1.9:40000 len=90 cut=0..48"),
            ),
            (
                PodEgress,
                "udp 10.244.1.2:5353 > 10.244.1.9:40000 len=90 cut=48..98",
                Pass("udp 10.96.0.1:53 > 10.244.1.9:40000 len=90 cut=48..98"),
            ),
            // Of others' packets nothing is noted, and nothing is lost.
            (PodIngress, "udp 10.244.1.9:40000 > 10.244.1.3:53 len=90 cut=0..48", Same),
            (PodIngress, "udp 10.244.1.9:40000 > 10.244.1.3:53 len=90 cut=48..98", Same),
            (PodEgress, "udp 10.244.1.3:5353 > 10.244.1.9:40000 len=90 cut=48..98", Same),
        ],
    ),
    case(
        "fragments from outside to a backend elsewhere, and refused ones",
        &[
            (
                NicIngress,
                "udp 192.0.2.7:40000 > 10.96.0.5:53 len=90 cut=0..48",
                Sent("udp 10.0.0.1:0 > 10.244.2.2:5353 len=90 cut=0..48"),
            ),
            (
                NicIngress,
                "udp 192.0.2.7:40000 > 10.96.0.5:53 len=90 cut=48..98",
                Sent("udp 10.0.0.1:1 > 10.244.2.2:5353 len=90 cut=48..98"),
            ),
            (NicIngress, "udp 192.0.2.7:40000 > 10.96.0.5:53 len=90 cut=48..98 ttl=1", Drop),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.3:53 len=90 cut=0..48", Refuse),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.3:53 len=90 cut=48..98", Drop),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 P. len=90 cut=0..48", Drop),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 S len=90 cut=0..16", Drop),
        ],
    ),
    case(
        "extension headers",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S len=5 extensions=hdrd",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S len=5 extensions=hdrd"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 S. extensions=d",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 S. extensions=d"),
            ),
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=20 cut=0..28 extensions=r",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=20 cut=0..28 extensions=r"),
            ),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 S extensions=hd", Refuse),
            (PodIngress, "udp 10.244.1.9:40000 > 10.96.0.3:53 len=9 extensions=hd", Refuse),
        ],
    ),
    case(
        "sctp with another port and with the same one, and back",
        &[
            (
                PodIngress,
                "sctp 10.244.1.9:40000 > 10.96.0.1:80 S len=33",
                Pass("sctp 10.244.1.9:40000 > 10.244.1.2:3868 S len=33"),
            ),
            (
                PodEgress,
                "sctp 10.244.1.2:3868 > 10.244.1.9:40000 S. len=300",
                Pass("sctp 10.96.0.1:80 > 10.244.1.9:40000 S. len=300"),
            ),
            (
                PodIngress,
                "sctp 10.244.1.9:40000 > 10.96.0.1:80 len=1447 options=8 extensions=d",
                Pass("sctp 10.244.1.9:40000 > 10.244.1.2:3868 len=1447 options=8 extensions=d"),
            ),
            (
                PodIngress,
                "sctp 10.244.1.9:40001 > 10.96.0.1:3868 S len=16",
                Pass("sctp 10.244.1.9:40001 > 10.244.1.2:3868 S len=16"),
            ),
            (
                PodIngress,
                "sctp 10.244.1.9:40000 > 10.96.0.1:80 F",
                Pass("sctp 10.244.1.9:40000 > 10.244.1.2:3868 F"),
            ),
            (
                PodIngress,
                "sctp 10.244.1.9:40001 > 10.96.0.1:80 S len=16",
                Pass("sctp 10.244.1.9:0 > 10.244.1.2:3868 S len=16"),
            ),
            (
                PodEgress,
                "sctp 10.244.1.9:40000 > 10.244.1.2:3868 len=20 error=port by=10.244.1.2 quote=8",
                Pass("sctp 10.244.1.9:40000 > 10.96.0.1:80 len=20 error=port by=10.96.0.1 quote=8"),
            ),
            (PodIngress, "sctp 10.244.1.9:40000 > 10.96.0.3:80 S len=16", Refuse),
            (PodIngress, "sctp 10.244.1.9:40000 > 10.96.0.1:81 S len=16", Refuse),
            (PodIngress, "sctp 10.244.1.9:40000 > 10.244.1.2:22 S len=16", Same),
        ],
    ),
    case(
        "sctp from outside: to a backend here, and elsewhere in the node's name",
        &[
            (
                NicIngress,
                "sctp 192.0.2.7:40000 > 10.96.0.1:80 S len=16",
                Pass("sctp 192.0.2.7:40000 > 10.244.1.2:3868 S len=16"),
            ),
            (
                NicEgress,
                "sctp 10.244.1.2:3868 > 192.0.2.7:40000 S. len=64",
                Pass("sctp 10.96.0.1:80 > 192.0.2.7:40000 S. len=64"),
            ),
            (
                NicIngress,
                "sctp 192.0.2.7:40000 > 10.96.0.5:80 S len=16",
                Sent("sctp 10.0.0.1:0 > 10.244.2.2:3868 S len=16"),
            ),
            (
                NicIngress,
                "sctp 10.244.2.2:3868 > 10.0.0.1:0 . len=8 ttl=9",
                Sent("sctp 10.96.0.5:80 > 192.0.2.7:40000 . len=8 ttl=8"),
            ),
        ],
    ),
    case(
        "in the midst of a connection that is not known: a backend is chosen, which says no",
        &[
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 P. len=9",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 P. len=9"),
            ),
            (
                PodEgress,
                "tcp 10.244.1.2:8080 > 10.244.1.9:40000 R",
                Pass("tcp 10.96.0.1:80 > 10.244.1.9:40000 R"),
            ),
        ],
    ),
    Case {
        name: "beside kube-proxy its connections are left to it, and new ones are ours",
        flags: config_flags::KUBE_PROXY,
        steps: &[
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 P. len=9", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 F.", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 R", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 S.", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.3:80 .", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:81 .", Same),
            (PodIngress, "tcp 10.244.1.9:40000 > 10.96.7.7:80 .", Same),
            (PodEgress, "tcp 10.96.0.1:80 > 10.244.1.9:40000 .", Same),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.0.0.1:30080 .", Same),
            (NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.5:80 . ttl=1", Same),
            (NicIngress, "tcp 192.0.3.7:40000 > 203.0.113.1:80 .", Same),
            (NicEgress, "tcp 10.0.0.1:30080 > 192.0.2.7:40000 .", Same),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 S",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
            ),
            (
                PodIngress,
                "tcp 10.244.1.9:40000 > 10.96.0.1:80 .",
                Pass("tcp 10.244.1.9:40000 > 10.244.1.2:8080 ."),
            ),
            (
                PodIngress,
                "udp 10.244.1.9:40000 > 10.96.0.1:53 len=9",
                Pass("udp 10.244.1.9:40000 > 10.244.1.2:5353 len=9"),
            ),
            (PodIngress, "tcp 10.244.1.9:40001 > 10.96.0.3:80 S", Refuse),
            (NicIngress, "tcp 192.0.3.7:40000 > 203.0.113.1:80 S", Drop),
        ],
    },
];

/// Link addresses of what is sent on: the next hop's, then the NIC's.
pub const SENT_LINK: [u8; 12] = [0x02, 0, 0, 0, 0, 0xcc, 0x02, 0, 0, 0, 0, 0x01];

/// [`SENT_LINK`] as the routing table gives it.
pub fn hop(device: u32) -> Hop {
    Hop {
        device,
        link: std::array::from_fn(|i| u16::from_ne_bytes([SENT_LINK[i * 2], SENT_LINK[i * 2 + 1]])),
        mtu: 0,
    }
}

/// The IPv6 address that stands for an IPv4 one: its four numbers as they are written, behind `fd00::`.
pub fn six(ip: IpAddr) -> IpAddr {
    let IpAddr::V4(ip) = ip else { return ip };
    let group = |octet: u8| {
        let (hundreds, tens, ones) = (octet / 100, octet / 10 % 10, octet % 10);
        u16::from(hundreds) << 8 | u16::from(tens) << 4 | u16::from(ones)
    };
    let [a, b, c, d] = ip.octets().map(group);
    Ipv6Addr::new(0xfd00, 0, 0, 0, a, b, c, d).into()
}

/// The words of a packet, in IPv6 if so wanted.
///
/// # Panics
/// When the table has a wrong word.
pub fn spec(words: &str, ipv6: bool) -> Spec {
    let mut spec: Spec = words.parse().unwrap_or_else(|error| panic!("{error}"));
    if ipv6 {
        spec.from.set_ip(six(spec.from.ip()));
        spec.to.set_ip(six(spec.to.ip()));
        spec.options = 0;
        if let Some(error) = &mut spec.error {
            error.by = six(error.by);
        }
    } else {
        spec.extensions.clear();
    }
    spec
}

/// The tables that the cases are for.
///
/// # Panics
/// Never: the addresses are constant.
pub fn world(ipv6: bool) -> HostMaps {
    let mut maps = HostMaps::default();
    let ip = |text: &str| {
        let ip: IpAddr = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        if ipv6 { six(ip) } else { ip }
    };
    let at = |text: &str, port: u16| SocketAddr::new(ip(text), port);
    let config = &mut maps.config;
    match (ip("10.0.0.1"), ip("169.254.20.1")) {
        (IpAddr::V4(node), IpAddr::V4(hairpin)) => {
            (config.node4, config.hairpin4) = (node.octets(), hairpin.octets());
        }
        (IpAddr::V6(node), IpAddr::V6(hairpin)) => {
            (config.node6, config.hairpin6) = (node.octets(), hairpin.octets());
        }
        _ => {}
    }
    (config.masquerade_from, config.masquerade_to) = (20000, 20999);
    config.flags = config_flags::NIC_REDIRECT | config_flags::CSUM_IPV6;
    // As `six` writes them, a number of IPv4 takes 16 bits.
    let range = |text: &str, bits: u32| (ip(text), if ipv6 { 64 + bits * 2 } else { bits });
    let (services, bits) = range("10.96.0.0", 16);
    assert!(maps.add_service_range(services, bits), "there is room for one");
    maps.add_node_address(ip("10.96.0.10"));

    let here = maps.add_backend(at("10.244.1.2", 8080), PROTOCOL_TCP, backend_flags::LOCAL);
    let here_udp = maps.add_backend(at("10.244.1.2", 5353), PROTOCOL_UDP, backend_flags::LOCAL);
    let there = maps.add_backend(at("10.244.2.2", 8080), PROTOCOL_TCP, 0);
    let there_udp = maps.add_backend(at("10.244.2.2", 5353), PROTOCOL_UDP, 0);
    maps.add_frontend(at("10.96.0.1", 80), PROTOCOL_TCP, 0, &[here]);
    maps.add_frontend(at("10.96.0.1", 53), PROTOCOL_UDP, 0, &[here_udp]);
    maps.add_frontend(at("10.96.0.2", 80), PROTOCOL_TCP, 0, &[here]);
    maps.add_frontend(at("10.96.0.2", 53), PROTOCOL_UDP, 0, &[here_udp]);
    maps.add_frontend(at("10.96.0.3", 80), PROTOCOL_TCP, 0, &[]);
    maps.add_frontend(at("10.96.0.3", 53), PROTOCOL_UDP, 0, &[]);
    maps.add_frontend(
        at("10.96.0.4", 80),
        PROTOCOL_TCP,
        frontend_flags::DROP_INSIDE | frontend_flags::DROP_OUTSIDE,
        &[here],
    );
    maps.add_frontend(at("10.96.0.5", 80), PROTOCOL_TCP, 0, &[there]);
    maps.add_frontend(at("10.96.0.5", 53), PROTOCOL_UDP, 0, &[there_udp]);
    let here_sctp = maps.add_backend(at("10.244.1.2", 3868), PROTOCOL_SCTP, backend_flags::LOCAL);
    let there_sctp = maps.add_backend(at("10.244.2.2", 3868), PROTOCOL_SCTP, 0);
    maps.add_frontend(at("10.96.0.1", 3868), PROTOCOL_SCTP, 0, &[here_sctp]);
    maps.add_frontend(at("10.96.0.1", 80), PROTOCOL_SCTP, 0, &[here_sctp]);
    maps.add_frontend(at("10.96.0.5", 80), PROTOCOL_SCTP, 0, &[there_sctp]);
    maps.add_frontend(at("10.96.0.3", 80), PROTOCOL_SCTP, 0, &[]);
    maps.add_frontend(at("10.96.0.6", 80), PROTOCOL_TCP, 0, &[here, there]);
    maps.add_frontend(at("10.96.0.7", 80), PROTOCOL_TCP, 0, &[there]);
    let drop = frontend_flags::DROP_OUTSIDE;
    maps.add_split(at("10.0.0.1", 30080), PROTOCOL_TCP, 0, &[there], &[here]);
    maps.add_split(at("10.0.0.1", 30080), PROTOCOL_UDP, 0, &[there_udp], &[here_udp]);
    maps.add_split(at("10.0.0.1", 30081), PROTOCOL_TCP, drop, &[there], &[]);
    maps.add_split(at("10.0.0.1", 30082), PROTOCOL_TCP, 0, &[there], &[]);
    let sources = frontend_flags::SOURCES;
    let list = maps.add_split(at("203.0.113.1", 80), PROTOCOL_TCP, sources, &[here], &[here]);
    for (list, text, bits) in
        [(CLUSTER_CLIENTS, "10.244.0.0", 16), (list, "192.0.2.0", 24), (list, "10.244.1.0", 24)]
    {
        let (ip, bits) = range(text, bits);
        maps.sources.push((list, ip, bits));
    }
    maps.keep_clients(&[at("10.96.0.6", 80), at("10.96.0.7", 80)], PROTOCOL_TCP, 10_800);
    maps
}

/// How a case is run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub ipv6: bool,
    /// Whether packets that pods send have partial checksums.
    pub partial_in: bool,
    /// The same of packets that go out, to pods or by a NIC.
    pub partial_out: bool,
    /// The same of packets that come in by a NIC. XDP would not send them on.
    pub partial_nic: bool,
    /// Index of the NIC that packets are sent on by.
    pub nic: u32,
}

/// Steps of a case, with the ports that turn up on the way.
pub struct Player {
    run: Run,
    port: u16,
}

impl Player {
    /// At the start of a case.
    pub fn new(run: Run) -> Self {
        Self { run, port: 0 }
    }

    /// The packet of a step.
    pub fn packet(&self, step: &Step) -> Spec {
        let mut spec = spec(step.1, self.run.ipv6);
        let partial = match step.0 {
            PodIngress => self.run.partial_in,
            NicIngress => self.run.partial_nic,
            PodEgress | NicEgress => self.run.partial_out,
        };
        // Fragments have been summed up before, and nobody looks at a quoted sum.
        spec.partial = partial && !spec.nosum && spec.cut.is_none() && spec.error.is_none();
        for end in [&mut spec.from, &mut spec.to] {
            if end.port() == 0 {
                end.set_port(self.port);
            }
        }
        spec
    }

    /// Judges what became of the packet of a step.
    ///
    /// # Errors
    /// What is wrong.
    pub fn judge(&mut self, step: &Step, verdict: Verdict, bytes: &[u8]) -> Result<(), String> {
        let packet = self.packet(step);
        let want = |wanted: Verdict| {
            if verdict == wanted { Ok(()) } else { Err(format!("{verdict:?}, not {wanted:?}")) }
        };
        let same = |wanted: &[u8]| {
            if bytes == wanted { Ok(()) } else { Err(format!("{bytes:02x?}, not {wanted:02x?}")) }
        };
        match step.2 {
            Same => want(Verdict::Pass).and_then(|()| same(&packet.bytes())),
            Drop => want(Verdict::Drop),
            Refuse => want(Verdict::Back).and_then(|()| same(&reply_to(&packet))),
            Pass(words) => {
                want(Verdict::Pass)?;
                self.words(&packet, words, bytes, 0)?;
                same_link(bytes, &LINK)
            }
            Back(words) => {
                want(Verdict::Back)?;
                self.words(&packet, words, bytes, 0)?;
                let mut turned = LINK;
                turned.rotate_left(6);
                same_link(bytes, &turned)
            }
            Sent(words) => {
                want(Verdict::Transmit(self.run.nic))?;
                self.words(&packet, words, bytes, 1)?;
                same_link(bytes, &SENT_LINK)
            }
        }
    }

    fn words(&mut self, packet: &Spec, words: &str, bytes: &[u8], age: u8) -> Result<(), String> {
        let mut wanted = spec(words, self.run.ipv6);
        wanted.partial = packet.partial;
        (wanted.seq, wanted.ack) = (packet.seq, packet.ack);
        if let Some(error) = &mut wanted.error {
            error.ttl -= age;
            for end in [&mut wanted.from, &mut wanted.to] {
                if end.port() == 0 {
                    end.set_port(self.port);
                }
            }
        } else if age > 0 && !words.contains("ttl=") {
            wanted.ttl -= age;
        }
        if wanted.from.port() == 0 {
            self.port = wanted.source_port(bytes).ok_or("too short")?;
            if self.port == packet.from.port() {
                return Err(format!("source port {} was to change", self.port));
            }
        }
        check(bytes, &wanted)
    }
}

fn same_link(bytes: &[u8], wanted: &[u8; 12]) -> Result<(), String> {
    match bytes.get(..12) {
        Some(link) if link == wanted => Ok(()),
        link => Err(format!("link addresses {link:02x?}, not {wanted:02x?}")),
    }
}

/// Whether what becomes of this step is left to chance: the port of a flow that was opened by it or before.
pub fn by_chance(step: &Step) -> bool {
    match step.2 {
        Pass(words) | Back(words) | Sent(words) => words.contains(":0 ") || step.1.contains(":0 "),
        Same | Refuse | Drop => false,
    }
}
