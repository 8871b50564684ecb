//! `windlass login`, `logout`, `whoami`: who we are on which server.

use std::path::Path;

use reqwest::Method;
use serde_json::json;
use server::{
    app::accounts::token_id,
    http::api::model::{self, Answer},
};

use url::Url;

use super::{
    Context,
    client::{Client, Target},
    credentials::{self, Credentials, is_on_this_machine},
    exit::Exit,
    failure::Failure,
    output::{fields, moment},
    prompt::{self, PasswordSource},
};

/// Sign in on a server; its token is kept for you on this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server, such as https://windlass.example.com; by default that of --url or of the last login
    server: Option<String>,
    /// Name of the account; asked for without it
    #[arg(long)]
    name: Option<String>,
    /// What the token is called in the list of tokens
    #[arg(long, default_value = "windlass login")]
    label: String,
    #[command(flatten)]
    password: PasswordSource,
}

/// Signs in.
pub(crate) async fn login(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let given = arguments.server.clone().or(context.target.url.clone());
    let target = Target { url: given, ca_file: context.target.ca_file.clone() };
    let base = target.server()?;
    if base.scheme() == "http" && !is_on_this_machine(&base) {
        context
            .out
            .note(&format!("warning: {base} is not encrypted: whoever is on the way can read password and token"));
    }
    let client = Client::new(base.clone(), None, target.ca_file.as_deref())?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None if prompt::is_interactive() => prompt::ask_line(&format!("Name on {base}: "))?,
        None => return Err(Failure::usage("cannot sign in without a name").next("--name NAME")),
    };
    let password = arguments.password.read(&format!("Password of {name}: "))?;
    let body = model::Login { name, password, label: arguments.label.clone() };
    let what = format!("cannot sign in on {base}");
    let answer: Answer<model::LoginToken> = client.send(&what, Method::POST, "api/v1/login", &body).await?;
    let token = answer.it;

    let path = credentials::default_path()?;
    let mut all = Credentials::load(&path)?;
    // The one before would stay good with nobody left who has it.
    if let Some(before) = all.remove(&base) {
        end_token(context, &base, before.token.expose(), target.ca_file.as_deref()).await;
    }
    all.add(&base, credentials::Login { name: token.account.clone(), token: token.token });
    all.save(&path)?;
    let expires_at = token.expires_at_ms;
    let shown = json!({"server": base, "account": token.account, "role": token.role, "expires_at_ms": expires_at});
    context.out.result("Login", &shown, |paint| {
        let until = moment(expires_at, &context.zone);
        let role = token.role.word().replace('_', " ");
        format!("{} signed in on {base} as {} ({role}), until {until}\n", paint.good("✓"), paint.bold(&token.account))
    })?;
    Ok(Exit::Ok)
}

/// Ends the token on the server and forgets it on this machine. A server that is away keeps nobody signed in here.
pub(crate) async fn logout(context: &Context) -> Result<Exit, Failure> {
    let base = context.target.server()?;
    let path = credentials::default_path()?;
    let mut all = Credentials::load(&path)?;
    let Some(login) = all.remove(&base) else {
        return Err(Failure::new(Exit::NotFound, format!("cannot sign out of {base}")).why("there was no login"));
    };
    let has_ended = end_token(context, &base, login.token.expose(), context.target.ca_file.as_deref()).await;
    all.save(&path)?;
    let shown = json!({"server": base, "ended": has_ended});
    context.out.result("Logout", &shown, |paint| format!("{} signed out of {base}\n", paint.good("✓")))?;
    Ok(Exit::Ok)
}

/// Ends a token on its server; says so where that fails, and whether it is over.
async fn end_token(context: &Context, base: &Url, token: &str, ca_file: Option<&Path>) -> bool {
    let (id, what) = (token_id(token), format!("cannot end the token on {base}"));
    let ended = async {
        let client = Client::new(base.clone(), Some(token.to_owned()), ca_file)?;
        client.send::<_, Answer<model::Done>>(&what, Method::DELETE, &format!("api/v1/tokens/{id}"), &json!({})).await
    };
    match ended.await {
        Ok(_) => true,
        // It is over already: expired, or ended by somebody else.
        Err(failure) if matches!(failure.exit, Exit::Login | Exit::NotFound) => true,
        Err(failure) => {
            let why = failure.why.unwrap_or_default();
            let hint = format!("it is good until it expires; to end it: sign in, then windlass token delete {id}");
            context.out.note(&format!("warning: {what}: {why}\n  {hint}"));
            false
        }
    }
}

/// Says who we are.
pub(crate) async fn whoami(context: &Context) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    let answer: Answer<model::Whoami> = client.get("cannot ask who you are", "api/v1/whoami", &[]).await?;
    context.out.answer(&answer, |paint, who| {
        let role = who.role.word().replace('_', " ");
        let reads = if who.read_only { "yes: changes nothing" } else { "" };
        fields(
            paint,
            &[
                ("server", client.base().to_string()),
                ("account", paint.bold(&who.account)),
                ("mail", who.email.clone()),
                ("role", role),
                ("read only", reads.to_owned()),
            ],
        )
    })?;
    Ok(Exit::Ok)
}
