//! What the server knows of each kind beyond the model: its status, its effects, its columns.

use std::sync::Arc;

use eastwest_model::{
    DnsRecord, EndpointSlice, FieldError, Kind, LABEL_ZONE, Namespace, Node, NodeState, Resource, Service,
    TrafficSplit, Workload,
};
use utoipa::ToSchema;

use crate::Config;
use crate::derived::{Derived, is_ours, name_of, service_of};
use crate::table::Columns;
use crate::transaction::Tx;
use crate::{admit, slices};

/// A kind with a path in the API.
pub trait Served: Resource + ToSchema + Columns {
    /// Whether there is a `status` apart from what the user writes.
    const HAS_STATUS: bool;
    /// Whether writes to the object itself may carry `status`. Where they may, one without it keeps what was there.
    const STATUS_IN_MAIN: bool = false;
    /// Whether PUT creates what is not there.
    const PUT_CREATES: bool = false;
    /// One sentence for the OpenAPI document.
    const SUMMARY: &'static str;

    /// Whether `status` is as a new object's.
    fn status_is_default(&self) -> bool;
    fn copy_status(&mut self, from: &Self);
    /// Copies all but metadata and status.
    fn copy_spec(&mut self, from: &Self);

    /// Completes and checks with what the server knows. Nothing is taken yet.
    fn admit(
        &mut self,
        _old: Option<&Self>,
        _derived: &Derived,
        _config: &Config,
    ) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    /// The effects of a write, after it, in its transaction.
    fn changed(_tx: &mut Tx<'_, '_>, _old: Option<&Self>, _new: Option<&Self>) {}
}

/// Runs an expression with the type that stands for a kind.
macro_rules! with_kind {
    ($kind:expr, $T:ident => $body:expr) => {
        match $kind {
            eastwest_model::Kind::Namespace => {
                type $T = eastwest_model::Namespace;
                $body
            }
            eastwest_model::Kind::Node => {
                type $T = eastwest_model::Node;
                $body
            }
            eastwest_model::Kind::Service => {
                type $T = eastwest_model::Service;
                $body
            }
            eastwest_model::Kind::EndpointSlice => {
                type $T = eastwest_model::EndpointSlice;
                $body
            }
            eastwest_model::Kind::Workload => {
                type $T = eastwest_model::Workload;
                $body
            }
            eastwest_model::Kind::DnsRecord => {
                type $T = eastwest_model::DnsRecord;
                $body
            }
            eastwest_model::Kind::TrafficSplit => {
                type $T = eastwest_model::TrafficSplit;
                $body
            }
            eastwest_model::Kind::NodeState => {
                type $T = eastwest_model::NodeState;
                $body
            }
        }
    };
}
pub(crate) use with_kind;

macro_rules! status {
    () => {
        const HAS_STATUS: bool = true;
        fn status_is_default(&self) -> bool {
            self.status == Default::default()
        }
        fn copy_status(&mut self, from: &Self) {
            self.status = from.status.clone();
        }
    };
}

macro_rules! no_status {
    () => {
        const HAS_STATUS: bool = false;
        fn status_is_default(&self) -> bool {
            true
        }
        fn copy_status(&mut self, _from: &Self) {}
    };
}

macro_rules! spec {
    () => {
        fn copy_spec(&mut self, from: &Self) {
            self.spec = from.spec.clone();
        }
    };
}

impl Served for Namespace {
    status!();
    spec!();
    const SUMMARY: &'static str = "A scope for names. Deleting it deletes what is in it.";
}

impl Served for Node {
    status!();
    spec!();
    const STATUS_IN_MAIN: bool = true;
    const SUMMARY: &'static str = "A machine that runs workloads and an agent.";

    fn changed(tx: &mut Tx<'_, '_>, old: Option<&Self>, new: Option<&Self>) {
        let zone = |n: Option<&Self>| n.and_then(|n| n.metadata.labels.get(LABEL_ZONE).cloned());
        if let Some(node) = new.or(old).filter(|_| zone(old) != zone(new)) {
            slices::zone_changed(tx, &node.metadata.name);
        }
    }
}

impl Served for Service {
    status!();
    spec!();
    const SUMMARY: &'static str = "A stable virtual address in front of endpoints.";

    fn admit(
        &mut self,
        old: Option<&Self>,
        derived: &Derived,
        config: &Config,
    ) -> Result<(), Vec<FieldError>> {
        admit::service(self, old, derived, config)
    }

    fn changed(tx: &mut Tx<'_, '_>, old: Option<&Self>, new: Option<&Self>) {
        let Some(meta) = new.or(old).map(|s| &s.metadata) else { return };
        tx.derived.set_service(old, new.map(|s| Arc::new(s.clone())).as_ref());
        if old.zip(new).is_none_or(|(old, new)| slices::differs(old, new)) {
            slices::service_changed(tx, &name_of(meta));
        }
    }
}

impl Served for EndpointSlice {
    no_status!();
    const SUMMARY: &'static str = "Endpoints of one Service in one address family.";
    fn copy_spec(&mut self, from: &Self) {
        self.endpoints = from.endpoints.clone();
        self.ports = from.ports.clone();
    }

    /// A slice of ours that somebody changed or deleted is put right at once, as Kubernetes' controller would.
    fn changed(tx: &mut Tx<'_, '_>, old: Option<&Self>, new: Option<&Self>) {
        tx.derived.set_slice(old, new);
        let services: std::collections::BTreeSet<_> =
            [old, new].into_iter().flatten().filter(|s| is_ours(s)).filter_map(service_of).collect();
        for service in services {
            slices::service_changed(tx, &service);
        }
    }
}

impl Served for Workload {
    status!();
    spec!();
    const STATUS_IN_MAIN: bool = true;
    const SUMMARY: &'static str = "Stands for a Pod where there is no Kubernetes.";

    fn changed(tx: &mut Tx<'_, '_>, old: Option<&Self>, new: Option<&Self>) {
        let Some(meta) = new.or(old).map(|w| &w.metadata) else { return };
        // Endpoints of Kubernetes' Pods are Kubernetes' business: nothing here selects them.
        if meta.is_mirrored() {
            return;
        }
        let name = name_of(meta);
        let labels = [old.map(|w| &w.metadata.labels), new.map(|w| &w.metadata.labels)];
        tx.derived.set_workload_labels(&name, labels[0], labels[1]);
        slices::workload_changed(tx, &name, labels, new);
    }
}

impl Served for DnsRecord {
    no_status!();
    spec!();
    const SUMMARY: &'static str = "A DNS name of the user's own.";
}

impl Served for TrafficSplit {
    status!();
    spec!();
    const SUMMARY: &'static str =
        "How a Service's new connections are divided among groups of its endpoints.";

    fn admit(
        &mut self,
        _old: Option<&Self>,
        derived: &Derived,
        _config: &Config,
    ) -> Result<(), Vec<FieldError>> {
        admit::traffic_split(self, derived)
    }

    fn changed(tx: &mut Tx<'_, '_>, old: Option<&Self>, new: Option<&Self>) {
        tx.derived.set_split(old, new);
    }
}

impl Served for NodeState {
    status!();
    const STATUS_IN_MAIN: bool = true;
    const PUT_CREATES: bool = true;
    const SUMMARY: &'static str = "What the agent of a node has programmed. Kept in memory only.";
    fn copy_spec(&mut self, _from: &Self) {}
}

/// Kinds whose objects live in a namespace, in the order in which a namespace is emptied: a Service takes its slices
/// with it, so that its workloads then touch none.
pub const NAMESPACED: [Kind; 5] =
    [Kind::Service, Kind::EndpointSlice, Kind::Workload, Kind::DnsRecord, Kind::TrafficSplit];
