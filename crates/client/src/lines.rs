//! Splits a byte stream into lines without ever holding more than one line of bounded length.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line accepted, bytes. The server takes objects up to 3 MiB.
pub const MAX_LINE: usize = 8 << 20;

/// A line grew beyond the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// The bytes of an unfinished line.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
    max: usize,
}

impl Lines {
    pub fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, max }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line that is not blank, without its end. `None`: more bytes are needed.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, TooLong> {
        loop {
            let Some(end) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched > self.max { Err(TooLong(self.max)) } else { Ok(None) };
            };
            let length = self.searched + end;
            self.searched = 0;
            if length > self.max {
                return Err(TooLong(self.max));
            }
            let line = self.buffer.split_to(length).freeze();
            self.buffer.advance(1);
            let blank = line.iter().all(u8::is_ascii_whitespace);
            if !blank {
                return Ok(Some(line));
            }
        }
    }

    /// Whether a line has begun and not ended: the stream was cut.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_refused_before_it_ends() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\r\n");
        assert_eq!(lines.next_line(), Err(TooLong(4)), "the carriage return counts");
        let mut lines = Lines::new(4);
        lines.push(b"12");
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"345");
        assert_eq!(lines.next_line(), Err(TooLong(4)));
    }

    proptest! {
        #[test]
        fn however_the_bytes_come(text in "[ab\n ]{0,60}", cuts in prop::collection::vec(1usize..5, 0..60)) {
            let wanted: Vec<String> = match text.rsplit_once('\n') {
                Some((whole, _)) => whole.split('\n').filter(|l| !l.trim().is_empty()).map(str::to_owned).collect(),
                None => vec![],
            };
            let (mut lines, mut got, mut rest) = (Lines::new(1000), vec![], text.as_bytes());
            let mut cuts = cuts.into_iter();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
                lines.push(now);
                rest = later;
                while let Some(line) = lines.next_line().unwrap() {
                    got.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(got, wanted);
            prop_assert_eq!(lines.is_partial(), !text.is_empty() && !text.ends_with('\n'));
        }
    }
}
