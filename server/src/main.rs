//! The `windlass` command. Not here: its command line (`cli`) and what its verbs do.

mod cli;
mod demo;
mod serve;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    // Every client of HTTPS in this process uses it. It can only be taken already, by the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::main().await
}
