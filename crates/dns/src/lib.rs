//! DNS on a node: names of the cluster answered from memory, everything else forwarded and cached.
//!
//! Knows the Kubernetes DNS specification 1.1.0 and what CoreDNS makes of it, the DNS protocol, and sockets. Does not
//! know where Services come from: the agent gives it [`eastwest_compile::CompiledService`]s as they change
//! ([`Index::apply`]), says when the first full list is in ([`Index::set_synced`]), and runs a [`Server`].
//!
//! ```text
//! agent ── apply ──▶ Index ◀── snapshot, no lock ── Engine ◀── bytes ── Server (UDP, TCP)
//!                                                     │ names outside the zones
//!                                                     ▼
//!                                                 Forwarder ── Cache, upstreams of resolv.conf
//! ```
//!
//! Names outside the zones are answered SERVFAIL when there is no upstream, at once: a resolver library then asks the
//! next server of its list, where a REFUSED or an NXDOMAIN would be taken for the truth by some.
//!
//! Requests are read and responses written in wire form without an allocation; [`hickory_proto`]'s types are what
//! others see ([`Index::lookup`]), what joins an alias of ours with an upstream's answer, and the tests' judge.

mod access;
mod answer;
mod cache;
mod corefile;
mod engine;
mod forward;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod hosts;
mod index;
mod map;
mod metrics;
mod plan;
mod published;
mod resolvconf;
mod resolver;
mod rewrite;
mod server;
mod template;
mod upstream;
mod wire;
mod writer;

pub use access::Access;
pub use answer::{Answer, NameError, Next};
pub use cache::{CacheLimits, ForwardError, Prefetch, Stale};
pub use corefile::{Corefile, CorefileError, Environment};
pub use forward::{ForwardOptions, Forwarder};
pub use index::{Index, IndexError, IndexOptions, IndexStats, PodMode, RecordError, Update};
pub use metrics::{KernelCount, Metrics};
pub use published::{AnswerTable, PUBLISHED_ANSWER_MAX, PUBLISHED_NAME_MAX, Published};
pub use resolvconf::{follow_resolv_conf, load_resolv_conf, parse_resolv_conf};
pub use resolver::Resolver;
pub use server::{BindError, Server, ServerOptions, tls_config};
