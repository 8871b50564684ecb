//! `windlass account`, `windlass token` and `windlass session`: who may sign in, what programs sign in with, and the
//! browsers that are signed in.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use reqwest::Method;
use server::{
    app::Role,
    http::api::model::{self, Answer, List},
};

use super::{
    Context,
    client::Client,
    exit::Exit,
    failure::Failure,
    follow::duration_ms,
    output::{Paint, clean, moment, now, table},
    prompt::PasswordSource,
};

/// Who may sign in
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them
    List,
    /// Add one
    Add {
        /// Name to sign in with
        name: String,
        /// Mail address; authors do not approve their own commits by it
        #[arg(long, default_value = "")]
        email: String,
        /// What they may do
        #[arg(long, default_value = "developer", value_parser = roles())]
        role: Role,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Change role or mail address
    Edit {
        /// Which
        name: String,
        /// Mail address
        #[arg(long)]
        email: Option<String>,
        /// What they may do
        #[arg(long, value_parser = roles())]
        role: Option<Role>,
    },
    /// Take the sign-in away; the journal keeps the name
    Disable {
        /// Which
        name: String,
    },
    /// Give the sign-in back
    Enable {
        /// Which
        name: String,
    },
    /// Set a new password
    Password {
        /// Whose
        name: String,
        #[command(flatten)]
        password: PasswordSource,
        /// End their bearer tokens too
        #[arg(long)]
        end_tokens: bool,
    },
}

/// What programs sign in with
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, clap::Subcommand)]
enum TokenVerb {
    /// List them, without what opens anything
    List,
    /// Make one; it is printed this once, alone on standard output
    Create {
        /// What it is called
        label: String,
        /// What it may do at most; by default all that you may
        #[arg(long, value_parser = roles())]
        scope: Option<Role>,
        /// It changes nothing
        #[arg(long)]
        read_only: bool,
        /// How long it is good, such as 90d; by default until it is deleted
        #[arg(long, value_name = "TIME", value_parser = duration_ms)]
        expires: Option<u64>,
    },
    /// Delete one: it opens nothing any more
    Delete {
        /// Its id, as the list shows it
        id: String,
    },
}

/// The browsers that you are signed in with
#[derive(Debug, clap::Args)]
pub(crate) struct SessionArguments {
    #[command(subcommand)]
    verb: SessionVerb,
}

#[derive(Debug, clap::Subcommand)]
enum SessionVerb {
    /// List them
    List,
    /// End one: its browser has to sign in again
    End {
        /// Its id, as the list shows it
        id: String,
    },
}

/// Roles as they are written, such as `release-manager`.
fn roles() -> impl TypedValueParser<Value = Role> {
    const WORDS: [&str; 5] = ["developer", "tester", "release-manager", "operator", "admin"];
    PossibleValuesParser::new(WORDS).map(|word| {
        let found = Role::ALL.into_iter().zip(WORDS).find(|(_, known)| *known == word);
        // The parser lets only these words through.
        found.map_or(Role::Developer, |(role, _)| role)
    })
}

/// Does what the verb of `account` says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    let change = match &arguments.verb {
        Verb::List => {
            let all: Answer<List<model::Account>> = client.get("cannot list accounts", "api/v1/accounts", &[]).await?;
            context.out.answer(&all, |paint, all| accounts(context, paint, &all.items))?;
            return Ok(Exit::Ok);
        }
        Verb::Add { name, email, role, password } => {
            let password = password.read_new()?;
            let body = model::NewAccount { name: name.clone(), email: email.clone(), role: *role, password };
            let what = format!("cannot add the account {name}");
            let new: Answer<model::Account> = client.send(&what, Method::POST, "api/v1/accounts", &body).await?;
            return said(context, &new, "is added");
        }
        Verb::Edit { name, email, role } => {
            (name, model::AccountChange { email: email.clone(), role: *role, ..Default::default() }, "is changed")
        }
        Verb::Disable { name } => {
            (name, model::AccountChange { disabled: Some(true), ..Default::default() }, "may not sign in any more")
        }
        Verb::Enable { name } => {
            (name, model::AccountChange { disabled: Some(false), ..Default::default() }, "may sign in again")
        }
        Verb::Password { name, password, end_tokens } => {
            let (password, end_tokens) = (Some(password.read_new()?), *end_tokens);
            (name, model::AccountChange { password, end_tokens, ..Default::default() }, "has a new password")
        }
    };
    let (name, body, word) = change;
    let now: Answer<model::Account> = patch(&client, name, &body).await?;
    said(context, &now, word)
}

async fn patch(client: &Client, name: &str, body: &model::AccountChange) -> Result<Answer<model::Account>, Failure> {
    let path = format!("api/v1/accounts/{}", in_path(name));
    client.send(&format!("cannot change the account {name}"), Method::PATCH, &path, body).await
}

/// A text as one part of a path.
pub(super) fn in_path(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20").replace('.', "%2E")
}

fn said(context: &Context, account: &Answer<model::Account>, word: &str) -> Result<Exit, Failure> {
    context.out.answer(account, |paint, account| {
        let role = account.role.word().replace('_', " ");
        format!("{} {} ({role}) {word}\n", paint.good("✓"), paint.bold(&clean(&account.name)))
    })?;
    Ok(Exit::Ok)
}

fn accounts(context: &Context, paint: Paint, all: &[model::Account]) -> String {
    let row = |account: &model::Account| {
        let state = if account.disabled { paint.dim("- disabled") } else { paint.good("✓ active") };
        let since = moment(account.created_at_ms, &context.zone);
        vec![clean(&account.name), account.role.word().replace('_', " "), clean(&account.email), state, since]
    };
    table(paint, &["NAME", "ROLE", "MAIL", "STATE", "SINCE"], &all.iter().map(row).collect::<Vec<_>>())
}

/// Does what the verb of `token` says.
pub(crate) async fn token(context: &Context, arguments: &TokenArguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    match &arguments.verb {
        TokenVerb::List => {
            let all: Answer<List<model::Token>> = client.get("cannot list tokens", "api/v1/tokens", &[]).await?;
            context.out.answer(&all, |paint, all| tokens(context, paint, &all.items))?;
        }
        TokenVerb::Create { label, scope, read_only, expires } => {
            let expires_at_ms = expires.map(|life_ms| now().saturating_add(life_ms));
            let body = model::NewToken { label: label.clone(), scope: *scope, read_only: *read_only, expires_at_ms };
            let new: Answer<model::TokenSecret> =
                client.send("cannot make a token", Method::POST, "api/v1/tokens", &body).await?;
            context.out.answer(&new, |_, new| format!("{}\n", new.token.expose()))?;
            context.out.note("it is shown this once");
        }
        TokenVerb::Delete { id } => {
            let path = format!("api/v1/tokens/{}", in_path(id));
            let what = format!("cannot delete the token {id}");
            let done: Answer<model::Done> = client.send(&what, Method::DELETE, &path, &serde_json::json!({})).await?;
            context.out.answer(&done, |paint, done| format!("{} {}\n", paint.good("✓"), clean(&done.done)))?;
        }
    }
    Ok(Exit::Ok)
}

fn tokens(context: &Context, paint: Paint, all: &[model::Token]) -> String {
    if all.is_empty() {
        return "there is no token\n".into();
    }
    let row = |token: &model::Token| {
        let reads = if token.read_only { "reads" } else { "changes" };
        let until = token.expires_at_ms.map_or_else(|| "deleted".into(), |until| moment(until, &context.zone));
        vec![
            clean(&token.id),
            clean(&token.label),
            clean(&token.account),
            token.scope.word().replace('_', " "),
            reads.to_owned(),
            moment(token.created_at_ms, &context.zone),
            until,
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(paint, &["ID", "LABEL", "OF", "SCOPE", "MAY", "MADE", "GOOD UNTIL"], &rows)
}

/// Does what the verb of `session` says.
pub(crate) async fn session(context: &Context, arguments: &SessionArguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    match &arguments.verb {
        SessionVerb::List => {
            let all: Answer<List<model::Session>> = client.get("cannot list sessions", "api/v1/sessions", &[]).await?;
            context.out.answer(&all, |paint, all| sessions(context, paint, &all.items))?;
        }
        SessionVerb::End { id } => {
            let path = format!("api/v1/sessions/{}", in_path(id));
            let what = format!("cannot end the session {id}");
            let done: Answer<model::Done> = client.send(&what, Method::DELETE, &path, &serde_json::json!({})).await?;
            context.out.answer(&done, |paint, done| format!("{} {}\n", paint.good("✓"), clean(&done.done)))?;
        }
    }
    Ok(Exit::Ok)
}

fn sessions(context: &Context, paint: Paint, all: &[model::Session]) -> String {
    if all.is_empty() {
        return "no browser is signed in\n".into();
    }
    let row = |session: &model::Session| {
        let at = |at_ms| moment(at_ms, &context.zone);
        let (id, remote, agent) = (clean(&session.id), clean(&session.remote), clean(&session.agent));
        vec![id, remote, at(session.created_at_ms), at(session.used_at_ms), at(session.ends_at_ms), agent]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(paint, &["ID", "FROM", "BEGAN", "LAST USED", "GOOD UNTIL", "BROWSER"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_can_be_written() {
        let command = clap::Command::new("x").arg(clap::Arg::new("role").value_parser(roles()));
        for role in Role::ALL {
            let words = ["x".to_owned(), role.word().replace('_', "-")];
            let matches = command.clone().try_get_matches_from(words).unwrap();
            assert_eq!(matches.get_one::<Role>("role"), Some(&role));
        }
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(in_path("../x y/ü"), "%2E%2E%2Fx%20y%2F%C3%BC");
    }
}
