//! The world of the tests: real servers (Docker Engine, image registries, Gitea, SMTP, sshd, Chromium, the `windlass`
//! binary), each a struct that stops its process when it is dropped. No test lives here, and nothing of the product is
//! imported: an outside test knows only addresses and credentials.
//!
//! A test begins with [`require`], so that a machine without a part says so instead of failing on a detail:
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use tests::{Part, Registry, require};
//! if !require(&[Part::Registry]) {
//!     return Ok(());
//! }
//! let registry = Registry::start(None).await?;
//! # Ok(())
//! # }
//! ```

pub mod bench;
pub mod browser;
pub mod disk;
pub mod docker;
pub mod evidence;
pub mod git;
pub mod git_http;
pub mod gitea;
pub mod hooks;
pub mod lone;
pub mod otlp;
pub mod parts;
pub mod process;
pub mod prometheus;
pub mod registry;
pub mod relay;
pub mod smtp;
pub mod soak;
pub mod sshd;
pub mod windlass;

pub use browser::{Browser, BrowserOptions, Violation};
pub use disk::SmallDisk;
pub use docker::DockerEngine;
pub use evidence::Tier;
pub use git::Repo;
pub use git_http::{Fault, GitHttp, GitHttpOptions};
pub use gitea::Gitea;
pub use hooks::{Hook, push_body, sign_hook};
pub use lone::LoneServer;
pub use otlp::Otlp;
pub use parts::{Part, require};
pub use process::{Process, Stop, free_port, http_client};
pub use prometheus::Prometheus;
pub use registry::Registry;
pub use relay::Relay;
pub use smtp::{Mail, Refusal, Smtp, SmtpOptions, SmtpTls};
pub use sshd::Sshd;
pub use windlass::Windlass;
