//! The entries that are given, out of those found.

use crate::tools::text::{PAGE_BYTES, json_bytes};

/// Takes entries one after the other and keeps those from `skip` on, `head` at most, as long as there is room.
#[derive(Debug)]
pub struct Page {
    skip: usize,
    head: usize,
    room: usize,
    lines: Vec<String>,
    total: usize,
}

/// Where a page was, to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    room: usize,
    lines: usize,
    total: usize,
}

impl Page {
    pub fn new(skip: usize, head: usize) -> Self {
        Self { skip, head, room: PAGE_BYTES, lines: Vec::new(), total: 0 }
    }

    pub fn push(&mut self, line: &str) {
        if self.takes() {
            // What comes after one that had no room is not given either, or there would be a gap.
            match self.room.checked_sub(json_bytes(line) + 2) {
                Some(room) => {
                    self.room = room;
                    self.lines.push(line.to_owned());
                }
                None => self.head = self.lines.len(),
            }
        }
        self.total += 1;
    }

    /// Counts an entry that need not be made, for it is not taken.
    pub fn pass(&mut self) {
        self.total += 1;
    }

    /// Whether the next entry will be given.
    pub fn takes(&self) -> bool {
        self.total >= self.skip && self.lines.len() < self.head
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    pub fn given(&self) -> usize {
        self.lines.len()
    }

    pub fn total(&self) -> usize {
        self.total
    }

    /// Says how many entries there are, where not all were pushed.
    pub fn set_total(&mut self, total: usize) {
        self.total = total;
    }

    /// The offset at which to go on, if there is more.
    pub fn next(&self) -> Option<usize> {
        let next = self.skip + self.lines.len();
        (next < self.total).then_some(next)
    }

    pub fn mark(&self) -> Mark {
        Mark { room: self.room, lines: self.lines.len(), total: self.total }
    }

    pub fn back_to(&mut self, mark: Mark) {
        self.room = mark.room;
        self.lines.truncate(mark.lines);
        self.total = mark.total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_skips_stops_and_goes_back() {
        let mut page = Page::new(1, 2);
        page.push("a");
        page.push("b");
        let mark = page.mark();
        page.push("x");
        page.back_to(mark);
        ["c", "d", "e"].into_iter().for_each(|line| page.push(line));
        assert_eq!(
            (page.lines(), page.total(), page.next()),
            (["b", "c"].map(String::from).as_slice(), 5, Some(3))
        );
    }

    #[test]
    fn a_page_has_an_end() {
        let mut page = Page::new(0, 1_000_000);
        (0..1_000).for_each(|_| page.push(&"x".repeat(500)));
        assert!(page.given() > 100 && page.given() * 502 <= PAGE_BYTES);
        page.push("a");
        assert_eq!((page.next(), page.total()), (Some(page.given()), 1_001));
    }
}
