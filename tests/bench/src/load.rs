//! Many Services in a node's tables: filling them, changing one endpoint, memory; the dataplane's example measures, this
//! reports.

use anyhow::{Context, Result};

use crate::report::{Report, example, number};

pub fn run(report: &mut Report) -> Result<()> {
    let sizes: &[&str] = if report.quick { &["100", "10000"] } else { &["100", "10000", "44000"] };
    let results = example("bench_apply", sizes)?;
    let rows = results["rows"].as_array().context("rows")?;
    let few = rows.first().context("a row")?;
    let of =
        |row: &serde_json::Value, key: &str| row[key].as_f64().with_context(|| format!("{key} of {row}"));
    for row in rows.iter().skip(1) {
        let services = &row["services"];
        report.plain(
            format!("tables of an empty node filled, {services} Services with {} endpoints", row["backends"]),
            format!("{} ms", number(of(row, "fill_ms")?)),
        );
        for (key, label) in [("apply_us_median", "p50"), ("apply_us_p99", "p99")] {
            report.ratio(
                format!("one endpoint changed to written, {label}, {services} Services"),
                (of(row, key)?, "µs"),
                (of(few, key)?, &format!("µs (with {})", few["services"])),
            );
        }
        report.ratio(
            format!("kernel tables, {services} Services"),
            (of(row, "tables_mb")?, "MB"),
            (of(few, "tables_mb")?, &format!("MB (with {})", few["services"])),
        );
    }
    report.save("load", results)
}
