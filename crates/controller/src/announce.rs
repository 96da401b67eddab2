//! What is wrong with single objects, as Events of the cluster, where `kubectl describe` and `kubectl get events` look for it.
//! The holder of the Lease alone writes them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use eastwest_api::{App, ObjectProblem};
use eastwest_mirror::Status;
use eastwest_model::Kind;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::lease::LEASE;

/// How often it is looked what is wrong.
const PERIOD: Duration = Duration::from_secs(5);
/// How often an Event says that it is still so. API servers keep them for an hour.
const AGAIN: Duration = Duration::from_secs(600);
/// Events in one round: a cluster full of problems is not to be flooded.
const MOST: usize = 50;
/// Longest text that an API server takes (`events.k8s.io`), bytes.
const LONGEST: usize = 1024;

/// Something to be said of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    api_version: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    reason: &'static str,
    text: String,
}

/// See the module.
pub struct Announcer {
    app: App,
    mirror: watch::Receiver<Status>,
    held: watch::Receiver<bool>,
    namespace: String,
    recorder: Recorder,
    said: HashMap<Said, Instant>,
    written: Counter,
    failed: Counter,
}

impl Announcer {
    pub fn new(
        client: Client,
        me: &str,
        namespace: &str,
        app: App,
        mirror: watch::Receiver<Status>,
        held: watch::Receiver<bool>,
        registry: &mut Registry,
    ) -> Self {
        let reporter =
            Reporter { controller: "eastwest-controller".to_owned(), instance: Some(me.to_owned()) };
        let (written, failed) = (Counter::default(), Counter::default());
        registry.register("eastwest_events_written", "Events written to the cluster", written.clone());
        registry.register(
            "eastwest_events_failed",
            "Events that the API server did not take",
            failed.clone(),
        );
        Self {
            app,
            mirror,
            held,
            namespace: namespace.to_owned(),
            recorder: Recorder::new(client, reporter),
            said: HashMap::new(),
            written,
            failed,
        }
    }

    /// Until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
            if *self.held.borrow() {
                tokio::select! {
                    () = self.say() => {}
                    () = stop.cancelled() => return,
                }
            } else {
                self.said.clear();
            }
        }
    }

    async fn say(&mut self) {
        let mut all = of_objects(self.app.problems());
        all.extend(of_mirror(&self.mirror.borrow(), &self.namespace));
        self.said.retain(|said, _| all.contains(said));
        all.retain(|said| self.said.get(said).is_none_or(|at| at.elapsed() > AGAIN));
        for said in all.into_iter().take(MOST) {
            let event = Event {
                type_: EventType::Warning,
                reason: said.reason.to_owned(),
                note: Some(shortened(&said.text)),
                action: "Program".to_owned(),
                secondary: None,
            };
            let reference = ObjectReference {
                api_version: Some(said.api_version.to_owned()),
                kind: Some(said.kind.to_owned()),
                namespace: Some(said.namespace.clone()).filter(|n| !n.is_empty()),
                name: Some(said.name.clone()),
                uid: Some(said.uid.clone()).filter(|u| !u.is_empty()),
                ..ObjectReference::default()
            };
            match self.recorder.publish(&event, &reference).await {
                Ok(()) => {
                    self.written.inc();
                    info!(
                        object = format!("{} {}/{}", said.kind, said.namespace, said.name),
                        text = said.text,
                        "Event"
                    );
                    self.said.insert(said, Instant::now());
                }
                Err(error) => {
                    self.failed.inc();
                    debug!(%error, "an Event was not taken");
                }
            }
        }
    }
}

/// Names as Kubernetes has them.
fn kubernetes(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Workload => ("v1", "Pod"),
        other => (other.api_version(), other.name()),
    }
}

/// What nodes report.
fn of_objects(problems: Vec<ObjectProblem>) -> Vec<Said> {
    let said = |p: ObjectProblem| {
        let (api_version, kind) = kubernetes(p.kind);
        let ObjectProblem { namespace, name, uid, text, .. } = p;
        Said { api_version, kind, namespace, name, uid, reason: "NotFullyProgrammed", text }
    };
    problems.into_iter().map(said).collect()
}

/// What the API server has and cannot be taken over, and what keeps it from being followed.
fn of_mirror(status: &Status, own: &str) -> Vec<Said> {
    let mut all = Vec::new();
    for (kind, status) in &status.kinds {
        let (api_version, kind) = kubernetes(*kind);
        // `object`: as `default/web`, or `web` where there are no namespaces.
        let said = |object: &str, reason, text| {
            let (namespace, name) = object.split_once('/').unwrap_or(("", object));
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Said { api_version, kind, namespace, name, uid: String::new(), reason, text }
        };
        for (object, reason) in &status.unreadable {
            all.push(said(object, "NotReadable", format!("left as it was before: {reason}")));
        }
        for object in &status.conflicts {
            // As `services/default/web`.
            let object = object.split_once('/').map_or(object.as_str(), |(_, rest)| rest);
            let text = "left out: an object of eastwest's own API has this name".to_owned();
            all.push(said(object, "NameTaken", text));
        }
        if let Some((problem, since)) = &status.problem
            && since.elapsed() > PERIOD
        {
            all.push(Said {
                api_version: "coordination.k8s.io/v1",
                kind: "Lease",
                namespace: own.to_owned(),
                name: LEASE.to_owned(),
                uid: String::new(),
                reason: "NotFollowing",
                text: format!("{kind}s are not followed, and stay as they were: {problem}"),
            });
        }
    }
    all
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use eastwest_mirror::KindStatus;

    #[test]
    fn what_is_said_of_the_mirror() {
        let now = Instant::now();
        let mut status = Status::default();
        let slices = KindStatus {
            unreadable: [("default/web-1".to_owned(), "ports: too many".to_owned())].into(),
            ..KindStatus::default()
        };
        let pods = KindStatus {
            problem: now.checked_sub(Duration::from_secs(60)).map(|at| ("401".to_owned(), at)),
            ..KindStatus::default()
        };
        let nodes = KindStatus { problem: Some(("once".to_owned(), now)), ..KindStatus::default() };
        status.kinds = [(Kind::EndpointSlice, slices), (Kind::Workload, pods), (Kind::Node, nodes)].into();
        let all: Vec<_> = of_mirror(&status, "kube-system")
            .into_iter()
            .map(|s| format!("{} {}/{} {}: {}", s.kind, s.namespace, s.name, s.reason, s.text))
            .collect();
        assert_eq!(
            all,
            [
                "EndpointSlice default/web-1 NotReadable: left as it was before: ports: too many",
                "Lease kube-system/eastwest-controller NotFollowing: Pods are not followed, and stay as they were: 401",
            ]
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened(&"é".repeat(600)).len(), LONGEST);
        assert_eq!(shortened(&format!("x{}", "é".repeat(600))).len(), LONGEST - 1);
        assert_eq!(shortened("short"), "short");
    }
}
