//! Backups: all objects of one revision in a file of JSON lines. The first line says what it is of, then each object
//! stands on a line of its own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use eastwest_model::{Kind, Revision};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::object::labels_of;
use crate::{Change, Disk, Error, Key, Object, Sled, Store};

const FORMAT: u32 = 1;
/// Changes written at a time when restoring.
const BATCH: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    eastwest_backup: u32,
    store_id: String,
    revision: Revision,
    objects: usize,
}

#[derive(Serialize)]
struct LineOut<'a> {
    revision: Revision,
    kind: Kind,
    namespace: &'a str,
    name: &'a str,
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct LineIn {
    revision: Revision,
    kind: Kind,
    namespace: String,
    name: String,
    object: Box<RawValue>,
}

impl Store {
    /// Writes a backup of the newest revision into `dir` and keeps the newest `keep` of them there. Gives its path;
    /// `None` when there is one of that revision already. Blocks.
    pub fn back_up(&self, dir: &Path, keep: usize) -> io::Result<Option<PathBuf>> {
        let (revision, objects) = self.read(|view| {
            let all: Vec<_> =
                Kind::ALL.iter().flat_map(|kind| view.range(*kind, None, None)).cloned().collect();
            (view.revision(), all)
        });
        // Another store's backup of the same revision is another backup.
        let id = self.id().get(..8).unwrap_or_else(|| self.id());
        let path = dir.join(format!("{:020}-{id}.ndjson", revision.0));
        if path.exists() {
            return Ok(None);
        }
        write(&path, self.id(), revision, objects.iter().map(AsRef::as_ref))?;
        for old in list(dir)?.iter().rev().skip(keep.max(1)) {
            std::fs::remove_file(old)?;
        }
        Ok(Some(path))
    }
}

/// Writes a backup whole or not at all.
fn write<'o>(
    path: &Path,
    store_id: &str,
    revision: Revision,
    objects: impl ExactSizeIterator<Item = &'o Object>,
) -> io::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let tmp = path.with_extension("tmp");
    let mut out = BufWriter::new(File::create(&tmp)?);
    let header =
        Header { eastwest_backup: FORMAT, store_id: store_id.to_owned(), revision, objects: objects.len() };
    serde_json::to_writer(&mut out, &header)?;
    out.write_all(b"\n")?;
    for o in objects {
        let object: &RawValue = serde_json::from_slice(&o.json)?;
        let (namespace, name) = (&*o.key.namespace, &*o.key.name);
        let line = LineOut { revision: o.revision, kind: o.key.kind, namespace, name, object };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&tmp, path)?;
    File::open(dir)?.sync_all()
}

/// Backups in `dir`, the oldest first.
fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "ndjson") {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The newest backup in `dir`, if there is one.
pub fn newest_backup(dir: &Path) -> Option<PathBuf> {
    list(dir).ok()?.pop()
}

impl Sled {
    /// Writes what a store still holds that does not open for having lost writes, as a backup, to `path`. Gives its
    /// revision and the number of objects. Blocks.
    pub fn salvage_to(store: &Path, path: &Path) -> Result<(Revision, usize), Error> {
        let loaded = Self::open(store)?.salvage()?;
        write(path, &loaded.store_id, loaded.head, loaded.objects.iter())
            .map_err(|e| Error::Open(format!("{} cannot be written: {e}", path.display())))?;
        Ok((loaded.head, loaded.objects.len()))
    }

    /// Makes a new store at `path` from a backup. It is another history, with an id of its own, that goes on from the
    /// backup's revision. Refuses when there is something at `path`, and when the backup is damaged. Blocks.
    pub fn restore(path: &Path, backup: &Path) -> Result<Revision, Error> {
        let fail =
            |why: &dyn std::fmt::Display| Error::Open(format!("{} is not restored: {why}", backup.display()));
        let occupied = std::fs::read_dir(path).is_ok_and(|mut d| d.next().is_some());
        if occupied {
            return Err(fail(&format!("{} is not empty; move it aside first", path.display())));
        }
        // All of it is read before anything is made.
        let mut lines = BufReader::new(File::open(backup).map_err(|e| fail(&e))?).lines();
        let first = lines.next().transpose().map_err(|e| fail(&e))?.unwrap_or_default();
        let header: Header = serde_json::from_str(&first)
            .map_err(|e| fail(&format!("its first line is not a backup's: {e}")))?;
        if header.eastwest_backup != FORMAT {
            return Err(fail(&format!(
                "it is of format {}, unknown to this version",
                header.eastwest_backup
            )));
        }
        let mut changes = Vec::new();
        for (i, line) in lines.enumerate() {
            let line = line.map_err(|e| fail(&e))?;
            let object: LineIn =
                serde_json::from_str(&line).map_err(|e| fail(&format!("line {}: {e}", i + 2)))?;
            labels_of(object.object.get().as_bytes()).map_err(|e| fail(&format!("line {}: {e}", i + 2)))?;
            changes.push(Change {
                key: Key::new(object.kind, &object.namespace, &object.name),
                value: Some((object.revision, Bytes::from(object.object.get().to_owned()))),
            });
        }
        if changes.len() != header.objects {
            return Err(fail(&format!(
                "it holds {} of {} objects: it is cut",
                changes.len(),
                header.objects
            )));
        }
        let mut sled = Self::open(path)?;
        sled.load()?;
        for batch in changes.chunks(BATCH) {
            sled.write(batch, header.revision)?;
        }
        sled.write(&[], header.revision)?;
        Ok(header.revision)
    }
}
