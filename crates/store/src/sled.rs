use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use eastwest_model::{Kind, Revision};

use crate::head::{Head, Note};
use crate::object::labels_of;
use crate::store::panic_text;
use crate::{Change, Disk, Error, Key, Loaded, Object};

/// Layout of keys and values below; a store with another number is refused.
const FORMAT: u32 = 1;
/// sled's page cache. We read everything once at start and never again.
const CACHE_BYTES: u64 = 32 << 20;

/// sled puts what is larger than a quarter of this into files of their own, and a page holds up to 17 objects: with 4 MiB
/// that is left to objects of megabytes. Fixed when the store is made.
const SEGMENT_BYTES: usize = 4 << 20;

const META_FORMAT: &[u8] = b"m\0format";
const META_ID: &[u8] = b"m\0id";
const META_HEAD: &[u8] = b"m\0head";
/// Objects: `o\0KIND\0NAMESPACE\0NAME` → revision (8 bytes, big endian), JSON.
const OBJECT: &[u8] = b"o\0";

/// A sled database in a directory of its own. One process may have it open.
///
/// On Linux sled's own flush ends with `sync_file_range`, which leaves the file's size and the disk's cache alone: enough
/// for a crash of the process, not for one of the machine. So each flush here is followed by what makes it last.
#[derive(Debug)]
pub struct Sled {
    path: PathBuf,
    db: ::sled::Db,
    files: Files,
    head: Head,
    note: Option<Note>,
    /// Set by the first write that failed: what of it is on disk is not known, so no other may follow.
    failed: Option<Error>,
}

/// The files behind the database, for syncing them.
#[derive(Debug)]
struct Files {
    log: File,
    blobs: PathBuf,
    /// When the directory of large values last changed, and what was in it.
    blobs_changed: Option<SystemTime>,
    synced: BTreeSet<OsString>,
}

impl Files {
    fn open(path: &Path) -> std::io::Result<Self> {
        let this = Self {
            log: File::open(path.join("db"))?,
            blobs: path.join("blobs"),
            blobs_changed: None,
            synced: BTreeSet::new(),
        };
        for dir in [Some(path), path.parent()].into_iter().flatten() {
            if !dir.as_os_str().is_empty() {
                File::open(dir)?.sync_all()?;
            }
        }
        Ok(this)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        let changed = std::fs::metadata(&self.blobs)?.modified().ok();
        if changed.is_none() || changed != self.blobs_changed {
            let mut there = BTreeSet::new();
            for entry in std::fs::read_dir(&self.blobs)? {
                let name = entry?.file_name();
                if !self.synced.contains(&name) {
                    match File::open(self.blobs.join(&name)) {
                        Ok(file) => file.sync_all()?,
                        // sled removes what it no longer needs.
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                        Err(e) => return Err(e),
                    }
                }
                there.insert(name);
            }
            File::open(&self.blobs)?.sync_all()?;
            (self.synced, self.blobs_changed) = (there, changed);
        }
        self.log.sync_data()
    }
}

impl Sled {
    /// Opens or creates the database. A directory that does not open is left as it is, and the error says what to do.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            // Every batch is flushed by us before it is acknowledged; a timer would only add writes.
            .flush_every_ms(None);
        // sled panics on some kinds of damage.
        let db = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => db,
            Ok(Err(e)) => return Err(refuse(path, &e.to_string())),
            Err(panic) => return Err(refuse(path, &panic_text(&*panic))),
        };
        let files = Files::open(path).map_err(|e| refuse(path, &e.to_string()))?;
        let (head, note) = Head::open(path).map_err(|e| refuse(path, &e.to_string()))?;
        Ok(Self { path: path.to_owned(), db, files, head, note, failed: None })
    }

    /// What is there, even when it is less than there should be.
    pub fn salvage(&self) -> Result<Loaded, Error> {
        match catch_unwind(AssertUnwindSafe(|| self.read_all())) {
            Ok(loaded) => loaded,
            Err(panic) => Err(refuse(&self.path, &panic_text(&*panic))),
        }
    }

    /// Notes the newest revision.
    fn note(&mut self, revision: Revision) -> std::io::Result<()> {
        let Some(note) = &mut self.note else { return Ok(()) };
        note.revision = revision;
        self.head.set(note)
    }

    fn read_all(&self) -> Result<Loaded, Error> {
        let fail = |e: &dyn std::fmt::Display| refuse(&self.path, &e.to_string());
        let meta = |key: &[u8]| self.db.get(key).map_err(|e| fail(&e));
        let store_id = match meta(META_FORMAT)? {
            None if self.db.is_empty() => {
                let id = uuid::Uuid::new_v4().to_string();
                let mut batch = ::sled::Batch::default();
                batch.insert(META_FORMAT, &FORMAT.to_be_bytes());
                batch.insert(META_ID, id.as_bytes());
                batch.insert(META_HEAD, &0u64.to_be_bytes());
                self.db.apply_batch(batch).and_then(|()| self.db.flush()).map_err(|e| fail(&e))?;
                id
            }
            None => return Err(fail(&"it holds data that is not ours")),
            Some(v) if *v == FORMAT.to_be_bytes() => {
                let id = meta(META_ID)?.ok_or_else(|| fail(&"its id is missing"))?;
                String::from_utf8(id.to_vec()).map_err(|e| fail(&e))?
            }
            Some(_) => {
                return Err(fail(&"it was written by another version, in a format unknown to this one"));
            }
        };
        let head = meta(META_HEAD)?
            .and_then(|v| <[u8; 8]>::try_from(&*v).ok())
            .map(u64::from_be_bytes)
            .ok_or_else(|| fail(&"its revision is missing"))?;
        let mut objects = Vec::new();
        for entry in self.db.scan_prefix(OBJECT) {
            let (key, value) = entry.map_err(|e| fail(&e))?;
            let object = decode(&key, &value).map_err(|why| fail(&why))?;
            if object.revision.0 > head {
                return Err(fail(&format!("{} is newer than the store's own revision", object.key)));
            }
            objects.push(object);
        }
        Ok(Loaded { store_id, head: Revision(head), objects })
    }
}

/// The message an operator reads when the store does not open.
fn refuse(path: &Path, why: &str) -> Error {
    let path = path.display();
    if why.contains("acquire lock") {
        return Error::Open(format!("the store in {path} is open in another process: {why}"));
    }
    Error::Open(format!(
        "the store in {path} does not open: {why}. To go on, move {path} aside and restore a backup in its place; with \
         no backup, an empty directory starts a new history"
    ))
}

impl Disk for Sled {
    fn load(&mut self) -> Result<Loaded, Error> {
        let loaded = self.salvage()?;
        if let Some(note) = &self.note {
            let lost = if note.store_id != loaded.store_id {
                Some(format!("it should be store {} and is store {}", note.store_id, loaded.store_id))
            } else if note.revision > loaded.head {
                Some(format!("it holds revision {} and should hold {}", loaded.head, note.revision))
            } else {
                None
            };
            if let Some(lost) = lost {
                return Err(refuse(&self.path, &format!("it has lost acknowledged writes: {lost}")));
            }
        }
        self.note = Some(Note { store_id: loaded.store_id.clone(), revision: loaded.head });
        self.note(loaded.head).map_err(|e| refuse(&self.path, &e.to_string()))?;
        Ok(loaded)
    }

    fn write(&mut self, changes: &[Change], head: Revision) -> Result<(), Error> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let mut batch = ::sled::Batch::default();
        for change in changes {
            let key = encode_key(&change.key);
            match &change.value {
                Some((revision, json)) => {
                    let mut value = Vec::with_capacity(8 + json.len());
                    value.extend_from_slice(&revision.0.to_be_bytes());
                    value.extend_from_slice(json);
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        batch.insert(META_HEAD, &head.0.to_be_bytes());
        let write = || self.db.apply_batch(batch).and_then(|()| self.db.flush());
        let why = match catch_unwind(AssertUnwindSafe(write)) {
            Ok(Ok(_)) => match self.files.sync().and_then(|()| self.note(head)) {
                Ok(()) => return Ok(()),
                Err(e) => e.to_string(),
            },
            Ok(Err(e)) => e.to_string(),
            Err(panic) => panic_text(&*panic),
        };
        let failed = Error::Write(format!("{why}; restart the controller when the disk is well again"));
        self.failed = Some(failed.clone());
        Err(failed)
    }
}

fn encode_key(key: &Key) -> Vec<u8> {
    let mut out = OBJECT.to_vec();
    out.extend_from_slice(key.kind.name().as_bytes());
    out.push(0);
    out.extend_from_slice(key.namespace.as_bytes());
    out.push(0);
    out.extend_from_slice(key.name.as_bytes());
    out
}

fn decode(key: &[u8], value: &[u8]) -> Result<Object, String> {
    let text = std::str::from_utf8(&key[OBJECT.len()..]).map_err(|_| "a key is not text".to_owned())?;
    let mut parts = text.splitn(3, '\0');
    let (Some(kind), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("key {text:?} is cut"));
    };
    let kind = Kind::ALL
        .into_iter()
        .find(|k| k.name() == kind)
        .ok_or_else(|| format!("kind {kind:?} is unknown to this version"))?;
    let (revision, json) =
        value.split_first_chunk::<8>().ok_or_else(|| format!("the value of {text:?} is cut"))?;
    let labels = labels_of(json).map_err(|e| format!("the value of {text:?} does not parse: {e}"))?;
    Ok(Object {
        key: Key::new(kind, namespace, name),
        revision: Revision(u64::from_be_bytes(*revision)),
        json: Bytes::copy_from_slice(json),
        labels,
    })
}
