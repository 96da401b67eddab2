//! UDP packets of 60 bytes through a NIC to a backend on another node; the dataplane's example measures, this reports.

use anyhow::{Context, Result};

use crate::report::{Report, example};

pub fn run(report: &mut Report) -> Result<()> {
    let services = "10000";
    let results = example("bench_nic", &[services, if report.quick { "3" } else { "12" }])?;
    let rows = results.as_array().context("a list of results")?;
    for flows in [1, 1000] {
        let rate = |way: &str| {
            let row = rows.iter().find(|row| row["way"] == way && row["flows"] == flows);
            row.and_then(|row| row["delivered_per_cpu_s"].as_f64()).context("a rate")
        };
        for (way, label) in [("nftables", "nftables map DNAT"), ("iptables", "iptables")] {
            report.ratio(
                format!("packets delivered in a second of one CPU, NIC → remote backend, {flows} flows, {services} Services"),
                (rate("xdp")?, "/s"),
                (rate(way)?, &format!("/s ({label})")),
            );
        }
    }
    report.save("nic", results)
}
