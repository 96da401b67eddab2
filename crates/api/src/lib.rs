//! The REST API: Kubernetes' paths, verbs and objects over a [`Store`](eastwest_store::Store), and our own under `/v1/`.
//!
//! A write makes its whole effect in one transaction: what the server decides (ClusterIPs, NodePorts, names), the
//! EndpointSlices of the selectors it touches, and what goes with it. This crate knows no disk, no TLS and no
//! configuration file; `eastwest-controller` gives it those.

mod admit;
mod allocate;
mod app;
mod apply;
mod auth;
mod body;
mod config;
mod derived;
mod discovery;
mod error;
mod events;
mod flows;
mod kinds;
mod mirror;
mod openapi;
mod patch;
mod peers;
mod read;
mod request;
mod resource;
mod router;
mod slices;
mod strategic;
mod stream;
mod table;
mod topology;
mod trace;
mod transaction;
mod wait;
mod watch;
mod write;

pub use allocate::NODE_PORTS;
pub use app::{App, Observation, Observer};
pub use auth::{Auth, Reviewer, Role};
pub use body::BODY_MAX;
pub use config::{Config, ConfigError};
pub use error::{ApiError, Cause, Details, Problem, Status};
pub use events::ObjectProblem;
pub use kinds::Served;
pub use mirror::{Mirrored, Reflected};
pub use openapi::openapi_json;
pub use request::parse_duration;
pub use router::router;
pub use slices::SLICE_MAX;
pub use topology::{Topology, TopologyNode, TopologyService};

pub(crate) use request::{FieldValidation, Query, Shape};
