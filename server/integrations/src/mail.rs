//! Sends mails: through a mail server, or into a folder. Not here: what is in them.
//!
//! Each mail has a connection of its own. There are few, and lettre's pool gives a connection that was left in the middle
//! of a mail (a timeout, a task that is ended) to the next one, which then reads the answers to the earlier.
//!
//! SMTP knows no idempotency: when the server's "250" is lost, the mail is sent again. It then carries the same
//! Message-ID, by which mail programs show it once.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        extension::ClientId,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use crate::outgoing::Outgoing;

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// A setting is not good.
    #[error("the mail settings are not good: {0}")]
    Settings(String),
    /// An address or a header is not good.
    #[error("the mail to {to} cannot be made: {why}")]
    Content {
        /// Whom it was for.
        to: String,
        /// What is wrong.
        why: String,
    },
    /// The mail server does not want it: a person must act.
    #[error("the mail server refused the mail to {to}")]
    Refused {
        /// Whom it was for.
        to: String,
        /// Its words.
        #[source]
        source: lettre::transport::smtp::Error,
    },
    /// The mail server does not accept user and password: a person must act.
    #[error("the mail server does not let {user} sign in")]
    Login {
        /// Who.
        user: String,
        /// Its words.
        #[source]
        source: lettre::transport::smtp::Error,
    },
    /// The mail server cannot be reached safely, or says to come again.
    #[error("the mail server did not take the mail to {to} now")]
    NotNow {
        /// Whom it was for.
        to: String,
        /// Why.
        #[source]
        source: lettre::transport::smtp::Error,
    },
    /// The mail server's name leads nowhere, or where no call goes.
    #[error("the mail server {host} cannot be reached")]
    Unreachable {
        /// Its name.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The mail server is silent or slow.
    #[error("the mail server did not take the mail to {to} within {timeout_ms} ms")]
    Timeout {
        /// Whom it was for.
        to: String,
        /// How long it had.
        timeout_ms: u64,
    },
    /// The folder cannot be written.
    #[error("write the mail into {folder}")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A mail, complete.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Left part of its Message-ID; the right one is the sender's domain.
    pub id: String,
    /// Left part of the Message-ID of the mail that it belongs to.
    pub in_reply_to: Option<String>,
    /// Name of the list it belongs to, for filters: `checkout`.
    pub list: String,
    /// Address.
    pub to: String,
    /// Subject, one line.
    pub subject: String,
    /// HTML part.
    pub html: String,
    /// Text part.
    pub text: String,
}

/// How a connection to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Upgraded after the greeting; a server that does not offer it is refused.
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all.
    None,
}

/// A mail server and what opens it.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub protection: Protection,
    /// User and password.
    pub login: Option<(String, SecretString)>,
    /// Certificate authority to trust besides the system's, PEM.
    pub ca_pem: Option<String>,
    /// How long one mail may take from the connection to the server's word that it has it, in milliseconds.
    pub timeout_ms: u64,
    /// Which addresses are not called.
    pub outgoing: Outgoing,
}

#[derive(Clone)]
enum Way {
    Smtp(Box<Smtp>),
    Folder(PathBuf),
}

/// Sends mails from one sender. May be used from many tasks at once.
#[derive(Clone)]
pub struct Mailer {
    from: Mailbox,
    way: Way,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mailer({})", self.from)
    }
}

fn settings(error: impl std::fmt::Display) -> MailError {
    MailError::Settings(error.to_string())
}

impl Mailer {
    /// A mailer through a mail server. Connects when the first mail is sent.
    ///
    /// # Errors
    /// [`MailError::Settings`].
    pub fn smtp(from: &str, server: SmtpServer) -> Result<Self, MailError> {
        let tls = match server.protection {
            Protection::None => None,
            Protection::Starttls | Protection::Tls => {
                let mut tls = TlsParameters::builder(server.host.clone());
                if let Some(pem) = &server.ca_pem {
                    tls = tls.add_root_certificate(Certificate::from_pem(pem.as_bytes()).map_err(settings)?);
                }
                Some(tls.build_rustls().map_err(settings)?)
            }
        };
        let smtp = Smtp { tls, hello: ClientId::default(), server };
        Ok(Self { from: from.parse().map_err(settings)?, way: Way::Smtp(Box::new(smtp)) })
    }

    /// A mailer into a folder, which is made where it is missing: one file per mail, named by time and Message-ID.
    ///
    /// # Errors
    /// [`MailError::Settings`], [`MailError::Folder`].
    pub fn folder(from: &str, folder: &Path) -> Result<Self, MailError> {
        let failed = |source| MailError::Folder { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        Ok(Self { from: from.parse().map_err(settings)?, way: Way::Folder(folder.to_owned()) })
    }

    fn message_id(&self, left: &str) -> String {
        format!("<{left}@{}>", self.from.email.domain())
    }

    fn message(&self, mail: &Mail) -> Result<Message, MailError> {
        let wrong = |why: String| MailError::Content { to: mail.to.clone(), why };
        let to: Address = mail.to.parse().map_err(|error| wrong(format!("{error}")))?;
        // The library encodes what is not ASCII; a line end would begin a header of its own.
        let parts = [&mail.id, &mail.list, &mail.subject].into_iter().chain(&mail.in_reply_to);
        if parts.flat_map(|part| part.chars()).any(char::is_control) {
            return Err(wrong("a header holds a control character".into()));
        }
        let list = format!("<{}.windlass.{}>", mail.list, self.from.email.domain());
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&mail.subject)
            .message_id(Some(self.message_id(&mail.id)))
            .header(ListId(list))
            .header(AutoSubmitted("auto-generated".into()));
        if let Some(root) = &mail.in_reply_to {
            builder = builder.in_reply_to(self.message_id(root)).references(self.message_id(root));
        }
        builder
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
            .map_err(|error| wrong(error.to_string()))
    }

    /// Whether mails could be sent now: connects, protects the connection and signs in, or looks at the folder. No mail
    /// is sent.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub async fn check(&self) -> Result<(), MailError> {
        match &self.way {
            Way::Smtp(smtp) => smtp.visit("nobody", None).await,
            Way::Folder(folder) => {
                let failed = |source| MailError::Folder { folder: folder.clone(), source };
                let probe = folder.join(".check");
                tokio::fs::write(&probe, b"").await.map_err(failed)?;
                tokio::fs::remove_file(&probe).await.map_err(failed)
            }
        }
    }

    /// Sends a mail. Sent again, it has the same Message-ID.
    ///
    /// # Errors
    /// [`MailError`]: [`MailError::NotNow`], [`MailError::Unreachable`] and [`MailError::Timeout`] may pass by themselves, the others need a person.
    pub async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let message = self.message(mail)?;
        match &self.way {
            Way::Smtp(smtp) => smtp.visit(&mail.to, Some(&message)).await,
            Way::Folder(folder) => {
                let folder = folder.clone();
                let failed = |source| MailError::Folder { folder: folder.clone(), source };
                let name = file_name(&mail.id);
                let text = message.formatted();
                let target = folder.clone();
                let written = tokio::task::spawn_blocking(move || write_whole(&target, &name, &text)).await;
                written.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
            }
        }
    }
}

#[derive(Clone)]
struct Smtp {
    server: SmtpServer,
    tls: Option<TlsParameters>,
    hello: ClientId,
}

impl Smtp {
    /// Connects, signs in, and leaves a mail where there is one.
    async fn visit(&self, to: &str, message: Option<&Message>) -> Result<(), MailError> {
        let limit = Duration::from_millis(self.server.timeout_ms);
        // lettre's own limit ends where the connection stands; a server that then falls silent is ours to leave.
        let Ok(taken) = timeout(limit, self.hand_over(to, message)).await else {
            return Err(MailError::Timeout { to: to.to_owned(), timeout_ms: self.server.timeout_ms });
        };
        // The server has the mail: how the farewell goes is of no interest.
        let _ = timeout(limit, taken?.quit()).await;
        Ok(())
    }

    async fn hand_over(&self, to: &str, message: Option<&Message>) -> Result<AsyncSmtpConnection, MailError> {
        let failed = |source: lettre::transport::smtp::Error| {
            let to = to.to_owned();
            if source.is_permanent() { MailError::Refused { to, source } } else { MailError::NotNow { to, source } }
        };
        let SmtpServer { host, port, protection, login, outgoing, .. } = &self.server;
        let unreachable = |source| MailError::Unreachable { host: host.clone(), source };
        let addresses = outgoing.resolve(host, *port).await.map_err(unreachable)?;
        let at_once = self.tls.clone().filter(|_| *protection == Protection::Tls);
        let connected =
            AsyncSmtpConnection::connect_tokio1(addresses.as_slice(), None, &self.hello, at_once, None).await;
        let mut connection = connected.map_err(failed)?;
        if let (Protection::Starttls, Some(tls)) = (protection, &self.tls) {
            connection.starttls(tls.clone(), &self.hello).await.map_err(failed)?;
        }
        if let Some((user, password)) = login {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            if let Err(source) = connection.auth(DEFAULT_MECHANISMS, &credentials).await {
                let refused = source.is_permanent();
                return Err(if refused { MailError::Login { user: user.clone(), source } } else { failed(source) });
            }
        }
        if let Some(message) = message {
            connection.send(message.envelope(), &message.formatted()).await.map_err(failed)?;
        }
        Ok(connection)
    }
}

/// Names sort by time. A mail that is sent again finds its earlier file by the id and writes none.
fn file_name(id: &str) -> String {
    let safe: String = id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    format!("{safe}.eml")
}

fn write_whole(folder: &Path, id_name: &str, text: &[u8]) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        if entry?.file_name().to_string_lossy().ends_with(&format!("-{id_name}")) {
            return Ok(());
        }
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let half = folder.join(format!(".{id_name}.half"));
    std::fs::write(&half, text)?;
    std::fs::rename(&half, folder.join(format!("{now_ms:015}-{id_name}")))
}

macro_rules! text_header {
    ($name:ident, $text:literal) => {
        #[derive(Clone, Debug)]
        struct $name(String);

        impl Header for $name {
            fn name() -> HeaderName {
                HeaderName::new_from_ascii_str($text)
            }

            fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
                Ok(Self(text.to_owned()))
            }

            fn display(&self) -> HeaderValue {
                HeaderValue::new(Self::name(), self.0.clone())
            }
        }
    };
}

text_header!(ListId, "List-Id");
text_header!(AutoSubmitted, "Auto-Submitted");

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(subject: &str) -> Mail {
        Mail {
            id: "checkout.412.abc".into(),
            in_reply_to: None,
            list: "checkout".into(),
            to: "qa@example.com".into(),
            subject: subject.into(),
            html: "<p>你好</p>".into(),
            text: "你好\n".into(),
        }
    }

    fn mailer(folder: &Path) -> Mailer {
        Mailer::folder("Windlass <windlass@example.com>", folder).unwrap()
    }

    #[tokio::test]
    async fn a_mail_that_is_sent_again_has_the_same_id_and_is_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let mailer = mailer(folder.path());
        mailer.send(&mail("[checkout] 请验收 build 412")).await.unwrap();
        mailer.send(&mail("[checkout] 请验收 build 412")).await.unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        let text = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        assert!(text.contains("Message-ID: <checkout.412.abc@example.com>"), "{text}");
        assert!(text.contains("List-Id: <checkout.windlass.example.com>"), "{text}");
        assert!(text.contains("Auto-Submitted: auto-generated"), "{text}");
    }

    #[tokio::test]
    async fn a_line_end_in_a_subject_begins_no_header() {
        let folder = tempfile::tempdir().unwrap();
        let sent = mailer(folder.path()).send(&mail("a\r\nBcc: all@example.com")).await;
        assert!(matches!(sent, Err(MailError::Content { .. })));
    }
}
