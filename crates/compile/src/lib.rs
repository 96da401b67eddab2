//! What a packet or a query gets, as a pure function: model + this node → frontends with their backends, and names.
//!
//! No IO, no clock, no async. The agent programs the result, `trace` explains it, and tests use it as the oracle.
//!
//! [`Context::decode`] turns an object's JSON into the small form kept here, [`State::put`] and [`State::delete`] take
//! it in and name the Services they touch, [`State::compile`] makes the [`CompiledService`] of one. The rules are
//! kube-proxy's (`pkg/proxy/topology.go`, `endpointslicecache.go`) and, for names, the Kubernetes DNS specification's.

mod choose;
mod explain;
mod input;
mod rules;
pub mod slots;
mod split;
mod state;
mod types;

pub use choose::{Candidate, Policy, Verdict};
pub use explain::{Considered, Explained, From, Outcome, Reason};
pub use input::{
    Context, DecodeError, Decoded, EndpointInput, ExternalInput, Labels, Object, ServiceInput, ServiceMode,
    SliceInput, SplitInput,
};
pub use state::{Compiled, Peers, State, compile_all};
pub use types::*;
