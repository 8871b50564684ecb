//! Secrets that steps can name, without their values.

use pipelines::protocol::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A secret that steps can name. Its value never comes back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NamedSecret {
    /// Its name.
    pub name: String,
    /// The service that it belongs to; none: it is shared.
    pub service: Option<String>,
    /// A shared one: for which services; empty: for all.
    pub services: Vec<String>,
    /// Since when it has its value, in milliseconds since 1970.
    pub set_at_ms: u64,
    /// Who set it.
    pub set_by: String,
    /// The run that got it last, such as `checkout/412`.
    pub last_run: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub last_used_at_ms: Option<u64>,
}

/// What is set of a secret. What is left out stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecretInput {
    /// Its value; a new secret needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, write_only)]
    pub value: Option<Secret>,
    /// A shared one: for which services; empty: for all, as a new one without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
}
