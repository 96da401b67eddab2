//! A Kubernetes of `tests/k8s`, driven by its script.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the pods run: its program `eastwest` serves.
pub const IMAGE: &str = "localhost/eastwest:test";

/// It is taken down when dropped.
pub struct Kubernetes {
    name: String,
}

impl Kubernetes {
    /// `name` is the cluster's, `options` go to `tests/k8s/cluster up`, and `image` is what `scripts/image` makes.
    ///
    /// # Errors
    /// When it does not come up; its logs stay.
    pub fn up(name: &str, nodes: usize, options: &[&str], image: &str) -> Result<Self> {
        let this = Self { name: name.to_owned() };
        let count = nodes.to_string();
        this.run(&[&["up", "--nodes", &count], options, &["--image", image]].concat(), None)?;
        Ok(this)
    }

    /// Path of the administrator's kubeconfig.
    pub fn admin_config(&self) -> String {
        let state = std::env::var("K8S_STATE").unwrap_or_else(|_| "/var/tmp/eastwest-k8s".to_owned());
        format!("{state}/{}/admin.conf", self.name)
    }

    /// A command of `tests/k8s/cluster` that has not begun.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/cluster"));
        command.args(args).env("K8S_NAME", &self.name);
        command
    }

    /// `tests/k8s/cluster`, and what it printed.
    pub fn run(&self, args: &[&str], input: Option<&Value>) -> Result<String> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("tests/k8s/cluster")?;
        let mut stdin = child.stdin.take().context("stdin")?;
        if let Some(input) = input {
            stdin.write_all(input.to_string().as_bytes())?;
        }
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    pub fn kubectl(&self, args: &[&str], input: Option<&Value>) -> Result<String> {
        self.run(&[&["kubectl"], args].concat(), input)
    }

    pub fn get(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], args].concat(), None)?)?)
    }

    /// Until `done` gives something.
    ///
    /// # Errors
    /// When it has not for two minutes.
    pub fn until<T>(&self, what: &str, mut done: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            match done() {
                Ok(Some(found)) => return Ok(found),
                Ok(None) if Instant::now() < end => {}
                Ok(None) => bail!("{what}: not within {} s", PATIENCE.as_secs()),
                Err(e) if Instant::now() < end => drop(e),
                Err(e) => return Err(e.context(what.to_owned())),
            }
            sleep(Duration::from_millis(200));
        }
    }

    /// A pod of the namespace `default`, ready.
    pub fn ready(&self, pod: &str) -> Result<Value> {
        self.until(&format!("pod {pod} ready"), || {
            let found = self.get(&["pod", pod])?;
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            Ok(ready.then_some(found))
        })
    }

    /// The process of a pod that is ready, as its node counts it.
    pub fn pid(&self, pod: &Value) -> Result<String> {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().context("containerID")?;
        let id = id.trim_start_matches("containerd://");
        let node = pod["spec"]["nodeName"].as_str().context("nodeName")?;
        let tasks = self.run(&["exec", node, "ctr", "-n", "k8s.io", "tasks", "ls"], None)?;
        let pid = tasks.lines().find_map(|line| line.strip_prefix(id)?.split_whitespace().next());
        Ok(pid.with_context(|| format!("no process of pod {}", pod["metadata"]["name"]))?.to_owned())
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        if let Err(e) = self.run(&["down"], None) {
            eprintln!("{e:#}");
        }
    }
}

/// A pod that serves as those of a lab do, on the port `http` over TCP and `udp` over UDP.
pub fn serving(
    name: &str,
    node: &str,
    labels: &Value,
    port: u16,
    version: &str,
    host_network: bool,
) -> Value {
    let text = port.to_string();
    let command = [
        "/usr/bin/eastwest",
        "lab-serve",
        "--pod",
        name,
        "--node",
        node,
        "--port",
        &text,
        "--version-label",
        version,
    ];
    json!({"apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": name, "namespace": "default", "labels": labels},
    "spec": {
        "nodeName": node, "hostNetwork": host_network, "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "serve", "image": IMAGE, "imagePullPolicy": "Never",
            "command": command,
            "ports": [{"name": "http", "containerPort": port},
                      {"name": "udp", "containerPort": port, "protocol": "UDP"}],
        }],
    }})
}
