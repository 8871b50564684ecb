//! A real SMTP server (aiosmtpd, in smtp.py) that keeps what it took and can be told to refuse or to hang up.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

use crate::process::{Process, Stop, output, tail};

const READY_WITHIN: Duration = Duration::from_secs(15);
const SCRIPT: &str = include_str!("smtp.py");

/// How the server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// Plain first; STARTTLS is demanded before anything else.
    StartTls,
    /// TLS from the first byte.
    Implicit,
}

/// What the server asks of its clients.
#[derive(Clone, Debug, Default)]
pub struct SmtpOptions {
    /// User and password; without them nobody signs in.
    pub auth: Option<(String, String)>,
    /// TLS with a certificate for `localhost` and 127.0.0.1, signed by [`Smtp::ca_file`].
    pub tls: Option<SmtpTls>,
    /// Time between taking a mail and saying so, in milliseconds.
    pub thinks_ms: u64,
}

/// What the server does instead of taking a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Answers this (`451 4.3.0 try later`) to MAIL FROM.
    AtMail(String),
    /// Answers this to RCPT TO.
    AtRecipient(String),
    /// Answers the second to RCPT TO the first, and takes mails to others.
    OneRecipient(String, String),
    /// Answers this to the whole mail.
    AtData(String),
    /// Takes the mail, and closes the connection before it says so.
    HangUpAfterData,
    /// Reads the mail, and then says nothing for as long as the client waits.
    HangAfterData,
}

/// A mail that the server took, as Python's `email` reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct Mail {
    /// Sender of the envelope.
    pub envelope_from: String,
    /// Recipients of the envelope.
    pub recipients: Vec<String>,
    /// Headers in their order, decoded.
    pub headers: Vec<(String, String)>,
    /// The text part.
    pub text: Option<String>,
    /// The HTML part.
    pub html: Option<String>,
    /// The whole mail as it came.
    pub raw: String,
    /// Whether the client had signed in.
    pub authenticated: bool,
    /// Whether it came over TLS.
    pub encrypted: bool,
}

impl Mail {
    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The subject; empty when there is none.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.header("subject").unwrap_or_default()
    }

    /// The http and https addresses in the text part, in their order.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let text = self.text.as_deref().unwrap_or_default();
        text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"'))
            .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
            .map(|word| word.trim_end_matches(['.', ',', ')', ';', '。', '，']).to_owned())
            .collect()
    }
}

/// A running SMTP server.
#[derive(Debug)]
pub struct Smtp {
    process: Process,
    dir: TempDir,
    port: u16,
    orders: ChildStdin,
    state: watch::Receiver<State>,
}

#[derive(Debug, Default)]
struct State {
    port: Option<u16>,
    orders_done: u64,
    sign_ins: u64,
    mails: Vec<Mail>,
    unread: Vec<String>,
    ended: bool,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Ready { port: u16 },
    Set,
    Auth,
    Mail(Box<Mail>),
}

impl Smtp {
    /// Starts the server on a free port.
    ///
    /// # Errors
    /// When Python's aiosmtpd is missing or the server does not become ready.
    pub async fn start(options: SmtpOptions) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        if options.tls.is_some() {
            make_certificate(dir.path())?;
        }
        let tls = options.tls.map(|tls| if tls == SmtpTls::StartTls { "starttls" } else { "implicit" });
        let (user, password) = options.auth.unzip();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let argument = json!({ "user": user, "password": password, "tls": tls, "cert": cert, "key": key,
            "thinks_ms": options.thinks_ms });
        let log = dir.path().join("log");
        // Debian's own Python: another one on PATH has not the Debian package.
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-I", "-c", SCRIPT, &argument.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log)?);
        let mut process = Process::spawn_as_is("aiosmtpd", command, &log, Stop::Kill)?;
        let stdout = process.child().stdout.take().context("the output of aiosmtpd is not a pipe")?;
        let orders = process.child().stdin.take().context("the input of aiosmtpd is not a pipe")?;
        let (changes, mut state) = watch::channel(State::default());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                changes.send_modify(|state| match serde_json::from_str(&line) {
                    Ok(Event::Ready { port }) => state.port = Some(port),
                    Ok(Event::Set) => state.orders_done += 1,
                    Ok(Event::Auth) => state.sign_ins += 1,
                    Ok(Event::Mail(mail)) => state.mails.push(*mail),
                    Err(error) => state.unread.push(format!("{error} in {line}")),
                });
            }
            changes.send_modify(|state| state.ended = true);
        });
        let wait = state.wait_for(|state| state.port.is_some() || state.ended);
        let port = match timeout(READY_WITHIN, wait).await {
            Ok(Ok(state)) => state.port,
            _ => None,
        };
        let port = port.with_context(|| format!("aiosmtpd did not become ready; its log:\n{}", tail(&log, 4096)))?;
        Ok(Self { process, dir, port, orders, state })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority of its certificate, in PEM; there only with TLS.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The mails that it took, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Mail> {
        self.state.borrow().mails.clone()
    }

    /// How many those are.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.state.borrow().mails.len()
    }

    /// How often a client has tried to sign in, rightly or not.
    #[must_use]
    pub fn sign_ins(&self) -> u64 {
        self.state.borrow().sign_ins
    }

    /// Waits for the first mail for which `wanted` holds, among those that came and those to come.
    ///
    /// # Errors
    /// When none comes in time; the message lists the subjects that came.
    pub async fn wait_for(&self, wanted: impl Fn(&Mail) -> bool, within: Duration) -> Result<Mail> {
        let mut state = self.state.clone();
        let wait = state.wait_for(|state| state.ended || state.mails.iter().any(&wanted));
        if let Ok(Ok(state)) = timeout(within, wait).await
            && let Some(mail) = state.mails.iter().find(|mail| wanted(mail))
        {
            return Ok(mail.clone());
        }
        let subjects: Vec<_> = self.messages().iter().map(|mail| mail.subject().to_owned()).collect();
        let (unread, log) = (self.state.borrow().unread.join("\n"), self.process.log_tail());
        Err(anyhow!("no such mail within {within:?}; {} came: {subjects:?}; log:\n{unread}{log}", subjects.len()))
    }

    /// Sets how it answers from now on; `None` takes mails again. Returns when the server knows.
    ///
    /// # Errors
    /// When the server has ended.
    pub async fn refuse(&mut self, refusal: Option<Refusal>) -> Result<()> {
        let (mut refuse, hang_up, hang) =
            (json!(null), refusal == Some(Refusal::HangUpAfterData), refusal == Some(Refusal::HangAfterData));
        match refusal {
            Some(Refusal::AtMail(reply)) => refuse = json!({ "at": "mail", "reply": reply }),
            Some(Refusal::AtRecipient(reply)) => refuse = json!({ "at": "rcpt", "reply": reply }),
            Some(Refusal::OneRecipient(to, reply)) => refuse = json!({ "at": "rcpt", "reply": reply, "to": to }),
            Some(Refusal::AtData(reply)) => refuse = json!({ "at": "data", "reply": reply }),
            Some(Refusal::HangUpAfterData | Refusal::HangAfterData) | None => {}
        }
        let order = json!({ "refuse": refuse, "hang_up": hang_up, "hang": hang });
        let done = self.state.borrow().orders_done;
        writeln!(self.orders, "{order}")?;
        let wait = self.state.wait_for(|state| state.ended || state.orders_done > done);
        let state = timeout(READY_WITHIN, wait).await.context("aiosmtpd does not answer")??;
        (!state.ended).then_some(()).context("aiosmtpd has ended")
    }

    /// Stops it in its tracks (SIGSTOP): the kernel still takes connections, and nobody greets them.
    pub fn freeze(&mut self) {
        self.process.signal(libc::SIGSTOP);
    }

    /// Kills it: connections are refused from then on.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// An authority and a certificate that it signed: rustls refuses one that is both.
pub(crate) fn make_certificate(dir: &Path) -> Result<()> {
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args(request);
    output(openssl.args(["-subj", "/CN=authority of the test", "-keyout", "ca.key", "-out", "ca.pem"]))?;
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args(request).args(["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    output(openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_end_before_the_punctuation() {
        let mail = Mail {
            envelope_from: String::new(),
            recipients: Vec::new(),
            headers: vec![("Subject".into(), "hello".into())],
            text: Some("See <http://a.example/x>.\nOr https://b.example/y?z=1, please。".into()),
            html: None,
            raw: String::new(),
            authenticated: false,
            encrypted: false,
        };
        assert_eq!(mail.links(), ["http://a.example/x", "https://b.example/y?z=1"]);
        assert_eq!(mail.header("SUBJECT"), Some("hello"));
    }
}
