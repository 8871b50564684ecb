//! What the parts of `make soak` note, and what all of it comes to.
//!
//! A part is anything that runs for long: it writes one file, `PART.json`, into the folder that `WINDLASS_SOAK_DIR` names
//! (`target/soak`), by [`Noted::write`] or by itself in the same form:
//!
//! ```json
//! {
//!   "part": "kills",
//!   "done": true,
//!   "counts": {"kills": 231, "requests_sent": 180233, "requests_lost": 0},
//!   "safeguards": {"drain": true},
//!   "failures": []
//! }
//! ```
//!
//! `done` says that all that was asked for was done; `counts` are added up over the parts and may be left out;
//! `safeguards` are what was switched off once, and whether the test failed then, as it must; `failures` are sentences.
//! The summary is good when no part failed and [`Summary::problems`] finds nothing.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Lives of the simulation that a whole soak has.
pub const SEEDS_MIN: u64 = 1_000_000;
/// Kills of real processes that a whole soak has.
pub const KILLS_MIN: u64 = 200;

/// What one part notes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Its name, and that of its file.
    pub part: String,
    /// Whether all that was asked for was done.
    pub done: bool,
    /// How much.
    #[serde(default)]
    pub counts: Counts,
    /// Safeguards that were switched off, and whether the test failed then.
    #[serde(default)]
    pub safeguards: BTreeMap<String, bool>,
    /// What went wrong.
    #[serde(default)]
    pub failures: Vec<String>,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Simulated lives.
    pub seeds: u64,
    /// Processes killed.
    pub kills: u64,
    /// Inputs that were changed at random.
    pub bad_inputs: u64,
    /// Requests that visitors sent to the services.
    pub requests_sent: u64,
    /// Those that were not answered as they should.
    pub requests_lost: u64,
}

impl Noted {
    /// Notes it in the folder of the soak, if this is one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> Result<()> {
        let Some(folder) = env::var_os("WINDLASS_SOAK_DIR").map(PathBuf::from) else { return Ok(()) };
        let file = folder.join(format!("{}.json", self.part));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, serde_json::to_vec_pretty(self)?))
            .with_context(|| format!("failed to write {}", file.display()))
    }
}

/// What all parts come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Simulated lives.
    pub seeds: u64,
    /// Processes killed.
    pub kills: u64,
    /// Inputs that were changed at random.
    pub bad_inputs: u64,
    /// Requests of visitors.
    pub requests: Requests,
    /// Of the last `make mutants`; none where it never ran.
    pub mutants: Option<Mutants>,
    /// What went wrong, by part.
    pub failures: Vec<String>,
}

/// Requests of visitors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Sent.
    pub sent: u64,
    /// Lost.
    pub lost: u64,
}

/// What became of the mutants of the domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutants {
    /// Some test failed with it.
    pub caught: u64,
    /// None did.
    pub missed: u64,
}

impl Summary {
    /// Adds up the parts of a folder; `wanted` are those without which it is not whole.
    ///
    /// # Errors
    /// When a file is not what it should be.
    pub fn of(folder: &Path, mutants: &Path, wanted: &[&str]) -> Result<Self> {
        let mut parts = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
            let path = entry?.path();
            let is_part = path.extension().is_some_and(|ext| ext == "json") && !path.ends_with("summary.json");
            if is_part {
                let text = fs::read_to_string(&path)?;
                let part = serde_json::from_str::<Noted>(&text);
                parts.push(part.with_context(|| format!("{} is not the note of a part", path.display()))?);
            }
        }
        let mutants = match fs::read_to_string(mutants) {
            Ok(text) => Some(serde_json::from_str(&text).context("the summary of the mutants is not one")?),
            Err(_) => None,
        };
        Ok(Self::of_parts(&parts, mutants, wanted))
    }

    fn of_parts(parts: &[Noted], mutants: Option<Mutants>, wanted: &[&str]) -> Self {
        let mut all = Self { mutants, ..Self::default() };
        for part in parts {
            let Noted { part: name, counts, .. } = part;
            all.seeds += counts.seeds;
            all.kills += counts.kills;
            all.bad_inputs += counts.bad_inputs;
            all.requests.sent += counts.requests_sent;
            all.requests.lost += counts.requests_lost;
            all.failures.extend(part.failures.iter().map(|failure| format!("{name}: {failure}")));
            if !part.done && part.failures.is_empty() {
                all.failures.push(format!("{name}: it is not done: run `make soak PART={name}`"));
            }
            let without = part.safeguards.iter().filter(|(_, failed)| !**failed);
            all.failures.extend(without.map(|(safeguard, _)| format!("{name}: it went well without {safeguard}")));
        }
        for name in wanted.iter().filter(|name| !parts.iter().any(|part| part.part == **name)) {
            all.failures.push(format!("{name}: it never ran: run `make soak PART={name}`"));
        }
        all
    }

    /// Why it is not a whole and good soak; empty when it is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.failures.clone();
        if self.seeds < SEEDS_MIN {
            problems.push(format!("{} lives were simulated, {SEEDS_MIN} are wanted", self.seeds));
        }
        if self.kills < KILLS_MIN {
            problems.push(format!("{} processes were killed, {KILLS_MIN} are wanted", self.kills));
        }
        if self.requests.lost > 0 {
            problems.push(format!("{} requests were lost", self.requests.lost));
        }
        if self.requests.sent == 0 {
            problems.push("no part sent requests, so it is not known whether any would be lost".into());
        }
        if self.bad_inputs == 0 {
            problems.push("no part changed inputs".into());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, counts: Counts) -> Noted {
        Noted { part: name.into(), done: true, counts, ..Noted::default() }
    }

    fn good() -> Vec<Noted> {
        let counts = Counts { kills: 150, bad_inputs: 1, requests_sent: 9, ..Counts::default() };
        let lives = Counts { seeds: SEEDS_MIN, kills: 50, ..Counts::default() };
        vec![part("simulation", lives), part("kills", counts)]
    }

    fn problems(parts: &[Noted]) -> Vec<String> {
        Summary::of_parts(parts, None, &["simulation", "kills"]).problems()
    }

    #[test]
    fn parts_add_up() {
        let all = Summary::of_parts(&good(), Some(Mutants { caught: 9, missed: 1 }), &["kills"]);
        assert_eq!((all.seeds, all.kills, all.bad_inputs, all.requests.sent), (SEEDS_MIN, 200, 1, 9));
        assert!(problems(&good()).is_empty());
    }

    #[test]
    fn whatever_is_missing_or_wrong_is_a_problem() {
        type Spoil = fn(&mut Vec<Noted>);
        let spoils: [Spoil; 8] = [
            |parts| parts[0].counts.seeds -= 1,
            |parts| parts[1].counts.kills -= 1,
            |parts| parts[1].counts.requests_lost = 1,
            |parts| parts[1].counts.requests_sent = 0,
            |parts| parts[1].counts.bad_inputs = 0,
            |parts| parts[0].done = false,
            |parts| parts[0].failures.push("seed 7".into()),
            |parts| parts[0].safeguards.extend([("drains".to_owned(), false)]),
        ];
        for (index, spoil) in spoils.into_iter().enumerate() {
            let mut parts = good();
            spoil(&mut parts);
            assert_eq!(problems(&parts).len(), 1, "{index}: {:?}", problems(&parts));
        }
        assert!(!problems(&good()[..1]).is_empty());
    }

    #[test]
    fn the_form_of_a_note_may_leave_out_what_is_nothing() {
        let noted: Noted = serde_json::from_str(r#"{"part":"x","done":true,"counts":{"kills":2}}"#).unwrap();
        assert_eq!(noted.counts, Counts { kills: 2, ..Counts::default() });
    }
}
