//! One micro-batch as flat arrays: the chosen sequences end to end, without padding.
//!
//! Left out: target shifting. The row that predicts packed token `t` is `t - 1`; that it belongs
//! to the same sequence is guaranteed here, because a loss mask on a first token is refused.

use crate::PackError;

/// A batch of sequences of different lengths, stored end to end.
///
/// Sequence `i` is `offsets[i]..offsets[i + 1]` of every per-token array.
#[derive(Debug, Clone, Copy)]
pub struct Ragged<'a, Token> {
    /// Token ids.
    pub tokens: &'a [Token],
    /// Which tokens take part in the loss.
    pub loss_mask: &'a [bool],
    /// Where each sequence starts, and the end of the last.
    pub offsets: &'a [i64],
    /// Named per-token values, such as old log-probabilities and advantages.
    pub columns: &'a [(&'a str, &'a [f32])],
}

/// The arrays of one micro-batch; all but `cu_seqlens` hold one value per token.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Token ids.
    pub tokens: Vec<i64>,
    /// Position of each token in its own sequence, from 0.
    pub positions: Vec<i64>,
    /// Where each sequence starts in the micro-batch, and the end of the last.
    pub cu_seqlens: Vec<i32>,
    /// Index in the batch of the sequence each token came from.
    pub sequence: Vec<i32>,
    /// Which tokens take part in the loss.
    pub loss_mask: Vec<bool>,
    /// The named values, in the order they came.
    pub columns: Vec<Vec<f32>>,
}

/// Gathers the sequences `indices` of `batch`, in that order.
///
/// # Errors
///
/// [`PackError`] if the arrays do not describe a batch, an index is outside it, a chosen sequence
/// is empty, or its first token carries loss.
pub fn assemble<Token>(batch: &Ragged<'_, Token>, indices: &[i64]) -> Result<Packed, PackError>
where
    Token: Copy + Into<i64>,
{
    let spans = spans(batch, indices)?;
    let total: usize = spans.iter().map(|span| span.end - span.start).sum();
    if i32::try_from(total).is_err() {
        return Err(PackError::TooManyTokens { tokens: total });
    }

    let mut packed = Packed {
        tokens: Vec::with_capacity(total),
        positions: Vec::with_capacity(total),
        cu_seqlens: Vec::with_capacity(spans.len() + 1),
        sequence: Vec::with_capacity(total),
        loss_mask: Vec::with_capacity(total),
        columns: vec![Vec::with_capacity(total); batch.columns.len()],
    };
    packed.cu_seqlens.push(0);
    for span in spans {
        let range = span.start..span.end;
        packed.tokens.extend(
            batch.tokens[range.clone()]
                .iter()
                .map(|&token| token.into()),
        );
        packed.positions.extend((0_i64..).take(range.len()));
        packed
            .sequence
            .extend(std::iter::repeat_n(span.index, range.len()));
        packed
            .loss_mask
            .extend_from_slice(&batch.loss_mask[range.clone()]);
        for (values, (_, source)) in packed.columns.iter_mut().zip(batch.columns) {
            values.extend_from_slice(&source[range.clone()]);
        }
        packed.cu_seqlens.push(packed.tokens.len() as i32); // checked above: `total` fits
    }
    Ok(packed)
}

/// Where one chosen sequence lies in the batch.
struct Span {
    index: i32,
    start: usize,
    end: usize,
}

/// Checks the batch and finds the chosen sequences.
fn spans<Token>(batch: &Ragged<'_, Token>, indices: &[i64]) -> Result<Vec<Span>, PackError> {
    let tokens = batch.tokens.len();
    check_length("loss_mask", batch.loss_mask.len(), tokens)?;
    for (name, values) in batch.columns {
        check_length(name, values.len(), tokens)?;
    }
    check_offsets(batch.offsets, tokens)?;

    let sequences = batch.offsets.len() - 1;
    indices
        .iter()
        .map(|&given| {
            let missing = PackError::NoSuchSequence {
                index: given,
                sequences,
            };
            let index = i32::try_from(given).map_err(|_| missing.clone())?;
            let at = usize::try_from(given).map_err(|_| missing.clone())?;
            let (Some(&start), Some(&end)) = (batch.offsets.get(at), batch.offsets.get(at + 1))
            else {
                return Err(missing);
            };
            let (start, end) = (start as usize, end as usize); // checked above: within the batch
            if start == end {
                return Err(PackError::EmptySequence { index: at });
            }
            if batch.loss_mask[start] {
                return Err(PackError::UnpredictedToken { index: at });
            }
            Ok(Span { index, start, end })
        })
        .collect()
}

fn check_length(name: &str, found: usize, expected: usize) -> Result<(), PackError> {
    if found == expected {
        Ok(())
    } else {
        Err(PackError::LengthMismatch {
            name: name.to_owned(),
            found,
            expected,
        })
    }
}

/// Offsets start at 0, never fall, and end at the number of tokens.
fn check_offsets(offsets: &[i64], tokens: usize) -> Result<(), PackError> {
    let bad = |position, value, expected| {
        Err(PackError::BadOffset {
            position,
            value,
            expected,
        })
    };
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return bad(0, 0, "at least one offset, found none".to_owned());
    };
    if first != 0 {
        return bad(0, first, "`0`".to_owned());
    }
    for (position, pair) in offsets.windows(2).enumerate() {
        if pair[1] < pair[0] {
            return bad(position + 1, pair[1], format!("at least `{}`", pair[0]));
        }
    }
    if usize::try_from(last) != Ok(tokens) {
        return bad(
            offsets.len() - 1,
            last,
            format!("`{tokens}`, the number of tokens"),
        );
    }
    Ok(())
}
