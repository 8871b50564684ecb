//! Accounts, bearer tokens and sessions.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pipelines::time::UnixMs;

use super::{
    Reply, convert,
    model::{self, Answer, Done, List},
    reply,
};
use crate::{
    app::App,
    http::{
        access::{Signed, ThisSession},
        extract::{Body, OfAccount, OfSession, OfToken},
        problem::Problem,
    },
};

/// All accounts, by name.
#[utoipa::path(get, path = "/api/v1/accounts", tag = "accounts",
    responses((status = 200, body = Answer<List<model::Account>>, description = "all of them")))]
pub async fn list_accounts(State(app): State<Arc<App>>) -> Reply<List<model::Account>> {
    reply(List::all(app.accounts()?.iter().map(convert::account).collect()))
}

/// Makes an account.
#[utoipa::path(post, path = "/api/v1/accounts", tag = "accounts", request_body = model::NewAccount,
    responses((status = 201, body = Answer<model::Account>, description = "it")))]
pub async fn create_account(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(new): Body<model::NewAccount>,
) -> Result<Response, Problem> {
    let account = app.account_create(&new.name, &new.email, new.role, new.password, caller.origin()).await?;
    Ok((StatusCode::CREATED, reply(convert::account(&account))).into_response())
}

/// Changes role, mail address, password of an account, or whether it may sign in.
#[utoipa::path(patch, path = "/api/v1/accounts/{account}", tag = "accounts", params(("account" = String, Path)),
    request_body = model::AccountChange,
    responses((status = 200, body = Answer<model::Account>, description = "as it is now")))]
pub async fn change_account(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    OfAccount(name): OfAccount,
    Body(change): Body<model::AccountChange>,
) -> Reply<model::Account> {
    let model::AccountChange { email, role, password, disabled, end_tokens } = change;
    let account = app.account_update(&name, role, email, password, disabled, caller.origin()).await?;
    if end_tokens {
        app.tokens_end(&name, caller.origin()).await?;
    }
    reply(convert::account(&account))
}

/// The caller's tokens.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "accounts",
    responses((status = 200, body = Answer<List<model::Token>>, description = "without what opens anything")))]
pub async fn list_tokens(State(app): State<Arc<App>>, Signed(caller): Signed) -> Reply<List<model::Token>> {
    let tokens = app.tokens_of(&caller.account.name)?;
    reply(List::all(tokens.into_iter().map(|(id, token)| convert::token(id, &token)).collect()))
}

/// Makes a token for the caller.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "accounts", request_body = model::NewToken,
    responses((status = 201, body = Answer<model::TokenSecret>, description = "the token, this once")))]
pub async fn create_token(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(new): Body<model::NewToken>,
) -> Result<Response, Problem> {
    let scope = new.scope.unwrap_or(caller.role);
    let token = app.token_create(&caller, new.label, scope, new.read_only, new.expires_at_ms.map(UnixMs)).await?;
    Ok((StatusCode::CREATED, reply(model::TokenSecret { token })).into_response())
}

/// Takes a token back: one of the caller's, or anybody's for an admin.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "accounts", params(("id" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "it opens nothing any more")))]
pub async fn delete_token(State(app): State<Arc<App>>, Signed(caller): Signed, OfToken(id): OfToken) -> Reply<Done> {
    app.token_delete(&caller, &id).await?;
    reply(Done { done: format!("the token {id} opens nothing any more") })
}

/// The browsers that the caller is signed in with.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "accounts",
    responses((status = 200, body = Answer<List<model::Session>>, description = "last used first, without what opens anything")))]
pub async fn list_sessions(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    ThisSession(key): ThisSession,
) -> Reply<List<model::Session>> {
    let sessions = app.sessions_of(&caller, key.as_deref())?;
    reply(List::all(sessions.into_iter().map(convert::session).collect()))
}

/// Ends one of the caller's sessions.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", tag = "accounts", params(("id" = String, Path)),
    responses((status = 200, body = Answer<Done>, description = "its browser has to sign in again")))]
pub async fn end_session(State(app): State<Arc<App>>, Signed(caller): Signed, OfSession(id): OfSession) -> Reply<Done> {
    app.session_end(&caller, &id).await?;
    reply(Done { done: format!("the session {id} is over") })
}
