//! For the crash tests: a debug build leaves out the safeguards that the environment names, so that a test can be seen
//! to fail without one. A release build has no such switch.

/// Safeguards that are left out, parted by commas.
const WITHOUT_VARIABLE: &str = "WINDLASS_WITHOUT";

/// Whether a safeguard is left out.
pub(crate) fn is_left_out(safeguard: &str) -> bool {
    cfg!(debug_assertions)
        && std::env::var(WITHOUT_VARIABLE).is_ok_and(|all| all.split(',').any(|one| one == safeguard))
}
