//! The same decisions over memory: tables as hash maps, packets as vectors of bytes.

mod craft;
mod names;
mod packet;
mod tables;

pub use craft::{Carries, Complaint, LINK, Spec, check, reply_to};
pub use packet::{Hook, HostPacket};
pub use tables::HostMaps;

use eastwest_abi::{Addr4, Addr6};

use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::{
    Asked, Maps, Named, Verdict, Work, answer, asks, elsewhere, lives, nic_egress, nic_ingress, pod_egress,
    pod_ingress,
};

/// Which of the programs runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// At a pod's device, what the pod sends.
    PodIngress,
    /// At a pod's device, what the pod gets.
    PodEgress,
    /// At a NIC, what comes in.
    NicIngress,
    /// At a NIC, what goes out.
    NicEgress,
}

/// Runs a program over a packet.
pub fn run(program: Program, maps: &mut HostMaps, packet: &mut HostPacket) -> Verdict {
    let ethertype = packet.bytes().get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match ethertype {
        ETHERTYPE_IPV4 => {
            let work = &mut Work::<Addr4>::default();
            match program {
                Program::PodIngress => ingress(maps, packet, work),
                Program::PodEgress => pod_egress(maps, packet, work),
                Program::NicIngress => nic_ingress(maps, packet, work),
                Program::NicEgress => nic_egress(maps, packet, work),
            }
        }
        ETHERTYPE_IPV6 => {
            let work = &mut Work::<Addr6>::default();
            match program {
                Program::PodIngress => ingress(maps, packet, work),
                Program::PodEgress => pod_egress(maps, packet, work),
                Program::NicIngress => nic_ingress(maps, packet, work),
                Program::NicEgress => nic_egress(maps, packet, work),
            }
        }
        _ => Verdict::Pass,
    }
}

/// As the programs at a pod's device do it.
fn ingress<A: Named>(maps: &mut HostMaps, packet: &mut HostPacket, work: &mut Work<A>) -> Verdict
where
    HostMaps: Maps<A>,
{
    match pod_ingress(maps, packet, work) {
        Verdict::Names if !asks(maps, work) => Verdict::Pass,
        Verdict::Names if maps.answering && lives(maps) => answer(maps, packet, work, &mut Asked::default()),
        Verdict::Names => elsewhere(maps, packet, work),
        verdict => verdict,
    }
}
