//! OpenSSH's server with one authorised key that may do nothing but talk to git repositories.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    parts::program,
    process::{Process, Stop, free_port, output},
};

const READY_WITHIN: Duration = Duration::from_secs(15);

/// A running sshd with fresh Ed25519 keys for the host and for the client.
#[derive(Debug)]
pub struct Sshd {
    process: Process,
    dir: TempDir,
    port: u16,
}

impl Sshd {
    /// Starts it. Repositories are reached by their absolute path, see [`Self::url`].
    ///
    /// # Errors
    /// When a program is missing or it does not become ready.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_port();
        for key in ["host", "client"] {
            let file = dir.path().join(key);
            output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"]).arg(file))?;
        }
        let client = fs::read_to_string(dir.path().join("client.pub"))?;
        let shell = program("git-shell").context("the program git-shell is missing")?;
        // The key opens git's own restricted shell and nothing else.
        let only_git = format!("restrict,command=\"{} -c \\\"$SSH_ORIGINAL_COMMAND\\\"\" {client}", shell.display());
        fs::write(dir.path().join("authorized_keys"), only_git)?;
        fs::write(dir.path().join("config"), config(dir.path(), port))?;
        // Its privilege separation wants this folder, which Debian makes only when the service starts.
        fs::create_dir_all("/run/sshd")?;
        // It starts itself again for each connection, so it insists on an absolute path.
        let mut command = Command::new(program("sshd").context("the program sshd is missing")?);
        command.args(["-D", "-e", "-f"]).arg(dir.path().join("config"));
        let process = Process::spawn("sshd", command, &dir.path().join("log"), Stop::Kill)?;
        let mut sshd = Self { process, dir, port };
        sshd.process.ready(READY_WITHIN, || greeting(port)).await?;
        Ok(sshd)
    }

    /// The address of the repository at this absolute path.
    #[must_use]
    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", user(), self.port, repository.display())
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private key of the client, in OpenSSH's format.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn client_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.client_key_file())?)
    }

    /// The file of the private key of the client.
    #[must_use]
    pub fn client_key_file(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    /// The public key of the host: `ssh-ed25519 BASE64`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn host_key(&self) -> Result<String> {
        let text = fs::read_to_string(self.dir.path().join("host.pub"))?;
        Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// The line of a known_hosts file.
    ///
    /// # Errors
    /// When the host key cannot be read.
    pub fn known_hosts(&self) -> Result<String> {
        Ok(format!("[127.0.0.1]:{} {}\n", self.port, self.host_key()?))
    }

    /// The end of its log: refused keys are there.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

async fn greeting(port: u16) -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.ok()?;
    (&word == b"SSH-").then_some(())
}

fn user() -> String {
    if crate::process::is_root() { "root".to_owned() } else { std::env::var("USER").unwrap_or_default() }
}

fn config(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized_keys\n\
         PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin forced-commands-only\nAllowTcpForwarding no\nX11Forwarding no\nPrintMotd no\nLogLevel VERBOSE\n"
    )
}
