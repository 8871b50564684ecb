//! The `windlass` command. Not here: its command line (`cli`) and what its verbs do.

#[expect(dead_code, reason = "the verbs that speak to the server come with its API")]
mod cli;
mod demo;
mod serve;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    cli::main().await
}
