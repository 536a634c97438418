//! Packing: which sequences share a micro-batch, and the flat arrays of one micro-batch.
//!
//! Two steps, both pure functions of numbers:
//!
//! 1. [`pack_bins`] plans: lengths and a token cap in, a bin for every sequence out.
//! 2. [`assemble`] gathers: the batch's ragged arrays and one bin's sequences in, flat arrays out.
//!
//! The crate knows nothing of Python, tensors or losses, and it never reorders within a sequence.
//! Invariants: every sequence lands in exactly one bin, no bin exceeds the cap, and equal input
//! gives equal output on every machine.

mod assemble;
mod bins;
mod capacity;

pub use assemble::{Packed, Ragged, assemble};
pub use bins::{Bins, pack_bins};

/// Why a batch cannot be packed. Every variant is the caller's input at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A sequence without tokens has no place in a packed batch.
    #[error("sequence `{index}` has length `0`")]
    EmptySequence {
        /// Position of the sequence in the input.
        index: usize,
    },
    /// The cap is hard, and sequences are never split.
    #[error("sequence `{index}` has length `{length}`, above the cap of `{cap}` tokens")]
    TooLong {
        /// Position of the sequence in the input.
        index: usize,
        /// Its length in tokens.
        length: u32,
        /// The most tokens a bin may hold.
        cap: u32,
    },
    /// Offsets must start at 0, never fall, and end at the number of tokens.
    #[error("offset `{position}` is `{value}`, expected {expected}")]
    BadOffset {
        /// Position in the offsets array.
        position: usize,
        /// What stands there.
        value: i64,
        /// What would have been right, in words.
        expected: String,
    },
    /// Per-token arrays must be as long as the token array.
    #[error("`{name}` holds `{found}` values for `{expected}` tokens")]
    LengthMismatch {
        /// Name of the array.
        name: String,
        /// Its length.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// A bin names a sequence that the batch does not have.
    #[error("sequence index `{index}` is outside the batch of `{sequences}` sequences")]
    NoSuchSequence {
        /// The index as given.
        index: i64,
        /// How many sequences the batch has.
        sequences: usize,
    },
    /// The first token of a sequence has no predecessor to predict it from.
    #[error(
        "the loss mask is set on the first token of sequence `{index}`, which nothing predicts"
    )]
    UnpredictedToken {
        /// Position of the sequence in the input.
        index: usize,
    },
    /// `cu_seqlens` is 32-bit because attention kernels want it so.
    #[error("a micro-batch of `{tokens}` tokens does not fit 32-bit offsets")]
    TooManyTokens {
        /// Tokens in the micro-batch.
        tokens: usize,
    },
}
