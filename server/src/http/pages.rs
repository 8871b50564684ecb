//! The pages' handlers: each calls the application, fills a view and writes it; forms answer with a redirect.
//! Not here: how a page looks (`ui`), the routes (`router`), and what may happen (`app`).

pub mod accounts;
pub mod approvals;
pub mod audit;
pub mod board;
mod convert;
pub mod errors;
pub mod load;
pub mod mailbox;
pub mod rollouts;
pub mod runners;
pub mod runs;
pub mod search;
pub mod secrets;
pub mod services;
pub mod session;
#[cfg(test)]
mod tests;
mod visit;

use visit::{Fields, Visit, page_of, see, show};
