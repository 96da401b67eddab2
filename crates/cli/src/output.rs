//! How objects are printed.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

/// Writes to standard output. A reader that has enough (`| head`) ends the program, as the shell's own tools end.
pub fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// One line to standard output.
macro_rules! say {
    () => { $crate::output::put("\n") };
    ($($arg:tt)*) => { $crate::output::put(&format!("{}\n", format_args!($($arg)*))) };
}
pub(crate) use say;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Wide,
    Name,
    Json,
    Yaml,
}

/// Rows under headings, columns as wide as their widest cell and three spaces apart, as kubectl sets them.
#[derive(Debug, Default)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with_widths(&self.widths(), true, f)
    }
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// Column widths in characters.
    pub fn widths(&self) -> Vec<usize> {
        let rows = || std::iter::once(&self.head).chain(&self.rows);
        let columns = rows().map(Vec::len).max().unwrap_or(0);
        (0..columns)
            .map(|i| rows().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
            .collect()
    }

    /// The rows alone, in columns set before: a watch goes on under the table it began with.
    pub fn rows_as(&self, widths: &[usize]) -> String {
        struct Rows<'a>(&'a Table, &'a [usize]);
        impl std::fmt::Display for Rows<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.with_widths(self.1, false, f)
            }
        }
        Rows(self, widths).to_string()
    }

    fn with_widths(&self, widths: &[usize], head: bool, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for row in head.then_some(&self.head).into_iter().chain(&self.rows) {
            for (i, cell) in row.iter().enumerate() {
                if i + 1 == row.len() {
                    f.write_str(cell)?;
                } else {
                    let width = widths.get(i).copied().unwrap_or(0);
                    write!(f, "{cell:<width$}   ")?;
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// A cell of a server-side table.
pub fn cell(value: &Value) -> String {
    match value {
        Value::String(s) => s.replace(['\n', '\r', '\u{1b}'], " "),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}

/// An error and its causes on one line, each said once.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "AGE"]);
        table.rows.push(vec!["a-long-name".into(), "5s".into()]);
        table.rows.push(vec!["é".into(), "1d".into()]);
        assert_eq!(table.to_string(), "NAME          AGE\na-long-name   5s\né             1d\n");
    }
}
