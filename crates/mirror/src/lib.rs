//! Brings Namespaces, Nodes, Services, EndpointSlices and Pods (as Workloads) of a Kubernetes API server, and the
//! DnsRecords and TrafficSplits of a cluster that knows these kinds, into the controller's store, and keeps them as they are there. Watches, bookmarks and lists are `kube`'s; this crate knows
//! what of an object is kept ([`convert`]), what a failure means, and that nothing is ever taken away because the API
//! server does not answer: an object goes when it is seen to be deleted, or is missing at the end of a full list.
//!
//! The controller calls [`Mirror::run`]. Objects go to [`eastwest_api::App::mirror`].

mod backoff;
mod client;
mod convert;
mod follow;
mod metrics;
mod seen;
mod status;

use std::time::Duration;

use eastwest_api::App;
use eastwest_model::{DnsRecord, EndpointSlice, Namespace, Node, Service, TrafficSplit, Workload};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use client::client;
pub use status::{KindStatus, Status};

use crate::follow::{Follower, Shared};
use crate::metrics::Metrics;

/// The kinds that are mirrored: those that agents follow. Pods become [`Kind::Workload`](eastwest_model::Kind::Workload).
pub use eastwest_model::stream::KINDS;

/// How to mirror.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often the API server is asked where it stands, to notice one that went back in time.
    pub probe: Duration,
    /// First and longest wait after a failure.
    pub backoff: (Duration, Duration),
    /// A list that brings nothing for so long is tried the other way.
    pub stalled: Duration,
    /// How often an object is tried again whose name is taken by one of our own API.
    pub conflicts: Duration,
    /// Objects in a page of a list.
    pub page: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(30),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            stalled: Duration::from_secs(60),
            conflicts: Duration::from_secs(60),
            page: 500,
        }
    }
}

/// A mirror of one API server. Its [`App`] is incomplete from here on until each kind has been listed once.
pub struct Mirror {
    client: Client,
    shared: Shared,
}

impl Mirror {
    /// `client` is best made by [`client()`], which heeds what the server says about its load.
    pub fn new(client: Client, app: App, options: Options, registry: &mut Registry) -> Self {
        app.set_incomplete(true);
        let shared = Shared::new(app, options, Metrics::new(registry));
        Self { client, shared }
    }

    /// How it stands, kind by kind.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Mirrors until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Self { client, shared } = self;
        tokio::select! {
            () = stop.cancelled() => {}
            () = Follower::<Namespace>::new(&client, &shared).run() => {}
            () = Follower::<Node>::new(&client, &shared).run() => {}
            () = Follower::<Service>::new(&client, &shared).run() => {}
            () = Follower::<EndpointSlice>::new(&client, &shared).run() => {}
            () = Follower::<Workload>::new(&client, &shared).run() => {}
            () = Follower::<DnsRecord>::new(&client, &shared).run() => {}
            () = Follower::<TrafficSplit>::new(&client, &shared).run() => {}
            () = follow::probe(&client, &shared) => {}
        }
    }
}
