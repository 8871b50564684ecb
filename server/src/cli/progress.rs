//! Progress on standard error: bars where it is a terminal, one line per change where it is not. Not here: results.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output::{Output, Paint, clean};

/// Bars that are drawn at the same time; of more, the oldest are.
const BARS_MAX: usize = 8;
/// How often a bar moves by itself.
const TICK: Duration = Duration::from_millis(120);

/// The progress of one command: named lines, each with the text of now.
pub(crate) struct Progress {
    paint: Paint,
    bars: Option<MultiProgress>,
    active: HashMap<String, ProgressBar>,
    said: HashMap<String, String>,
    ended: HashSet<String>,
}

impl Progress {
    /// No progress yet.
    pub(crate) fn new(out: &Output) -> Self {
        let bars = out.is_live.then(MultiProgress::new);
        Self { paint: out.paint_err, bars, active: HashMap::new(), said: HashMap::new(), ended: HashSet::new() }
    }

    /// A line that moves; without a terminal it is printed when its text changes.
    pub(crate) fn moves(&mut self, name: &str, text: &str) {
        let text = clean(text);
        if self.ended.contains(name) {
            return;
        }
        match self.bar(name, "{spinner:.cyan} {prefix} {wide_msg} {elapsed:.dim}") {
            Some(bar) => bar.set_message(text),
            None => self.say(name, &text),
        }
    }

    /// A line with an amount of bytes; without a terminal every tenth of it is printed.
    pub(crate) fn bytes(&mut self, name: &str, text: &str, done: u64, total: u64) {
        let text = clean(text);
        let template = "{spinner:.cyan} {prefix} {bar:24.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}";
        match self.bar(name, template) {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(text);
            }
            None => {
                let tenths = (done * 10).checked_div(total).unwrap_or(0);
                self.say(name, &format!("{text} {} %", tenths * 10));
            }
        }
    }

    /// A line with a share of a hundred.
    pub(crate) fn percent(&mut self, name: &str, text: &str, percent: u8) {
        let text = clean(text);
        match self.bar(name, "{spinner:.cyan} {prefix} {bar:24.cyan/dim} {pos:>3} % {wide_msg}") {
            Some(bar) => {
                bar.set_length(100);
                bar.set_position(u64::from(percent));
                bar.set_message(text);
            }
            None => self.say(name, &format!("{percent} % {text}")),
        }
    }

    /// A line is over; it stays where it is. `mark` has shape and colour.
    pub(crate) fn ends(&mut self, name: &str, mark: &str, text: &str) {
        if !self.ended.insert(name.to_owned()) {
            return;
        }
        let text = clean(text);
        let line = format!("{mark} {} {text}", self.paint.bold(&clean(name)));
        if let Some(bar) = self.active.remove(name) {
            bar.finish_and_clear();
        }
        self.print(line.trim_end());
    }

    /// Prints a line above the bars.
    pub(crate) fn print(&self, line: &str) {
        match &self.bars {
            // Nobody may be there to read it.
            Some(bars) => {
                let _ = bars.println(line);
            }
            None => eprintln!("{line}"),
        }
    }

    /// Does something while no bar is drawn, such as printing to standard output.
    pub(crate) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(work),
            None => work(),
        }
    }

    /// Takes what still moves off the screen.
    pub(crate) fn clear(&mut self) {
        self.active.drain().for_each(|(_, bar)| bar.finish_and_clear());
    }

    fn bar(&mut self, name: &str, template: &str) -> Option<&ProgressBar> {
        let bars = self.bars.as_ref()?;
        let is_new = !self.active.contains_key(name);
        let count = self.active.len();
        let bar = self.active.entry(name.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
            let hidden = count >= BARS_MAX;
            let bar = if hidden { ProgressBar::hidden() } else { bars.add(ProgressBar::new_spinner()) };
            bar.with_style(style.progress_chars("━━─")).with_prefix(clean(name))
        });
        if is_new {
            bar.enable_steady_tick(TICK);
        }
        Some(bar)
    }

    fn say(&mut self, name: &str, text: &str) {
        if self.said.get(name).is_none_or(|said| said != text) {
            eprintln!("{}: {text}", clean(name));
            self.said.insert(name.to_owned(), text.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
