//! Memory for a flow that is being opened. On the kernel's side it lies in a per-CPU map, as the stack there has 512
//! bytes for everything.

use eastwest_abi::{Affinity, AffinityKey, Conntrack, ConntrackKey, Fragment, FragmentKey};

use crate::headers::Headers;
use crate::icmp::Quote;
use crate::parse::Flow;
use crate::traits::{Hop, Via};

/// What the slow paths work on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work<A> {
    /// [`Maps::tick`](crate::Maps::tick) when `now` was asked.
    pub(crate) tick: u64,
    /// [`Maps::now`](crate::Maps::now) at that tick.
    pub(crate) now: u32,
    /// The number of the packet's key, and the changes counted there: for what is not in the cache.
    pub(crate) number: u32,
    pub(crate) count: u32,
    /// The packet.
    pub flow: Flow<A>,
    /// What is to become of it: the forward half's value.
    pub value: Conntrack<A>,
    /// Where it goes next, at a NIC.
    pub(crate) hop: Hop,
    /// How it gets there. Here and not in a register: Linux 6.1's verifier forgets over a call that a constant decides a
    /// branch behind it, and takes the branch's other side out of the program.
    pub(crate) via: Via,
    /// The state of TCP or SCTP is another one now.
    pub(crate) changed: bool,
    /// A tuple is left to a connection that was closed a moment ago, as there are others to be tried.
    pub(crate) patient: bool,
    /// Key of the other half.
    pub(crate) other: ConntrackKey<A>,
    /// Value of the other half.
    pub(crate) back: Conntrack<A>,
    /// Who holds the reverse key.
    pub(crate) holder: Conntrack<A>,
    /// The holder's forward value.
    pub(crate) theirs: Conntrack<A>,
    /// The holder's forward key.
    pub(crate) holder_key: ConntrackKey<A>,
    /// The client, for a frontend with affinity.
    pub(crate) client: AffinityKey<A>,
    /// What it is given.
    pub(crate) given: Affinity,
    /// Headers of a packet that the fast path does not read, or of one that is quoted.
    pub(crate) headers: Headers<A>,
    /// Of an ICMP error.
    pub(crate) quote: Quote<A>,
    /// Of a fragment.
    pub(crate) fragment: FragmentKey<A>,
    /// What its later ones shall find.
    pub(crate) ports: Fragment,
}
