//! The command line: the tree of verbs, and how one is carried out and ends. Each verb lives in a file of its own; what
//! `serve`, `gateway` and `demo` do lives elsewhere.

mod account;
mod audit;
mod backup;
mod catalog;
pub(crate) mod client;
pub(crate) mod credentials;
mod doctor;
pub(crate) mod exit;
pub(crate) mod failure;
mod follow;
mod lint;
mod list;
mod login;
pub(crate) mod output;
mod progress;
mod prompt;
#[cfg(test)]
mod reference;
mod registry;
mod release;
mod rollout;
mod run;
mod runner;
mod secret;
mod service;
mod sse;
mod status;
mod support;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::{CommandFactory as _, Parser, Subcommand};
use jiff::tz::TimeZone;
use pipelines::effect::EffectKind;
use serde_json::json;
use server::{
    app::log_tail::LogTail,
    gateway::{self, GatewayOptions},
};

use crate::demo;

use self::{
    client::Target,
    exit::Exit,
    failure::Failure,
    output::{Format, Output},
};

/// A self-hosted delivery server
#[derive(Debug, Parser)]
#[command(name = "windlass", version, after_help = exit::help())]
struct Arguments {
    /// What to print on standard output
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    output: Format,
    /// The server; by default that of the last login
    #[arg(long, env = "WINDLASS_URL", global = true)]
    url: Option<String>,
    /// Certificate authority (PEM file) to trust besides the system's
    #[arg(long, env = "WINDLASS_CA_FILE", value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// How the log of a server is written to standard error
    #[arg(long, env = "WINDLASS_LOG_FORMAT", value_enum, default_value = "text", global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// For programs: one JSON object per line, with the request's id
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve pages, API and hooks, and run what they ask for
    Serve {
        /// The configuration file
        #[arg(long, env = "WINDLASS_CONFIG", default_value = "/etc/windlass/windlass.yaml")]
        config: PathBuf,
    },
    /// Show the whole train on this machine: two pushes to live traffic
    Demo {
        /// Keep everything in this folder instead of a temporary one
        #[arg(long)]
        folder: Option<PathBuf>,
        /// End when both releases are live; the exit code says whether everything held
        #[arg(long)]
        unattended: bool,
    },
    /// Send the hooks of a push to the demo's repository
    #[command(hide = true)]
    DemoHook {
        #[arg(long, value_name = "URL")]
        to: String,
        #[arg(long)]
        secret_file: PathBuf,
    },
    /// Route requests to the services of this machine, as the server says
    Gateway {
        /// Folder for its configuration and its control socket
        #[arg(long, env = "WINDLASS_GATEWAY_FOLDER")]
        folder: PathBuf,
    },
    /// Print the words of all kinds of effects, one per line
    #[command(hide = true)]
    Effects,
    Doctor(doctor::Arguments),
    Login(login::Arguments),
    /// Forget the token on this machine
    Logout,
    /// Show who you are on the server
    Whoami,
    Status(status::Arguments),
    Service(service::Arguments),
    Run(run::Arguments),
    Release(release::Arguments),
    Approve(release::ApproveArguments),
    Reject(release::RejectArguments),
    /// Say "I am testing this": the test environment stays with the release until it is decided
    Claim(release::OneArguments),
    /// Take a claim back
    Unclaim(release::OneArguments),
    Promote(rollout::PromoteArguments),
    Rollout(rollout::Arguments),
    Rollback(release::RollbackArguments),
    Runner(runner::Arguments),
    Account(account::Arguments),
    Audit(audit::Arguments),
    Backup(backup::Arguments),
    Restore(backup::RestoreArguments),
    SupportBundle(support::Arguments),
    Token(account::TokenArguments),
    Session(account::SessionArguments),
    Secret(secret::Arguments),
    Lint(lint::Arguments),
    /// Print the JSON Schema of the pipeline file, for editors
    Schema,
    Catalog(catalog::Arguments),
    Registry(registry::Arguments),
    /// Print the completion script of a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// What every verb is given.
pub(crate) struct Context {
    /// How to print.
    pub(crate) out: Output,
    /// Which server.
    pub(crate) target: Target,
    /// The time zone in which moments are said.
    pub(crate) zone: TimeZone,
    detached: Mutex<Option<String>>,
}

impl Context {
    /// Plain text in UTC, and no server.
    #[cfg(test)]
    fn for_tests() -> Self {
        let out =
            Output { format: Format::Text, paint: output::Paint::OFF, paint_err: output::Paint::OFF, is_live: false };
        Self { out, target: Target::default(), zone: TimeZone::UTC, detached: Mutex::default() }
    }

    /// From now on Ctrl-C only stops looking; this says how to look again.
    pub(crate) fn detach(&self, hint: String) {
        *self.detached.lock().unwrap_or_else(PoisonError::into_inner) = Some(hint);
    }
}

/// Reads the command line and does what it says.
pub(crate) async fn main() -> ExitCode {
    let Arguments { output, url, ca_file, log_format, command } = Arguments::parse();
    let is_server = command.is_server();
    let tail = log_to_standard_error(is_server, log_format);
    if is_server {
        return match serve(command, output, tail).await {
            Ok(exit) => exit.into(),
            Err(error) => {
                eprintln!("windlass: failed to {error:#}");
                Exit::Unexpected.into()
            }
        };
    }
    let context = Context {
        out: Output::of_process(output),
        target: Target { url, ca_file },
        zone: TimeZone::system(),
        detached: Mutex::default(),
    };
    verb(&context, command).await.into()
}

impl Command {
    /// Whether it runs on, and sees to Ctrl-C by itself.
    fn is_server(&self) -> bool {
        matches!(self, Self::Serve { .. } | Self::Gateway { .. } | Self::Demo { .. } | Self::DemoHook { .. })
    }
}

async fn serve(command: Command, output: Format, tail: Arc<LogTail>) -> anyhow::Result<Exit> {
    match command {
        Command::Serve { config } => crate::serve::serve(&config, tail).await?,
        Command::Gateway { folder } => gateway::run(GatewayOptions { folder }).await?,
        Command::Demo { folder, unattended } => {
            let options = demo::DemoOptions { folder, unattended, json: output == Format::Json };
            if !demo::run(options).await? {
                return Ok(Exit::Unexpected);
            }
        }
        Command::DemoHook { to, secret_file } => demo::send_hooks(&to, &secret_file).await?,
        // `verb` does all others.
        _ => {}
    }
    Ok(Exit::Ok)
}

/// A server logs what it does, and keeps the last lines; a verb only when asked to. `WINDLASS_LOG` says what, in the words of
/// `RUST_LOG`: `info,server::driver=debug`.
fn log_to_standard_error(is_server: bool, format: LogFormat) -> Arc<LogTail> {
    use tracing_subscriber::{EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};
    let default = || EnvFilter::new(if is_server { "info" } else { "off" });
    let tail = Arc::new(LogTail::default());
    let lines = match format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).boxed(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(std::io::stderr).boxed()
        }
    };
    // Of a layer of its own: spans keep their fields per kind of writing, so the colours of the other are not in it.
    let kept =
        is_server.then(|| fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(Arc::clone(&tail)));
    tracing_subscriber::registry()
        .with(EnvFilter::try_from_env("WINDLASS_LOG").unwrap_or_else(|_| default()))
        .with(lines)
        .with(kept)
        .init();
    tail
}

/// Does what a verb says until it is done or interrupted.
async fn verb(context: &Context, command: Command) -> Exit {
    let result = tokio::select! {
        result = act(context, command) => result,
        _ = tokio::signal::ctrl_c() => {
            let hint = context.detached.lock().unwrap_or_else(PoisonError::into_inner).take();
            context.out.note(&format!("\ninterrupted{}", hint.map(|hint| format!("; {hint}")).unwrap_or_default()));
            return Exit::Interrupted;
        }
    };
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            if failure != Failure::closed() {
                let json = context.out.is_json();
                let text = if json { failure.json() } else { failure.text(context.out.paint_err) };
                context.out.note(text.trim_end());
            }
            failure.exit
        }
    }
}

async fn act(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        // `serve` does these.
        Command::Serve { .. } | Command::Gateway { .. } | Command::Demo { .. } | Command::DemoHook { .. } => {
            Ok(Exit::Ok)
        }
        Command::Doctor(arguments) => doctor::run(context, &arguments).await,
        Command::Login(arguments) => login::login(context, &arguments).await,
        Command::Logout => login::logout(context).await,
        Command::Whoami => login::whoami(context).await,
        Command::Status(arguments) => status::run(context, &arguments).await,
        Command::Service(arguments) => service::run(context, &arguments).await,
        Command::Run(arguments) => run::run(context, &arguments).await,
        Command::Release(arguments) => release::run(context, &arguments).await,
        Command::Approve(arguments) => release::approve(context, &arguments).await,
        Command::Reject(arguments) => release::reject(context, &arguments).await,
        Command::Claim(arguments) => release::claim(context, &arguments).await,
        Command::Unclaim(arguments) => release::unclaim(context, &arguments).await,
        Command::Promote(arguments) => rollout::promote(context, &arguments).await,
        Command::Rollout(arguments) => rollout::run(context, &arguments).await,
        Command::Rollback(arguments) => release::rollback(context, &arguments).await,
        Command::Runner(arguments) => runner::run(context, &arguments).await,
        Command::Account(arguments) => account::run(context, &arguments).await,
        Command::Audit(arguments) => audit::run(context, &arguments).await,
        Command::Backup(arguments) => backup::run(context, &arguments).await,
        Command::Restore(arguments) => backup::restore(context, &arguments).await,
        Command::SupportBundle(arguments) => support::run(context, &arguments).await,
        Command::Token(arguments) => account::token(context, &arguments).await,
        Command::Session(arguments) => account::session(context, &arguments).await,
        Command::Secret(arguments) => secret::run(context, &arguments).await,
        Command::Lint(arguments) => lint::run(context, &arguments),
        Command::Effects => effects(),
        Command::Schema => schema(),
        Command::Catalog(arguments) => catalog::run(context, &arguments),
        Command::Registry(arguments) => registry::run(context, &arguments).await,
        Command::Completion { shell } => completion(shell),
        Command::Version => version(context),
    }
}

/// The schema is a document of its own, so it has no wrapper in any format.
fn schema() -> Result<Exit, Failure> {
    output::print(&format!("{:#}\n", pipelines::definition::json_schema()))?;
    Ok(Exit::Ok)
}

/// For tests from outside: they kill the server at every kind, also at one that came later than they.
fn effects() -> Result<Exit, Failure> {
    let words: String = EffectKind::ALL.iter().map(|kind| format!("{}\n", kind.word())).collect();
    output::print(&words)?;
    Ok(Exit::Ok)
}

fn completion(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "windlass", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

fn version(context: &Context) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let data = json!({"version": version, "os": std::env::consts::OS, "arch": std::env::consts::ARCH});
    context.out.result("Version", &data, |_| format!("windlass {version}\n"))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_verbs_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_verbs() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "windlass", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn a_secret_is_never_an_argument() {
        fn look(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let is_secret = ["password", "token", "secret", "key"].iter().any(|word| name.contains(word));
                let is_place = name.ends_with("_file") || name.ends_with("_stdin");
                let takes = argument.get_action().takes_values();
                assert!(!is_secret || is_place || !takes, "{}: --{name}", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&Arguments::command());
    }
}
