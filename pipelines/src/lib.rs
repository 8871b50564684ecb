//! The delivery domain, sans-IO.
