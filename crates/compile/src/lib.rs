//! What a packet or a query gets, as a pure function: model + this node → frontends with their backends, and names.
//!
//! No IO, no clock, no async. The agent programs the result, `trace` explains it, and tests use it as the oracle.

mod types;

pub use types::*;
