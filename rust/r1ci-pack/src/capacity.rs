//! A set of small integers that answers "smallest member at or above x" in a few instructions.
//!
//! It is a tree of 64-bit words: bit `i` of a level says that word `i` of the level below is not
//! zero. A cap of 32,768 tokens needs three levels, so a query touches at most six words.

const WORD_BITS: usize = 64;

/// A hierarchical bitmap over `0..=max`.
pub(crate) struct CapacitySet {
    /// `levels[0]` holds one bit per integer; the last level is a single word.
    levels: Vec<Vec<u64>>,
}

impl CapacitySet {
    /// An empty set that can hold `0..=max`.
    pub(crate) fn new(max: usize) -> Self {
        let mut levels = Vec::new();
        let mut bits = max + 1;
        loop {
            let words = bits.div_ceil(WORD_BITS);
            levels.push(vec![0; words]);
            if words == 1 {
                return Self { levels };
            }
            bits = words;
        }
    }

    /// Adds `value`; adding it twice is the same as once.
    pub(crate) fn insert(&mut self, value: usize) {
        let mut position = value;
        for level in &mut self.levels {
            let word = &mut level[position / WORD_BITS];
            let was_empty = *word == 0;
            *word |= 1 << (position % WORD_BITS);
            if !was_empty {
                return; // the levels above already point here
            }
            position /= WORD_BITS;
        }
    }

    /// Removes `value`; removing an absent one does nothing.
    pub(crate) fn remove(&mut self, value: usize) {
        let mut position = value;
        for level in &mut self.levels {
            let word = &mut level[position / WORD_BITS];
            *word &= !(1 << (position % WORD_BITS));
            if *word != 0 {
                return; // something else still lives in this word
            }
            position /= WORD_BITS;
        }
    }

    /// The smallest member that is at least `value`.
    pub(crate) fn at_least(&self, value: usize) -> Option<usize> {
        let mut position = value;
        for (height, level) in self.levels.iter().enumerate() {
            let word = level.get(position / WORD_BITS)? >> (position % WORD_BITS);
            if word != 0 {
                let found = position + word.trailing_zeros() as usize;
                return Some(self.descend(height, found));
            }
            // Nothing left in this word: continue at the next one, a level up.
            position = position / WORD_BITS + 1;
        }
        None
    }

    /// The smallest member below bit `position` of level `height`.
    fn descend(&self, height: usize, mut position: usize) -> usize {
        for level in self.levels[..height].iter().rev() {
            position = position * WORD_BITS + level[position].trailing_zeros() as usize;
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::CapacitySet;

    proptest! {
        /// A `BTreeSet` is the definition of right, over one, two and three levels.
        #[test]
        fn agrees_with_a_btree_set(
            max in prop_oneof![Just(0_usize), Just(63), Just(64), 1_usize..20_000],
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut set = CapacitySet::new(max);
            let mut reference = BTreeSet::new();
            for (insert, at) in steps {
                let value = at.index(max + 1);
                if insert {
                    set.insert(value);
                    reference.insert(value);
                } else {
                    set.remove(value);
                    reference.remove(&value);
                }
                for query in [0, value, (value + 1).min(max), max] {
                    prop_assert_eq!(set.at_least(query), reference.range(query..).next().copied());
                }
            }
        }
    }

    #[test]
    fn a_query_beyond_the_end_finds_nothing() {
        let mut set = CapacitySet::new(100);
        set.insert(100);
        assert_eq!(set.at_least(100), Some(100));
        assert_eq!(set.at_least(101), None);
        assert_eq!(set.at_least(1000), None);
    }
}
