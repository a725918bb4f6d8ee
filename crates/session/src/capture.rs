//! Keeps the first part of an output and counts the rest. No I/O.

/// What a stream said, up to a limit.
#[derive(Debug, Default)]
pub struct Capture {
    kept: Vec<u8>,
    dropped: u64,
}

impl Capture {
    /// Takes a chunk in; what is over `limit` bytes in all is only counted.
    pub fn push(&mut self, chunk: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.kept.len()).min(chunk.len());
        self.kept.extend_from_slice(&chunk[..room]);
        self.dropped = self.dropped.saturating_add((chunk.len() - room) as u64);
    }

    /// Whether nothing came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What came, as text; a cut is marked by a line of its own at the end.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.dropped > 0 {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("[wardian: {} more bytes were dropped]\n", self.dropped));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_marked_and_bytes_that_are_no_text_are_shown_as_such() {
        let mut capture = Capture::default();
        capture.push(b"ab\xff", 10);
        assert_eq!(capture.text(), "ab\u{fffd}");
        capture.push(b"cdefghijkl", 6);
        assert_eq!(capture.text(), "ab\u{fffd}cde\n[wardian: 7 more bytes were dropped]\n");
    }
}
