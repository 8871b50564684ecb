//! People, tokens, and the journal of what they did.

use pipelines::protocol::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::Role;

/// Signs a program in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Name of the account.
    pub name: String,
    /// Its password.
    #[schema(value_type = String, write_only)]
    pub password: Secret,
    /// What the token is called in the list of tokens.
    #[serde(default)]
    pub label: String,
}

/// A token for a program that signed in. It is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoginToken {
    /// The token, for `Authorization: Bearer`.
    #[schema(value_type = String)]
    pub token: Secret,
    /// Whose it is.
    pub account: String,
    /// What it may do.
    pub role: Role,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// Who calls.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// Name of the account.
    pub account: String,
    /// Its mail address.
    pub email: String,
    /// What they may do by this way: less than the account's role where a token's scope is less.
    pub role: Role,
    /// Only reads.
    pub read_only: bool,
}

/// Somebody who can sign in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// Name.
    pub name: String,
    /// Mail address.
    pub email: String,
    /// What they may do.
    pub role: Role,
    /// Whether they may not sign in any more.
    pub disabled: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// Makes an account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// Name.
    pub name: String,
    /// Mail address; may be empty.
    #[serde(default)]
    pub email: String,
    /// What they may do.
    pub role: Role,
    /// The first password.
    #[schema(value_type = String, write_only)]
    pub password: Secret,
}

/// Changes an account. What is left out stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccountChange {
    /// Mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// What they may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// A new password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, write_only)]
    pub password: Option<Secret>,
    /// Whether they may not sign in any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Also ends every bearer token of the account.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub end_tokens: bool,
}

/// A bearer token, as the list shows it: without what opens anything.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub label: String,
    /// Whose it is.
    pub account: String,
    /// What it may do at most.
    pub scope: Role,
    /// Only reads.
    pub read_only: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Until when it is good.
    pub expires_at_ms: Option<u64>,
}

/// A signed-in browser, as the list shows it: without what opens anything.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The address that it began from; empty where it is not known.
    pub remote: String,
    /// How the browser described itself.
    pub agent: String,
    /// When it began, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was last used.
    pub used_at_ms: u64,
    /// When it is over if it is not used any more.
    pub ends_at_ms: u64,
    /// It is the one that asks.
    pub current: bool,
}

/// Makes a bearer token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is called.
    pub label: String,
    /// What it may do at most; without it all that its maker may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Role>,
    /// Only reads.
    #[serde(default)]
    pub read_only: bool,
    /// Until when it is good, in milliseconds since 1970; without it until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

/// A new token. It is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenSecret {
    /// The token, for `Authorization: Bearer`.
    #[schema(value_type = String)]
    pub token: Secret,
}
