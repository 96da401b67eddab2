//! Names in memory.

use eastwest_abi::names::{Answer, NAME_MAX, Names, Question};

use super::{HostMaps, HostPacket};
use crate::checksum::Sum;
use crate::traits::Packet;
use crate::{Bulk, NameMaps, Told};

impl NameMaps for HostMaps {
    fn names(&self) -> Option<&Names> {
        Some(&self.names)
    }

    fn word(&self, index: u32) -> u64 {
        self.words[index as usize]
    }

    fn nanoseconds(&self) -> u64 {
        u64::from(self.clock) << 24
    }

    fn answer(&self, question: &Question) -> Option<&Answer> {
        self.answers.get(question)
    }

    fn count_answer(&mut self, server: u32, told: &Told) {
        told.count(&mut self.name_counts[server as usize]);
    }

    fn count_elsewhere(&mut self, server: u32) {
        self.name_counts[server as usize].elsewhere += 1;
    }
}

impl Bulk for HostPacket {
    fn copy_out<const N: usize>(&self, at: u32, to: &mut [u8; N], length: u32) -> bool {
        let (at, length) = (at as usize, length as usize);
        let from = self.bytes().get(at..at + length);
        let to = to.get_mut(..length).filter(|_| (1..=255).contains(&length));
        from.zip(to).map(|(from, to)| to.copy_from_slice(from)).is_some()
    }

    fn copy_name(&self, at: u32, to: &mut [u64; NAME_MAX / 8], length: u32) -> bool {
        let mut bytes = [0; NAME_MAX];
        let copied = self.copy_out(at, &mut bytes, length);
        for (word, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        copied
    }

    fn copy_in<const N: usize>(&mut self, at: u32, from: &[u8; N], length: u32) -> bool {
        (0..length).all(|i| self.store((at + i) as usize, &[from[i as usize]]))
    }

    fn sum<const N: usize>(bytes: &[u8; N], length: u32) -> Sum {
        let words = bytes.as_chunks().0.iter().take(length.div_ceil(4) as usize);
        words.fold(Sum::ZERO, |sum, word| sum.add(u32::from_ne_bytes(*word)))
    }
}
