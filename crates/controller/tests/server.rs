//! The real binary on loopback, by Kubernetes' own client library.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, Error, ResourceExt};
use serde_json::{Value, json};

/// A running controller; killed when dropped.
struct Controller {
    child: Child,
    port: u16,
    metrics: u16,
}

/// A port of the loopback that no other test of this process gets, from below the ephemeral range: one from that may be
/// given to a client of somebody else's before the controller listens there.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1000) as u16;
    let mut ports = std::iter::repeat_with(|| 21_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 3000);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// The binary, without settings from this process' environment.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eastwest-controller"));
    for (key, _) in std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("EASTWEST_")) {
        command.env_remove(key);
    }
    command
}

fn command(dir: &Path, port: u16, metrics: u16) -> Command {
    let mut command = binary();
    command
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen", &format!("127.0.0.1:{port}"), "--metrics-listen", &format!("127.0.0.1:{metrics}")])
        .args(["--san", "192.0.2.7", "--log-level", "warn"])
        .stdin(Stdio::null());
    command
}

impl Controller {
    async fn start(dir: &Path) -> Self {
        let (port, metrics) = (free_port(), free_port());
        let child = command(dir, port, metrics).spawn().unwrap();
        let mut this = Self { child, port, metrics };
        this.ready().await;
        this
    }

    async fn ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.plain("/readyz").await.is_none() {
            assert!(Instant::now() < deadline, "not ready");
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the controller ended: {ended:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A page of the metrics listener.
    async fn plain(&self, path: &str) -> Option<String> {
        provider();
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.metrics)).await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn client(dir: &Path, role: &str) -> Client {
    provider();
    let kubeconfig = Kubeconfig::read_from(dir.join(format!("{role}.kubeconfig"))).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn service(name: &str) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}}))
    .unwrap()
}

fn workloads(client: &Client) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("eastwest.dev", "v1", "Workload"));
    Api::default_namespaced_with(client.clone(), &kind)
}

fn workload(name: &str, app: &str, address: &str) -> DynamicObject {
    serde_json::from_value(json!({"apiVersion": "eastwest.dev/v1", "kind": "Workload",
        "metadata": {"name": name, "labels": {"app": app}}, "spec": {"addresses": [address], "node": "n"}}))
    .unwrap()
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn kubernetes_client_library_works() {
    let dir = tempfile::tempdir().unwrap();
    let _controller = Controller::start(dir.path()).await;
    let client = client(dir.path(), "admin").await;
    let version = client.apiserver_version().await.unwrap();
    assert!(version.git_version.contains("eastwest"));
    let discovery = kube::discovery::Discovery::new(client.clone()).run().await.unwrap();
    assert!(discovery.has_group("eastwest.dev") && discovery.has_group("discovery.k8s.io"));
    let aggregated = kube::discovery::Discovery::new(client.clone()).run_aggregated().await.unwrap();
    assert!(aggregated.has_group("eastwest.dev") && aggregated.has_group("discovery.k8s.io"));

    let services: Api<Service> = Api::default_namespaced(client.clone());
    let post = PostParams::default();
    let made = services.create(&post, &service("web")).await.unwrap();
    let ip = made.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap();
    assert!(ip.starts_with("10.96."));
    assert_eq!(code(services.create(&post, &service("web")).await), (409, "AlreadyExists".into()));

    let watch =
        services.watch(&WatchParams::default(), made.resource_version().as_deref().unwrap()).await.unwrap();
    let mut watch = watch.boxed();
    let labels = Patch::Merge(json!({"metadata": {"labels": {"a": "1"}}}));
    let patched = services.patch("web", &PatchParams::default(), &labels).await.unwrap();
    assert_eq!(patched.labels()["a"], "1");
    let event = watch.try_next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Modified(s) if s.resource_version() == patched.resource_version()));

    assert_eq!(code(services.replace("web", &post, &made).await), (409, "Conflict".into()));
    let json: json_patch::Patch =
        serde_json::from_value(json!([{"op": "add", "path": "/metadata/labels/b", "value": "2"}])).unwrap();
    services.patch("web", &PatchParams::default(), &Patch::Json::<()>(json)).await.unwrap();
    let strategic = Patch::Strategic(json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}));
    services.patch("web", &PatchParams::default(), &strategic).await.unwrap();
    let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "applied"},
        "spec": {"ports": [{"port": 1}]}}));
    services.patch("applied", &PatchParams::apply("test").force(), &apply).await.unwrap();

    let bad: Service = serde_json::from_value(
        json!({"metadata": {"name": "bad"}, "spec": {"clusterIP": ip, "ports": [{"port": 1}]}}),
    )
    .unwrap();
    let Err(Error::Api(status)) = services.create(&post, &bad).await else { panic!("taken address") };
    let causes = status.details.clone().unwrap().causes;
    assert_eq!((status.code, causes[0].field.as_str()), (422, "spec.clusterIPs[0]"));

    workloads(&client).create(&post, &workload("w", "web", "10.1.0.1")).await.unwrap();
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    assert_eq!(slices.list(&of_web).await.unwrap().items[0].endpoints[0].addresses, ["10.1.0.1"]);

    let list = services.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(list.metadata.remaining_item_count, Some(1));
    let rest = services
        .list(&ListParams::default().continue_token(&list.metadata.continue_.unwrap()))
        .await
        .unwrap();
    assert_eq!(rest.items.len(), 1);
    assert_eq!(services.list_metadata(&ListParams::default()).await.unwrap().items.len(), 2);

    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert_eq!(code(namespaces.delete("default", &DeleteParams::default()).await), (403, "Forbidden".into()));
    services.delete("web", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(services.get("web").await), (404, "NotFound".into()));
    let all: Api<Service> = Api::all(client);
    let Err(Error::Api(status)) = all.create(&post, &service("x")).await else { panic!("no namespace") };
    assert_eq!(status.code, 405);
}

#[tokio::test]
async fn watchers_of_the_runtime_follow_over_a_restart() {
    for streaming in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (port, metrics) = (free_port(), free_port());
        let spawn = || command(dir.path(), port, metrics).spawn().unwrap();
        let mut controller = Controller { child: spawn(), port, metrics };
        controller.ready().await;
        let client = client(dir.path(), "admin").await;
        let services: Api<Service> = Api::default_namespaced(client);
        let config =
            if streaming { watcher::Config::default().streaming_lists() } else { watcher::Config::default() };
        let mut seen = Box::pin(watcher(services.clone(), config).default_backoff().applied_objects());
        let mut expect = async |name: &str| {
            let deadline = Instant::now() + Duration::from_secs(15);
            while Instant::now() < deadline {
                match tokio::time::timeout(Duration::from_secs(5), seen.next()).await {
                    Ok(Some(Ok(s))) if s.name_any() == name => return,
                    Ok(Some(_)) => {}
                    other => panic!("{name}: {other:?}"),
                }
            }
            panic!("{name} was not seen");
        };
        services.create(&PostParams::default(), &service("one")).await.unwrap();
        expect("one").await;
        controller.child.kill().unwrap();
        controller.child.wait().unwrap();
        controller.child = spawn();
        controller.ready().await;
        services.create(&PostParams::default(), &service("two")).await.unwrap();
        expect("two").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked: Vec<Value> = Vec::new();
    for round in 0..3 {
        let mut controller = Controller::start(dir.path()).await;
        rewrite_port(dir.path(), controller.port);
        let client = client(dir.path(), "admin").await;
        let writers: Vec<_> = (0..8)
            .map(|w| {
                let services: Api<Service> = Api::default_namespaced(client.clone());
                tokio::spawn(async move {
                    let mut acked = Vec::new();
                    for i in 0.. {
                        match services
                            .create(&PostParams::default(), &service(&format!("s{round}-{w}-{i}")))
                            .await
                        {
                            Ok(s) => acked.push(serde_json::to_value(s).unwrap()),
                            Err(_) => break,
                        }
                    }
                    acked
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(400 + 150 * round)).await;
        controller.child.kill().unwrap();
        controller.child.wait().unwrap();
        for writer in writers {
            acked.extend(writer.await.unwrap());
        }
    }
    assert!(acked.len() > 50, "{}", acked.len());
    let controller = Controller::start(dir.path()).await;
    rewrite_port(dir.path(), controller.port);
    let services: Api<Service> = Api::default_namespaced(client(dir.path(), "viewer").await);
    let list = services.list(&ListParams::default()).await.unwrap();
    let there: std::collections::HashMap<String, Value> =
        list.items.iter().map(|s| (s.name_any(), serde_json::to_value(s).unwrap())).collect();
    for s in &acked {
        let name = s["metadata"]["name"].as_str().unwrap();
        let found = there.get(name).unwrap_or_else(|| panic!("{name} is lost"));
        assert_eq!((&found["metadata"], &found["spec"]), (&s["metadata"], &s["spec"]));
    }
    let mut ips: Vec<_> = list.items.iter().filter_map(|s| s.spec.as_ref()?.cluster_ip.clone()).collect();
    let count = ips.len();
    ips.sort();
    ips.dedup();
    assert_eq!(ips.len(), count, "an address was given twice");
}

/// Each start has another port here; the files are written anew at each start.
fn rewrite_port(dir: &Path, port: u16) {
    let text = std::fs::read_to_string(dir.join("admin.kubeconfig")).unwrap();
    assert!(text.contains(&format!("https://127.0.0.1:{port}")), "{text}");
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(dir.path()).await;
    let client = client(dir.path(), "admin").await;
    let services: Api<Service> = Api::default_namespaced(client);
    let mut watch = services.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    services.create(&PostParams::default(), &service("web")).await.unwrap();
    assert!(watch.try_next().await.unwrap().is_some());
    controller.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(controller.plain("/livez").await.is_some(), "SIGHUP only reads the log level again");
    controller.signal(nix::sys::signal::Signal::SIGTERM);
    let start = Instant::now();
    while watch.try_next().await.is_ok_and(|e| e.is_some()) {}
    let status = controller.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_store_that_does_not_open_is_restored_from_its_backup() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(dir.path()).await;
    let services: Api<Service> = Api::default_namespaced(client(dir.path(), "admin").await);
    let made = services.create(&PostParams::default(), &service("web")).await.unwrap();
    controller.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(controller.child.wait().unwrap().success());
    std::fs::write(dir.path().join("store/conf"), "not sled's").unwrap();

    let output = command(dir.path(), free_port(), free_port()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("does not open"), "{text}");
    let backup = text.split("restore ").last().unwrap().split(' ').next().unwrap();
    assert!(backup.ends_with(".ndjson"), "{text}");
    std::fs::rename(dir.path().join("store"), dir.path().join("store.broken")).unwrap();
    let mut restore = command(dir.path(), 0, 0);
    assert!(restore.args(["restore", backup]).status().unwrap().success());

    let _controller = Controller::start(dir.path()).await;
    let services: Api<Service> = Api::default_namespaced(client(dir.path(), "admin").await);
    assert_eq!(services.get("web").await.unwrap(), made);
}

#[tokio::test]
async fn an_inherited_socket_is_served_too() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (port, metrics) = (free_port(), free_port());
    let mut command = command(dir.path(), port, metrics);
    // A shell puts the socket in place, and its own pid where the protocol wants the receiver's.
    let program = command.get_program().to_owned();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = Command::new("sh");
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(program).args(args).stdin(OwnedFd::from(listener));
    let mut controller = Controller { child: command.spawn().unwrap(), port, metrics };
    controller.ready().await;
    provider();
    let ca = std::fs::read(dir.path().join("pki/ca.crt")).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .resolve("localhost", address)
        .build()
        .unwrap();
    for port in [address.port(), controller.port] {
        let answer = http.get(format!("https://127.0.0.1:{port}/version")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn dashboard_metrics_and_tls() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path()).await;
    provider();
    let ca = std::fs::read(dir.path().join("pki/ca.crt")).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .resolve("192.0.2.7", ([127, 0, 0, 1], controller.port).into())
        .build()
        .unwrap();
    let url = |path: &str| format!("https://localhost:{}{path}", controller.port);
    let page = http.get(url("/services/default/web")).send().await.unwrap();
    assert_eq!(
        (page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    assert!(page.headers().contains_key("content-security-policy"));
    let etag = page.headers()["etag"].clone();
    let again = http.get(url("/")).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    for (method, path, code) in
        [("GET", "/assets/none.js", 404), ("POST", "/", 405), ("GET", "/api", 401), ("GET", "/v1/x", 401)]
    {
        let answer = http.request(method.parse().unwrap(), url(path)).send().await.unwrap();
        assert_eq!(answer.status(), code, "{method} {path}");
    }
    let plain = reqwest::Client::new().get(url("/livez")).send().await;
    assert!(plain.is_err(), "the CA is our own");

    let admin = client(dir.path(), "admin").await;
    Api::<Service>::default_namespaced(admin).create(&PostParams::default(), &service("web")).await.unwrap();
    let metrics = controller.plain("/metrics").await.unwrap();
    for line in [
        r#"apiserver_request_total{verb="POST",resource="services",code="201"} 1"#,
        "eastwest_store_revision 4",
        "eastwest_agents_connected 0",
        "eastwest_store_flush_duration_seconds_count",
        r#"apiserver_request_duration_seconds_count{verb="POST",resource="services"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn bad_settings_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Controller::start(dir.path()).await;
    for (args, words) in [
        (vec!["--service-cidr", "10.0.0.0/16,10.1.0.0/16"], "one IPv4 and one IPv6"),
        (vec!["--dns-service-ip", "192.0.2.1"], "192.0.2.1"),
        (vec!["--advertise-url", "http://x"], "advertiseUrl"),
        (vec!["--log-level", "lo=u=d"], "logLevel"),
        (vec![], "another process"),
    ] {
        let mut command = command(dir.path(), free_port(), free_port());
        if !args.is_empty() && args[0] == "--log-level" {
            command = binary();
        }
        let output = command.args(&args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{args:?}: {text}");
    }
}
