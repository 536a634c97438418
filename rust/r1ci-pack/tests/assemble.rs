//! The flat arrays against a loop that copies one token at a time, and every refusal.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use r1ci_pack::{PackError, Packed, Ragged, assemble};

/// A ragged batch that owns its arrays.
#[derive(Debug, Clone)]
struct Batch {
    tokens: Vec<i32>,
    mask: Vec<bool>,
    offsets: Vec<i64>,
    advantage: Vec<f32>,
}

impl Batch {
    /// Every value tells where it stood, so a misplaced one shows.
    fn new(lengths: &[usize], masked: impl Fn(usize) -> bool) -> Self {
        let total: usize = lengths.iter().sum();
        let mut offsets = vec![0];
        let mut mask = Vec::new();
        for &length in lengths {
            offsets.push(offsets.last().unwrap() + i64::try_from(length).unwrap());
            mask.extend((0..length).map(|position| position > 0 && masked(position)));
        }
        let tokens = (0..i32::try_from(total).unwrap())
            .map(|at| at + 1000)
            .collect();
        let advantage = (0..total).map(|at| at as f32 / 8.0).collect();
        Self {
            tokens,
            mask,
            offsets,
            advantage,
        }
    }

    fn pack(&self, indices: &[i64]) -> Result<Packed, PackError> {
        let columns = [("advantage", self.advantage.as_slice())];
        let batch = Ragged {
            tokens: &self.tokens,
            loss_mask: &self.mask,
            offsets: &self.offsets,
            columns: &columns,
        };
        assemble(&batch, indices)
    }
}

proptest! {
    #[test]
    fn agrees_with_a_loop_over_tokens(
        (lengths, indices) in prop::collection::vec(1_usize..20, 1..12).prop_flat_map(|lengths| {
            let indices: Vec<i64> = (0..i64::try_from(lengths.len()).unwrap()).collect();
            let chosen = prop::sample::subsequence(indices, 0..=lengths.len()).prop_shuffle();
            (Just(lengths), chosen)
        }),
    ) {
        let batch = Batch::new(&lengths, |position| position % 3 == 1);
        let packed = batch.pack(&indices).unwrap();

        let mut row = 0;
        prop_assert_eq!(packed.cu_seqlens[0], 0);
        for (place, &index) in indices.iter().enumerate() {
            let start = usize::try_from(batch.offsets[usize::try_from(index).unwrap()]).unwrap();
            for position in 0..lengths[usize::try_from(index).unwrap()] {
                let source = start + position;
                prop_assert_eq!(packed.tokens[row], i64::from(batch.tokens[source]));
                prop_assert_eq!(packed.positions[row], i64::try_from(position).unwrap());
                prop_assert_eq!(i64::from(packed.sequence[row]), index);
                prop_assert_eq!(packed.loss_mask[row], batch.mask[source]);
                prop_assert_eq!(packed.columns[0][row].to_bits(), batch.advantage[source].to_bits());
                row += 1;
            }
            prop_assert_eq!(packed.cu_seqlens[place + 1], i32::try_from(row).unwrap());
        }
        prop_assert_eq!(packed.cu_seqlens.len(), indices.len() + 1);
        for length in [
            packed.tokens.len(),
            packed.positions.len(),
            packed.sequence.len(),
            packed.loss_mask.len(),
            packed.columns[0].len(),
        ] {
            prop_assert_eq!(length, row);
        }
    }
}

#[test]
fn arrays_that_are_no_batch_are_refused() {
    let good = Batch::new(&[3, 2], |_| true);
    assert!(good.pack(&[0, 1]).is_ok());

    let refused = |change: fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        batch.pack(&[0]).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|b| b.offsets[0] = 1),
        "offset `0` is `1`, expected `0`"
    );
    assert_eq!(
        refused(|b| b.offsets[1] = 6),
        "offset `2` is `5`, expected at least `6`"
    );
    assert_eq!(
        refused(|b| b.offsets[2] = 4),
        "offset `2` is `4`, expected `5`, the number of tokens"
    );
    assert_eq!(
        refused(|b| b.offsets.clear()),
        "offset `0` is `0`, expected at least one offset, found none"
    );
    assert_eq!(
        refused(|b| b.mask.truncate(4)),
        "`loss_mask` holds `4` values for `5` tokens"
    );
    assert_eq!(
        refused(|b| b.advantage.truncate(4)),
        "`advantage` holds `4` values for `5` tokens"
    );
    assert_eq!(
        refused(|b| b.mask[0] = true),
        "the loss mask is set on the first token of sequence `0`, which nothing predicts"
    );
}

#[test]
fn indices_outside_the_batch_are_refused() {
    let batch = Batch::new(&[3, 2], |_| true);
    for index in [-1, 2, i64::MAX] {
        assert_eq!(
            batch.pack(&[index]),
            Err(PackError::NoSuchSequence {
                index,
                sequences: 2
            })
        );
    }
}

#[test]
fn an_empty_sequence_is_refused_where_it_is_chosen() {
    let batch = Batch::new(&[3, 0, 2], |_| true);
    assert_eq!(
        batch.pack(&[0, 1]),
        Err(PackError::EmptySequence { index: 1 })
    );
    assert!(batch.pack(&[2, 0]).is_ok());
}
