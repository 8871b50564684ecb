//! Settings, outcomes, the evidence file. Knows no case.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use server::store::engine::EngineKind;
use tests::evidence::{self, Tier};
use tests::soak::{Counts, Noted};

/// How a run is set.
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) kills: u64,
    pub(crate) engines: Vec<EngineKind>,
    pub(crate) require_all: bool,
}

impl Setting {
    pub(crate) fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse().ok());
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let engines = std::env::var("WINDLASS_STORE_ENGINES").unwrap_or_else(|_| "redb,sled".into());
        Setting {
            seed: number("WINDLASS_STORE_SEED").unwrap_or(clock),
            kills: number("WINDLASS_STORE_KILLS").unwrap_or(24),
            engines: engines.split(',').filter_map(kind).collect(),
            require_all: std::env::var("WINDLASS_TEST_REQUIRE").is_ok_and(|value| value == "all"),
        }
    }
}

pub(crate) fn name(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Redb => "redb",
        EngineKind::Sled => "sled",
        EngineKind::Memory => "memory",
    }
}

pub(crate) fn kind(name: &str) -> Option<EngineKind> {
    [EngineKind::Redb, EngineKind::Sled, EngineKind::Memory].into_iter().find(|&kind| self::name(kind) == name)
}

/// What became of a case.
pub(crate) enum Outcome {
    Pass(Value),
    Fail(String, Value),
    Skip(String),
}

/// `Ok` figures or what went wrong, as a case's outcome.
impl From<Result<Value, String>> for Outcome {
    fn from(result: Result<Value, String>) -> Self {
        match result {
            Ok(figure) => Outcome::Pass(figure),
            Err(problem) => Outcome::Fail(problem, Value::Null),
        }
    }
}

/// Gathers the outcomes, one JSON line each.
#[derive(Default)]
pub(crate) struct Evidence {
    lines: Vec<Value>,
    broken: Vec<String>,
    skipped: Vec<String>,
}

impl Evidence {
    /// `shows`: what the case proves, where it is required of this subject; otherwise its verdict is only recorded.
    pub(crate) fn record(&mut self, subject: &str, case: &str, shows: Option<&str>, outcome: Outcome) {
        let name = format!("{subject}::{case}");
        let (verdict, problem, figure) = match outcome {
            Outcome::Pass(figure) => ("pass", String::new(), figure),
            Outcome::Fail(problem, figure) => ("fail", problem, figure),
            Outcome::Skip(reason) => ("skipped", reason, Value::Null),
        };
        println!("{subject:5} {case:10} {verdict:7} {figure} {problem}");
        match (shows, verdict) {
            (Some(shows), "pass") => {
                let command = format!("cargo test -p tests --test store -- {name}");
                evidence::record_as(shows, Tier::RealPart, &figure, &command);
            }
            (Some(_), "fail") => self.broken.push(format!("{name}: {problem}")),
            (_, "skipped") => self.skipped.push(format!("{name}: {problem}")),
            _ => {}
        }
        self.lines.push(json!({
            "case": case, "subject": subject, "required": shows.is_some(),
            "verdict": verdict, "problem": problem, "figure": figure,
        }));
    }

    /// Writes the file, if every case ran; whether all that is required held.
    pub(crate) fn close(mut self, setting: &Setting, whole: bool) -> bool {
        for skipped in &self.skipped {
            println!("SKIPPED {skipped}");
        }
        if setting.require_all && !self.skipped.is_empty() {
            self.broken.push("cases were skipped, and everything is required".into());
        }
        if whole && let Err(error) = self.write(setting) {
            self.broken.push(format!("the evidence could not be written: {error}"));
        }
        if let Err(error) = self.note() {
            self.broken.push(format!("the soak's note could not be written: {error:#}"));
        }
        for problem in &self.broken {
            println!("FAILED {problem}");
        }
        self.broken.is_empty()
    }

    /// For the soak: how many processes were killed.
    fn note(&self) -> anyhow::Result<()> {
        let kills = self.lines.iter().filter(|line| line["case"] == "kill" && line["verdict"] == "pass");
        let kills = kills.filter_map(|line| line["figure"]["kills"].as_u64()).sum();
        let counts = Counts { kills, ..Counts::default() };
        let (done, failures) = (kills > 0, self.broken.clone());
        Noted { part: "store".into(), done, counts, failures, ..Noted::default() }.write()
    }

    fn write(&self, setting: &Setting) -> std::io::Result<()> {
        let folder = evidence::folder();
        std::fs::create_dir_all(&folder)?;
        let lines = self.lines.iter().map(|line| {
            let mut line = line.clone();
            line["seed"] = json!(setting.seed);
            format!("{line}\n")
        });
        std::fs::write(folder.join("store-contract.jsonl"), lines.collect::<String>())
    }
}

/// splitmix64 (Steele, Lea, Flood 2014): enough to choose when to kill, and a seed repeats it.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
