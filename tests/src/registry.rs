//! An image registry (Debian's docker-registry) on a port and a folder of its own. Pushing is the engine's business.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{
    process::{Process, Stop, free_port, http_client, output},
    smtp::make_certificate,
};

const READY_WITHIN: Duration = Duration::from_secs(20);
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A running registry; its content goes with it.
#[derive(Debug)]
pub struct Registry {
    process: Mutex<Process>,
    dir: TempDir,
    port: u16,
    auth: Option<(String, String)>,
    /// With TLS: the authority of its certificate.
    authority: Option<PathBuf>,
    http: reqwest::Client,
}

impl Registry {
    /// Starts a registry; with `auth` (user, password) it answers 401 to everybody else.
    ///
    /// # Errors
    /// When the program is missing or does not become ready.
    pub async fn start(auth: Option<(&str, &str)>) -> Result<Self> {
        Self::start_with(auth, false).await
    }

    /// Starts a registry that speaks TLS, with a certificate of an authority of its own ([`Self::ca_file`]).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_tls() -> Result<Self> {
        Self::start_with(None, true).await
    }

    async fn start_with(auth: Option<(&str, &str)>, tls: bool) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {data}}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: '127.0.0.1:{port}'\n  secret: of-the-test\n",
            data = dir.path().join("data").display(),
        );
        let (mut authority, mut http) = (None, http_client());
        if tls {
            make_certificate(dir.path())?;
            let file = |name| dir.path().join(name);
            config += &format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                file("cert.pem").display(),
                file("key.pem").display()
            );
            let pem = reqwest::Certificate::from_pem(&fs::read(file("ca.pem"))?)?;
            http = reqwest::Client::builder().no_proxy().tls_certs_only([pem]).build()?;
            authority = Some(file("ca.pem"));
        }
        if let Some((user, password)) = auth {
            let line = output(Command::new("htpasswd").args(["-Bbn", user, password]))?;
            let file = dir.path().join("htpasswd");
            fs::write(&file, line)?;
            config += &format!("auth:\n  htpasswd: {{realm: registry, path: {}}}\n", file.display());
        }
        fs::write(dir.path().join("config.yml"), config)?;
        let process = Mutex::new(serve(dir.path())?);
        let auth = auth.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let mut registry = Self { process, dir, port, auth, authority, http };
        registry.ready().await?;
        Ok(registry)
    }

    /// `http://127.0.0.1:PORT`, or `https://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.authority.is_some() { "https" } else { "http" }, self.host_port())
    }

    /// With TLS: the file of the authority that signed its certificate, PEM.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// A client that trusts it.
    #[must_use]
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// `127.0.0.1:PORT`, the first part of an image reference.
    #[must_use]
    pub fn host_port(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// User and password, when it asks for them.
    #[must_use]
    pub fn auth(&self) -> Option<(&str, &str)> {
        self.auth.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The folder of its content.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What it wrote: one line per request among others.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Kills it; connections to it are refused until [`Self::restart`].
    pub fn kill(&mut self) {
        self.die();
    }

    /// As [`Self::kill`], beside others who use it.
    pub fn die(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// Starts it again beside others who use it; who asks too early is refused.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn revive(&self) -> Result<()> {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = serve(self.dir.path())?;
        Ok(())
    }

    /// Starts it again on the same port with the same content.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.die();
        self.revive()?;
        self.ready().await
    }

    /// The digest behind a tag or digest, or `None` when there is none.
    ///
    /// # Errors
    /// When it answers neither 200 nor 404.
    pub async fn digest(&self, repository: &str, reference: &str) -> Result<Option<String>> {
        let request = self.http.head(format!("{}/v2/{repository}/manifests/{reference}", self.url()));
        let answer = self.authorised(request).header("accept", MANIFESTS).send().await?;
        match answer.status().as_u16() {
            200 => {
                let digest = answer.headers().get("docker-content-digest").context("the registry gave no digest")?;
                Ok(Some(digest.to_str()?.to_owned()))
            }
            404 => Ok(None),
            status => bail!("the registry answered {status} for {repository}:{reference}"),
        }
    }

    /// The tags of a repository; empty when there is no such repository.
    ///
    /// # Errors
    /// When it answers neither 200 nor 404.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct List {
            tags: Option<Vec<String>>,
        }
        let request = self.http.get(format!("{}/v2/{repository}/tags/list", self.url()));
        let answer = self.authorised(request).send().await?;
        match answer.status().as_u16() {
            200 => Ok(answer.json::<List>().await?.tags.unwrap_or_default()),
            404 => Ok(Vec::new()),
            status => bail!("the registry answered {status} for the tags of {repository}"),
        }
    }

    fn authorised(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.auth {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn ready(&mut self) -> Result<()> {
        let url = format!("{}/v2/", self.url());
        let expected = if self.auth.is_some() { 401 } else { 200 };
        let http = &self.http;
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        process
            .ready(READY_WITHIN, || async {
                let answer = http.get(&url).send().await.ok()?;
                (answer.status().as_u16() == expected).then_some(())
            })
            .await
    }
}

fn serve(dir: &Path) -> Result<Process> {
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(dir.join("config.yml"));
    Process::spawn("docker-registry", command, &dir.join("log"), Stop::Kill)
}
