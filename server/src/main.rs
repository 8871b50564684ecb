//! The `windlass` command. Not here: its command line (`cli`) and what its verbs do.

#[expect(dead_code, reason = "the verbs that speak to the server come with its API")]
mod cli;
mod demo;
mod serve;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    // Every client of HTTPS in this process uses it. It can only be taken already, by the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::main().await
}
