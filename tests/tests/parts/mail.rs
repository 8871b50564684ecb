//! The product's mailer against a real SMTP server: TLS both ways, sign-in, refusals, silence, and what a mail looks
//! like when it has arrived. What the letters say is tested beside their templates.

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use integrations::{
    mail::{Mail, MailError, Mailer, Protection, SmtpServer},
    outgoing::Outgoing,
};
use tests::{Part, Refusal, Smtp, SmtpOptions, SmtpTls, Tier, evidence::record, require};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const FROM: &str = "Windlass 交付 <windlass@example.com>";
const USER: &str = "windlass";
const PASSWORD: &str = "the mail server's password";
const SOON: Duration = Duration::from_secs(10);

fn mail(id: &str) -> Mail {
    Mail {
        id: id.into(),
        in_reply_to: None,
        list: "checkout".into(),
        to: "qa@example.com".into(),
        subject: format!("[checkout] build 412 ({id})"),
        html: "<p>Please look at <a href=\"http://test.example/a?b=1&amp;c=2\">it</a>.</p>".into(),
        text: "Please look at http://test.example/a?b=1&c=2\n".into(),
    }
}

fn server(smtp: &Smtp, protection: Protection) -> SmtpServer {
    let trusted = protection != Protection::None;
    SmtpServer {
        host: "localhost".into(),
        port: smtp.port(),
        protection,
        login: None,
        ca_pem: trusted.then(|| std::fs::read_to_string(smtp.ca_file()).unwrap()),
        timeout_ms: 10_000,
        outgoing: Outgoing::default(),
    }
}

fn mailer(server: SmtpServer) -> Mailer {
    Mailer::smtp(FROM, server).unwrap()
}

fn signed_in(smtp: &Smtp, protection: Protection, password: &str) -> Mailer {
    mailer(SmtpServer { login: Some((USER.into(), password.to_owned().into())), ..server(smtp, protection) })
}

fn asks_for_login(tls: Option<SmtpTls>) -> SmtpOptions {
    SmtpOptions { auth: Some((USER.into(), PASSWORD.into())), tls, thinks_ms: 0 }
}

/// What it took until now, told not to refuse any more: the events of a server come in their order.
async fn all(smtp: &mut Smtp) -> Vec<tests::Mail> {
    smtp.refuse(None).await.unwrap();
    smtp.messages()
}

/// An error with all that caused it, as the log shows it.
fn whole(error: &MailError) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[tokio::test]
async fn a_mail_arrives_plain_by_starttls_and_by_tls() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let ways = [
        (None, Protection::None),
        (Some(SmtpTls::StartTls), Protection::Starttls),
        (Some(SmtpTls::Implicit), Protection::Tls),
    ];
    for (tls, protection) in ways {
        let mut smtp = Smtp::start(asks_for_login(tls)).await.unwrap();
        signed_in(&smtp, protection, PASSWORD).check().await.unwrap();
        assert!(all(&mut smtp).await.is_empty(), "a check sent a mail");
        signed_in(&smtp, protection, PASSWORD).send(&mail("a")).await.unwrap();
        let came = smtp.wait_for(|_| true, SOON).await.unwrap();
        assert_eq!((came.encrypted, came.authenticated), (tls.is_some(), true), "{protection:?}");
        assert_eq!(came.envelope_from, "windlass@example.com");
        assert_eq!(came.recipients, ["qa@example.com"]);
        assert_eq!(came.header("message-id"), Some("<a@example.com>"));
    }
    record("a mail is sent by SMTP: plain, STARTTLS, TLS, with sign-in", Tier::RealPart, "3 ways, aiosmtpd");
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_says_so() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let mut smtp = Smtp::start(asks_for_login(Some(SmtpTls::StartTls))).await.unwrap();
    let error = signed_in(&smtp, Protection::Starttls, "not that one").send(&mail("a")).await.unwrap_err();
    assert!(matches!(&error, MailError::Login { user, .. } if user == USER), "{error:?}");
    let text = whole(&error);
    let error = signed_in(&smtp, Protection::Starttls, "not that one").check().await.unwrap_err();
    assert_eq!(whole(&error), text);
    assert!(text.starts_with("the mail server does not let windlass sign in: permanent error (535)"), "{text}");
    assert!(!format!("{text}{error:?}").contains("not that one"), "{error:?}");
    // Without any login the server refuses too, and that is not about a password.
    let other = mailer(server(&smtp, Protection::Starttls)).send(&mail("a")).await.unwrap_err();
    assert!(matches!(&other, MailError::Refused { .. }), "{other:?}");
    assert!(all(&mut smtp).await.is_empty());
    record("a wrong password of the mail server is named", Tier::RealPart, error);
}

#[tokio::test]
async fn come_again_and_never_are_told_apart() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let mut smtp = Smtp::start(SmtpOptions::default()).await.unwrap();
    let mailer = mailer(server(&smtp, Protection::None));
    let later = || "451 4.3.0 the queue is full".to_owned();
    let never = || "550 5.1.1 no such mailbox".to_owned();
    for refusal in [Refusal::AtMail(later()), Refusal::AtRecipient(later()), Refusal::AtData(later())] {
        smtp.refuse(Some(refusal.clone())).await.unwrap();
        let error = mailer.send(&mail("a")).await.unwrap_err();
        assert!(matches!(&error, MailError::NotNow { to, .. } if to == "qa@example.com"), "{refusal:?}: {error:?}");
        assert!(whole(&error).contains("the queue is full"), "{}", whole(&error));
    }
    for refusal in [Refusal::AtMail(never()), Refusal::AtRecipient(never()), Refusal::AtData(never())] {
        smtp.refuse(Some(refusal.clone())).await.unwrap();
        let error = mailer.send(&mail("a")).await.unwrap_err();
        assert!(matches!(&error, MailError::Refused { to, .. } if to == "qa@example.com"), "{refusal:?}: {error:?}");
        assert!(whole(&error).contains("no such mailbox"), "{}", whole(&error));
    }
    smtp.refuse(None).await.unwrap();
    mailer.send(&mail("a")).await.unwrap();
    assert_eq!(all(&mut smtp).await.len(), 1);
    smtp.kill();
    let error = mailer.send(&mail("a")).await.unwrap_err();
    assert!(matches!(&error, MailError::NotNow { .. }), "{error:?}");
    record("a mail server that refuses for now, for good, or is gone is told apart", Tier::RealPart, "3 places each");
}

#[tokio::test]
async fn a_lost_answer_sends_the_same_message_id_again() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let mut smtp = Smtp::start(SmtpOptions::default()).await.unwrap();
    let mailer = mailer(server(&smtp, Protection::None));
    smtp.refuse(Some(Refusal::HangUpAfterData)).await.unwrap();
    let error = mailer.send(&mail("once")).await.unwrap_err();
    assert!(matches!(&error, MailError::NotNow { .. }), "{error:?}");
    smtp.refuse(None).await.unwrap();
    mailer.send(&mail("once")).await.unwrap();
    mailer.send(&mail("once")).await.unwrap();
    let ids: Vec<_> = all(&mut smtp).await.iter().map(|mail| mail.header("message-id").unwrap().to_owned()).collect();
    assert_eq!(ids, ["<once@example.com>"; 3]);
    record("a mail that is sent again has the same Message-ID", Tier::RealPart, "3 deliveries, 1 id");
}

#[tokio::test]
async fn a_silent_server_costs_its_time_and_no_more() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let mut smtp = Smtp::start(SmtpOptions::default()).await.unwrap();
    let impatient = mailer(SmtpServer { timeout_ms: 600, ..server(&smtp, Protection::None) });
    smtp.refuse(Some(Refusal::HangAfterData)).await.unwrap();
    let started = Instant::now();
    let error = impatient.send(&mail("first")).await.unwrap_err();
    assert!(matches!(&error, MailError::Timeout { timeout_ms: 600, .. }), "{error:?}");
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(600), "{waited:?}");
    assert_eq!(error.to_string(), "the mail server did not take the mail to qa@example.com within 600 ms");
    // The next mail has nothing of the one that was given up.
    smtp.refuse(None).await.unwrap();
    mailer(server(&smtp, Protection::None)).send(&mail("second")).await.unwrap();
    let subjects: Vec<_> = all(&mut smtp).await.iter().map(|mail| mail.subject().to_owned()).collect();
    assert_eq!(subjects, ["[checkout] build 412 (second)"]);
    // One that does not even greet.
    smtp.freeze();
    let error = impatient.send(&mail("third")).await.unwrap_err();
    assert!(matches!(&error, MailError::Timeout { .. }), "{error:?}");
    record(
        "a mail server that falls silent is left after its time",
        Tier::RealPart,
        format!("600 ms allowed, {} ms waited", waited.as_millis()),
    );
}

/// A listener that passes bytes on and keeps what the client said.
struct Wiretap {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wiretap {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) =
                    TcpStream::connect(("127.0.0.1", to)).await.unwrap().into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    ear.lock().unwrap().extend_from_slice(&buffer[..count]);
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_never_sees_the_password() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let stranger = Smtp::start(asks_for_login(Some(SmtpTls::StartTls))).await.unwrap();
    let ca_of_another = std::fs::read_to_string(stranger.ca_file()).unwrap();
    for (tls, protection) in [(SmtpTls::StartTls, Protection::Starttls), (SmtpTls::Implicit, Protection::Tls)] {
        let mut smtp = Smtp::start(asks_for_login(Some(tls))).await.unwrap();
        let wiretap = Wiretap::start(smtp.port()).await;
        for ca_pem in [None, Some(ca_of_another.clone())] {
            let login = Some((USER.into(), PASSWORD.into()));
            let server = SmtpServer { port: wiretap.port, login, ca_pem, ..server(&smtp, protection) };
            let error = mailer(server).send(&mail("a")).await.unwrap_err();
            assert!(matches!(&error, MailError::NotNow { .. }), "{error:?}");
            assert!(whole(&error).contains("certificate"), "{}", whole(&error));
        }
        let heard = wiretap.heard();
        assert!(!heard.is_empty() && !heard.contains("AUTH"), "{heard}");
        assert_eq!(heard.contains("STARTTLS"), protection == Protection::Starttls);
        let mails = all(&mut smtp).await.len();
        assert_eq!((smtp.sign_ins(), mails), (0, 0), "{protection:?}");
    }
    // A server, or somebody between, that does not offer STARTTLS.
    let mut bare = Smtp::start(asks_for_login(None)).await.unwrap();
    let wiretap = Wiretap::start(bare.port()).await;
    let login = Some((USER.into(), PASSWORD.into()));
    let server = SmtpServer {
        port: wiretap.port,
        login,
        ca_pem: Some(ca_of_another),
        protection: Protection::Starttls,
        ..server(&bare, Protection::None)
    };
    let error = mailer(server).send(&mail("a")).await.unwrap_err();
    assert!(whole(&error).contains("STARTTLS is not supported"), "{}", whole(&error));
    let heard = wiretap.heard();
    assert!(heard.starts_with("EHLO ") && !heard.contains("AUTH"), "{heard}");
    let mails = all(&mut bare).await.len();
    assert_eq!((bare.sign_ins(), mails), (0, 0));
    record(
        "a mail server with an untrusted certificate, or without STARTTLS, gets no password",
        Tier::RealPart,
        "5 connections, 0 sign-ins",
    );
}

#[tokio::test]
async fn a_chinese_mail_reads_as_it_was_written() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let smtp = Smtp::start(SmtpOptions::default()).await.unwrap();
    let subject =
        "[结账服务] 请验收构建 412:“新的支付页面,支持支付宝与微信支付” — 由 王小明 提交于 2026 年 11 月 23 日 😀";
    // A line of one dot ends a mail; 1,200 characters are more than a line may have.
    let text = format!("你好,\n.\n请验收:http://test.example/\n{}\n", "好".repeat(1200));
    let html = format!("<!doctype html><p lang=\"zh-CN\">你好</p>\n.\n<p>{}</p>\n", "好".repeat(1200));
    let sent = Mail {
        subject: subject.into(),
        text: text.clone(),
        html: html.clone(),
        in_reply_to: Some("root".into()),
        ..mail("zh")
    };
    mailer(server(&smtp, Protection::None)).send(&sent).await.unwrap();
    let came = smtp.wait_for(|_| true, SOON).await.unwrap();
    assert_eq!(came.subject(), subject);
    assert_eq!(came.header("from"), Some(FROM));
    assert_eq!(came.text.as_deref().map(|text| text.replace("\r\n", "\n")), Some(text));
    assert_eq!(came.html.as_deref().map(|html| html.replace("\r\n", "\n")), Some(html));
    assert_eq!(came.header("in-reply-to"), Some("<root@example.com>"));
    assert_eq!(came.header("references"), Some("<root@example.com>"));
    assert_eq!(came.header("list-id"), Some("<checkout.windlass.example.com>"));
    assert!(came.header("content-type").is_some_and(|kind| kind.starts_with("multipart/alternative")));
    // RFC 5321 and RFC 2047: ASCII on the wire, no line over 998 bytes, no encoded word over 75.
    let (head, _) = came.raw.split_once("\r\n\r\n").unwrap();
    assert!(head.is_ascii(), "{head}");
    assert!(came.raw.lines().all(|line| line.len() <= 998), "a line is too long");
    let words: Vec<_> = head.split_whitespace().filter(|word| word.starts_with("=?")).collect();
    assert!(words.len() > 1 && words.iter().all(|word| word.len() <= 75), "{words:?}");
    // Text first: the last alternative that a program can show is the one that it shows.
    let (plain, html) = (came.raw.find("text/plain").unwrap(), came.raw.find("text/html").unwrap());
    assert!(plain < html);
    record("a mail in Chinese, as text and as HTML, arrives as written", Tier::RealPart, "subject, sender, both parts");
}

#[tokio::test]
async fn nothing_that_was_given_becomes_a_header_or_a_recipient() {
    if !require(&[Part::Smtp]) {
        return;
    }
    let mut smtp = Smtp::start(SmtpOptions::default()).await.unwrap();
    let mailer = mailer(server(&smtp, Protection::None));
    let breaks = ["\r\nBcc: all@example.com", "\nBcc: all@example.com", "\rBcc: all@example.com", "\0", "\u{7f}"];
    let mut refused = 0;
    for tail in breaks {
        let with = |part: &str| format!("{part}{tail}");
        let tries = [
            Mail { subject: with("hello"), ..mail("a") },
            Mail { id: with("a"), ..mail("a") },
            Mail { in_reply_to: Some(with("a")), ..mail("a") },
            Mail { list: with("checkout"), ..mail("a") },
            Mail { to: with("qa@example.com"), ..mail("a") },
            Mail { to: format!("qa{tail}@example.com"), ..mail("a") },
            Mail { to: format!("\"qa{tail}\"@example.com"), ..mail("a") },
        ];
        for (number, mail) in tries.iter().enumerate() {
            let error = mailer.send(mail).await.unwrap_err();
            assert!(matches!(&error, MailError::Content { .. }), "part {number} with {tail:?}: {error:?}");
            refused += 1;
        }
    }
    let addresses =
        ["", "qa", "@example.com", "qa@", "a@example.com, b@example.com", "qa@example.com>", "a b@example.com"];
    for to in addresses {
        let error = mailer.send(&Mail { to: to.into(), ..mail("a") }).await.unwrap_err();
        assert!(matches!(&error, MailError::Content { .. }), "{to:?}: {error:?}");
        refused += 1;
    }
    assert!(all(&mut smtp).await.is_empty());
    // What is no line end is text: it stays in the subject.
    let subject = "hello Bcc: all@example.com\u{2028}";
    mailer.send(&Mail { subject: subject.into(), ..mail("b") }).await.unwrap();
    let came = smtp.wait_for(|_| true, SOON).await.unwrap();
    assert_eq!((came.recipients.as_slice(), came.header("bcc")), (["qa@example.com".to_owned()].as_slice(), None));
    record(
        "a header or a recipient cannot be smuggled into a mail",
        Tier::RealPart,
        format!("{refused} tries refused"),
    );
}
