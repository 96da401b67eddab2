//! The last good state on disk, with the journal of changes on top, by which a node serves at once after a restart, with or without a controller.
//!
//! One JSON value a line: a header, the objects in the form the compiler keeps, a checksum. Written beside the old one,
//! synced, and moved over it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use eastwest_client::sync::Position;
use eastwest_compile::{Context, Object};
use serde::{Deserialize, Serialize};

use crate::journal::{self, Entry};

/// Version of the format; a file of another one is set aside.
const FORMAT: u32 = 4;
const NAME: &str = "snapshot";

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub position: Position,
    pub objects: Vec<Object>,
    /// Number of the first journal on top of it.
    pub journal: u64,
    /// What that and later journals hold. Empty in one that is to be written.
    pub changes: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: u32,
    /// What the objects were compiled for: which endpoints are local, which addresses are endpoints.
    node: String,
    service_cidrs: Vec<ipnet::IpNet>,
    /// And which names endpoints go by.
    #[serde(default)]
    pod_names: bool,
    position: Position,
    objects: usize,
    journal: u64,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    checksum: String,
}

/// A snapshot that cannot be used. It has been moved to `set_aside`, so that the next start does not meet it.
#[derive(Debug, thiserror::Error)]
#[error("{reason}; moved to {set_aside}")]
pub struct Unusable {
    pub reason: String,
    pub set_aside: PathBuf,
}

/// Where snapshots are kept, and for whom they are good.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
    context: Context,
}

/// FNV-1a, 64 bits: finds cut and flipped bytes, keeps no secret.
struct Checksum(u64);

impl Checksum {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}

impl Snapshots {
    pub fn new(dir: &Path, context: Context) -> Self {
        Self { dir: dir.to_owned(), context }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// Reads the snapshot; `None`: there is none.
    ///
    /// # Errors
    /// One that is cut, changed, of another version or of another node: it is set aside.
    pub fn read(&self) -> Result<Option<Snapshot>, Unusable> {
        let path = self.path();
        let reason = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => e.to_string(),
            Ok(file) => match self.parse(BufReader::new(file)) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(reason) => reason,
            },
        };
        let set_aside = self.dir.join(format!("{NAME}.unusable"));
        let reason = match fs::rename(&path, &set_aside) {
            Ok(()) => format!("{}: {reason}", path.display()),
            Err(e) => format!("{}: {reason} (and it cannot be moved: {e})", path.display()),
        };
        Err(Unusable { reason, set_aside })
    }

    fn parse(&self, mut file: impl BufRead) -> Result<Snapshot, String> {
        let mut checksum = Checksum::new();
        let mut line = String::new();
        let mut next = |line: &mut String| -> Result<(), String> {
            line.clear();
            file.read_line(line).map_err(|e| e.to_string())?;
            if line.ends_with('\n') { Ok(()) } else { Err("it is cut short".into()) }
        };
        next(&mut line)?;
        checksum.add(line.as_bytes());
        let header: Header = serde_json::from_str(&line).map_err(|_| "it has no header".to_owned())?;
        if header.format != FORMAT {
            return Err(format!("it has format {}, this version reads {FORMAT}", header.format));
        }
        if header.node != *self.context.node {
            return Err(format!("it is of node {:?}, this is {:?}", header.node, self.context.node));
        }
        if header.service_cidrs != self.context.service_cidrs {
            return Err("it was made for other service ranges".into());
        }
        if header.pod_names != self.context.pod_names {
            return Err("endpoints went by other names (endpoint_pod_names)".into());
        }
        let mut objects = Vec::new();
        for _ in 0..header.objects {
            next(&mut line)?;
            checksum.add(line.as_bytes());
            objects.push(serde_json::from_str(&line).map_err(|e| format!("object {}: {e}", objects.len()))?);
        }
        next(&mut line)?;
        let trailer: Trailer = serde_json::from_str(&line).map_err(|_| "it has no checksum".to_owned())?;
        if trailer.checksum != checksum.text() {
            return Err("its checksum is wrong".into());
        }
        let changes = journal::read(&self.dir, header.journal);
        Ok(Snapshot { position: header.position, objects, journal: header.journal, changes })
    }

    /// Writes a snapshot in place of the one before; after this it is on disk.
    ///
    /// # Errors
    /// Of the file system; the one before is then still there.
    pub fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let new = self.dir.join(format!("{NAME}.new"));
        let mut file = BufWriter::with_capacity(1 << 16, File::create(&new)?);
        let mut checksum = Checksum::new();
        let mut line = Vec::new();
        let mut write = |value: &dyn Fn(&mut Vec<u8>) -> serde_json::Result<()>| -> io::Result<()> {
            line.clear();
            value(&mut line)?;
            line.push(b'\n');
            checksum.add(&line);
            file.write_all(&line)
        };
        let header = Header {
            format: FORMAT,
            node: self.context.node.to_string(),
            service_cidrs: self.context.service_cidrs.clone(),
            pod_names: self.context.pod_names,
            position: snapshot.position.clone(),
            objects: snapshot.objects.len(),
            journal: snapshot.journal,
        };
        write(&|line| serde_json::to_writer(line, &header))?;
        for object in &snapshot.objects {
            write(&|line| serde_json::to_writer(line, object))?;
        }
        let trailer = Trailer { checksum: checksum.text() };
        serde_json::to_writer(&mut file, &trailer)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&new, self.path())?;
        // The move itself is on disk only with its folder.
        File::open(&self.dir)?.sync_all()?;
        journal::remove_before(&self.dir, snapshot.journal);
        Ok(())
    }
}
