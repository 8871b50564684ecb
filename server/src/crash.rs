//! Kill points for the crash tests: in a debug build, the environment names one place where the process dies, once.
//! A release build has none.

/// `KIND:PLACE` of the kill point, such as `deploy-test:answered`.
pub const POINT_VARIABLE: &str = "WINDLASS_CRASH";
/// File that is made when the point is reached, so that the restarted process passes it.
pub const MARK_VARIABLE: &str = "WINDLASS_CRASH_MARK";

/// Before the effect acts, after the outside party answered, and right before the outcome is stored.
pub const PLACES: [&str; 3] = ["before", "answered", "storing"];

/// Dies here if this is the place that the environment names, and it was not reached before.
pub fn point(kind: &str, place: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let (Ok(point), Ok(mark)) = (std::env::var(POINT_VARIABLE), std::env::var(MARK_VARIABLE)) else { return };
    if point != format!("{kind}:{place}") {
        return;
    }
    if std::fs::OpenOptions::new().write(true).create_new(true).open(&mark).is_ok() {
        // No destructor runs, nothing is flushed: as with kill -9.
        std::process::abort();
    }
}
