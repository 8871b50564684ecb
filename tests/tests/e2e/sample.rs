//! The service of the tests: a small page that names its version and fails as often as it is told to.

use serde_json::{Value, json};
use tests::{Repo, docker::BASE_IMAGE};

use anyhow::Result;

const DOCKERFILE: &str = r#"FROM busybox:1.36
COPY healthz version /srv/www/
COPY app.sh /srv/www/cgi-bin/index.cgi
RUN chmod 755 /srv/www/cgi-bin/index.cgi
USER 65534:65534
CMD ["/bin/sh", "-c", "trap 'kill $httpd; exit 0' TERM INT; httpd -f -p ${PORT:-8080} -h /srv/www & httpd=$!; wait $httpd"]
"#;

/// The client throws the dice (0 to 99, in the query): so it is known how many of which requests fail.
const APP: &str = r#"#!/bin/sh
read -r version < /srv/www/version
[ -z "$SLOW_SECONDS" ] || sleep "$SLOW_SECONDS"
status='200 OK'
if [ "${QUERY_STRING:-100}" -lt "${FAIL_PERCENT:-0}" ]; then status='500 Internal Server Error'; fi
printf 'Status: %s\r\nContent-Type: text/plain\r\nX-Version: %s\r\n\r\nversion %s\n' "$status" "$version" "$version"
"#;

/// What one commit of the service is.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// What it answers.
    pub(crate) name: String,
    /// Its pipeline file; JSON is YAML.
    pub(crate) pipeline: Value,
    /// Its Dockerfile.
    pub(crate) dockerfile: String,
}

impl Version {
    /// A version of `service` that goes live as `production` says.
    pub(crate) fn new(service: &str, name: &str, production: Value) -> Self {
        let check = json!({ "name": "check", "image": BASE_IMAGE, "commands": ["sh -n app.sh", "cat version"] });
        let pipeline = json!({
            "service": service,
            "base": "dockerfile@1",
            "network": { "port": 8080, "health": { "path": "/healthz" } },
            "steps": [check],
            "values": { "resources": { "cpus": "1" } },
            "production": production,
        });
        Self { name: name.to_owned(), pipeline, dockerfile: DOCKERFILE.to_owned() }
    }

    /// It answers so many errors.
    pub(crate) fn failing(mut self, percent: u32) -> Self {
        self.pipeline["values"]["env"] = json!({ "FAIL_PERCENT": percent.to_string() });
        self
    }

    /// Each answer takes so long that some are under way at any moment.
    pub(crate) fn slow(mut self) -> Self {
        self.pipeline["values"]["env"] = json!({ "SLOW_SECONDS": "0.4" });
        self
    }

    /// Writes and commits it; gives the commit.
    pub(crate) fn commit(&self, repo: &Repo) -> Result<String> {
        repo.write("Dockerfile", &self.dockerfile)?;
        repo.write("app.sh", APP)?;
        repo.write("healthz", "ok\n")?;
        repo.write("version", format!("{}\n", self.name))?;
        repo.write(".windlass.yaml", format!("{:#}\n", self.pipeline))?;
        repo.commit("Dev <dev@example.com>", &format!("Version {}", self.name))
    }
}
