//! Best-fit decreasing in constant time per sequence.
//!
//! Lengths are small integers, so nothing has to be compared: a counting sort gives the order,
//! open bins hang in one list per remaining capacity, and a bitmap over capacities finds the
//! tightest bin that still fits. Memory is O(sequences + min(cap, tokens)).
//!
//! Left out: cost models and ranks. Tokens are the only thing a bin counts.

use crate::{PackError, capacity::CapacitySet};

/// End of a list.
const NONE: u32 = u32::MAX;

/// The plan: a bin for every sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bins {
    /// `bin_of[i]` is the bin of sequence `i`. Bins are numbered in the order they were opened,
    /// so bin 0 holds the longest sequence.
    pub bin_of: Vec<u32>,
    /// How many bins were opened.
    pub count: usize,
}

/// Assigns each sequence to a bin of at most `cap` tokens, longest first, tightest bin first.
///
/// Deterministic: equal lengths are taken in index order, and among bins with equal room the one
/// filled last is taken. So the lengths that share a bin depend only on the multiset of lengths,
/// never on their order. Uses at most 11/9 of the optimal number of bins, plus one.
///
/// # Errors
///
/// [`PackError::EmptySequence`] and [`PackError::TooLong`] for the first sequence at fault.
///
/// # Panics
///
/// Never with fewer than 2^32 sequences.
pub fn pack_bins(lengths: &[u32], cap: u32) -> Result<Bins, PackError> {
    let tokens = validate(lengths, cap)?;
    // A bin never holds more than everything, so a huge cap costs no memory.
    let cap = usize::try_from(tokens.min(u64::from(cap))).expect("at most `cap`, a u32");

    let mut rooms = Rooms::new(cap, lengths.len());
    let mut bin_of = vec![0; lengths.len()];
    for index in longest_first(lengths) {
        let length = lengths[index as usize] as usize;
        bin_of[index as usize] = rooms.place(length);
    }
    Ok(Bins {
        bin_of,
        count: rooms.next.len(),
    })
}

/// Checks every length against the cap and returns the number of tokens.
fn validate(lengths: &[u32], cap: u32) -> Result<u64, PackError> {
    let mut tokens = 0;
    for (index, &length) in lengths.iter().enumerate() {
        if length == 0 {
            return Err(PackError::EmptySequence { index });
        }
        if length > cap {
            return Err(PackError::TooLong { index, length, cap });
        }
        tokens += u64::from(length);
    }
    Ok(tokens)
}

/// Indices by falling length, ties by rising index: a stable counting sort.
fn longest_first(lengths: &[u32]) -> Vec<u32> {
    let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
    // `start[longest - length]` counts, then becomes where the next of that length goes.
    let mut start = vec![0_u32; longest + 1];
    for &length in lengths {
        start[longest - length as usize] += 1;
    }
    let mut before = 0;
    for slot in &mut start {
        let here = *slot;
        *slot = before;
        before += here;
    }
    let mut order = vec![0; lengths.len()];
    for (index, &length) in (0_u32..).zip(lengths) {
        let slot = &mut start[longest - length as usize];
        order[*slot as usize] = index;
        *slot += 1;
    }
    order
}

/// Open bins, by how many tokens each can still take.
struct Rooms {
    cap: usize,
    /// Capacities at which at least one bin hangs.
    occupied: CapacitySet,
    /// `first[room]` is the bin filled last among those with `room` tokens left.
    first: Vec<u32>,
    /// `next[bin]` is the bin behind it in the same list; its length is the number of bins.
    next: Vec<u32>,
}

impl Rooms {
    fn new(cap: usize, sequences: usize) -> Self {
        Self {
            cap,
            occupied: CapacitySet::new(cap),
            first: vec![NONE; cap + 1],
            next: Vec::with_capacity(sequences),
        }
    }

    /// Puts `length` tokens into the tightest bin that fits, or a new one, and names the bin.
    fn place(&mut self, length: usize) -> u32 {
        let (bin, room) = if let Some(room) = self.occupied.at_least(length) {
            let bin = self.first[room];
            self.first[room] = self.next[bin as usize];
            if self.first[room] == NONE {
                self.occupied.remove(room);
            }
            (bin, room)
        } else {
            let bin = u32::try_from(self.next.len()).expect("fewer than 2^32 sequences");
            self.next.push(NONE);
            (bin, self.cap)
        };
        let left = room - length;
        if left > 0 {
            self.next[bin as usize] = self.first[left];
            self.first[left] = bin;
            self.occupied.insert(left);
        }
        bin
    }
}
