//! The `windlass` command. Not here: its command line (`cli`) and what its verbs do.

mod cli;
mod demo;
mod serve;

/// Of the allocators that keep the memory small, the one that is fastest where one thread frees what another took, as the
/// store's thread does with every change.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    // Every client of HTTPS in this process uses it. It can only be taken already, by the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::main().await
}
