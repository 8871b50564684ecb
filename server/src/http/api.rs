//! The HTTP API under `/api/v1`: one file per resource. A handler calls the application and gives back [`model`]s.
//! Errors are RFC 9457 problems. Every answer says its version and kind (see [`model::Answer`]).
//! Not here: who may call what (`router`).

pub mod accounts;
pub mod audit;
pub mod backup;
pub mod board;
mod convert;
pub mod load;
pub mod login;
pub mod logs;
pub mod model;
pub mod releases;
pub mod rollouts;
pub mod runners;
pub mod runs;
pub mod secrets;
pub mod server;
pub mod services;
pub mod support;
#[cfg(test)]
mod tests;

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use crate::app::Page;
use model::{Answer, Kind, List};

/// What a handler gives.
pub type Reply<T> = Result<Json<Answer<T>>, Problem>;

/// Items of a page, where nothing is asked for.
const PAGE_ITEMS: usize = 20;
/// Items of a page at most.
const PAGE_ITEMS_MAX: usize = 100;

fn reply<T: Kind>(it: T) -> Reply<T> {
    Ok(Json(Answer::new(it)))
}

/// A page of a list: newest first.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Only what has a smaller number.
    pub before: Option<u64>,
    /// How many at most, up to 100; without it 20.
    pub limit: Option<usize>,
}

impl Paging {
    fn limit(self) -> usize {
        self.limit.unwrap_or(PAGE_ITEMS).clamp(1, PAGE_ITEMS_MAX)
    }

    fn page(self) -> Page {
        Page { before: self.before.map(|before| u32::try_from(before).unwrap_or(u32::MAX)), limit: self.limit() }
    }

    /// A list with where it goes on, if it was as long as asked for.
    fn list<T>(self, items: Vec<T>, number: impl Fn(&T) -> u64) -> List<T> {
        let is_full = items.len() >= self.limit();
        let next_before = items.last().filter(|_| is_full).map(number).filter(|number| *number > 1);
        List { items, next_before }
    }
}
