//! What changed since the last snapshot: appended before it is programmed, so that a killed agent comes back to what
//! the kernel's maps hold, at a cost of O(change). Not synced: what a power loss takes of it, it takes of the maps too.
//!
//! Files `journal.N`, one JSON value a line. A snapshot names the first that goes on top of it; older ones are removed
//! when it is on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use eastwest_compile::Object;
use eastwest_model::{Kind, Revision};
use serde::{Deserialize, Serialize};

/// One change, as it was taken up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Entry {
    Put { revision: Revision, object: Object },
    Delete { revision: Revision, kind: Kind, namespace: String, name: String },
}

/// Where the core leaves its changes. Memory stands in for it in tests.
pub trait Journal: Send {
    /// Keeps these before they are programmed.
    ///
    /// # Errors
    /// Of the file system. The change is programmed all the same: a node that serves goes before one that remembers.
    fn append(&mut self, entries: &[Entry]) -> io::Result<()>;
    /// From here on changes go on top of the snapshot that is taken now. Gives back the number for its header.
    ///
    /// # Errors
    /// Of the file system.
    fn rotate(&mut self) -> io::Result<u64>;
}

/// A journal in a folder.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    number: u64,
    file: Option<File>,
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal.{number}"))
}

/// Numbers of the journals there are, in order.
fn numbers(dir: &Path) -> Vec<u64> {
    let mut numbers: Vec<u64> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("journal.")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The changes on top of a snapshot that names `first`. Ends at the first line that is not whole: the writer was
/// stopped there.
pub fn read(dir: &Path, first: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    for number in numbers(dir).into_iter().filter(|n| *n >= first) {
        let Ok(file) = File::open(path(dir, number)) else { continue };
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        while matches!(file.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            match serde_json::from_slice(&line) {
                Ok(entry) if line.ends_with(b"\n") => entries.push(entry),
                _ => return entries,
            }
            line.clear();
        }
    }
    entries
}

/// Removes what a snapshot that names `first` holds.
pub fn remove_before(dir: &Path, first: u64) {
    for number in numbers(dir).into_iter().filter(|n| *n < first) {
        // One that stays is not read again, and goes with the next snapshot.
        let _ = fs::remove_file(path(dir, number));
    }
}

impl Files {
    /// Goes on after the journals that are in the folder; makes no file yet.
    pub fn new(dir: &Path) -> Self {
        let number = numbers(dir).last().map_or(0, |n| n + 1);
        Self { dir: dir.to_owned(), number, file: None }
    }
}

impl Journal for Files {
    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                fs::create_dir_all(&self.dir)?;
                let path = path(&self.dir, self.number);
                none.insert(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        // One write: a kill leaves all of it or, on a full disk, a cut line, where reading ends.
        file.write_all(&lines)
    }

    fn rotate(&mut self) -> io::Result<u64> {
        self.number += 1;
        self.file = None;
        Ok(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: u64, name: &str) -> Entry {
        Entry::Put { revision: Revision(revision), object: Object::Namespace { name: name.into() } }
    }

    #[test]
    fn what_is_on_top_of_a_snapshot_comes_back_in_order() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Files::new(dir.path());
        journal.append(&[entry(1, "a")]).expect("append");
        let first = journal.rotate().expect("rotate");
        journal.append(&[entry(2, "b"), entry(3, "c")]).expect("append");
        journal.append(&[entry(4, "d")]).expect("append");
        assert_eq!(read(dir.path(), first), [entry(2, "b"), entry(3, "c"), entry(4, "d")]);
        assert_eq!(read(dir.path(), 0).len(), 4);
        remove_before(dir.path(), first);
        assert_eq!(read(dir.path(), 0).len(), 3);

        // Another process goes on after it.
        let mut next = Files::new(dir.path());
        next.append(&[entry(5, "e")]).expect("append");
        assert_eq!(read(dir.path(), first).last(), Some(&entry(5, "e")));
    }

    #[test]
    fn a_cut_line_ends_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = Files::new(dir.path());
        journal.append(&[entry(1, "a"), entry(2, "b")]).expect("append");
        let file = dir.path().join("journal.0");
        let bytes = fs::read(&file).expect("read");
        for cut in 0..=bytes.len() {
            fs::write(&file, &bytes[..cut]).expect("write");
            let whole = bytes[..cut].iter().filter(|b| **b == b'\n').count();
            assert_eq!(read(dir.path(), 0).len(), whole, "cut at {cut}");
        }
    }
}
