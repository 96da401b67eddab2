//! What the kernel programs tell of connections and of packets that get none.

use std::io;

use aya::maps::{Array, MapData, RingBuf};
use eastwest_abi as abi;
use tokio::io::unix::AsyncFd;

use crate::Error;

/// The ring of events. What is told while nobody reads is lost once the ring is full, and hinders nobody.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    sampling: Array<MapData, u32>,
}

impl Events {
    pub(crate) fn new(ring: RingBuf<MapData>, sampling: Array<MapData, u32>) -> Result<Self, Error> {
        // SAFETY: the registration owns the ring, whose descriptor nothing else closes or replaces.
        let ring = unsafe { AsyncFd::register(ring) };
        let ring = ring.map_err(|source| Error::system("wait for events", source.into()))?;
        Ok(Self { ring, sampling })
    }

    /// Of so many connections and refusals one is told of from now on; 0: none.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn sample(&mut self, one_of: u32) -> Result<(), Error> {
        let written = self.sampling.set(0, one_of, 0);
        written.map_err(|error| crate::ebpf::failed(abi::maps::SAMPLING, "update", error))
    }

    /// Waits for events, and appends at most `most` to `to`.
    ///
    /// # Errors
    /// When the kernel's ring cannot be waited for.
    pub async fn read(&mut self, to: &mut Vec<abi::Event>, most: usize) -> io::Result<()> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut got = 0;
            while got < most {
                let Some(item) = ring.next() else { break };
                to.extend(event(&item));
                got += 1;
            }
            if got < most {
                ready.clear_ready();
            }
            if got > 0 {
                return Ok(());
            }
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

fn event(bytes: &[u8]) -> Option<abi::Event> {
    let bytes: &[u8; size_of::<abi::Event>()] = bytes.first_chunk()?;
    // SAFETY: as many bytes as an event has, and any bytes are one (asserted in the ABI); no alignment is asked for.
    Some(unsafe { bytes.as_ptr().cast::<abi::Event>().read_unaligned() })
}
