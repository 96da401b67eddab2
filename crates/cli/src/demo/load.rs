//! Requests from inside the lab: counted ones, and a load that goes on while something happens.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use eastwest_lab::Lab;
use eastwest_lab::ask::Report;

/// `count` requests, each on a connection of its own, by a client inside `from` that resolves `host` there.
pub fn ask(lab: &Lab, from: &str, host: &str, port: u16, count: u64, family: Option<&str>) -> Result<Report> {
    let (count, port) = (count.to_string(), port.to_string());
    let mut args = vec!["--host", host, "--port", &port, "--count", &count];
    if let Some(family) = family {
        args.extend(["--family", family]);
    }
    let exe = exe()?;
    let mut command = lab.command(from, &exe)?;
    let output = command.arg("lab-ask").args(args).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{from} asks {host}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("report of the client")
}

fn exe() -> Result<String> {
    let exe = std::env::current_exe().context("find the running executable")?;
    exe.into_os_string().into_string().map_err(|p| anyhow::anyhow!("{p:?} is no text"))
}

/// A client inside the lab that goes on asking, with one connection held open beside, until it is stopped.
pub struct Load {
    child: Child,
    started: Instant,
}

impl Load {
    pub fn start(lab: &Lab, from: &str, host: &str, port: u16) -> Result<Self> {
        let mut command = lab.command(from, &exe()?)?;
        command.args(["lab-ask", "--hold", "--host", host, "--port", &port.to_string(), "--pause", "2ms"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let load = Self { child, started: Instant::now() };
        // Into its stride before anything happens.
        std::thread::sleep(Duration::from_millis(300));
        Ok(load)
    }

    /// What it saw, and for how long it ran.
    pub fn stop(mut self) -> Result<(Report, Duration)> {
        // The end of its input is its sign to stop.
        drop(self.child.stdin.take());
        let ran = self.started.elapsed();
        let (mut report, mut errors) = (String::new(), String::new());
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut report)?;
        }
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors)?;
        }
        if !self.child.wait()?.success() {
            bail!("the load ended: {}", errors.trim());
        }
        Ok((serde_json::from_str(&report).context("report of the load")?, ran))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Ended already when it was stopped.
        let _ended = self.child.kill();
        let _collected = self.child.wait();
    }
}
