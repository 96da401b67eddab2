//! Nanoseconds a packet of the kernel programs, by BPF_PROG_TEST_RUN; the dataplane's example measures, this reports.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::report::Report;

pub fn run(report: &mut Report) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("examples").join("bench_programs");
    let output = Command::new(&program).output().with_context(|| format!("run {}", program.display()))?;
    ensure!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).context("JSON of bench_programs")?;
    let rows = results["results"].as_array().or(results.as_array()).context("a list of results")?.clone();
    for row in &rows {
        let name = row["name"].as_str().context("name")?;
        let ns = row["ns"].as_f64().context("ns")?;
        let empty = row["empty_ns"].as_f64().context("empty_ns")?;
        report.ratio(format!("program {name}"), (ns, "ns"), (empty, "ns (empty program)"));
    }
    report.save("programs", results)
}
