//! The command line as a person or a script meets it: what it prints, and its exit codes.
//!
//! Those with a lab need root; those with objects need the binary `eastwest-controller` beside `eastwest`
//! (`cargo build -p eastwest-controller`). Without, they fail and say so.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const EASTWEST: &str = env!("CARGO_BIN_EXE_eastwest");

fn run(args: &[&str], stdin: &str) -> Result<Output, std::io::Error> {
    let mut child = Command::new(EASTWEST)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("KUBECONFIG")
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A command that ends without reading is no failure here.
        let _read = input.write_all(stdin.as_bytes());
    }
    child.wait_with_output()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn exit_codes_and_messages() -> Outcome {
    let (ok, failed, usage) = (Some(0), Some(1), Some(2));
    for (args, code, says) in [
        (&["version"][..], ok, "eastwest "),
        (&["--help"], ok, "Usage"),
        (&["completion", "bash"], ok, "_eastwest"),
        (&[], usage, "Usage"),
        (&["frobnicate"], usage, "frobnicate"),
        (&["get"], usage, "TYPE"),
        (&["apply"], usage, "--filename"),
        (&["wait", "svc", "web", "--for=rain"], usage, "condition="),
        (&["lab", "up", "--network", "tokenring"], usage, "ptp, bridge, vxlan"),
        (&["lab", "up", "--nodes", "0"], failed, "1 to 99"),
        (&["lab", "--name", "No-Name", "up"], failed, "a-z"),
        (&["lab", "--name", "nosuch", "status"], failed, "lab up --name nosuch"),
        (&["--kubeconfig", "/nonexistent", "get", "svc"], failed, "/nonexistent"),
        (&["--kubeconfig", "/nonexistent", "get", "pods"], failed, "services (svc)"),
        (&["apply", "-f", "/nonexistent.yaml"], failed, "/nonexistent.yaml"),
        (&["dns", "web", "--server", "127.0.0.1:1", "--timeout", "200ms"], failed, "refused"),
    ] {
        let output = run(args, "")?;
        assert_eq!(output.status.code(), code, "{args:?}: {}", err(&output));
        let said = out(&output) + &err(&output);
        assert!(said.contains(says), "{args:?} says {said:?}");
    }
    Ok(())
}

#[test]
fn a_reader_that_has_enough_is_no_error_to_shout_about() -> Outcome {
    let script = format!("{EASTWEST} completion bash | head -1");
    let output = Command::new("sh").args(["-c", &script]).output()?;
    assert_eq!(err(&output), "");
    Ok(())
}

/// A lab by name that goes when the test ends, however it ends.
struct Down(&'static str);

impl Drop for Down {
    fn drop(&mut self) {
        let _reported_by_up = run(&["lab", "--name", self.0, "down"], "");
    }
}

#[test]
fn a_lab_by_hand() -> Outcome {
    let name = "cli";
    let _down = Down(name);
    let lab = |args: &[&str], stdin: &str| run(&[&["lab", "--name", name], args].concat(), stdin);
    for (args, stdin, code, says) in [
        (&["up", "--bare", "--nodes", "2"][..], "", 0, "lab cli is up"),
        (&["up", "--bare"], "", 1, "is up already"),
        (
            &["run", "web-1", "--node", "node-2", "-l", "app=web,version=v1"],
            "",
            0,
            "pod web-1 on node-2: 10.244.2.2",
        ),
        (&["run", "web-1", "--node", "node-2"], "", 1, "exists already"),
        (&["run", "web-2", "--node", "node-9"], "", 1, "node-1, node-2"),
        (&["run", "client"], "", 1, "part of the lab itself"),
        (&["run", "web-2", "-l", "app"], "", 1, "KEY=VALUE"),
        (&["run", "-n", "shop", "job", "--", "sh", "-c", "exit 3"], "", 0, "pod shop/job on node-1"),
        (&["exec", "web-1", "--", "cat"], "through and through", 0, "through and through"),
        (&["exec", "web-1", "--", "sh", "-c", "echo out; exit 42"], "", 42, "out"),
        (&["exec", "web-1", "--", "nosuchcommand"], "", 127, "nosuchcommand"),
        (&["exec", "web-1", "--", "/etc/passwd"], "", 126, "ermission"),
        (&["exec", "web-9", "--", "true"], "", 1, "web-1"),
        (&["link", "down", "node-2"], "", 0, "link of node-2 down"),
        (&["link", "up", "node-7"], "", 1, "node-1, node-2"),
        (&["kill", "agent"], "", 0, "agent-node-1 killed"),
        (&["start", "controller"], "", 1, "without controller"),
        (&["status"], "", 0, "pod web-1 on node-2"),
        (&["status", "-o", "json"], "", 0, "\"network\": \"ptp\""),
        (&["rm", "web-1"], "", 0, "removed"),
        (&["rm", "web-1"], "", 1, "no pod web-1"),
        (&["down"], "", 0, "lab cli is down"),
        (&["down"], "", 0, "was not up"),
    ] {
        let output = lab(args, stdin)?;
        let said = out(&output) + &err(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?} says {said:?}");
    }
    Ok(())
}

#[test]
fn an_interrupted_demo_leaves_nothing() -> Outcome {
    let name = "cli_int";
    let _down = Down(name);
    let mut child = Command::new(EASTWEST)
        .args(["demo", "--name", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let netns = Path::new("/run/netns/ew-cli_int-fabric");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !netns.exists() {
        assert!(Instant::now() < deadline, "the demo builds nothing; it needs root");
        std::thread::sleep(Duration::from_millis(2));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    assert!(killed.success());
    assert_eq!(child.wait()?.code(), Some(130));
    assert!(!netns.exists() && !Path::new("/run/eastwest/lab/cli_int").exists());
    Ok(())
}

/// A controller on the loopback, with a data directory of its own.
struct Controller {
    process: Child,
    dir: tempfile::TempDir,
}

impl Controller {
    fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let binary = PathBuf::from(EASTWEST).with_file_name("eastwest-controller");
        if !binary.exists() {
            return Err(format!("{} is missing: cargo build -p eastwest-controller", binary.display()).into());
        }
        let dir = tempfile::tempdir()?;
        // Below the ephemeral range, from which a port may be given to a client of somebody else's at any time.
        let port = |from: u16| {
            let free = (from..from + 500).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
            free.ok_or("no port is free")
        };
        let listen = format!("127.0.0.1:{}", port(20_000)?);
        let log = std::fs::File::create(dir.path().join("log"))?;
        let process = Command::new(binary)
            .args(["--listen", &listen, "--advertise-url", &format!("https://{listen}")])
            .args(["--metrics-listen", &format!("127.0.0.1:{}", port(20_500)?)])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let controller = Self { process, dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !controller.run(&["get", "ns"], "")?.status.success() {
            if Instant::now() > deadline {
                return Err(std::fs::read_to_string(controller.dir.path().join("log"))?.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(controller)
    }

    fn run(&self, args: &[&str], stdin: &str) -> Result<Output, std::io::Error> {
        let kubeconfig = self.dir.path().join("data/admin.kubeconfig");
        let kubeconfig = kubeconfig.to_string_lossy();
        run(&[&["--kubeconfig", kubeconfig.as_ref()], args].concat(), stdin)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended by itself; the test has said why.
        let _ended = self.process.kill();
        let _collected = self.process.wait();
    }
}

const WEB: &str = "\
# what the shop shows
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tier: front}}
spec:
  selector: {app: web}
  ports:
  - {port: 80, targetPort: http}
---
apiVersion: eastwest.dev/v1
kind: Workload
metadata: {name: web-1, labels: {app: web}}
spec:
  addresses: [10.244.1.5]
  ports: [{name: http, port: 8080}]
";

const BAD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: good}
spec: {ports: [{port: 80}]}
---

apiVersion: v1
kind: Service
metadata: {name: bad}
spec: {clusterIP: 192.0.2.1, ports: [{port: 0}]}
---
apiVersion: v1
kind: Service
metadata: {name: unknown}
spec: {ports: [{port: 80, porto: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
";

#[test]
fn objects() -> Outcome {
    let controller = Controller::start()?;
    let moved = WEB.replace("port: 80,", "port: 81,");
    let relabelled = moved.replace(", labels: {tier: front}", "");
    // Arguments, input, exit code, what the answer holds, what it does not.
    for (args, stdin, code, says, not) in [
        (&["apply", "-f", "-", "--dry-run"][..], WEB, 0, "service/web created (dry run)", "unchanged"),
        (&["get", "svc"], "", 0, "no services in namespace default", "web"),
        (
            &["apply", "-f", "-"],
            WEB,
            0,
            "service/web created\nworkload.eastwest.dev/web-1 created\n",
            "error",
        ),
        (
            &["apply", "-f", "-"],
            WEB,
            0,
            "service/web unchanged\nworkload.eastwest.dev/web-1 unchanged\n",
            "error",
        ),
        (&["apply", "-f", "-", "--wait"], &moved, 0, "service/web configured", "error"),
        (&["get", "svc", "-l", "tier=front"], "", 0, "81/TCP", "kube-dns"),
        (&["apply", "-f", "-"], &relabelled, 0, "service/web configured", "error"),
        (&["get", "svc", "-l", "tier=front"], "", 0, "no services", "web"),
        (&["get", "svc", "-A"], "", 0, "kube-system   kube-dns", "error"),
        (&["get", "svc", "-A", "--no-headers"], "", 0, "kube-system", "NAMESPACE"),
        (&["get", "svc", "-o", "wide"], "", 0, "app=web", "error"),
        (&["get", "svc", "-o", "name"], "", 0, "service/web\n", "NAME"),
        (&["get", "service/web", "-o", "json"], "", 0, "\"kind\": \"Service\"", "error"),
        (&["get", "svc", "web", "-o", "yaml"], "", 0, "kind: Service", "error"),
        (&["get", "svc,wl"], "", 0, "web-1", "error"),
        (&["get", "svc/web", "wl/web-1", "svc/nope"], "", 1, "web-1", "panicked"),
        (&["get", "endpointslices"], "", 0, "10.244.1.5", "error"),
        (&["get", "svc", "nope"], "", 1, "nope", "panicked"),
        (&["get", "svc", "-A", "web"], "", 1, "leave out -A", "panicked"),
        (&["status"], "", 0, "no agent has registered", "error"),
        (&["wait", "--for=programmed"], "", 0, "programmed on every node", "error"),
        (&["wait", "--for=programmed", "svc", "web"], "", 0, "service/web programmed", "error"),
        (
            &["wait", "--for=delete", "svc/web", "--timeout", "100ms"],
            "",
            1,
            "service/web is still there",
            "gone",
        ),
        (
            &["wait", "--for=condition=Ready", "wl/web-1", "--timeout", "100ms"],
            "",
            1,
            "condition Ready",
            "met",
        ),
        (&["apply", "-f", "-"], BAD, 1, "service/good created", "panicked"),
        (&["apply", "-f", "-"], BAD, 1, "standard input:7: Service bad", "panicked"),
        (&["apply", "-f", "-"], BAD, 1, "spec.ports[0].port: ", "panicked"),
        (&["apply", "-f", "-"], BAD, 1, "standard input:12: Service unknown", "panicked"),
        (&["apply", "-f", "-"], BAD, 1, "porto", "panicked"),
        (&["apply", "-f", "-"], BAD, 1, "standard input:17: Deployment d: no kind", "panicked"),
        (&["apply", "-f", "-"], BAD, 1, "3 of 4 objects not applied", "panicked"),
        (&["apply", "-f", "-"], "kind: [", 1, "standard input:2", "panicked"),
        (&["apply", "-f", "-"], "", 1, "no objects", "panicked"),
        (&["delete", "svc"], "", 1, "give their names", "deleted"),
        (&["delete", "-f", "-"], WEB, 0, "service/web deleted\nworkload.eastwest.dev/web-1 deleted", "error"),
        (&["delete", "-f", "-"], WEB, 1, "not found", "deleted"),
        (&["delete", "-f", "-", "--ignore-not-found"], WEB, 0, "", "error"),
        (&["wait", "--for=delete", "svc/web"], "", 0, "service/web is gone", "error"),
    ] {
        let output = controller.run(args, stdin)?;
        let said = out(&output) + &err(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?} says {said}");
        assert!(!said.contains(not), "{args:?} says {said}");
    }
    Ok(())
}

#[test]
fn a_watch_goes_on_with_what_changes() -> Outcome {
    let controller = Controller::start()?;
    let kubeconfig = controller.dir.path().join("data/admin.kubeconfig");
    let mut watch = Command::new(EASTWEST)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["get", "svc", "-w"])
        .stdout(Stdio::piped())
        .spawn()?;
    // The watch begins at the list's revision: what comes after it is seen, however late the connection.
    std::thread::sleep(Duration::from_millis(500));
    assert!(controller.run(&["apply", "-f", "-"], WEB)?.status.success());
    assert!(controller.run(&["delete", "svc", "web"], "")?.status.success());
    std::thread::sleep(Duration::from_millis(500));
    watch.kill()?;
    let said = out(&watch.wait_with_output()?);
    let rows: Vec<_> = said.lines().filter(|l| l.starts_with("web ")).collect();
    assert_eq!(rows.len(), 2, "created and deleted: {said}");
    Ok(())
}
