//! Results: a JSON file for each bench, one table for all.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What an example of the dataplane prints; it lies beside this program.
pub fn example(name: &str, arguments: &[&str]) -> Result<Value> {
    let program = std::env::current_exe()?.with_file_name("examples").join(name);
    let output = Command::new(&program)
        .args(arguments)
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    ensure!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("JSON of {name}"))
}

/// One line of the table.
struct Row {
    figure: String,
    value: String,
    baseline: String,
    ratio: Option<f64>,
}

pub struct Report {
    out: PathBuf,
    pub quick: bool,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(out: PathBuf, quick: bool) -> Self {
        Self { out, quick, rows: Vec::new() }
    }

    /// A figure with what it is compared to.
    pub fn ratio(&mut self, figure: impl Into<String>, value: (f64, &str), baseline: (f64, &str)) {
        self.rows.push(Row {
            figure: figure.into(),
            value: format!("{} {}", number(value.0), value.1),
            baseline: format!("{} {}", number(baseline.0), baseline.1),
            ratio: Some(value.0 / baseline.0),
        });
    }

    /// A figure that stands by itself.
    pub fn plain(&mut self, figure: impl Into<String>, value: impl Into<String>) {
        self.rows.push(Row {
            figure: figure.into(),
            value: value.into(),
            baseline: String::new(),
            ratio: None,
        });
    }

    /// Everything that was measured, for machines.
    pub fn save(&self, name: &str, results: Value) -> Result<()> {
        let path = self.out.join(format!("{name}.json"));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let document = json!({"bench": name, "quick": self.quick, "kernel": kernel.trim(), "cpus": cpus, "results": results});
        std::fs::write(&path, serde_json::to_vec_pretty(&document)?)
            .with_context(|| format!("write {}", path.display()))
    }

    pub fn print(&self) {
        println!("\n| figure | eastwest | baseline of the same run | ratio |\n|---|---|---|---|");
        for r in &self.rows {
            let ratio = r.ratio.map_or(String::new(), |x| format!("{x:.2}"));
            println!("| {} | {} | {} | {ratio} |", r.figure, r.value, r.baseline);
        }
        println!("\nraw values: {}/*.json", self.out.display());
    }
}

/// Three significant digits.
pub fn number(x: f64) -> String {
    match x.abs() {
        x if x >= 100.0 || x == 0.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// The middle one; the mean of the two middle ones.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// Nearest rank between neighbours; NaN of nothing.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let at = (sorted.len() - 1) as f64 * p / 100.0;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_and_tail() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0, 5.0], 100.0), 5.0);
        assert!(median(&[]).is_nan());
    }
}
