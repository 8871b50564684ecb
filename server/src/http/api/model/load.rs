//! What waits on the server.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that is bounded, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// What: `connections`, `streams`, `hook_bytes`, `hooks`, `runs`, `effects`, `performing`, `mails`, `store_changes`,
    /// `log_bytes`, `gateway_connections`.
    pub name: String,
    /// How much of it there is.
    pub length: u64,
    /// How much there may be.
    pub bound: u64,
    /// `count` or `bytes`.
    pub unit: String,
    /// What becomes of what comes beyond the bound: `refused` or `waits`.
    pub over: String,
    /// How often something was refused because as much was there, since the server started.
    pub refused: u64,
    /// The key of the bound in the server's configuration.
    pub key: String,
    /// The bound for each single service, where there is one.
    pub of_service: Option<QueueOfService>,
}

/// The bound for each single service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueOfService {
    /// How much there may be.
    pub bound: u64,
    /// The key of the bound in the server's configuration.
    pub key: String,
    /// The service that has most; none where no service has any.
    pub fullest: Option<String>,
    /// How much that one has.
    pub length: u64,
}
