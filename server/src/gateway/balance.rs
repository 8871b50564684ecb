//! The order in which the requests of a route go to its revisions: smooth weighted round-robin.
//! Pure arithmetic; whose turn a request is given to, and the lock around it, is in `table`.
//!
//! nginx's rule (the greatest debt is served first, `ngx_http_upstream_round_robin.c`) can be more than
//! one request away from a share once there are four revisions: weights 3262/6/2288/26 do it. So
//! the debts are nginx's, but the choice is Tijdeman's (*The chairman assignment problem*, 1980): among
//! those that are owed anything, the one whose debt would first reach a whole request.

/// The state of one route's rotation.
#[derive(Debug)]
pub(super) struct Rotation {
    weights: Vec<i64>,
    /// What each one is owed, in requests times `total`; the debts add up to zero.
    debts: Vec<i64>,
    total: i64,
}

impl Rotation {
    /// A fresh rotation: nobody is owed anything.
    pub(super) fn new(weights: &[u32]) -> Self {
        let weights: Vec<i64> = weights.iter().map(|weight| i64::from(*weight)).collect();
        Self { debts: vec![0; weights.len()], total: weights.iter().sum(), weights }
    }

    /// Gives the next request to one of them, by index. `None` when no weight is above zero.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.total == 0 {
            return None;
        }
        for (debt, weight) in self.debts.iter_mut().zip(&self.weights) {
            *debt += weight;
        }
        let (mut chosen, mut soonest) = (None, (i64::MAX, i64::MAX));
        for (index, (debt, weight)) in self.debts.iter().zip(&self.weights).enumerate() {
            if *debt <= 0 || *weight == 0 {
                continue;
            }
            // How many requests from now its debt reaches a whole one; on a tie the heavier.
            let left = (self.total - debt + weight - 1).div_euclid(*weight);
            if (left, -weight) < soonest {
                (chosen, soonest) = (Some(index), (left, -weight));
            }
        }
        let chosen = chosen?;
        self.debts[chosen] -= self.total;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Weights as rollouts use them: any number of revisions, some at zero, sum 10 000.
    fn weights() -> impl Strategy<Value = Vec<u32>> {
        (1_usize..=16).prop_flat_map(|count| {
            proptest::collection::vec(0_u32..=10_000, count - 1).prop_map(|mut cuts| {
                cuts.extend([0, 10_000]);
                cuts.sort_unstable();
                cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
            })
        })
    }

    proptest! {
        #[test]
        fn after_any_number_of_requests_each_share_is_within_one_request(weights in weights()) {
            let mut rotation = Rotation::new(&weights);
            let mut counts = vec![0_i64; weights.len()];
            for sent in 1..=10_000_i64 {
                counts[rotation.next().expect("the weights are not all zero")] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let off = count * 10_000 - sent * i64::from(*weight);
                    prop_assert!(off.abs() < 10_000, "{counts:?} of {sent} for {weights:?}");
                }
            }
            // One whole period is exact, and begins anew.
            prop_assert!(counts.iter().zip(&weights).all(|(c, w)| *c == i64::from(*w)));
            prop_assert!(rotation.debts.iter().all(|debt| *debt == 0));
        }
    }

    #[test]
    fn the_weights_that_break_the_greedy_rule_are_kept_within_one_request() {
        let weights = [3262, 6, 2288, 26];
        let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
        let mut rotation = Rotation::new(&weights);
        for _ in 0..total {
            rotation.next();
            assert!(rotation.debts.iter().all(|debt| debt.abs() < total));
        }
    }

    #[test]
    fn a_small_share_is_spread_and_does_not_come_first() {
        let mut rotation = Rotation::new(&[9_000, 1_000]);
        let order: Vec<usize> = (0..20).filter_map(|_| rotation.next()).collect();
        let places: Vec<usize> = (0..20).filter(|i| order[*i] == 1).collect();
        assert_eq!(places.len(), 2);
        assert_eq!(places[1] - places[0], 10);
        assert_ne!(order[0], 1);
    }

    #[test]
    fn nothing_is_chosen_when_nothing_has_weight() {
        assert_eq!(Rotation::new(&[]).next(), None);
        assert_eq!(Rotation::new(&[0, 0]).next(), None);
    }
}
