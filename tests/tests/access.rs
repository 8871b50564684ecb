//! Nobody gets in: the link of a mail against everything that opens, presses, guesses and repeats it, and what may never be
//! read anywhere. The product's router and mail driver over a real socket; repository and runner are played.

#[path = "access/attacks.rs"]
mod attacks;
#[path = "access/links.rs"]
mod links;
#[path = "access/outgoing.rs"]
mod outgoing;
#[path = "access/people.rs"]
mod people;
#[path = "access/secrets.rs"]
mod secrets;
#[path = "access/stage.rs"]
mod stage;
#[path = "access/target.rs"]
mod target;
