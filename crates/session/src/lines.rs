//! Cuts a stream of bytes into lines of bounded length. No I/O.

use wardian_protocol::frame::MAX_LINE_BYTES;

/// One line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line within the limit; any bytes.
    Whole(Vec<u8>),
    /// A line over [`MAX_LINE_BYTES`], which was thrown away as it came.
    TooLong {
        /// How long it was.
        bytes: usize,
    },
}

/// Cuts chunks into lines; holds at most [`MAX_LINE_BYTES`] and a chunk.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// Bytes of the line under way that were thrown away already.
    skipped: usize,
}

impl Lines {
    /// Takes a chunk in and returns the lines that it completed.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.extend(&rest[..end]);
            lines.push(self.take());
            rest = &rest[end + 1..];
        }
        self.extend(rest);
        lines
    }

    /// The last line, when the stream ended without a line end.
    pub fn finish(&mut self) -> Option<Line> {
        (self.skipped > 0 || !self.begun.is_empty()).then(|| self.take())
    }

    fn extend(&mut self, part: &[u8]) {
        if self.skipped > 0 {
            self.skipped = self.skipped.saturating_add(part.len());
        } else if self.begun.len() + part.len() > MAX_LINE_BYTES {
            self.skipped = self.begun.len() + part.len();
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn take(&mut self) -> Line {
        match std::mem::take(&mut self.skipped) {
            0 => Line::Whole(std::mem::take(&mut self.begun)),
            bytes => Line::TooLong { bytes },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_at_the_limit_passes_and_one_over_it_does_not() {
        let mut lines = Lines::default();
        let mut input = vec![b'a'; MAX_LINE_BYTES];
        input.push(b'\n');
        assert_eq!(lines.push(&input), [Line::Whole(vec![b'a'; MAX_LINE_BYTES])]);
        input.insert(0, b'a');
        input.extend(b"next\n");
        let cut: Vec<Line> = input.chunks(1000).flat_map(|chunk| lines.push(chunk)).collect();
        assert_eq!(cut, [Line::TooLong { bytes: MAX_LINE_BYTES + 1 }, Line::Whole(b"next".to_vec())]);
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..1000 {
            assert_eq!(lines.push(&chunk), []);
            assert!(lines.begun.capacity() <= 2 * MAX_LINE_BYTES);
        }
        assert_eq!(lines.finish(), Some(Line::TooLong { bytes: 64 * 1024 * 1000 }));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(input in prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..60), size in 1usize..9) {
            let mut lines = Lines::default();
            let mut cut: Vec<Line> = input.chunks(size).flat_map(|chunk| lines.push(chunk)).collect();
            cut.extend(lines.finish());
            let mut whole: Vec<Line> = input.split(|&b| b == b'\n').map(|line| Line::Whole(line.to_vec())).collect();
            if whole.last() == Some(&Line::Whole(Vec::new())) {
                whole.pop();
            }
            prop_assert_eq!(cut, whole);
        }
    }
}
