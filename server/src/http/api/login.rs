//! Signing programs in, and who calls.

use std::sync::Arc;

use axum::extract::State;

use super::{
    Reply,
    model::{self, Answer},
    reply,
};
use crate::{
    app::App,
    http::{access::Signed, extract::Body, remote::Remote},
};

/// Signs a program in by name and password: gives a bearer token. Too many tries are refused for a while.
#[utoipa::path(post, path = "/api/v1/login", tag = "login", request_body = model::Login,
    responses((status = 200, description = "the token, this once", body = Answer<model::LoginToken>)))]
pub async fn login(
    State(app): State<Arc<App>>,
    Remote(remote): Remote,
    Body(login): Body<model::Login>,
) -> Reply<model::LoginToken> {
    let label = if login.label.trim().is_empty() { "windlass login".to_owned() } else { login.label };
    let (token, account, expires_at) = app.login(&remote, &login.name, login.password, label).await?;
    reply(model::LoginToken { token, account: account.name, role: account.role, expires_at_ms: expires_at.0 })
}

/// Who calls, and what they may do by this way.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "login",
    responses((status = 200, body = Answer<model::Whoami>, description = "the caller")))]
pub async fn show_caller(Signed(caller): Signed) -> Reply<model::Whoami> {
    reply(model::Whoami {
        account: caller.account.name.clone(),
        email: caller.account.email.clone(),
        role: caller.role,
        read_only: caller.read_only,
    })
}
