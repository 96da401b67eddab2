//! Nanoseconds a packet of the kernel programs, by BPF_PROG_TEST_RUN; the dataplane's example measures, this reports.

use anyhow::{Context, Result};

use crate::report::{Report, example};

pub fn run(report: &mut Report) -> Result<()> {
    let results = example("bench_programs", &[])?;
    for row in results.as_array().context("a list of results")? {
        let word = |key: &str| row[key].as_str().with_context(|| format!("{key} of {row}"));
        let ns = |key: &str| row[key].as_f64().with_context(|| format!("{key} of {row}"));
        let figure = format!("{} {}, {}", word("program")?, word("family")?, word("case")?);
        report.ratio(figure, (ns("ns")?, "ns"), (ns("empty_ns")?, "ns (empty program)"));
    }
    report.save("programs", results)
}
