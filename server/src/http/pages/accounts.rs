//! The accounts, for admins; and everybody's own account with its tokens and sessions.

use std::sync::Arc;

use axum::{extract::Path, http::StatusCode, response::Response};
use pipelines::protocol::Secret;

use super::{
    Fields, Visit,
    convert::{page_ms, page_role, role_of_tag},
    see,
    session::set_session,
    show,
};
use crate::{
    app::{
        Account, App, AppError, Role,
        accounts::{Caller, PASSWORD_CHARS_MIN},
        sessions::SeenSession,
    },
    http::{
        access::{Browser, ThisSession, csrf_of},
        problem::Problem,
        ui::{
            accounts::{AccountLine, AccountsView, MeView, SessionLine, TokenLine},
            links,
            services::Problem as FieldProblem,
        },
    },
    random,
};

/// Characters of an account's name.
const NAME_CHARS_MAX: usize = 40;
/// Bytes of randomness in a password that the server makes up.
const PASSWORD_BYTES: usize = 12;
/// Characters of a token's name.
const TOKEN_NAME_CHARS_MAX: usize = 60;
/// The scope that takes the right to change anything from a token.
const READ_ONLY: &str = "read-only";

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn accounts_view(visit: &Visit) -> Result<AccountsView, Problem> {
    let caller = visit.caller()?;
    let line = |account: &Account| AccountLine {
        name: account.name.clone(),
        mail: some(&account.email),
        roles: vec![page_role(account.role)],
        made_at_ms: page_ms(account.created_at),
        locked: account.disabled,
        is_you: account.name == caller.account.name,
    };
    Ok(AccountsView {
        accounts: visit.app.accounts()?.iter().map(line).collect(),
        new_password: None,
        name: String::new(),
        mail: String::new(),
        name_problem: None,
        mail_problem: None,
    })
}

/// The accounts.
pub(in crate::http) async fn show_accounts(visit: Visit) -> Result<Response, Problem> {
    let view = accounts_view(&visit)?;
    Ok(show!(visit, view))
}

/// Makes an account with a password that is shown this once.
pub(in crate::http) async fn create_account(visit: Visit, fields: Fields) -> Result<Response, Problem> {
    let (name, mail) = (fields.trimmed("name"), fields.trimmed("mail"));
    // Each role may do what the ones before it may: the highest one that is ticked says all.
    let role = fields.all("role").filter_map(role_of_tag).max().unwrap_or(Role::Developer);
    let name_problem = name_problem(name);
    let is_mail =
        mail.is_empty() || (mail.contains('@') && !mail.chars().any(char::is_whitespace) && mail.len() <= 254);
    let mail_problem = (!is_mail).then_some(FieldProblem::NotAnAddress);
    let wrong = |name_problem, mail_problem| -> Result<Response, Problem> {
        let typed = (name.chars().take(NAME_CHARS_MAX).collect(), mail.chars().take(254).collect());
        let view = AccountsView { name: typed.0, mail: typed.1, name_problem, mail_problem, ..accounts_view(&visit)? };
        Ok(show!(visit, StatusCode::UNPROCESSABLE_ENTITY, view))
    };
    if name_problem.is_some() || mail_problem.is_some() {
        return wrong(name_problem, mail_problem);
    }
    let password = random::text(PASSWORD_BYTES);
    let secret = Secret::new(password.clone());
    match visit.app.account_create(name, mail, role, secret, visit.caller()?.origin()).await {
        Ok(_) => {
            let view = AccountsView { new_password: Some((name.to_owned(), password)), ..accounts_view(&visit)? };
            Ok(show!(visit, view))
        }
        Err(AppError::Exists(_)) => wrong(Some(FieldProblem::Taken), None),
        Err(error) => Err(error.into()),
    }
}

fn name_problem(name: &str) -> Option<FieldProblem> {
    let is_good = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match name.chars().count() {
        0 => Some(FieldProblem::Required),
        count if count > NAME_CHARS_MAX => Some(FieldProblem::TooLong { max_chars: NAME_CHARS_MAX as u64 }),
        _ if !is_good => Some(FieldProblem::BadName),
        _ => None,
    }
}

/// Locks, unlocks, or gives a new password, which is shown this once.
pub(in crate::http) async fn change_account(
    visit: Visit,
    Path(name): Path<String>,
    fields: Fields,
) -> Result<Response, Problem> {
    let caller = visit.caller()?;
    if name == caller.account.name {
        return Err(Problem::forbidden("an account does not lock itself; change your password under your name"));
    }
    let (app, origin) = (&visit.app, caller.origin());
    let locked = match fields.get("verb") {
        "lock" => true,
        "unlock" => false,
        "new-password" => {
            let password = random::text(PASSWORD_BYTES);
            app.account_update(&name, None, None, Some(Secret::new(password.clone())), None, origin).await?;
            let view = AccountsView { new_password: Some((name, password)), ..accounts_view(&visit)? };
            return Ok(show!(visit, view));
        }
        _ => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", "the form asks for nothing that can be done"));
        }
    };
    app.account_update(&name, None, None, None, Some(locked), origin).await?;
    Ok(see(links::ACCOUNTS))
}

fn me_view(app: &App, caller: &Caller, key: Option<&str>) -> Result<MeView, AppError> {
    let tokens = app.tokens_of(&caller.account.name)?;
    let scopes = Role::ALL.into_iter().filter(|role| caller.may(*role)).map(|role| page_role(role).tag().to_owned());
    Ok(MeView {
        name: caller.account.name.clone(),
        mail: some(&caller.account.email),
        roles: vec![page_role(caller.role)],
        tokens: tokens
            .into_iter()
            .map(|(id, token)| TokenLine {
                id,
                name: token.label,
                scopes: std::iter::once(page_role(token.scope).tag().to_owned())
                    .chain(token.read_only.then(|| READ_ONLY.to_owned()))
                    .collect(),
                made_at_ms: page_ms(token.created_at),
                until_ms: token.expires_at.map(page_ms),
            })
            .collect(),
        sessions: app.sessions_of(caller, key)?.into_iter().map(session_line).collect(),
        scopes: std::iter::once(READ_ONLY.to_owned()).chain(scopes).collect(),
        new_token: None,
        password_changed: false,
        password_problem: None,
    })
}

fn session_line(session: SeenSession) -> SessionLine {
    SessionLine {
        id: session.id,
        remote: some(&session.remote),
        agent: some(&session.agent),
        began_at_ms: page_ms(session.created_at),
        used_at_ms: page_ms(session.used_at),
        is_this: session.is_this,
    }
}

/// One's own account.
pub(in crate::http) async fn show_me(visit: Visit, ThisSession(key): ThisSession) -> Result<Response, Problem> {
    let view = me_view(&visit.app, visit.caller()?, key.as_deref())?;
    Ok(show!(visit, view))
}

/// Makes a token, which is shown this once.
pub(in crate::http) async fn create_token(
    visit: Visit,
    ThisSession(key): ThisSession,
    fields: Fields,
) -> Result<Response, Problem> {
    let caller = visit.caller()?;
    let label: String = fields.trimmed("name").chars().take(TOKEN_NAME_CHARS_MAX).collect();
    if label.is_empty() {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "a token needs a name"));
    }
    let role = fields.all("scope").filter_map(role_of_tag).max();
    // Without a role that it may act in, a token reads.
    let read_only = role.is_none() || fields.all("scope").any(|scope| scope == READ_ONLY);
    let role = role.unwrap_or(Role::Developer);
    let token = visit.app.token_create(caller, label, role, read_only, None).await?;
    let view = MeView { new_token: Some(token.expose().to_owned()), ..me_view(&visit.app, caller, key.as_deref())? };
    Ok(show!(visit, view))
}

/// Takes a token back.
pub(in crate::http) async fn revoke_token(visit: Visit, Path(id): Path<String>) -> Result<Response, Problem> {
    visit.app.token_delete(visit.caller()?, &id).await?;
    Ok(see(links::ME))
}

/// Ends one of one's own sessions.
pub(in crate::http) async fn end_session(visit: Visit, Path(id): Path<String>) -> Result<Response, Problem> {
    visit.app.session_end(visit.caller()?, &id).await?;
    Ok(see(links::ME))
}

/// Ends all of one's own sessions but the one that asks.
pub(in crate::http) async fn end_other_sessions(
    visit: Visit,
    ThisSession(key): ThisSession,
) -> Result<Response, Problem> {
    visit.app.session_end_others(visit.caller()?, key.as_deref()).await?;
    Ok(see(links::ME))
}

/// Changes one's own password; the present one is the proof. It ends all sessions: the browser that asks gets a new one.
pub(in crate::http) async fn change_password(
    visit: Visit,
    Browser(from): Browser,
    ThisSession(key): ThisSession,
    fields: Fields,
) -> Result<Response, Problem> {
    let (app, caller) = (Arc::clone(&visit.app), visit.caller()?);
    let new = fields.get("new");
    let problem = if new.chars().count() < PASSWORD_CHARS_MIN {
        Some(FieldProblem::TooShort { min_chars: PASSWORD_CHARS_MIN as u64 })
    } else {
        let old = Secret::new(fields.get("old"));
        let end_tokens = !fields.get("end_tokens").is_empty();
        match app.password_change(&from.remote, caller, old, Secret::new(new), end_tokens).await {
            Ok(()) => None,
            Err(AppError::WrongPassword) => Some(FieldProblem::Different),
            Err(error) => return Err(error.into()),
        }
    };
    if problem.is_some() {
        let view = MeView { password_problem: problem, ..me_view(&app, caller, key.as_deref())? };
        return Ok(show!(visit, StatusCode::UNPROCESSABLE_ENTITY, view));
    }
    let renewed = match &key {
        Some(old) => Some(app.session_begin(&app.account(&caller.account.name)?, &from, Some(old)).await?),
        None => None,
    };
    let mut response = {
        let mut visit = visit;
        if let Some(key) = &renewed {
            visit.ctx.csrf = csrf_of(&app, key);
        }
        let caller = visit.caller()?;
        let view = MeView { password_changed: true, ..me_view(&app, caller, renewed.as_deref())? };
        show!(visit, view)
    };
    if let Some(key) = &renewed {
        set_session(&mut response, &app, Some(key));
    }
    Ok(response)
}
