//! How programs talk to the controller: a typed client of its Kubernetes-shaped API ([`Client`]), and the protocol by
//! which agents follow it. That protocol is a state machine without IO and clock ([`sync::Machine`]); [`follow`] drives
//! it over HTTP. Used by the agent, the CLI, the lab and tests.
//!
//! A rustls crypto provider must be installed before a client is made:
//! `rustls::crypto::ring::default_provider().install_default()`.

mod client;
mod error;
mod follow;
mod kubeconfig;
mod kubernetes;
pub mod lines;
mod manifest;
pub mod sync;

pub use client::{Client, ListOptions, WatchEvent, WatchEventType, WriteOptions, path};
pub use error::{Error, Status, StatusCause, StatusDetails};
pub use follow::{Follow, Following, Received, follow};
pub use kubeconfig::load as load_kubeconfig;
pub use kubernetes::kubernetes_config;
pub use manifest::{Applied, Outcome, three_way};
