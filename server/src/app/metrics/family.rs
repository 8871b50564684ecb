//! Writes what was read elsewhere as families of metrics: values that stand, counters that somebody else counts, and their
//! histograms. Not here: what is read.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// A family under construction.
pub(super) struct Family {
    kind: MetricType,
    family: MetricFamily,
}

impl Family {
    fn new(kind: MetricType, name: &str, help: &str) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(format!("windlass_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { kind, family }
    }

    /// Values that go up and down.
    pub(super) fn gauge(name: &str, help: &str) -> Self {
        Self::new(MetricType::GAUGE, name, help)
    }

    /// Values that only grow.
    pub(super) fn counter(name: &str, help: &str) -> Self {
        Self::new(MetricType::COUNTER, name, help)
    }

    /// Counts per bucket.
    pub(super) fn histogram(name: &str, help: &str) -> Self {
        Self::new(MetricType::HISTOGRAM, name, help)
    }

    /// Adds one value.
    pub(super) fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = labelled(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.family.mut_metric().push(metric);
    }

    /// With one value.
    pub(super) fn with(mut self, labels: &[(&str, &str)], value: f64) -> Self {
        self.value(labels, value);
        self
    }

    /// Adds one histogram: counts per bucket, not cumulated, the last one above all `bounds`; and the sum of what was
    /// counted.
    pub(super) fn buckets(&mut self, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut histogram = Histogram::default();
        let mut so_far = 0_u64;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (index, bound) in bounds.iter().enumerate() {
            so_far += counts.get(index).copied().unwrap_or_default();
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(so_far);
            buckets.push(bucket);
        }
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.family.mut_metric().push(metric);
    }

    /// Done; none where there is nothing in it.
    pub(super) fn done(self) -> Option<MetricFamily> {
        (!self.family.get_metric().is_empty()).then_some(self.family)
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}
