//! The `windlass-runner` command: a runner on a machine of its own. Not here: what a runner does (the library).

mod settings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use charts::catalog::{Catalog, Limits};
use clap::{Parser, Subcommand};
use integrations::docker::EngineConfig;
use pipelines::protocol::{LinkError, RegisterRequest, RunnerAbout, Secret};
use runner::http::{HttpError, HttpLink, HttpServer, Identity, next_file};
use runner::{Agent, AgentConfig, Dismissed};
use tokio_util::sync::CancellationToken;

use settings::{Settings, SettingsError};

/// Takes runs from a Windlass server and executes them on this machine
#[derive(Debug, Parser)]
#[command(name = "windlass-runner", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take runs until SIGTERM; what is under way then goes on in its containers, and the next start takes it up
    Run {
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Make this machine known to the server, by a token from `windlass runner token`
    Register {
        #[command(flatten)]
        settings: Box<Settings>,
        /// File that holds the token; `-`: standard input
        #[arg(long, env = "WINDLASS_RUNNER_TOKEN_FILE", value_name = "FILE")]
        token_file: PathBuf,
    },
    /// Take another secret; the one before opens nothing any more
    Rotate {
        #[command(flatten)]
        settings: Box<Settings>,
    },
}

/// How the command ends: the codes of `windlass`.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Exit {
    Ok = 0,
    Unexpected = 1,
    Usage = 2,
    Login = 4,
    Unreachable = 15,
    Interrupted = 130,
}

/// What went wrong, with what to try.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Dismissed(#[from] Dismissed),
    #[error("read the token in {}", .path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("read the base configs")]
    Catalog(#[from] charts::catalog::CatalogError),
    #[error(transparent)]
    Agent(#[from] runner::AgentError),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) | Self::Token { .. } | Self::Http(HttpError::Address { .. }) => Exit::Usage,
            Self::Dismissed(Dismissed::Revoked(_)) | Self::Http(HttpError::Answer(LinkError::Revoked(_))) => {
                Exit::Login
            }
            Self::Http(HttpError::Refused { status: 401 | 403, .. }) => Exit::Login,
            Self::Http(HttpError::Answer(LinkError::NoAnswer(_))) => Exit::Unreachable,
            _ => Exit::Unexpected,
        }
    }

    fn try_this(&self) -> Option<&'static str> {
        match self.exit() {
            Exit::Login => Some("make a token with `windlass runner token`, then windlass-runner register"),
            Exit::Unreachable => Some("see that the server runs, and that its address and certificate are right"),
            _ => None,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // Every client of HTTPS in this process uses it. It can only be taken already, by the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::try_from_env("WINDLASS_LOG");
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")))
        .init();
    let exit = match act(Arguments::parse().command).await {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("error: failed to {}", pipelines::errors::chain(&failure));
            if let Some(hint) = failure.try_this() {
                eprintln!("  try: {hint}");
            }
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}

async fn act(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run { settings } => run(settings.whole()?).await,
        Command::Register { settings, token_file } => register(settings.whole()?, token_file).await,
        Command::Rotate { settings } => rotate(settings.whole()?).await,
    }
}

async fn run(settings: settings::Whole) -> Result<Exit, Failure> {
    let link = HttpLink::new(HttpServer::new(&settings.address()?)?, settings.identity_file.clone())?;
    let mut catalog = Catalog::builtin()?;
    if let Some(folder) = &settings.catalog_dir {
        catalog.extend(Catalog::load(folder, &Limits::default())?)?;
    }
    let mut engine = EngineConfig::default();
    if let Some(host) = &settings.docker_host {
        engine.host.clone_from(host);
    }
    let name = link.name();
    let mut config = AgentConfig::new(name.clone(), settings.folder.clone(), engine, Arc::new(catalog));
    config.labels = settings.labels.clone();
    config.parallel_runs = settings.parallel_runs as usize;
    let agent = Agent::new(link, config)?;
    let shutdown = CancellationToken::new();
    tokio::spawn(wait_for_signals(shutdown.clone()));
    tracing::info!(%name, labels = %settings.labels, parallel_runs = settings.parallel_runs, "taking runs");
    agent.run_forever(shutdown).await?;
    tracing::info!("stopped; what is under way goes on in its containers");
    Ok(Exit::Ok)
}

/// The first signal ends the work in order, the second at once.
async fn wait_for_signals(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    for is_second in [false, true] {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        if is_second {
            std::process::exit(Exit::Interrupted as i32);
        }
        shutdown.cancel();
    }
}

async fn register(settings: settings::Whole, token_file: PathBuf) -> Result<Exit, Failure> {
    let failed = |source| Failure::Token { path: token_file.clone(), source };
    let text = if token_file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map_err(failed)?
    } else {
        std::fs::read_to_string(&token_file).map_err(failed)?
    };
    let token = Secret::new(text.lines().next().unwrap_or_default().trim());
    let server = HttpServer::new(&settings.address()?)?;
    let name = settings.name()?;
    // Kept before it is shown: a repeat after a crash or a lost answer registers the same runner.
    let identity = match Identity::read(&settings.identity_file) {
        Ok(known) if known.name == name => known,
        Ok(other) => {
            let file = settings.identity_file.display().to_string();
            return Err(SettingsError::OtherName { file, known: other.name.to_string() }.into());
        }
        Err(HttpError::File { .. }) => Identity::new(name.clone()),
        Err(error) => return Err(error.into()),
    };
    identity.write(&settings.identity_file)?;
    let about = RunnerAbout {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: settings.labels.clone(),
        capacity: settings.parallel_runs,
    };
    server.register(&RegisterRequest { token, name: name.clone(), secret: identity.secret, about }).await?;
    println!("registered as {name}; now: windlass-runner run");
    Ok(Exit::Ok)
}

async fn rotate(settings: settings::Whole) -> Result<Exit, Failure> {
    let server = HttpServer::new(&settings.address()?)?;
    let present = Identity::read(&settings.identity_file)?;
    // Kept before it is sent: after a lost answer the server may have it already.
    let next_file = next_file(&settings.identity_file);
    let next = match Identity::read(&next_file) {
        Ok(next) if next.name == present.name => next,
        _ => Identity::new(present.name.clone()),
    };
    next.write(&next_file)?;
    match server.rotate(&present, next.secret.clone()).await {
        Err(HttpError::Answer(LinkError::Revoked(_))) => drop(server.rotate(&next, next.secret.clone()).await?),
        answer => drop(answer?),
    }
    next.write(&settings.identity_file)?;
    // Left behind, it would only be the same once more.
    std::fs::remove_file(&next_file).ok();
    println!("{} has another secret; a runner that works takes it up by itself", next.name);
    Ok(Exit::Ok)
}
