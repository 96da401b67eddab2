//! The agent of a node, as a library: so that tests drive everything but `main`.
//!
//! ```text
//! controller ── stream ──▶ follow ── events ──▶ Core: State → compile → Dataplane, then the DNS Index
//!                                                │ status                └─▶ snapshot on disk
//! controller ◀── NodeState, Node ── report ◀─────┘
//! ```
//!
//! [`core`] decides and is synchronous; [`run`] wires it to sockets, files, devices and signals. Without a controller
//! the agent serves what it knows for ever.

pub mod core;
pub mod corefile;
pub mod discovery;
pub mod dns;
pub mod drain;
pub mod flows;
pub mod health;
pub mod health_check;
pub mod http;
pub mod journal;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod node;
pub mod problems;
pub mod report;
pub mod run;
pub mod settings;
pub mod snapshot;
pub mod worker;
