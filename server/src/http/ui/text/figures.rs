//! Figures and times as a person reads them: ages in one unit, durations in two, dates with their zone, counts with separators.

use jiff::{Timestamp, Zoned};

use super::{Lang, Text};

/// A time or a span in milliseconds, also behind references (templates pass those).
pub trait Millis {
    /// The milliseconds.
    fn millis(&self) -> i64;
}

impl Millis for i64 {
    fn millis(&self) -> i64 {
        *self
    }
}

impl<T: Millis + ?Sized> Millis for &T {
    fn millis(&self) -> i64 {
        (**self).millis()
    }
}

/// A count of things, also behind references.
pub trait Count {
    /// The count.
    fn count(&self) -> u64;
}

impl Count for u64 {
    fn count(&self) -> u64 {
        *self
    }
}

impl Count for u32 {
    fn count(&self) -> u64 {
        u64::from(*self)
    }
}

impl Count for usize {
    fn count(&self) -> u64 {
        *self as u64
    }
}

impl<T: Count + ?Sized> Count for &T {
    fn count(&self) -> u64 {
        (**self).count()
    }
}

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

const WEEKDAYS: [(&str, &str); 7] = [
    ("Mon", "周一"),
    ("Tue", "周二"),
    ("Wed", "周三"),
    ("Thu", "周四"),
    ("Fri", "周五"),
    ("Sat", "周六"),
    ("Sun", "周日"),
];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Text<'_> {
    /// How long ago, in one unit: `52 m`. A moment ahead of the clock counts as now.
    pub fn age(&self, at_ms: impl Millis) -> String {
        self.span(self.clock.now_ms.saturating_sub(at_ms.millis()))
    }

    /// A span in one unit: `52 m`, `3 h`, `6 d`.
    pub fn span(&self, span_ms: impl Millis) -> String {
        let ms = span_ms.millis().max(0);
        if ms < MINUTE_MS {
            self.unit(ms / SECOND_MS, 's')
        } else if ms < HOUR_MS {
            self.unit(ms / MINUTE_MS, 'm')
        } else if ms < DAY_MS {
            self.unit(ms / HOUR_MS, 'h')
        } else {
            self.unit(ms / DAY_MS, 'd')
        }
    }

    /// A duration in its two largest units: `2 m 33 s`; below ten seconds with a tenth.
    pub fn duration(&self, span_ms: impl Millis) -> String {
        let ms = span_ms.millis().max(0);
        if ms > 0 && ms < SECOND_MS {
            return match self.lang {
                Lang::En => format!("{ms}\u{a0}ms"),
                Lang::ZhCn => format!("{ms}\u{a0}毫秒"),
            };
        }
        let (large, small) = if ms < MINUTE_MS {
            return self.unit(ms / SECOND_MS, 's');
        } else if ms < HOUR_MS {
            ((ms / MINUTE_MS, 'm'), (ms % MINUTE_MS / SECOND_MS, 's'))
        } else if ms < 4 * DAY_MS {
            ((ms / HOUR_MS, 'h'), (ms % HOUR_MS / MINUTE_MS, 'm'))
        } else {
            ((ms / DAY_MS, 'd'), (ms % DAY_MS / HOUR_MS, 'h'))
        };
        let mut text = self.unit(large.0, large.1);
        if small.0 > 0 {
            text.push('\u{a0}');
            text.push_str(&self.unit(small.0, small.1));
        }
        text
    }

    fn unit(&self, n: i64, unit: char) -> String {
        let word = match (self.lang, unit) {
            (Lang::En, 's') => "s",
            (Lang::En, 'm') => "m",
            (Lang::En, 'h') => "h",
            (Lang::En, _) => "d",
            (Lang::ZhCn, 's') => "秒",
            (Lang::ZhCn, 'm') => "分",
            (Lang::ZhCn, 'h') => "小时",
            (Lang::ZhCn, _) => "天",
        };
        format!("{n}\u{a0}{word}")
    }

    /// The time of day: `09:42`.
    pub fn clock(&self, at_ms: impl Millis) -> String {
        let z = self.zoned(at_ms.millis());
        format!("{:02}:{:02}", z.hour(), z.minute())
    }

    /// The time of day where it is today, else with the day: `09:42`, `Sun 30 Aug, 09:33`.
    pub fn when(&self, at_ms: impl Millis) -> String {
        let z = self.zoned(at_ms.millis());
        if z.date() == self.zoned(self.clock.now_ms).date() {
            self.clock(at_ms)
        } else if z.year() == self.zoned(self.clock.now_ms).year() {
            self.day_of(&z, false)
        } else {
            self.day_of(&z, true)
        }
    }

    /// Day and time: `Sun 30 Aug, 09:33`.
    pub fn day(&self, at_ms: impl Millis) -> String {
        self.day_of(&self.zoned(at_ms.millis()), false)
    }

    /// Day, year, time and zone: `Sun 30 Aug 2026, 09:33 UTC+8`.
    pub fn full(&self, at_ms: impl Millis) -> String {
        let z = self.zoned(at_ms.millis());
        format!("{}\u{a0}{}", self.day_of(&z, true), zone_of(&z))
    }

    fn day_of(&self, z: &Zoned, year: bool) -> String {
        let weekday = WEEKDAYS[usize::from(z.weekday().to_monday_zero_offset().unsigned_abs()) % 7];
        let (hour, minute, day) = (z.hour(), z.minute(), z.day());
        match self.lang {
            Lang::En => {
                let month = MONTHS[usize::from(z.month().unsigned_abs()).saturating_sub(1) % 12];
                let year = if year { format!(" {}", z.year()) } else { String::new() };
                format!("{} {day} {month}{year}, {hour:02}:{minute:02}", weekday.0)
            }
            Lang::ZhCn => {
                let year = if year { format!("{} 年 ", z.year()) } else { String::new() };
                format!("{year}{} 月 {day} 日（{}）{hour:02}:{minute:02}", z.month(), weekday.1)
            }
        }
    }

    /// The zone's offset now: `UTC+8`.
    pub fn zone(&self) -> String {
        zone_of(&self.zoned(self.clock.now_ms))
    }

    /// The machine's form, for `datetime` attributes: `2026-08-30T01:33:00Z`.
    pub fn iso(&self, at_ms: impl Millis) -> String {
        Timestamp::from_millisecond(at_ms.millis()).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
    }

    /// What is left until a moment, from now; zero once it has passed.
    pub fn left_ms(&self, until_ms: impl Millis) -> i64 {
        until_ms.millis().saturating_sub(self.clock.now_ms).max(0)
    }

    /// A count with separators: `2,316`.
    pub fn number(&self, n: impl Count) -> String {
        let digits = n.count().to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }

    /// A count with the English word in the right number: `1 test`, `2,316 tests`.
    pub(super) fn plural(&self, n: impl Count, one: &str, many: &str) -> String {
        let n = n.count();
        format!("{}\u{a0}{}", self.number(n), if n == 1 { one } else { many })
    }

    /// A share with up to two decimals and a no-break space: `99.64 %`.
    pub fn percent(&self, share: f64, decimals: usize) -> String {
        format!("{share:.decimals$}\u{a0}%")
    }

    /// Milliseconds as a figure, never converted: `334 ms`.
    pub fn ms(&self, ms: f64) -> String {
        format!("{ms:.0}\u{a0}ms")
    }

    /// A size in the largest fitting binary unit: `18.2 MiB`.
    pub fn bytes(&self, n: impl Count) -> String {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let n = n.count();
        let mut size = n as f64;
        let mut unit = 0;
        while size >= 1024.0 && unit + 1 < UNITS.len() {
            size /= 1024.0;
            unit += 1;
        }
        if unit == 0 { format!("{n}\u{a0}B") } else { format!("{size:.1}\u{a0}{}", UNITS[unit]) }
    }

    fn zoned(&self, at_ms: i64) -> Zoned {
        Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(self.clock.zone.clone())
    }
}

fn zone_of(z: &Zoned) -> String {
    let minutes = z.offset().seconds() / 60;
    let (sign, minutes) = if minutes < 0 { ('-', -minutes) } else { ('+', minutes) };
    match (minutes / 60, minutes % 60) {
        (0, 0) => String::from("UTC"),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, rest) => format!("UTC{sign}{hours}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, TimeZone};

    use super::super::Clock;
    use super::*;

    // Thu 27 Aug 2026, 10:20 at UTC+8.
    const NOW: i64 = 1_787_797_200_000;

    fn clock() -> Clock {
        Clock { now_ms: NOW, zone: TimeZone::fixed(Offset::constant(8)) }
    }

    #[test]
    fn an_age_has_one_unit_and_a_no_break_space() {
        let clock = clock();
        let t = Text::new(Lang::En, &clock);
        assert_eq!(t.age(NOW - 52 * MINUTE_MS), "52\u{a0}m");
        assert_eq!(t.age(NOW - 59_999), "59\u{a0}s");
        assert_eq!(t.age(NOW - 23 * HOUR_MS), "23\u{a0}h");
        assert_eq!(t.age(NOW - 24 * HOUR_MS), "1\u{a0}d");
        assert_eq!(t.age(NOW + 5_000), "0\u{a0}s", "a clock that is ahead is no negative age");
        assert_eq!(Text::new(Lang::ZhCn, &clock).age(NOW - 3 * HOUR_MS), "3\u{a0}小时");
    }

    #[test]
    fn a_duration_has_two_units_at_most() {
        let clock = clock();
        let t = Text::new(Lang::En, &clock);
        assert_eq!(t.duration(153_000_i64), "2\u{a0}m\u{a0}33\u{a0}s");
        assert_eq!(t.duration(250_i64), "250\u{a0}ms");
        assert_eq!(t.duration(71 * HOUR_MS + 13 * MINUTE_MS), "71\u{a0}h\u{a0}13\u{a0}m");
        assert_eq!(t.duration(2 * HOUR_MS), "2\u{a0}h");
        assert_eq!(Text::new(Lang::ZhCn, &clock).duration(250_000_i64), "4\u{a0}分\u{a0}10\u{a0}秒");
    }

    #[test]
    fn a_date_is_written_as_the_language_writes_it() {
        let clock = clock();
        let at = NOW + 3 * DAY_MS - 47 * MINUTE_MS;
        assert_eq!(Text::new(Lang::En, &clock).full(at), "Sun 30 Aug 2026, 09:33\u{a0}UTC+8");
        assert_eq!(Text::new(Lang::ZhCn, &clock).full(at), "2026 年 8 月 30 日（周日）09:33\u{a0}UTC+8");
        assert_eq!(Text::new(Lang::En, &clock).when(NOW), "10:20");
        assert_eq!(Text::new(Lang::En, &clock).iso(NOW), "2026-08-27T02:20:00Z");
    }

    #[test]
    fn a_zone_is_named_by_its_offset() {
        let half = Clock {
            now_ms: NOW,
            zone: TimeZone::fixed(Offset::from_seconds(-(3 * 3600 + 1800)).unwrap_or(Offset::UTC)),
        };
        assert_eq!(Text::new(Lang::En, &half).zone(), "UTC-3:30");
        let utc = Clock { now_ms: NOW, zone: TimeZone::UTC };
        assert_eq!(Text::new(Lang::En, &utc).zone(), "UTC");
    }

    #[test]
    fn counts_and_sizes_are_readable() {
        let clock = clock();
        let t = Text::new(Lang::En, &clock);
        assert_eq!(t.number(2_316_u64), "2,316");
        assert_eq!(t.number(1_000_000_u64), "1,000,000");
        assert_eq!(t.number(999_u64), "999");
        assert_eq!(t.plural(1_u64, "test", "tests"), "1\u{a0}test");
        assert_eq!(t.bytes(19_084_083_u64), "18.2\u{a0}MiB");
        assert_eq!(t.percent(99.636, 2), "99.64\u{a0}%");
    }
}
