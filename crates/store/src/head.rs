//! The newest revision, noted beside the database. sled takes damage in its log for the log's end and opens at an
//! earlier state; without a note of its own the store would go on from there, and use revisions a second time that
//! agents already hold with another content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use eastwest_model::Revision;

/// The note is written after each flush but synced only so often: after a power cut it may be older than the store,
/// which costs some of its power and never gives a false alarm.
const SYNC: Duration = Duration::from_secs(5);

/// What was noted last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub store_id: String,
    pub revision: Revision,
}

#[derive(Debug)]
pub(crate) struct Head {
    file: File,
    synced: Instant,
}

impl Head {
    /// Opens or creates the note in the store's directory. An unreadable note (torn by a power cut) counts as none.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Option<Note>)> {
        let path = dir.join("head");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let mut text = [0; 128];
        let n = file.read_at(&mut text, 0)?;
        let note = std::str::from_utf8(&text[..n]).ok().and_then(parse);
        if note.is_none() && n > 0 {
            tracing::warn!(path = %path.display(), "the note of the newest revision does not read and is made anew");
        }
        Ok((Self { file, synced: Instant::now() }, note))
    }

    /// Notes a revision that is durable.
    pub(crate) fn set(&mut self, note: &Note) -> io::Result<()> {
        // Of one length always, and within one sector.
        let line = format!("{} {:020} {:020} end\n", note.store_id, note.revision.0, !note.revision.0);
        self.file.write_all_at(line.as_bytes(), 0)?;
        if self.synced.elapsed() >= SYNC {
            self.file.sync_data()?;
            self.synced = Instant::now();
        }
        Ok(())
    }
}

fn parse(text: &str) -> Option<Note> {
    let mut parts = text.lines().next()?.split(' ');
    let (store_id, revision, check, end) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (revision, check): (u64, u64) = (revision.parse().ok()?, check.parse().ok()?);
    (check == !revision && end == "end")
        .then(|| Note { store_id: store_id.to_owned(), revision: Revision(revision) })
}
