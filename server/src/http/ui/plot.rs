//! Plots drawn on the server: one measure of the new version against stable, over time, with its limit, the weights' marks,
//! gaps where nothing was measured, and the same figures as a table. Not here: the staircase of weights, which is markup alone.

use std::fmt::Write as _;

use super::markup::Markup;
use super::text::Text;
use super::why::{Figure, Limit, Measure};

/// The inner drawing's size; it is stretched to the width of its sheet.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 140.0;
/// Rows of the table beneath a plot.
const TABLE_ROWS_MAX: usize = 12;

/// One point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When, in milliseconds UTC.
    pub at_ms: i64,
    /// The value, in per cent or milliseconds; none where there was no request.
    pub value: Option<f64>,
    /// How many requests it rests on.
    pub requests: u64,
}

/// A plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What is measured.
    pub measure: Measure,
    /// The new version's samples, oldest first.
    pub canary: Vec<Sample>,
    /// The stable version's, oldest first.
    pub stable: Vec<Sample>,
    /// The limit of the check, if it has one.
    pub limit: Option<Limit>,
    /// When the weight changed, and to what.
    pub marks: Vec<(i64, u32)>,
}

struct Scale {
    from_ms: i64,
    to_ms: i64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, at_ms: i64) -> f64 {
        let span = (self.to_ms - self.from_ms).max(1) as f64;
        ((at_ms - self.from_ms) as f64 / span).clamp(0.0, 1.0) * WIDTH
    }

    fn y(&self, value: f64) -> f64 {
        let span = (self.high - self.low).max(f64::MIN_POSITIVE);
        HEIGHT - ((value - self.low) / span).clamp(0.0, 1.0) * HEIGHT
    }
}

impl Plot {
    fn is_share(&self) -> bool {
        matches!(self.measure, Measure::SuccessRate | Measure::ErrorsAgainstStable)
    }

    fn figure(&self, value: f64) -> Figure {
        if self.is_share() { Figure::Percent(value) } else { Figure::Ms(value) }
    }

    fn id(&self) -> &'static str {
        match self.measure {
            Measure::SuccessRate => "p-ok",
            Measure::LatencyP50 => "p-50",
            Measure::LatencyP95 => "p-95",
            Measure::LatencyP99 => "p-99",
            Measure::ErrorsAgainstStable => "p-err",
            Measure::LatencyAgainstStable => "p-lat",
        }
    }

    fn limit_value(&self) -> Option<f64> {
        self.limit.map(|limit| match limit.figure {
            Figure::Percent(v) | Figure::Ms(v) | Figure::Probability(v) => v,
        })
    }

    fn scale(&self) -> Option<Scale> {
        let samples = || self.canary.iter().chain(&self.stable);
        let from_ms = samples().map(|s| s.at_ms).min()?;
        let to_ms = samples().map(|s| s.at_ms).max()?;
        let values = || samples().filter_map(|s| s.value).chain(self.limit_value());
        let (low, high) = if self.measure == Measure::SuccessRate {
            let least = values().fold(100.0_f64, f64::min);
            (100.0 - share_span(100.0 - least), 100.0)
        } else {
            (0.0, nice(values().fold(0.0_f64, f64::max) * 1.25))
        };
        Some(Scale { from_ms, to_ms, low, high })
    }

    /// The figure's whole element.
    pub(super) fn markup(&self, t: &Text<'_>) -> Markup {
        let mut m = Markup::default();
        let id = self.id();
        m.raw("<figure class=\"sheet pad plot\" aria-labelledby=\"");
        m.raw(id);
        m.raw("\"><figcaption><h3 id=\"");
        m.raw(id);
        m.raw("\">");
        m.text(t.measure(self.measure));
        m.raw("</h3>");
        self.key(&mut m, t);
        m.raw("</figcaption>");
        match self.scale() {
            Some(scale) => {
                self.drawing(&mut m, t, &scale);
                self.table(&mut m, t);
            }
            None => {
                m.raw("<p class=\"hint\">");
                m.text(t.no_data());
                m.raw("</p>");
            }
        }
        m.raw("</figure>");
        m
    }

    fn key(&self, m: &mut Markup, t: &Text<'_>) {
        m.raw("<p class=\"key\"><span class=\"acc\">");
        m.append(&Markup::icon("k-c", ""));
        m.text(t.new_revision());
        self.key_figure(m, t, &self.canary);
        m.raw("</span><span>");
        m.append(&Markup::icon("k-s", ""));
        m.text(t.stable());
        self.key_figure(m, t, &self.stable);
        m.raw("</span>");
        if let Some(limit) = &self.limit {
            m.raw("<span>");
            m.append(&Markup::icon("k-l", "bad"));
            m.text(t.limit());
            m.raw(" ");
            m.text(&t.limit_figure(limit));
            m.raw("</span>");
        }
        m.raw("<span>");
        m.text(&t.requests_of(self.canary.iter().map(|s| s.requests).sum::<u64>()));
        m.raw("</span></p>");
    }

    fn key_figure(&self, m: &mut Markup, t: &Text<'_>, samples: &[Sample]) {
        m.raw(" <b>");
        match samples.iter().rev().find_map(|s| s.value) {
            Some(value) => m.text(&t.figure(&self.figure(value))),
            None => m.text("–"),
        }
        m.raw("</b>");
    }

    fn drawing(&self, m: &mut Markup, t: &Text<'_>, scale: &Scale) {
        let middle = (scale.low + scale.high) / 2.0;
        m.raw("<div class=\"axes\"><ul aria-hidden=\"true\"><li>");
        m.text(&t.figure(&self.figure(scale.high)));
        m.raw("</li><li>");
        m.text(&trimmed(middle));
        m.raw("</li><li>");
        m.text(&trimmed(scale.low));
        m.raw("</li></ul><svg width=\"100%\" height=\"168\" role=\"img\" aria-labelledby=\"");
        m.raw(self.id());
        m.raw("-t ");
        m.raw(self.id());
        m.raw("-d\"><title id=\"");
        m.raw(self.id());
        m.raw("-t\">");
        m.text(&t.plot_title(t.measure(self.measure), scale.from_ms, scale.to_ms));
        m.raw("</title><desc id=\"");
        m.raw(self.id());
        m.raw("-d\">");
        m.text(&self.description(t));
        m.raw(
            "</desc><svg y=\"18\" width=\"100%\" height=\"130\" viewBox=\"0 0 480 140\" preserveAspectRatio=\"none\" \
             overflow=\"visible\"><path class=\"grid\" d=\"M0 0h480M0 70h480M0 140h480\"/>",
        );
        if let Some(limit) = self.limit_value() {
            m.raw("<path class=\"lim\" d=\"");
            m.figures(format_args!("M0 {:.1}h480", scale.y(limit)));
            m.raw("\"/>");
        }
        m.raw("<path class=\"s\" d=\"");
        m.figures(format_args!("{}", path(&self.stable, scale)));
        m.raw("\"/><path class=\"c\" d=\"");
        m.figures(format_args!("{}", path(&self.canary, scale)));
        m.raw("\"/>");
        if let Some((at, value)) = self.canary.iter().rev().find_map(|s| Some((s.at_ms, s.value?))) {
            m.raw("<path class=\"dot\" d=\"");
            m.figures(format_args!("M{:.1} {:.1}h0", scale.x(at), scale.y(value)));
            m.raw("\"/>");
        }
        m.raw("</svg>");
        self.marks(m, t, scale);
        m.raw("</svg></div>");
    }

    fn marks(&self, m: &mut Markup, t: &Text<'_>, scale: &Scale) {
        let within: Vec<_> = self.marks.iter().filter(|(at, _)| (scale.from_ms..=scale.to_ms).contains(at)).collect();
        if !within.is_empty() {
            m.raw("<svg width=\"100%\" height=\"148\" viewBox=\"0 0 480 140\" preserveAspectRatio=\"none\">");
            for (at, _) in &within {
                m.raw("<path class=\"mark\" d=\"");
                m.figures(format_args!("M{:.1} 0v140", scale.x(*at)));
                m.raw("\"/>");
            }
            m.raw("</svg>");
        }
        // A label that would lie on the one before it is left out; the line stays.
        let mut free_from = -1.0;
        for (at, percent) in &within {
            let share = scale.x(*at) / WIDTH * 100.0;
            if share < free_from {
                continue;
            }
            free_from = share + 12.0;
            m.raw("<text x=\"");
            m.figures(format_args!("{share:.1}%"));
            m.raw(if share > 85.0 { "\" y=\"11\" dx=\"-4\" text-anchor=\"end\">" } else { "\" y=\"11\" dx=\"4\">" });
            m.text(&t.percent(f64::from(*percent), 0));
            m.raw("</text>");
        }
        for (i, anchor) in ["start", "middle", "middle", "middle", "end"].into_iter().enumerate() {
            let quarter = i64::try_from(i).unwrap_or(0);
            m.raw("<text x=\"");
            m.figures(format_args!("{}%", quarter * 25));
            m.raw("\" y=\"164\" text-anchor=\"");
            m.raw(anchor);
            m.raw("\">");
            m.text(&t.clock(scale.from_ms + (scale.to_ms - scale.from_ms) * quarter / 4));
            m.raw("</text>");
        }
    }

    fn description(&self, t: &Text<'_>) -> String {
        let over = self.limit.map(|limit| {
            let bound = self.limit_value().unwrap_or_default();
            let breaks = |s: &&Sample| s.value.is_some_and(|v| if limit.at_least { v < bound } else { v > bound });
            (t.limit_of(&limit), self.canary.iter().filter(breaks).count() as u64)
        });
        let last =
            |samples: &[Sample]| samples.iter().rev().find_map(|s| s.value).map(|value| t.figure(&self.figure(value)));
        t.plot_description(last(&self.canary), last(&self.stable), over)
    }

    fn table(&self, m: &mut Markup, t: &Text<'_>) {
        m.raw("<details><summary>");
        m.text(t.figures());
        m.raw("</summary><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"");
        m.text(t.measure(self.measure));
        m.raw("\"><table><thead><tr><th scope=\"col\">");
        m.text(t.time());
        for head in [t.stable(), t.new_revision(), t.requests()] {
            m.raw("</th><th scope=\"col\" class=\"num\">");
            m.text(head);
        }
        m.raw("</th></tr></thead><tbody>");
        let mut times: Vec<i64> = self.stable.iter().chain(&self.canary).map(|s| s.at_ms).collect();
        times.sort_unstable();
        times.dedup();
        let every = times.len().div_ceil(TABLE_ROWS_MAX).max(1);
        for at in times.iter().rev().step_by(every).collect::<Vec<_>>().into_iter().rev() {
            let find = |samples: &[Sample]| samples.iter().find(|s| s.at_ms == *at).copied();
            m.raw("<tr><th scope=\"row\">");
            m.text(&t.clock(at));
            for sample in [find(&self.stable), find(&self.canary)] {
                m.raw("</th><td class=\"num\">".trim_start_matches("</th>"));
                match sample.and_then(|s| s.value) {
                    Some(value) => m.text(&t.figure(&self.figure(value))),
                    None => m.text("–"),
                }
                m.raw("</td>");
            }
            m.raw("<td class=\"num\">");
            m.text(&t.number(find(&self.canary).map_or(0, |s| s.requests)));
            m.raw("</td></tr>");
        }
        m.raw("</tbody></table></div></details>");
    }
}

/// A line through the samples; a gap where one has no value.
fn path(samples: &[Sample], scale: &Scale) -> String {
    let mut d = String::new();
    let mut pen = 'M';
    for sample in samples {
        match sample.value {
            Some(value) => {
                // Writing to a string cannot fail.
                let _ = write!(d, "{pen}{:.1} {:.1}", scale.x(sample.at_ms), scale.y(value));
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    d
}

/// The span of a share's axis beneath 100 %: a half, 1.5, 5, 15, 50 or all.
fn share_span(needed: f64) -> f64 {
    [0.5, 1.5, 5.0, 15.0, 50.0].into_iter().find(|span| needed * 1.2 <= *span).unwrap_or(100.0)
}

/// The next figure of 1, 1.5, 2, 3, 4, 5, 7, 8, 10 times a power of ten.
fn nice(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10.0_f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value)
        .unwrap_or(10.0 * power)
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    String::from(text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: i64, value: Option<f64>) -> Sample {
        Sample { at_ms, value, requests: 1 }
    }

    #[test]
    fn a_gap_breaks_the_line() {
        let scale = Scale { from_ms: 0, to_ms: 480, low: 0.0, high: 140.0 };
        let samples = [sample(0, Some(0.0)), sample(120, Some(70.0)), sample(240, None), sample(480, Some(140.0))];
        assert_eq!(path(&samples, &scale), "M0.0 140.0L120.0 70.0M480.0 0.0");
    }

    #[test]
    fn axes_end_at_figures_that_a_person_reads() {
        assert!((nice(625.0) - 700.0).abs() < 1e-9);
        assert!((nice(0.0) - 1.0).abs() < 1e-9);
        assert!((nice(f64::NAN) - 1.0).abs() < 1e-9);
        assert!((share_span(1.0) - 1.5).abs() < 1e-9);
        assert!((share_span(20.0) - 50.0).abs() < 1e-9);
        assert_eq!(trimmed(99.25), "99.25");
        assert_eq!(trimmed(98.5), "98.5");
        assert_eq!(trimmed(60.0), "60");
    }
}
