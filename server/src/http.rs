//! Pages, API and hooks over HTTP. Handlers call the application; nothing here touches the store or an outside party.

pub mod access;
mod agents;
pub mod api;
pub mod connections;
pub mod events;
pub mod extract;
mod leftover;
pub mod metrics;
pub mod openapi;
pub mod pages;
pub mod problem;
pub mod remote;
pub mod request_id;
pub mod router;
#[cfg(test)]
pub(crate) mod tests;
pub mod ui;
pub mod webhooks;
