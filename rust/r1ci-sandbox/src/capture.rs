//! What is kept of an output stream: head and tail under a cap, whatever the child writes.

use std::collections::VecDeque;

/// One output stream of an execution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The bytes kept. If any were dropped, they were cut at [`Self::cut`].
    pub bytes: Vec<u8>,
    /// Where in `bytes` the dropped ones are missing; the length of `bytes` when none are.
    pub cut: usize,
    /// Bytes written but not kept.
    pub dropped: u64,
}

/// A stream while it is drained. Memory stays within the cap.
#[derive(Debug)]
pub(crate) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_cap: usize,
    tail_cap: usize,
    /// Bytes written so far, kept or not.
    pub total: u64,
}

impl Capture {
    pub fn new(cap: usize) -> Self {
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_cap: cap / 2,
            tail_cap: cap - cap / 2,
            total: 0,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = (self.head_cap - self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.tail_cap)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.tail_cap);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// What was kept; nothing is left.
    pub fn take(&mut self) -> Captured {
        let mut bytes = std::mem::take(&mut self.head);
        let dropped = self.total - (bytes.len() + self.tail.len()) as u64;
        let head = bytes.len();
        bytes.extend(std::mem::take(&mut self.tail));
        Captured {
            cut: if dropped == 0 { bytes.len() } else { head },
            bytes,
            dropped,
        }
    }
}

impl Captured {
    /// The stream as text, invalid UTF-8 replaced, and the position of the cut in it (in
    /// characters; the whole length when nothing was cut).
    #[must_use]
    pub fn text(&self) -> (String, usize) {
        let (head, tail) = self.bytes.split_at(self.cut);
        let mut text = String::from_utf8_lossy(head).into_owned();
        let cut = text.chars().count();
        text.push_str(&String::from_utf8_lossy(tail));
        (text, cut)
    }

    /// Replace every `from` by `to`, on both sides of the cut.
    pub(crate) fn replace(&mut self, from: &[u8], to: &[u8]) {
        if from.is_empty() {
            return;
        }
        let (head, tail) = self.bytes.split_at(self.cut);
        let mut bytes = replaced(head, from, to);
        self.cut = bytes.len();
        bytes.extend(replaced(tail, from, to));
        self.bytes = bytes;
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        result.extend_from_slice(&rest[..at]);
        result.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    result.extend_from_slice(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_kept_up_to_the_cap() {
        let mut capture = Capture::new(8);
        capture.push(b"abcde");
        capture.push(b"fgh");
        let captured = capture.take();
        assert_eq!(captured.bytes, b"abcdefgh");
        assert_eq!((captured.cut, captured.dropped), (8, 0));
    }

    #[test]
    fn beyond_the_cap_head_and_tail_remain() {
        for chunk in [1, 2, 3, 7, 26] {
            let mut capture = Capture::new(7);
            for part in b"abcdefghijklmnopqrstuvwxyz".chunks(chunk) {
                capture.push(part);
            }
            let captured = capture.take();
            assert_eq!(captured.bytes, b"abcwxyz", "chunks of {chunk}");
            assert_eq!((captured.cut, captured.dropped), (3, 19));
        }
    }

    #[test]
    fn text_counts_the_cut_in_characters() {
        let captured = Captured {
            bytes: "ééab".as_bytes().to_vec(),
            cut: 4,
            dropped: 5,
        };
        assert_eq!(captured.text(), ("ééab".to_owned(), 2));
        let captured = Captured {
            bytes: vec![b'a', 0xff, b'b'],
            cut: 3,
            dropped: 0,
        };
        assert_eq!(captured.text(), ("a\u{fffd}b".to_owned(), 3));
    }

    #[test]
    fn replacing_moves_the_cut() {
        let mut captured = Captured {
            bytes: b"at /a/b/x then /a/b/y".to_vec(),
            cut: 9,
            dropped: 1,
        };
        captured.replace(b"/a/b/", b"lib/");
        assert_eq!(captured.bytes, b"at lib/x then lib/y");
        assert_eq!(&captured.bytes[captured.cut..], b" then lib/y");
    }
}
