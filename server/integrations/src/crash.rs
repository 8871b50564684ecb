//! For the crash tests: in a debug build the environment names the places where the process dies, each once, and the
//! safeguards that are left out, so that a test can be seen to fail without one. A release build has neither.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    sync::Mutex,
};

/// `KIND:PLACE` of the kill point, such as `deploy-test:answered`; `KIND`: each of its places, `each`: all of them, one per
/// life of the process. Kinds are those of effects, and `sweep`.
pub const POINT_VARIABLE: &str = "WINDLASS_CRASH";
/// File in which a point is noted, one per line, when it is reached, so that the restarted process passes it.
pub const MARK_VARIABLE: &str = "WINDLASS_CRASH_MARK";

/// Safeguards that are left out, parted by commas.
pub const WITHOUT_VARIABLE: &str = "WINDLASS_WITHOUT";

/// Before the effect acts, after the outside party answered, and right before the outcome is stored.
pub const PLACES: [&str; 3] = ["before", "answered", "storing"];

/// Dies here if this is a place that the environment names, and it was not reached before.
pub fn point(kind: &str, place: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let (Ok(wanted), Ok(mark)) = (std::env::var(POINT_VARIABLE), std::env::var(MARK_VARIABLE)) else { return };
    let here = format!("{kind}:{place}");
    if wanted == here || wanted == kind || wanted == "each" {
        die_once(&here, &mark);
    }
}

/// Whether a safeguard is left out.
#[must_use]
pub fn without(safeguard: &str) -> bool {
    cfg!(debug_assertions)
        && std::env::var(WITHOUT_VARIABLE).is_ok_and(|all| all.split(',').any(|one| one == safeguard))
}

fn die_once(here: &str, mark: &str) {
    // Two threads may be at two points: one death notes one of them.
    static DYING: Mutex<()> = Mutex::new(());
    let _held = DYING.lock();
    let Ok(mut file) = OpenOptions::new().create(true).read(true).append(true).open(mark) else { return };
    let mut reached = String::new();
    let noted = file.read_to_string(&mut reached).is_ok()
        && !reached.lines().any(|line| line == here)
        && file.write_all(format!("{here}\n").as_bytes()).is_ok();
    if noted {
        // No destructor runs, nothing is flushed: as with kill -9.
        std::process::abort();
    }
}
