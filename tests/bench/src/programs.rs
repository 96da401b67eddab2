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
    for row in results.as_array().context("a list of results")? {
        let word = |key: &str| row[key].as_str().with_context(|| format!("{key} of {row}"));
        let ns = |key: &str| row[key].as_f64().with_context(|| format!("{key} of {row}"));
        let figure = format!("{} {}, {}", word("program")?, word("family")?, word("case")?);
        report.ratio(figure, (ns("ns")?, "ns"), (ns("empty_ns")?, "ns (empty program)"));
    }
    report.save("programs", results)
}
