//! `windlass secret`: what steps are given, and the key that seals it. A value is never an argument and never printed.

use std::{path::PathBuf, sync::Arc};

use pipelines::{
    ids::{SecretName, ServiceName},
    time::UnixMs,
};
use reqwest::Method;
use serde_json::json;
use server::{
    app::rotation,
    config::Config,
    http::api::model::{self, Answer, Done, List},
    store::{
        embedded::EmbeddedStore,
        engine::{self, EngineConfig},
    },
};

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    output::{Paint, ago, clean, now, table},
    prompt::ValueSource,
};

/// Set what steps are given, and look at when it was used
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Set one; the value is typed, or read from a file or standard input
    Set {
        /// Its name, by which steps name it: DEPLOY_TOKEN
        name: SecretName,
        #[command(flatten)]
        scope: Scope,
        /// Share it with this service only; may be given several times
        #[arg(long, value_name = "SERVICE", conflicts_with = "service")]
        only_for: Vec<ServiceName>,
        #[command(flatten)]
        value: ValueSource,
    },
    /// List them, without their values
    List {
        #[command(flatten)]
        scope: Scope,
    },
    /// Remove one: steps that name it fail from now on
    Remove {
        /// Which
        name: SecretName,
        #[command(flatten)]
        scope: Scope,
    },
    /// Make a new key and seal everything with it, on the server's machine, while the server is stopped
    RotateKey {
        /// The server's configuration file
        #[arg(long, env = "WINDLASS_CONFIG", default_value = "/etc/windlass/windlass.yaml")]
        config: PathBuf,
        /// End the links and codes that were mailed before; without, they stay good until the next rotation
        #[arg(long)]
        end_links: bool,
    },
}

/// Whose secrets.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Scope {
    /// Of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Shared by services
    #[arg(long)]
    shared: bool,
}

impl Scope {
    fn path(&self) -> String {
        let of = |service| format!("api/v1/services/{service}/secrets");
        self.service.as_ref().map_or_else(|| "api/v1/secrets".to_owned(), of)
    }
}

/// Does what the verb says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        Verb::Set { name, scope, only_for, value } => {
            let client = context.target.client()?;
            let value = Some(value.read(&format!("Value of {name}: "))?);
            let services: Vec<String> = only_for.iter().map(ToString::to_string).collect();
            let body = model::SecretInput { value, services: (!services.is_empty()).then_some(services) };
            let (what, path) = (format!("cannot set the secret {name}"), format!("{}/{name}", scope.path()));
            let set: Answer<model::NamedSecret> = client.send(&what, Method::PUT, &path, &body).await?;
            context.out.answer(&set, |paint, set| {
                format!("{} {} is set for {}\n", paint.good("✓"), paint.bold(&clean(&set.name)), of(set))
            })?;
        }
        Verb::List { scope } => {
            let client = context.target.client()?;
            let all: Answer<List<model::NamedSecret>> = client.get("cannot list secrets", &scope.path(), &[]).await?;
            context.out.answer(&all, |paint, all| lines(paint, &all.items))?;
        }
        Verb::Remove { name, scope } => {
            let client = context.target.client()?;
            let (what, path) = (format!("cannot remove the secret {name}"), format!("{}/{name}", scope.path()));
            let done: Answer<Done> = client.send(&what, Method::DELETE, &path, &json!({})).await?;
            context.out.answer(&done, |paint, done| format!("{} {}\n", paint.good("✓"), clean(&done.done)))?;
        }
        Verb::RotateKey { config, end_links } => rotate_key(context, config, *end_links).await?,
    }
    Ok(Exit::Ok)
}

fn of(secret: &model::NamedSecret) -> String {
    match &secret.service {
        Some(service) => clean(service),
        None if secret.services.is_empty() => "all services".into(),
        None => clean(&secret.services.join(", ")),
    }
}

fn lines(paint: Paint, all: &[model::NamedSecret]) -> String {
    if all.is_empty() {
        return "there is no secret\n".into();
    }
    let row = |secret: &model::NamedSecret| {
        let used = match (&secret.last_run, secret.last_used_at_ms) {
            (Some(run), Some(at)) => format!("{} by {}", ago(at, now()), clean(run)),
            _ => paint.dim("never"),
        };
        vec![clean(&secret.name), of(secret), ago(secret.set_at_ms, now()), clean(&secret.set_by), used]
    };
    table(paint, &["NAME", "FOR", "SET", "BY", "LAST USED"], &all.iter().map(row).collect::<Vec<_>>())
}

async fn rotate_key(context: &Context, config: &std::path::Path, end_links: bool) -> Result<(), Failure> {
    let what = "cannot rotate the key";
    let config = Config::load(config).map_err(|error| Failure::usage(what).because(&error))?;
    let settings = EngineConfig { cache_bytes: config.bounds.store_cache_bytes, ..EngineConfig::default() };
    let opened = engine::open(&config.state_dir.join("store"), &settings);
    let engine = opened.map_err(|error| {
        Failure::new(Exit::Unexpected, what).because(&error).next("stop the server first: it has the store open")
    })?;
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Unexpected, what).because(error);
    let store = EmbeddedStore::open(Arc::clone(&engine)).map_err(|error| failed(&error))?;
    let key_file = config.state_dir.join("key");
    let done = rotation::rotate(&store, &key_file, end_links, UnixMs(now())).await.map_err(|error| failed(&error))?;
    let data = json!({ "sealed": done.sealed, "resumed": done.resumed, "links_ended": end_links });
    context.out.result("KeyRotation", &data, |paint| {
        let key = if done.resumed { "the rotation that was broken off is done" } else { "there is a new key" };
        let links = if end_links { "are worth nothing any more" } else { "stay good until the next rotation" };
        let mark = paint.good("✓");
        format!(
            "{mark} {key}; {} texts are sealed with it; links mailed before {links}\n  start the server again\n",
            done.sealed
        )
    })
}
