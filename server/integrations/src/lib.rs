//! Outside parties.
