//! Properties of the plan, against slow twins that are the definition of right.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use r1ci_pack::{Bins, PackError, pack_bins};

/// Lengths and a cap that fits them, from many tiny sequences to a few that fill a bin each.
fn batches(most: usize) -> impl Strategy<Value = (Vec<u32>, u32)> {
    (1_u32..300).prop_flat_map(move |cap| {
        let lengths = prop_oneof![
            prop::collection::vec(1..=cap, 0..most),
            prop::collection::vec(1..=cap.div_ceil(4), 0..most),
            prop::collection::vec(Just(cap.div_ceil(2)), 0..most),
        ];
        (lengths, Just(cap))
    })
}

/// The lengths in each bin, in order of index.
fn contents(bins: &Bins, lengths: &[u32]) -> Vec<Vec<u32>> {
    let mut contents = vec![Vec::new(); bins.count];
    for (&bin, &length) in bins.bin_of.iter().zip(lengths) {
        contents[bin as usize].push(length);
    }
    contents
}

/// Best-fit decreasing by scanning every bin; ties go to the bin filled last.
fn scan(lengths: &[u32], cap: u32) -> Vec<u32> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index])); // stable
    let mut bins: Vec<(u32, usize)> = Vec::new(); // room left, time of the last fill
    let mut bin_of = vec![0; lengths.len()];
    for (time, index) in order.into_iter().enumerate() {
        let fits = bins
            .iter()
            .enumerate()
            .filter(|(_, bin)| bin.0 >= lengths[index]);
        let best = fits.min_by_key(|(_, bin)| (bin.0, std::cmp::Reverse(bin.1)));
        let chosen = best.map_or(bins.len(), |(bin, _)| bin);
        if chosen == bins.len() {
            bins.push((cap, time));
        }
        bins[chosen] = (bins[chosen].0 - lengths[index], time);
        bin_of[index] = u32::try_from(chosen).unwrap();
    }
    bin_of
}

/// The fewest bins, by trying everything that is not the mirror image of something tried.
fn optimum(lengths: &[u32], cap: u32) -> usize {
    fn search(rest: &[u32], rooms: &mut Vec<u32>, cap: u32, best: &mut usize) {
        if rooms.len() >= *best {
            return;
        }
        let Some((&length, rest)) = rest.split_first() else {
            *best = rooms.len();
            return;
        };
        for bin in 0..rooms.len() {
            if rooms[bin] >= length && !rooms[..bin].contains(&rooms[bin]) {
                rooms[bin] -= length;
                search(rest, rooms, cap, best);
                rooms[bin] += length;
            }
        }
        rooms.push(cap - length);
        search(rest, rooms, cap, best);
        rooms.pop();
    }
    let mut best = lengths.len() + 1;
    search(lengths, &mut Vec::new(), cap, &mut best);
    best
}

proptest! {
    #[test]
    fn every_sequence_has_a_bin_and_no_bin_is_empty_or_over_the_cap((lengths, cap) in batches(200)) {
        let bins = pack_bins(&lengths, cap).unwrap();
        prop_assert_eq!(bins.bin_of.len(), lengths.len());
        for bin in contents(&bins, &lengths) {
            let load: u32 = bin.iter().sum();
            prop_assert!(0 < load && load <= cap, "a bin of {} tokens under a cap of {}", load, cap);
        }
    }

    #[test]
    fn the_plan_is_best_fit_decreasing((lengths, cap) in batches(200)) {
        prop_assert_eq!(pack_bins(&lengths, cap).unwrap().bin_of, scan(&lengths, cap));
    }

    #[test]
    fn bins_stay_within_eleven_ninths_of_the_optimum_plus_one((lengths, cap) in batches(11)) {
        let optimum = optimum(&lengths, cap);
        prop_assert!(9 * pack_bins(&lengths, cap).unwrap().count <= 11 * optimum + 9);
    }

    #[test]
    fn what_shares_a_bin_depends_on_lengths_not_on_their_order(
        (lengths, cap, shuffled) in batches(100).prop_flat_map(|(lengths, cap)| {
            (Just(lengths.clone()), Just(cap), Just(lengths).prop_shuffle())
        }),
    ) {
        let of = |lengths: &[u32]| {
            let mut contents = contents(&pack_bins(lengths, cap).unwrap(), lengths);
            for bin in &mut contents {
                bin.sort_unstable();
            }
            contents
        };
        prop_assert_eq!(of(&lengths), of(&shuffled));
    }
}

#[test]
fn a_whole_batch_packs_close_to_the_lower_bound() {
    // Log-normal-like lengths without a random generator: 2^(9..14) in a fixed irregular order.
    let lengths: Vec<u32> = (0_u32..4096)
        .map(|i| {
            let noise = i.wrapping_mul(2_654_435_761) >> 8;
            1 + (512 << (noise % 6)) + noise % 499
        })
        .collect();
    let cap = 32_768;
    let tokens: u32 = lengths.iter().sum();
    let bound = tokens.div_ceil(cap) as usize;
    let count = pack_bins(&lengths, cap).unwrap().count;
    assert!(
        count <= bound + (bound / 200).max(1),
        "{count} bins, at least {bound} needed"
    );
}

#[test]
fn an_empty_batch_needs_no_bins() {
    assert_eq!(
        pack_bins(&[], 0).unwrap(),
        Bins {
            bin_of: vec![],
            count: 0
        }
    );
}

#[test]
fn a_cap_beyond_memory_costs_none() {
    let bins = pack_bins(&[3, 1, 2], u32::MAX).unwrap();
    assert_eq!(
        bins,
        Bins {
            bin_of: vec![0, 0, 0],
            count: 1
        }
    );
}

#[test]
fn impossible_lengths_are_refused_by_name() {
    assert_eq!(
        pack_bins(&[4, 0, 9], 8),
        Err(PackError::EmptySequence { index: 1 })
    );
    let error = pack_bins(&[4, 9, 0], 8).unwrap_err();
    assert_eq!(
        error,
        PackError::TooLong {
            index: 1,
            length: 9,
            cap: 8
        }
    );
    assert_eq!(
        error.to_string(),
        "sequence `1` has length `9`, above the cap of `8` tokens"
    );
}
