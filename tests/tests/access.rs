//! Whom the server reaches, and who reaches it. Outside parties are played by small servers of the tests.

#[path = "access/outgoing.rs"]
mod outgoing;
