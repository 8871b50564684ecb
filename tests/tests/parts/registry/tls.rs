//! A real registry behind TLS, with a certificate of an authority that was made for the test. It takes manifests that
//! point to addresses elsewhere, which this registry refuses unless it is told to.

use std::{fs, path::Path, process::Command, time::Duration};

use integrations::registry::{RegistryClient, RegistryConfig};
use tempfile::TempDir;
use tests::{Process, Stop, free_port};
use url::Url;

/// A running registry; its content goes with it.
pub(super) struct Registry {
    _process: Process,
    _dir: TempDir,
    port: u16,
    authority: Vec<u8>,
}

impl Registry {
    pub(super) async fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let at = |name: &str| dir.path().join(name).display().to_string();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-sha256"];
        let authority = ["-keyout", &at("ca.key"), "-out", &at("ca.pem"), "-subj", "/CN=authority of a test"];
        openssl(dir.path(), &[&["req", "-x509"], &key[..], &authority].concat());
        let server = ["-keyout", &at("key.pem"), "-out", &at("cert.pem"), "-subj", "/CN=registry"];
        let by = ["-CA", &at("ca.pem"), "-CAkey", &at("ca.key"), "-addext", "subjectAltName=IP:127.0.0.1"];
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(dir.path(), &[&["req", "-x509"], &key[..], &server, &by, &leaf].concat());
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http:\n  addr: '127.0.0.1:{port}'\n  tls: {{certificate: {}, key: {}}}\n\
             validation:\n  manifests:\n    urls:\n      allow: ['^https://']\n",
            at("data"),
            at("cert.pem"),
            at("key.pem"),
        );
        fs::write(at("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(at("config.yml"));
        let mut process = Process::spawn("docker-registry", command, Path::new(&at("log")), Stop::Kill).unwrap();
        let connect = || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() };
        process.ready(Duration::from_secs(20), connect).await.unwrap();
        let authority = fs::read(at("ca.pem")).unwrap();
        Self { _process: process, _dir: dir, port, authority }
    }

    pub(super) fn url(&self) -> Url {
        format!("https://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// A client that knows the authority.
    pub(super) fn client(&self) -> RegistryClient {
        let ca_pem = Some(self.authority.clone());
        RegistryClient::new(RegistryConfig { ca_pem, ..RegistryConfig::new(self.url()) }).unwrap()
    }
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
