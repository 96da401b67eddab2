//! The mirror against a scripted API server, with a store behind it.

mod fake;

use std::sync::Arc;
use std::time::Duration;

use eastwest_api::{App, Auth, Config, router};
use eastwest_mirror::{Mirror, Options, Status};
use eastwest_model::{Kind, Revision};
use eastwest_store::{Event, Key, Memory, Store};
use fake::{Fake, NAMESPACES, NODES, PODS, SERVICES, SLICES, SPLITS};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

/// A mirror at work.
struct Running {
    app: App,
    status: watch::Receiver<Status>,
    registry: prometheus_client::registry::Registry,
    _stop: DropGuard,
}

fn options() -> Options {
    Options {
        probe: Duration::from_millis(50),
        backoff: (Duration::from_millis(10), Duration::from_millis(200)),
        conflicts: Duration::from_millis(200),
        page: 3,
        ..Options::default()
    }
}

impl Running {
    fn start(fake: &Fake) -> Self {
        let store = Store::open(Memory, eastwest_store::Options::default()).unwrap();
        let auth = Auth::new([("admin".to_owned(), eastwest_api::Role::Admin)]);
        let app = App::new(store, Config::default(), auth, None).unwrap();
        let mut registry = prometheus_client::registry::Registry::default();
        let client = eastwest_mirror::client(fake.config()).unwrap();
        let mirror = Mirror::new(client, app.clone(), options(), &mut registry);
        let (status, stop) = (mirror.status(), CancellationToken::new());
        tokio::spawn(mirror.run(stop.clone()));
        Self { app, status, registry, _stop: stop.drop_guard() }
    }

    async fn synced(fake: &Fake) -> Self {
        let this = Self::start(fake);
        until("all kinds are listed", || this.status.borrow().complete()).await;
        this
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        self.app.store().read(|view| {
            view.range(kind, None, None).map(|o| format!("{}/{}", o.key.namespace, o.key.name)).collect()
        })
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let object = self.app.store().get(&Key::new(kind, namespace, name))?;
        Some(serde_json::from_slice(&object.json).unwrap())
    }

    /// Waits until the store has what the server has.
    async fn equal(&self, fake: &Fake) {
        for (kind, path) in
            [(Kind::Service, SERVICES), (Kind::EndpointSlice, SLICES), (Kind::Namespace, NAMESPACES)]
        {
            until(&format!("{path} are equal"), || self.names(kind) == fake.names(path)).await;
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    async fn request(&self, method: &str, path: &str, body: Value) -> u16 {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer admin")
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_string()))
            .unwrap();
        router(self.app.clone(), None).oneshot(request).await.unwrap().status().as_u16()
    }

    /// What happened after a revision, as `put KEY` and `delete KEY`.
    async fn since(&self, revision: Revision) -> Vec<String> {
        let now = self.app.store().revision();
        let mut watcher = self.app.store().watch(revision).unwrap();
        let mut events: Vec<Arc<Event>> = Vec::new();
        while watcher.position() < now {
            events.extend(watcher.next(1000).await.unwrap());
        }
        events.iter().map(|e| format!("{} {}", if e.deleted { "delete" } else { "put" }, e.key)).collect()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}

fn service(name: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}})
}

fn slice(name: &str, address: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": [address]}], "ports": [{"port": 80, "protocol": "TCP", "name": ""}]})
}

fn pod(name: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": ip}]}})
}

/// A cluster with something of everything.
async fn cluster() -> Fake {
    let fake = Fake::start().await;
    for name in ["default", "kube-system"] {
        fake.put(NAMESPACES, json!({"metadata": {"name": name}, "status": {"phase": "Active"}}));
    }
    fake.put(
        NODES,
        json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}),
    );
    for i in 0..7 {
        fake.put(SERVICES, service(&format!("s{i}"), &format!("10.96.1.{i}")));
        fake.put(SLICES, slice(&format!("s{i}-a"), &format!("10.244.0.{i}")));
    }
    fake.put(SERVICES, service("web", "10.96.1.100"));
    fake.put(PODS, pod("p", "10.244.0.9"));
    fake
}

#[tokio::test]
async fn lists_then_follows() {
    for streaming in [true, false] {
        let fake = cluster().await;
        fake.with(|s| s.streaming = streaming);
        let mirror = Running::synced(&fake).await;
        mirror.equal(&fake).await;
        assert_eq!(mirror.names(Kind::Workload), ["default/p"]);
        let node = mirror.get(Kind::Node, "", "n1").unwrap();
        assert_eq!(node["spec"]["podCIDRs"][0], "10.244.0.0/24");
        let web = mirror.get(Kind::Service, "default", "web").unwrap();
        assert_eq!(web["metadata"]["labels"]["eastwest.dev/source"], "kubernetes");
        // Pods of a mirrored Service are no endpoints here: they come with its slices.
        assert_eq!(mirror.names(Kind::EndpointSlice).len(), 7);

        fake.put(SERVICES, service("web", "10.96.1.101"));
        fake.delete(SLICES, "default", "s3-a");
        fake.put(PODS, pod("q", "10.244.0.10"));
        let ended =
            json!({"metadata": {"name": "p", "namespace": "default"}, "status": {"phase": "Succeeded"}});
        fake.put(PODS, ended);
        mirror.equal(&fake).await;
        until("the Service has its other address", || {
            mirror.get(Kind::Service, "default", "web").unwrap()["spec"]["clusterIP"] == "10.96.1.101"
        })
        .await;
        until("pods have come and gone", || mirror.names(Kind::Workload) == ["default/q"]).await;
        let metrics = mirror.metrics();
        assert!(metrics.contains("eastwest_mirror_synced{kind=\"Pod\"} 1"), "{metrics}");
        let lists = fake.asked("list", SERVICES);
        assert_eq!(lists > 0, !streaming, "{lists} lists");
    }
}

#[tokio::test]
async fn agents_wait_for_the_whole_and_writers_go_elsewhere() {
    let fake = cluster().await;
    fake.with(|s| s.refuse = Some((StatusCode::INTERNAL_SERVER_ERROR, None)));
    let mirror = Running::start(&fake);
    assert_eq!(mirror.request("GET", "/v1/agent/stream?node=n1", json!({})).await, 503);
    assert_eq!(mirror.request("GET", "/readyz", json!({})).await, 503);
    fake.with(|s| s.refuse = None);
    until("all kinds are listed", || mirror.status.borrow().complete()).await;
    assert_eq!(mirror.request("GET", "/readyz", json!({})).await, 200);
    assert_eq!(mirror.request("GET", "/v1/agent/stream?node=n1", json!({})).await, 200);

    let of = |path: &str| format!("/api/v1/namespaces/default/{path}");
    let changed = service("web", "10.96.1.100");
    assert_eq!(mirror.request("PUT", &of("services/web"), changed.clone()).await, 409);
    assert_eq!(mirror.request("DELETE", &of("services/web"), json!({})).await, 409);
    assert_eq!(mirror.request("POST", &of("services"), changed).await, 409);
    // Beside it there is room for our own, which may not pass for Kubernetes'.
    let mut own = service("own", "None");
    assert_eq!(mirror.request("POST", &of("services"), own.clone()).await, 201);
    own["metadata"] = json!({"name": "fake", "labels": {"eastwest.dev/source": "kubernetes"}});
    assert_eq!(mirror.request("POST", &of("services"), own).await, 422);
    // Its namespace goes in Kubernetes, and all in it.
    for path in [SERVICES, SLICES, PODS] {
        for name in fake.names(path) {
            fake.delete(path, "default", name.strip_prefix("default/").unwrap());
        }
    }
    fake.delete(NAMESPACES, "", "default");
    until("nothing is left", || mirror.names(Kind::Service).is_empty()).await;
    mirror.equal(&fake).await;
}

#[tokio::test]
async fn what_went_while_away_goes_at_the_end_of_the_list_and_nothing_flaps() {
    for streaming in [true, false] {
        let fake = cluster().await;
        fake.with(|s| s.streaming = streaming);
        let mirror = Running::synced(&fake).await;
        mirror.equal(&fake).await;
        let before = mirror.app.store().revision();
        for (code, reason) in [(500, "server"), (429, "throttled"), (401, "unauthorized"), (503, "server")] {
            let refusal = (StatusCode::from_u16(code).unwrap(), (code == 429).then_some(1));
            fake.with(|s| s.refuse = Some(refusal));
            fake.hang_up();
            let line = format!("eastwest_mirror_failures_total{{kind=\"Service\",reason=\"{reason}\"}}");
            until(&line, || mirror.metrics().contains(&line)).await;
            until("the failure is known", || {
                let status = mirror.status.borrow();
                [Kind::Service, Kind::EndpointSlice].iter().all(|k| status.kinds[k].problem.is_some())
            })
            .await;
        }
        assert_eq!(mirror.app.store().revision(), before, "state is kept");
        fake.delete(SERVICES, "default", "s1");
        fake.put(SERVICES, service("s2", "10.96.2.2"));
        fake.put(SERVICES, service("new", "10.96.2.3"));
        fake.compact();
        fake.with(|s| s.refuse = None);
        mirror.equal(&fake).await;
        until("all is well", || mirror.status.borrow().kinds[&Kind::Service].problem.is_none()).await;
        let events = mirror.since(before).await;
        let expected = ["put services/default/new", "put services/default/s2", "delete services/default/s1"];
        assert_eq!(events, expected);
    }
}

#[tokio::test]
async fn watches_that_end_at_once_and_all_the_time() {
    let fake = cluster().await;
    fake.with(|s| s.watch_events = Some(1));
    let mirror = Running::synced(&fake).await;
    for i in 0..3 {
        fake.put(SERVICES, service(&format!("t{i}"), &format!("10.96.3.{i}")));
        fake.delete(SLICES, "default", &format!("s{i}-a"));
        mirror.equal(&fake).await;
    }
    assert_eq!(fake.asked("list", SERVICES), 0);
    assert!(mirror.status.borrow().kinds[&Kind::Service].problem.is_none());
}

#[tokio::test]
async fn a_bookmark_spares_a_list() {
    let fake = cluster().await;
    fake.with(|s| s.streaming = false);
    let mirror = Running::synced(&fake).await;
    let lists = fake.asked("list", NODES);
    // Much happens, but not to nodes; by the bookmark they need nothing of it.
    fake.put(SERVICES, service("more", "10.96.4.1"));
    mirror.equal(&fake).await;
    fake.bookmark();
    fake.put(SERVICES, service("marker", "10.96.4.2"));
    mirror.equal(&fake).await;
    let watches = fake.asked("watch", NODES);
    fake.with(|s| s.watch_events = None);
    // Watches of nodes have the bookmark by the time that the server has nothing older.
    tokio::time::timeout(Duration::from_secs(60), async {
        while fake.asked("watch", NODES) == watches {
            fake.compact_before_newest();
            fake.hang_up();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    fake.put(NODES, json!({"metadata": {"name": "n2"}}));
    until("the node has come", || mirror.names(Kind::Node).len() == 2).await;
    assert_eq!(fake.asked("list", NODES), lists);
}

#[tokio::test]
async fn a_server_restored_from_a_backup_is_followed_back() {
    for streaming in [true, false] {
        let fake = cluster().await;
        fake.with(|s| s.streaming = streaming);
        let backup = fake.back_up();
        for i in 0..5 {
            fake.put(SERVICES, service(&format!("later{i}"), &format!("10.96.5.{i}")));
        }
        fake.put(SERVICES, service("web", "10.96.5.100"));
        fake.delete(SLICES, "default", "s6-a");
        let mirror = Running::synced(&fake).await;
        mirror.equal(&fake).await;
        fake.restore(backup);
        mirror.equal(&fake).await;
        until("the Service is as it was", || {
            mirror.get(Kind::Service, "default", "web").unwrap()["spec"]["clusterIP"] == "10.96.1.100"
        })
        .await;
        assert!(mirror.metrics().contains("eastwest_mirror_turned_back_total 1"), "{}", mirror.metrics());
        // And from there on.
        fake.put(SERVICES, service("again", "10.96.5.7"));
        mirror.equal(&fake).await;
    }
}

#[tokio::test]
async fn garbage_stays_alone() {
    for streaming in [true, false] {
        let fake = cluster().await;
        fake.with(|s| s.streaming = streaming);
        let mut bad = slice("bad", "10.244.0.77");
        bad["endpoints"] = json!("garbage");
        fake.put(SLICES, bad.clone());
        let mirror = Running::synced(&fake).await;
        let unreadable = || {
            let status = mirror.status.borrow();
            status.kinds[&Kind::EndpointSlice].unreadable.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(unreadable(), ["default/bad"]);
        assert_eq!(mirror.names(Kind::EndpointSlice).len(), 7);
        // What was good stays as it was while it is garbage, and the others go on.
        bad["metadata"]["name"] = "s1-a".into();
        fake.put(SLICES, bad);
        fake.put(SLICES, slice("s2-a", "10.244.0.200"));
        until("the good one has changed", || {
            mirror.get(Kind::EndpointSlice, "default", "s2-a").unwrap()["endpoints"][0]["addresses"][0]
                == "10.244.0.200"
        })
        .await;
        let kept = mirror.get(Kind::EndpointSlice, "default", "s1-a").unwrap();
        assert_eq!(kept["endpoints"][0]["addresses"][0], "10.244.0.1");
        assert_eq!(unreadable(), ["default/bad", "default/s1-a"]);
        // Even a new list does not take it away.
        fake.compact();
        fake.put(SLICES, slice("s3-a", "10.244.0.201"));
        fake.hang_up();
        mirror.names(Kind::EndpointSlice).iter().find(|n| *n == "default/s1-a").unwrap();
        fake.delete(SLICES, "default", "bad");
        fake.put(SLICES, slice("s1-a", "10.244.0.202"));
        until("all can be read", || unreadable().is_empty()).await;
        mirror.equal(&fake).await;
        let line = "eastwest_mirror_failures_total{kind=\"EndpointSlice\",reason=\"unreadable\"}";
        assert!(mirror.metrics().contains(line));
    }
}

#[tokio::test]
async fn kinds_of_our_own_as_soon_as_the_cluster_knows_them() {
    let fake = cluster().await;
    let mirror = Running::synced(&fake).await;
    assert!(mirror.status.borrow().kinds[&Kind::TrafficSplit].problem.is_none());
    let split = |name: &str, weight: u32| {
        json!({"apiVersion": "eastwest.dev/v1", "kind": "TrafficSplit", "metadata": {"name": name, "namespace": "default"},
            "spec": {"service": "web", "backends": [{"selector": {"matchLabels": {"version": "1"}}, "weight": weight}]}})
    };
    fake.with(|s| s.splits = true);
    fake.put(SPLITS, split("web", 10));
    until("it is mirrored", || mirror.get(Kind::TrafficSplit, "default", "web").is_some()).await;
    // What only we can judge is judged here.
    fake.put(SPLITS, split("wrong", 7_000_000));
    fake.put(SPLITS, split("right", 20));
    until("the next is mirrored", || mirror.get(Kind::TrafficSplit, "default", "right").is_some()).await;
    assert!(mirror.get(Kind::TrafficSplit, "default", "wrong").is_none());
    let unreadable = mirror.status.borrow().kinds[&Kind::TrafficSplit].unreadable.clone();
    assert!(unreadable["default/wrong"].contains("spec.backends[0].weight"), "{unreadable:?}");
    // Definitions that are out of sight for a moment take nothing away.
    fake.with(|s| s.splits = false);
    fake.hang_up();
    let watches = fake.asked("watch", SERVICES);
    until("time has passed", || fake.asked("watch", SERVICES) > watches).await;
    assert!(mirror.get(Kind::TrafficSplit, "default", "web").is_some());
    fake.with(|s| s.splits = true);
    fake.delete(SPLITS, "default", "web");
    until("it is gone", || mirror.get(Kind::TrafficSplit, "default", "web").is_none()).await;
}

#[tokio::test]
async fn an_object_of_our_own_is_not_overwritten() {
    let fake = cluster().await;
    let mirror = Running::synced(&fake).await;
    let path = "/api/v1/namespaces/default/services";
    let own = json!({"metadata": {"name": "mine"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
    assert_eq!(mirror.request("POST", path, own).await, 201);
    fake.put(SERVICES, service("mine", "10.96.6.1"));
    until("it is known", || {
        mirror.status.borrow().kinds[&Kind::Service].conflicts == ["services/default/mine"]
    })
    .await;
    assert_eq!(mirror.get(Kind::Service, "default", "mine").unwrap()["spec"]["clusterIP"], "None");
    // A name that is free again is Kubernetes'.
    assert_eq!(mirror.request("DELETE", &format!("{path}/mine"), json!({})).await, 200);
    until("it is mirrored", || {
        mirror.get(Kind::Service, "default", "mine").is_some_and(|s| s["spec"]["clusterIP"] == "10.96.6.1")
    })
    .await;
    until("it is forgotten", || mirror.status.borrow().kinds[&Kind::Service].conflicts.is_empty()).await;
}

#[tokio::test]
async fn a_storm_of_everything_ends_in_the_servers_state() {
    let fake = cluster().await;
    let mirror = Running::synced(&fake).await;
    let mut backup = fake.back_up();
    for i in 0..200u32 {
        match fastrand::u32(0..12) {
            0 => fake.hang_up(),
            1 => fake.compact(),
            2 => fake.with(|s| {
                s.refuse = Some((StatusCode::TOO_MANY_REQUESTS, Some(0)));
                s.refuse_next = 3;
            }),
            3 => fake.with(|s| s.watch_events = fastrand::bool().then_some(2)),
            4 => fake.with(|s| s.streaming = fastrand::bool()),
            5 | 6 if i % 5 == 0 => {
                // None is restored so fast that nobody sees where it was.
                fake.put(SERVICES, service(&format!("marker{i}"), "10.96.7.254"));
                mirror.equal(&fake).await;
                fake.with(|s| (s.refuse, s.refuse_next) = (None, 0));
                fake.restore(backup.clone());
                mirror.equal(&fake).await;
            }
            6 if i % 4 == 0 => backup = fake.back_up(),
            7 | 8 => {
                let names = fake.names(SERVICES);
                if let Some(name) = names.first() {
                    fake.delete(SERVICES, "default", name.strip_prefix("default/").unwrap());
                }
            }
            _ => fake.put(
                SERVICES,
                service(&format!("x{}", fastrand::u32(0..20)), &format!("10.96.7.{}", i % 250)),
            ),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fake.with(|s| s.watch_events = None);
    mirror.equal(&fake).await;
}
