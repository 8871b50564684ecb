//! What answers over HTTP. Not here: decisions, which `app` takes.

pub mod ui;
