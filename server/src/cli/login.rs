//! `windlass login`, `logout`, `whoami`: who we are on which server.

use reqwest::Method;
use serde_json::json;
use server::http::api::model::{self, Answer};

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
    let answer: Result<Answer<model::LoginToken>, Failure> =
        client.send(&what, Method::POST, "api/v1/login", &body).await;
    // Everybody may try to sign in; who is refused has not proved who they are.
    let answer = answer.map_err(|failure| match failure.exit {
        Exit::Forbidden => Failure { exit: Exit::Login, ..failure },
        _ => failure,
    });
    let token = answer?.it;

    let path = credentials::default_path()?;
    let mut all = Credentials::load(&path)?;
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

/// Forgets the token on this machine.
pub(crate) fn logout(context: &Context) -> Result<Exit, Failure> {
    let base = context.target.server()?;
    let path = credentials::default_path()?;
    let mut all = Credentials::load(&path)?;
    if all.remove(&base).is_none() {
        return Err(Failure::new(Exit::NotFound, format!("cannot sign out of {base}")).why("there was no login"));
    }
    all.save(&path)?;
    context.out.result("Logout", &json!({ "server": base }), |paint| {
        let hint =
            paint.dim("it is good until it expires; to end it now: windlass token list, windlass token delete ID");
        format!("{} the token for {base} is forgotten on this machine\n  {hint}\n", paint.good("✓"))
    })?;
    Ok(Exit::Ok)
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
