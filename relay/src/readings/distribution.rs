//! Classic buckets, read back.

/// How values are distributed, as cumulative counts below bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Distribution {
    /// In ascending order, the last one infinite.
    buckets: Vec<(f64, f64)>,
    /// All values together.
    pub(crate) sum: f64,
}

impl Distribution {
    /// Adds to the count below a bound.
    pub(crate) fn add(&mut self, bound: f64, count: f64) {
        match self.buckets.binary_search_by(|bucket| bucket.0.total_cmp(&bound)) {
            Ok(at) => self.buckets[at].1 += count,
            Err(at) => self.buckets.insert(at, (bound, count)),
        }
    }

    /// Adds another's values to these.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            self.add(*bound, *count);
        }
        self.sum += other.sum;
    }

    /// What came after an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (bound, count) in &earlier.buckets {
            since.add(*bound, -count);
        }
        since.sum -= earlier.sum;
        since
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |bucket| bucket.1)
    }

    /// Their mean, if there are any.
    pub(crate) fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0.0).then(|| self.sum / count)
    }

    /// The value that this share of them is not above, if there are any: even within the bucket it
    /// lies in, as Prometheus does; the last finite bound for what is beyond it.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count <= 0.0 {
            return None;
        }
        let rank = share * count;
        let (mut bound_before, mut count_before) = (0.0, 0.0);
        for &(bound, count) in &self.buckets {
            if count >= rank && count > count_before {
                if bound.is_infinite() {
                    return Some(bound_before);
                }
                let part = (rank - count_before) / (count - count_before);
                return Some(bound_before + (bound - bound_before) * part);
            }
            (bound_before, count_before) = (bound, count);
        }
        Some(bound_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(buckets: &[(f64, f64)]) -> Distribution {
        Distribution { buckets: buckets.to_vec(), sum: 0.0 }
    }

    #[test]
    fn quantiles_lie_evenly_in_their_bucket() {
        let distribution = distribution(&[(1.0, 0.0), (2.0, 10.0), (f64::INFINITY, 10.0)]);
        assert_eq!(distribution.quantile(0.5), Some(1.5));
        assert_eq!(distribution.quantile(1.0), Some(2.0));
    }

    #[test]
    fn beyond_the_last_bound_the_bound_is_all_that_is_known() {
        let distribution = distribution(&[(1.0, 1.0), (f64::INFINITY, 10.0)]);
        assert_eq!(distribution.quantile(0.99), Some(1.0));
    }

    #[test]
    fn without_values_there_is_no_quantile() {
        assert_eq!(distribution(&[(1.0, 0.0), (f64::INFINITY, 0.0)]).quantile(0.5), None);
        assert_eq!(Distribution::default().mean(), None);
    }

    #[test]
    fn an_interval_is_the_difference_of_two_readings() {
        let earlier = distribution(&[(1.0, 5.0), (f64::INFINITY, 6.0)]);
        let later = distribution(&[(1.0, 5.0), (f64::INFINITY, 16.0)]);
        let since = later.since(&earlier);
        assert_eq!(since.count(), 10.0);
        assert_eq!(since, distribution(&[(1.0, 0.0), (f64::INFINITY, 10.0)]));
    }
}
