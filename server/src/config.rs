//! The server's configuration file, its defaults and its bounds. Unknown keys are errors. Not here: command line options.

#[cfg(test)]
mod tests;
mod tracing;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use pipelines::{
    hold::HoldBounds,
    labels::Labels,
    protocol::{JobBounds, MirrorRule, OutgoingRules, RegistryAccess, Secret},
};
use schemars::JsonSchema;
use serde::Deserialize;

pub use tracing::TracingSettings;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is not a good configuration: {why}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with its place.
        why: String,
    },
}

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of all that is kept.
    pub state_dir: PathBuf,
    /// Where pages, API and hooks are served.
    #[serde(default = "default_listen")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// How people reach it: the start of every link in a mail.
    pub public_url: String,
    /// Addresses or networks of reverse proxies (`10.0.0.7`, `10.0.0.0/8`). Only what comes from one of them is believed
    /// when it says for whom it comes (`X-Forwarded-For`).
    #[serde(default, deserialize_with = "networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// The gateway.
    #[serde(default)]
    pub gateway: GatewaySettings,
    /// The two registries.
    pub registries: Registries,
    /// Where the engine listens; none: the engine's usual socket or `DOCKER_HOST`.
    #[serde(default)]
    pub docker_host: Option<String>,
    /// Base images → where to fetch them instead.
    #[serde(default)]
    pub mirrors: Vec<MirrorRule>,
    /// How mails leave.
    pub mail: MailSettings,
    /// Where calls may lead.
    #[serde(default)]
    pub outgoing: OutgoingRules,
    /// A folder of base configs besides the built-in ones.
    #[serde(default)]
    pub catalog_dir: Option<PathBuf>,
    /// The embedded runner.
    #[serde(default)]
    pub runner: RunnerSettings,
    /// What a run may take.
    #[serde(default)]
    pub job: JobBounds,
    /// Runs that wait for a person's word: pull requests from forks.
    #[serde(default)]
    pub hold: HoldBounds,
    /// The server's own bounds.
    #[serde(default)]
    pub bounds: Bounds,
    /// What the server tells of itself under `/metrics`, in Prometheus's text format.
    #[serde(default)]
    pub metrics: MetricsSettings,
    /// Traces of what is delivered, sent by OTLP over HTTP.
    #[serde(default)]
    pub tracing: TracingSettings,
    /// What is kept, and for how long. Something goes only when it is over both its number and its age. What is live, may
    /// be rolled back to, waits or runs always stays, and so does the journal.
    #[serde(default)]
    pub retention: Retention,
}

/// What is kept.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// The newest runs of each service that are kept, with their releases and rollouts.
    pub runs_keep: usize,
    /// Days for which every run is kept.
    pub runs_days: u32,
    /// The newest images of each service that are kept in the test registry and on the engine. Of the production registry
    /// nothing is ever removed.
    pub images_keep: usize,
    /// Days for which every image is kept there.
    pub images_days: u32,
    /// Releases of each service that were live and stay, with their images, to be rolled back to.
    pub rollback_keep: usize,
    /// The newest hooks of each service that are kept.
    pub deliveries_keep: usize,
    /// Days for which every hook is kept.
    pub deliveries_days: u32,
    /// Days for which logs are kept.
    pub logs_days: u32,
    /// Bytes of all logs together; the oldest go first.
    pub logs_bytes_max: u64,
    /// Time between two sweeps, in milliseconds; 0: nothing is ever removed.
    pub sweep_every_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            runs_keep: 200,
            runs_days: 90,
            images_keep: 10,
            images_days: 14,
            rollback_keep: 5,
            deliveries_keep: 500,
            deliveries_days: 30,
            logs_days: 90,
            logs_bytes_max: 20 << 30,
            sweep_every_ms: 3_600_000,
        }
    }
}

/// Below this a runner that is well would be given up, in milliseconds.
const RUNNER_LOST_MS_MIN: u64 = 5_000;

/// Networks, or single addresses, as they are written.
fn networks<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: &String| network(text).map_err(serde::de::Error::custom);
    Vec::<String>::deserialize(from)?.iter().map(read).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let found = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    found.map_err(|_| format!("{text} is neither an address nor a network like 10.0.0.0/8"))
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8000))
}

/// The gateway's addresses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Where requests to the services come in.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The port in the addresses that people get; 0: that of `listen`.
    pub public_port: u16,
    /// `http` or `https` in these addresses.
    pub public_scheme: String,
    /// `<service>.<test_domain>` is the address in the test environment. Set it to a name that other machines resolve.
    pub test_domain: String,
    /// `<service>.<preview_domain>` is the address of a blue-green rollout's new revision.
    pub preview_domain: String,
    /// `<service>.<production_domain>` is the address in production of a service that names no host.
    pub production_domain: String,
    /// How long requests may take to finish when a revision leaves, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Connections of visitors; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Start and watch the gateway's process; off where something else does.
    pub supervise: bool,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_port: 0,
            public_scheme: "http".into(),
            test_domain: "test.localhost".into(),
            preview_domain: "preview.localhost".into(),
            production_domain: "localhost".into(),
            drain_timeout_ms: 30_000,
            connections_max: 4_096,
            supervise: true,
        }
    }
}

/// The test and the production registry.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    /// Where runs push to.
    pub test: RegistrySettings,
    /// Where promotions go to.
    pub production: RegistrySettings,
}

/// One registry.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// `host:port`.
    pub host: String,
    /// What stands before the service's name in it, such as a Harbor project; may be empty.
    #[serde(default)]
    pub prefix: String,
    /// Speak HTTP, not HTTPS.
    #[serde(default)]
    pub plain_http: bool,
    /// User name, if it asks for one.
    #[serde(default)]
    pub user: Option<String>,
    /// File that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// File of a certificate authority to trust, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl RegistrySettings {
    /// The repository of a service in this registry.
    #[must_use]
    pub fn repository(&self, service: &pipelines::ids::ServiceName) -> String {
        match self.prefix.trim_matches('/') {
            "" => service.to_string(),
            prefix => format!("{prefix}/{service}"),
        }
    }

    /// What opens it; reads its files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn access(&self) -> Result<RegistryAccess, ConfigError> {
        let password = self.password_file.as_deref().map(read_secret).transpose()?;
        let ca_pem = self.ca_file.as_deref().map(read_text).transpose()?;
        Ok(RegistryAccess {
            host: self.host.clone(),
            plain_http: self.plain_http,
            login: self.user.clone().map(|user| (user, password.unwrap_or_default())),
            ca_pem,
        })
    }
}

/// How mails leave.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// The sender: `Windlass <windlass@example.com>`.
    pub from: String,
    /// Language of mails to people who have not chosen one: `en` or `zh-CN`.
    #[serde(default = "default_language")]
    pub language: String,
    /// Through a mail server.
    #[serde(default)]
    pub smtp: Option<SmtpSettings>,
    /// Into a folder, one file per mail: for trying out.
    #[serde(default)]
    pub folder: Option<PathBuf>,
}

fn default_language() -> String {
    "en".into()
}

/// A mail server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmtpSettings {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected: `starttls`, `tls` or `none`.
    #[serde(default)]
    pub tls: SmtpTls,
    /// User name, if it asks for one.
    #[serde(default)]
    pub user: Option<String>,
    /// File that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// File of a certificate authority to trust, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long one mail may take, in milliseconds.
    #[serde(default = "default_smtp_timeout")]
    pub timeout_ms: u64,
}

fn default_smtp_timeout() -> u64 {
    20_000
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Upgraded after the greeting; refused where the server does not offer it.
    #[default]
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all: only for a mail server on this machine.
    None,
}

/// The embedded runner.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerSettings {
    /// Its name.
    pub name: String,
    /// Runs at the same time; 0: no embedded runner.
    pub parallel_runs: u32,
    /// Its labels besides `os` and `arch`: runs that ask for labels go to a runner that has them.
    pub labels: Labels,
}

impl RunnerSettings {
    /// All its labels.
    #[must_use]
    pub fn all_labels(&self) -> Labels {
        self.labels.clone().with_machine(std::env::consts::OS, std::env::consts::ARCH)
    }
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self { name: "embedded".into(), parallel_runs: 2, labels: Labels::default() }
    }
}

/// What the server tells of itself.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Where `/metrics`, and nothing else, is served to whoever can reach it, such as `127.0.0.1:9464`. None: only at
    /// `listen`, to who signs in or has a token.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// Revisions whose requests at the gateway are told one by one; those in the table come first.
    pub revisions_max: usize,
    /// The age up to which a look at engine, registries and mail is told again, in milliseconds.
    pub health_every_ms: u64,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { listen: None, revisions_max: 300, health_every_ms: 60_000 }
    }
}

/// The server's own bounds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Bytes of a hook's body.
    pub hook_body_bytes_max: usize,
    /// Bytes of any other request's body.
    pub request_body_bytes_max: usize,
    /// Hooks that were taken and not looked at yet; more are answered 503. What they told is found by polling.
    pub hooks_waiting_max: usize,
    /// The same of one service; more are answered 429.
    pub hooks_waiting_per_service_max: usize,
    /// Bytes of hooks that are being received; where there are more, hooks are answered 503 before they are read.
    pub hook_bytes_in_flight_max: u32,
    /// How long the body of a hook may take to come, in milliseconds.
    pub hook_body_ms: u64,
    /// Bytes that are still read of a body after its request was answered, so that the sender hears the answer and not that the
    /// connection broke.
    pub leftover_bytes_max: u64,
    /// How long that may take, in milliseconds.
    pub leftover_ms: u64,
    /// How soon after a hook was refused for one of these bounds its repository is asked, in milliseconds.
    pub hook_heal_ms: u64,
    /// Effects that wait or are being performed; where there are more, nothing new begins.
    pub effects_waiting_max: usize,
    /// Effects performed at the same time.
    pub effects_parallel_max: usize,
    /// The same of one service, so that it leaves places to others.
    pub effects_per_service_parallel_max: usize,
    /// Runs that wait for a runner or are with one; where there are more, hooks and polls wait, and people are answered 503.
    pub runs_waiting_max: usize,
    /// The same of one service; people are answered 429.
    pub runs_waiting_per_service_max: usize,
    /// Bytes of log lines that are being written down; runners that bring more wait.
    pub log_bytes_in_flight_max: u32,
    /// Connections to the server; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a connection may be silent between two requests, or take to send the head of one, in milliseconds.
    pub connection_idle_ms: u64,
    /// Changes that wait for the store's next flush; more are answered 503.
    pub store_changes_waiting_max: usize,
    /// The longest wait before a failed effect is tried again, in milliseconds.
    pub retry_max_ms: u64,
    /// The first wait, in milliseconds; it doubles.
    pub retry_first_ms: u64,
    /// How long a signed-in browser may be idle, in milliseconds.
    pub session_idle_ms: u64,
    /// How long it stays signed in at most, in milliseconds.
    pub session_life_ms: u64,
    /// Signed-in browsers of one account; the one that was not used for longest makes room.
    pub sessions_per_account_max: usize,
    /// How long the token of a command line that signed in is good, in milliseconds.
    pub login_token_life_ms: u64,
    /// Tries to sign in under one name from one place within `sign_in_window_ms`.
    pub sign_in_tries_max: u32,
    /// Tries to sign in that failed from one place within `sign_in_window_ms`, whatever the name.
    pub sign_in_place_tries_max: u32,
    /// Tries to sign in that failed under one name within `sign_in_window_ms`, wherever from.
    pub sign_in_name_tries_max: u32,
    /// The time within which tries to sign in are counted together, in milliseconds.
    pub sign_in_window_ms: u64,
    /// Wrong bearer tokens, links or hook signatures (each for itself) from one place within `wrong_proofs_window_ms`;
    /// more are answered 429. Good ones pass all the same.
    pub wrong_proofs_max: u32,
    /// The time within which these are counted together, in milliseconds.
    pub wrong_proofs_window_ms: u64,
    /// Mails with a code that one tester gets for one release within `code_mails_window_ms`.
    pub code_mails_max: u32,
    /// The time within which these are counted together, in milliseconds.
    pub code_mails_window_ms: u64,
    /// How often the link of a mail asks the testers of one release again; more is for somebody who is signed in.
    pub asks_by_link_max: u32,
    /// Refused hooks of one service that are listed within an hour; the others are refused and not listed.
    pub refused_hooks_max: u32,
    /// Failed tries to sign in that the audit log has within an hour; further ones are counted in the next that is written.
    pub audit_failed_sign_ins_max: u32,
    /// Entries of the audit log that one page looks at; what is older is on the next.
    pub audit_scan_entries_max: usize,
    /// How far the time that a hook was signed at may be from the server's, in milliseconds, where a forge signs it.
    pub hook_clock_skew_ms: u64,
    /// Services of which the board keeps in memory what it read, until it changes; those beyond are read for each look.
    pub board_services_in_memory_max: usize,
    /// How long an outside party may take to answer when the server's health is looked at, in milliseconds.
    pub health_answer_ms: u64,
    /// Streams of events and log lines that are open at the same time.
    pub streams_max: usize,
    /// How long one of them stays open before it has to be opened again, in milliseconds.
    pub stream_life_ms: u64,
    /// How long the other end of a connection may take no bytes that are ready for it, in milliseconds; then it is cut, and
    /// a page that follows a log connects again and goes on where it was.
    pub stream_stall_ms: u64,
    /// Bytes of log lines that are kept as pages show them, for all who follow the same log.
    pub log_shared_bytes_max: usize,
    /// A page that follows a log and is so many lines behind is told that lines are left out, and goes on near the end.
    pub log_behind_lines_max: u64,
    /// How long a request may take that is no stream, in milliseconds.
    pub request_timeout_ms: u64,
    /// Blobs copied at the same time by one promotion.
    pub promotion_parallel_max: usize,
    /// How long a runner's question for work is held open, in milliseconds.
    pub lease_wait_ms: u64,
    /// Bytes of the value of a secret.
    pub secret_bytes_max: usize,
    /// Secrets of one service, and shared ones.
    pub secrets_per_scope_max: usize,
    /// After how long a silence a runner's run is given to another one, in milliseconds.
    pub runner_lost_ms: u64,
    /// Runners that may be lost with one run before it is given up.
    pub run_lost_max: u32,
    /// Runners that are registered at the same time.
    pub runners_max: usize,
    /// Bytes of a runner's message, unpacked.
    pub runner_message_bytes_max: usize,
    /// Questions for work of one runner within a minute.
    pub runner_leases_per_minute_max: u32,
    /// How long a token that registers runners is good unless it says so, in milliseconds.
    pub runner_token_life_ms: u64,
    /// Memory for the store's cache, in bytes.
    pub store_cache_bytes: usize,
    /// Bytes of the server's own log that are kept in memory for the support bundle.
    pub log_tail_bytes: usize,
    /// Bytes under the state folder that are kept for finishing what has begun; with less free, nothing new begins.
    pub disk_free_bytes_min: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            hook_body_bytes_max: 5 << 20,
            request_body_bytes_max: 1 << 20,
            hooks_waiting_max: 20_000,
            hooks_waiting_per_service_max: 1_000,
            hook_bytes_in_flight_max: 64 << 20,
            hook_body_ms: 10_000,
            leftover_bytes_max: 32 << 20,
            leftover_ms: 5_000,
            hook_heal_ms: 5_000,
            effects_waiting_max: 50_000,
            effects_parallel_max: 32,
            effects_per_service_parallel_max: 8,
            runs_waiting_max: 2_000,
            runs_waiting_per_service_max: 100,
            log_bytes_in_flight_max: 32 << 20,
            connections_max: 4_096,
            connection_idle_ms: 75_000,
            store_changes_waiting_max: 1_024,
            retry_max_ms: 60_000,
            retry_first_ms: 500,
            session_idle_ms: 8 * 3_600_000,
            session_life_ms: 7 * 86_400_000,
            sessions_per_account_max: 20,
            login_token_life_ms: 30 * 86_400_000,
            sign_in_tries_max: 10,
            sign_in_place_tries_max: 60,
            sign_in_name_tries_max: 100,
            sign_in_window_ms: 5 * 60_000,
            wrong_proofs_max: 300,
            wrong_proofs_window_ms: 60_000,
            code_mails_max: 6,
            code_mails_window_ms: 5 * 60_000,
            asks_by_link_max: 3,
            refused_hooks_max: 100,
            audit_failed_sign_ins_max: 1_000,
            audit_scan_entries_max: 50_000,
            hook_clock_skew_ms: 300_000,
            board_services_in_memory_max: 2_000,
            health_answer_ms: 1_500,
            streams_max: 1_000,
            stream_life_ms: 3_600_000,
            stream_stall_ms: 30_000,
            log_shared_bytes_max: 16 << 20,
            log_behind_lines_max: 20_000,
            request_timeout_ms: 60_000,
            promotion_parallel_max: 6,
            lease_wait_ms: 20_000,
            secret_bytes_max: 64 << 10,
            secrets_per_scope_max: 500,
            runner_lost_ms: 60_000,
            run_lost_max: 3,
            runners_max: 500,
            runner_message_bytes_max: 4 << 20,
            runner_leases_per_minute_max: 600,
            runner_token_life_ms: 3_600_000,
            store_cache_bytes: 16 << 20,
            log_tail_bytes: 256 << 10,
            disk_free_bytes_min: 256 << 20,
        }
    }
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or is not a good configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        Self::parse(&text).map_err(|why| ConfigError::Content { path: path.to_owned(), why })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut config: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        while config.public_url.ends_with('/') {
            config.public_url.pop();
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let url = url::Url::parse(&self.public_url).map_err(|error| format!("public_url: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("public_url: write http:// or https:// and a host".into());
        }
        if self.mail.smtp.is_some() == self.mail.folder.is_some() {
            return Err("mail: write either smtp or folder".into());
        }
        if !matches!(self.mail.language.as_str(), "en" | "zh-CN") {
            return Err("mail.language: write en or zh-CN".into());
        }
        if self.registries.test.host == self.registries.production.host
            && self.registries.test.prefix == self.registries.production.prefix
        {
            return Err("registries: test and production must differ in host or prefix".into());
        }
        for text in &self.outgoing.addresses {
            network(text).map_err(|why| format!("outgoing.addresses: {why}"))?;
        }
        if self.bounds.runner_lost_ms < RUNNER_LOST_MS_MIN {
            return Err(format!("bounds.runner_lost_ms: runners speak every 2 s; write {RUNNER_LOST_MS_MIN} or more"));
        }
        if !matches!(self.gateway.public_scheme.as_str(), "http" | "https") {
            return Err("gateway.public_scheme: write http or https".into());
        }
        self.tracing.check()
    }
}

impl GatewaySettings {
    /// The address that people get for a host behind the gateway.
    #[must_use]
    pub fn address(&self, host: &str) -> String {
        let port = if self.public_port == 0 { self.listen.port() } else { self.public_port };
        let usual = if self.public_scheme == "https" { 443 } else { 80 };
        if port == usual {
            format!("{}://{host}", self.public_scheme)
        } else {
            format!("{}://{host}:{port}", self.public_scheme)
        }
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Reads a secret from a file: its first line, without the line end.
///
/// # Errors
/// When it cannot be read.
pub fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    Ok(Secret::new(read_text(path)?.lines().next().unwrap_or_default()))
}
