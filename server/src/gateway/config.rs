//! What the gateway is told to do: listeners, revisions, routes and bounds, and the check that
//! a configuration passes before it is taken. How it is kept on disk is in `keep`, what is
//! made of it in memory in `table`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of the configuration format that this gateway reads and writes.
pub const CONFIG_VERSION: u32 = 1;

/// What the weights of one route add up to: weights are hundredths of a percent.
pub const WEIGHT_TOTAL: u32 = 10_000;

const MAX_LISTENERS: usize = 16;
const MAX_REVISIONS: usize = 4_096;
const MAX_HOSTS: usize = 4_096;
const MAX_BACKENDS: usize = 64;
const MAX_PROXIES: usize = 64;
const MAX_SHARES: usize = 16;
const MAX_HOST_BYTES: usize = 253;
const MAX_REVISION_ID_BYTES: usize = 128;
/// The smallest read buffer that hyper accepts.
const MIN_HEADER_BYTES: usize = 8_192;

/// Everything that the gateway does, as one value: it is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The format, [`CONFIG_VERSION`].
    pub version: u32,
    /// The addresses on which requests are accepted. Port 0 takes a free one.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// The revisions by id. An id is unique over all services.
    #[serde(default)]
    pub revisions: BTreeMap<String, RevisionConfig>,
    /// How the requests of a host (lower case, no port) are split over revisions.
    #[serde(default)]
    pub routes: BTreeMap<String, RouteConfig>,
    /// Hosts that always reach one revision, whatever the weights say.
    #[serde(default)]
    pub previews: BTreeMap<String, String>,
    /// Peers whose `X-Forwarded-*` is believed and extended; everybody else's is replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<IpAddr>,
    /// The bounds.
    #[serde(default)]
    pub limits: Limits,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            version: CONFIG_VERSION,
            listen: Vec::new(),
            revisions: BTreeMap::new(),
            routes: BTreeMap::new(),
            previews: BTreeMap::new(),
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Where one revision answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionConfig {
    /// The addresses of its containers; requests go over them in turn.
    pub backends: Vec<SocketAddr>,
}

/// How the requests of one host are split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The revisions and their weights, which add up to [`WEIGHT_TOTAL`]. None at all means that
    /// the service is known and nothing is live: its requests are answered 503.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// The share that takes a request when no backend of the chosen revision accepted a
    /// connection, so nothing was sent yet. Without it such a request is answered 502.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// One revision's part of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The id of the revision.
    pub revision: String,
    /// Hundredths of a percent; 0 is allowed and means "no requests now".
    pub weight: u32,
}

const REFUSED_WAIT_MS: u64 = 3_000;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_refused_wait_default(wait_ms: &u64) -> bool {
    *wait_ms == REFUSED_WAIT_MS
}

/// The bounds of the gateway. Every field has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's or an answer's head (at least 8192).
    pub max_header_bytes: usize,
    /// Header fields of a request or an answer.
    pub max_headers: usize,
    /// Bytes of a request's body.
    pub max_request_body_bytes: u64,
    /// Client connections over all listeners; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Unused connections kept per backend.
    pub max_idle_per_backend: usize,
    /// Connections tried for one request, the first included.
    pub max_attempts: usize,
    /// Time for a connection to a backend.
    pub connect_timeout_ms: u64,
    /// How long a request waits for a revision of which every backend refuses connections. It has not been sent, so
    /// nothing is done twice; an engine that starts anew takes its published ports away for a moment. Not named where it
    /// is the default: an older gateway does not know it.
    #[serde(skip_serializing_if = "is_refused_wait_default")]
    pub refused_wait_ms: u64,
    /// Time for a client to send a request's head, and for a kept connection to stay unused.
    pub header_read_timeout_ms: u64,
    /// Time from the last byte of a request to the head of its answer.
    pub response_header_timeout_ms: u64,
    /// Time without a byte of a body, in either direction.
    pub body_idle_timeout_ms: u64,
    /// Time for a client to take bytes that are ready for it.
    pub client_write_timeout_ms: u64,
    /// Time without a byte on an upgraded connection (WebSocket).
    pub tunnel_idle_timeout_ms: u64,
    /// Time for which an unused connection to a backend is kept.
    pub backend_idle_timeout_ms: u64,
    /// How long a connection to a backend may have been unused and still carry a request that
    /// must not be sent twice: the backend may be closing it at this moment.
    pub unsafe_reuse_idle_ms: u64,
    /// Time that requests in flight get when the gateway stops.
    pub drain_timeout_ms: u64,
    /// When the gateway stops: how long kept connections are still served (and told to close)
    /// before the unused ones are closed.
    pub close_grace_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_request_body_bytes: 1024 * 1024 * 1024,
            max_connections: 4_096,
            max_idle_per_backend: 64,
            max_attempts: 3,
            connect_timeout_ms: 2_000,
            refused_wait_ms: REFUSED_WAIT_MS,
            header_read_timeout_ms: 30_000,
            response_header_timeout_ms: 60_000,
            body_idle_timeout_ms: 300_000,
            client_write_timeout_ms: 60_000,
            tunnel_idle_timeout_ms: 3_600_000,
            backend_idle_timeout_ms: 30_000,
            unsafe_reuse_idle_ms: 1_000,
            drain_timeout_ms: 30_000,
            close_grace_ms: 500,
        }
    }
}

impl Limits {
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) fn refused_wait(&self) -> Duration {
        Duration::from_millis(self.refused_wait_ms)
    }

    pub(super) fn response_header_timeout(&self) -> Duration {
        Duration::from_millis(self.response_header_timeout_ms)
    }

    pub(super) fn body_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.body_idle_timeout_ms)
    }

    pub(super) fn tunnel_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.tunnel_idle_timeout_ms)
    }
}

impl GatewayConfig {
    /// Says everything that is wrong with this configuration, one sentence each. Empty: it may be
    /// taken.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.version != CONFIG_VERSION {
            problems
                .push(format!("version {} is not known, this gateway reads version {CONFIG_VERSION}", self.version));
        }
        bounded(&mut problems, "listen", self.listen.len(), MAX_LISTENERS);
        bounded(&mut problems, "revisions", self.revisions.len(), MAX_REVISIONS);
        let hosts = self.routes.len() + self.previews.len();
        bounded(&mut problems, "routes and previews", hosts, MAX_HOSTS);
        let proxies = self.trusted_proxies.len();
        bounded(&mut problems, "trusted_proxies", proxies, MAX_PROXIES);
        let mut listens = BTreeSet::new();
        for address in &self.listen {
            if address.port() != 0 && !listens.insert(address) {
                problems.push(format!("listen names {address} twice"));
            }
        }
        for (id, revision) in &self.revisions {
            self.check_revision(id, revision, &mut problems);
        }
        for (host, route) in &self.routes {
            check_host(host, &mut problems);
            self.check_route(host, route, &mut problems);
        }
        for (host, revision) in &self.previews {
            check_host(host, &mut problems);
            if self.routes.contains_key(host) {
                problems.push(format!("{host:?} is both a route and a preview"));
            }
            if !self.revisions.contains_key(revision) {
                problems.push(format!("preview {host:?} names the revision {revision:?}, which is not defined"));
            }
        }
        self.limits.check(&mut problems);
        problems
    }

    fn check_revision(&self, id: &str, revision: &RevisionConfig, problems: &mut Vec<String>) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if id.is_empty() || id.len() > MAX_REVISION_ID_BYTES || !id.chars().all(allowed) {
            problems.push(format!(
                "revision id {id:?} must be 1 to {MAX_REVISION_ID_BYTES} of letters, digits and . - _ :"
            ));
        }
        if revision.backends.is_empty() {
            problems.push(format!("revision {id:?} has no backend"));
        }
        let what = format!("backends of revision {id:?}");
        bounded(problems, &what, revision.backends.len(), MAX_BACKENDS);
        let mut seen = BTreeSet::new();
        for backend in &revision.backends {
            if backend.port() == 0 || backend.ip().is_unspecified() {
                problems
                    .push(format!("revision {id:?} names the backend {backend}, which is no address to connect to"));
            }
            if self.listen.contains(backend) {
                problems.push(format!("revision {id:?} names the backend {backend}, which is the gateway itself"));
            }
            if !seen.insert(backend) {
                problems.push(format!("revision {id:?} names the backend {backend} twice"));
            }
        }
    }

    fn check_route(&self, host: &str, route: &RouteConfig, problems: &mut Vec<String>) {
        let what = format!("shares of route {host:?}");
        bounded(problems, &what, route.shares.len(), MAX_SHARES);
        let mut seen = BTreeSet::new();
        for share in &route.shares {
            if !self.revisions.contains_key(&share.revision) {
                problems.push(format!("route {host:?} names the revision {:?}, which is not defined", share.revision));
            }
            if !seen.insert(share.revision.as_str()) {
                problems.push(format!("route {host:?} names the revision {:?} twice", share.revision));
            }
        }
        let total: u64 = route.shares.iter().map(|share| u64::from(share.weight)).sum();
        if !route.shares.is_empty() && total != u64::from(WEIGHT_TOTAL) {
            problems.push(format!("the weights of route {host:?} add up to {total}, not to {WEIGHT_TOTAL}"));
        }
        if let Some(fallback) = &route.fallback
            && !seen.contains(fallback.as_str())
        {
            problems
                .push(format!("route {host:?} falls back to the revision {fallback:?}, which is none of its shares"));
        }
    }
}

impl Limits {
    fn check(&self, problems: &mut Vec<String>) {
        const DAY_MS: u64 = 24 * 3_600_000;
        let times = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("header_read_timeout_ms", self.header_read_timeout_ms),
            ("response_header_timeout_ms", self.response_header_timeout_ms),
            ("body_idle_timeout_ms", self.body_idle_timeout_ms),
            ("client_write_timeout_ms", self.client_write_timeout_ms),
            ("tunnel_idle_timeout_ms", self.tunnel_idle_timeout_ms),
            ("backend_idle_timeout_ms", self.backend_idle_timeout_ms),
            ("drain_timeout_ms", self.drain_timeout_ms),
        ];
        for (name, value) in times {
            range(problems, name, value, 1, DAY_MS);
        }
        range(problems, "refused_wait_ms", self.refused_wait_ms, 0, DAY_MS);
        range(problems, "unsafe_reuse_idle_ms", self.unsafe_reuse_idle_ms, 0, DAY_MS);
        range(problems, "close_grace_ms", self.close_grace_ms, 0, self.drain_timeout_ms);
        let counts = [
            ("max_header_bytes", self.max_header_bytes, MIN_HEADER_BYTES, 1024 * 1024),
            ("max_headers", self.max_headers, 16, 1_024),
            ("max_connections", self.max_connections, 1, 1_000_000),
            ("max_idle_per_backend", self.max_idle_per_backend, 0, 4_096),
            ("max_attempts", self.max_attempts, 1, 16),
        ];
        for (name, value, least, most) in counts {
            range(problems, name, value as u64, least as u64, most as u64);
        }
    }
}

fn range(problems: &mut Vec<String>, name: &str, value: u64, least: u64, most: u64) {
    if !(least..=most).contains(&value) {
        problems.push(format!("limits.{name} is {value}, it must be {least} to {most}"));
    }
}

fn bounded(problems: &mut Vec<String>, what: &str, count: usize, most: usize) {
    if count > most {
        problems.push(format!("{what}: {count} of them, at most {most} are taken"));
    }
}

fn check_host(host: &str, problems: &mut Vec<String>) {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    if host.is_empty() || host.len() > MAX_HOST_BYTES || !host.split('.').all(label) {
        problems.push(format!("{host:?} is no host name in lower case, without port"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> GatewayConfig {
        serde_json::from_value(serde_json::json!({
            "version": 1,
            "listen": ["127.0.0.1:8080"],
            "revisions": {
                "shop-a": {"backends": ["127.0.0.1:9001", "127.0.0.1:9002"]},
                "shop-b": {"backends": ["127.0.0.1:9003"]},
            },
            "routes": {"shop.example.com": {
                "shares": [{"revision": "shop-a", "weight": 9000}, {"revision": "shop-b", "weight": 1000}],
                "fallback": "shop-a",
            }},
            "previews": {"next.shop.example.com": "shop-b"},
        }))
        .expect("the literal is a configuration")
    }

    #[test]
    fn a_valid_configuration_has_no_problems_and_survives_the_round_trip() {
        let config = valid();
        assert_eq!(config.problems(), Vec::<String>::new());
        let text = serde_json::to_string(&config).expect("serialises");
        assert_eq!(serde_json::from_str::<GatewayConfig>(&text).expect("parses"), config);
    }

    #[test]
    fn each_problem_is_named_and_all_are_reported_at_once() {
        let mut config = valid();
        config.version = 2;
        config.listen.push("127.0.0.1:9003".parse().expect("address"));
        config.limits.max_header_bytes = 100;
        config.limits.close_grace_ms = config.limits.drain_timeout_ms + 1;
        let route = config.routes.get_mut("shop.example.com").expect("route");
        route.shares[0].weight = 8_999;
        route.fallback = Some("shop-c".into());
        config.routes.insert("Shop:80".into(), RouteConfig::default());
        config.previews.insert("x.example.com".into(), "gone".into());
        config.revisions.insert("../x y".into(), RevisionConfig { backends: vec![] });
        let problems = config.problems().join("\n");
        for part in [
            "version 2",
            "is the gateway itself",
            "max_header_bytes is 100",
            "close_grace_ms",
            "add up to 9999",
            "falls back to the revision \"shop-c\"",
            "\"Shop:80\" is no host name",
            "preview \"x.example.com\" names the revision \"gone\"",
            "revision id \"../x y\"",
            "has no backend",
        ] {
            assert!(problems.contains(part), "{part:?} is missing in:\n{problems}");
        }
        assert_eq!(problems.lines().count(), 10);
    }

    #[test]
    fn weights_cannot_overflow_into_a_valid_sum() {
        let mut config = valid();
        let shares = &mut config.routes.get_mut("shop.example.com").expect("route").shares;
        shares[0].weight = u32::MAX;
        shares[1].weight = WEIGHT_TOTAL + 1;
        assert_eq!(config.problems().len(), 1);
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let text = r#"{"version":1,"route":{}}"#;
        assert!(serde_json::from_str::<GatewayConfig>(text).is_err());
    }
}
