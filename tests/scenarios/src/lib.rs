//! What Services do, as one table (`services.yaml`), and the runner that plays it on any cluster with the table's nodes and
//! pods: a lab of eastwest, or a Kubernetes with kube-proxy.
//!
//! The table says what each client must see at each address. The runner makes the objects, has `eastwest-probe` ask from
//! where the client is, and compares. It stops at nothing: all that differs is in its [`Outcome`].

pub mod k8s;
pub mod kubernetes;
pub mod lab;
mod objects;
pub mod probe;
mod run;
mod table;
pub mod traffic;

pub use run::{Cluster, Outcome, Proxy, check, play};
pub use table::{
    Case, Endpoint, Family, KubeProxy, Node, Pod, Protocol, Scenario, Service, Slice, Source, Table, Verdict,
};
