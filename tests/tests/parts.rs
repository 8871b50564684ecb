//! Tests that need a real part, one module per noun below parts/. Whole ways through the product live in e2e.

#[path = "parts/cli.rs"]
mod cli;
#[path = "parts/docker.rs"]
mod docker;
#[path = "parts/gateway.rs"]
mod gateway;
#[path = "parts/git.rs"]
mod git;
#[path = "parts/mail.rs"]
mod mail;
#[path = "parts/metrics.rs"]
mod metrics;
#[path = "parts/registry.rs"]
mod registry;
#[path = "parts/runner.rs"]
mod runner_agent;
#[path = "parts/secrets.rs"]
mod secrets;
#[path = "parts/traces.rs"]
mod traces;
#[path = "parts/world.rs"]
mod world;
