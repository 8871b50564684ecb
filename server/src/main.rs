//! The `windlass` command: reads the command line and starts what it names.

mod demo;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use server::gateway::{self, GatewayOptions};

#[derive(Debug, Parser)]
#[command(name = "windlass", version, about = "A self-hosted delivery server")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
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
        /// How the report is printed
        #[arg(long, default_value = "text")]
        output: DemoOutput,
    },
    /// Send the hooks of a push to the demo's repository
    #[command(hide = true)]
    DemoHook {
        #[arg(long)]
        url: String,
        #[arg(long)]
        secret_file: PathBuf,
    },
    /// Route requests to the services of this machine, as the server says
    Gateway {
        /// Folder for its configuration and its control socket
        #[arg(long, env = "WINDLASS_GATEWAY_FOLDER")]
        folder: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DemoOutput {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("WINDLASS_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    let result = match Arguments::parse().command {
        Command::Serve { config } => serve::serve(&config).await,
        Command::Demo { folder, unattended, output } => {
            let json = output == DemoOutput::Json;
            match demo::run(demo::DemoOptions { folder, unattended, json }).await {
                Ok(true) => Ok(()),
                Ok(false) => return ExitCode::FAILURE,
                Err(error) => Err(error),
            }
        }
        Command::DemoHook { url, secret_file } => demo::send_hooks(&url, &secret_file).await,
        Command::Gateway { folder } => {
            let run = gateway::run(GatewayOptions { folder }).await;
            run.map_err(anyhow::Error::from)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlass: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}
