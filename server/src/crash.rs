//! Kill points for the crash tests, shared with the runner on its own machine. Not here: which places there are.

pub use integrations::crash::{MARK_VARIABLE, PLACES, POINT_VARIABLE, point};
