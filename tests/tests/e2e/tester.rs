//! A tester: reads the mail, opens the link, asks for the code, types it in and decides, by the page of the link alone.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::{Response, StatusCode};
use tests::{Mail, Smtp, http_client};

use crate::api::{WITHIN, wait_for};

/// Somebody with a mail address.
#[derive(Clone, Debug)]
pub(crate) struct Tester {
    http: reqwest::Client,
    address: String,
}

/// The page behind a link, as far as a form needs it.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Its address.
    pub(crate) link: String,
    /// The digest that is decided on.
    pub(crate) digest: String,
    csrf: String,
}

impl Tester {
    pub(crate) fn new(address: &str) -> Self {
        Self { http: http_client(), address: address.to_owned() }
    }

    /// The mails to them that ask about a release for the first time; reminders refer to those.
    pub(crate) fn asked(&self, smtp: &Smtp, service: &str, release: u32) -> Vec<Mail> {
        let part = part(service, release);
        let asks = |mail: &Mail| link_in(mail).is_some_and(|link| link.contains(&part)) && code_in(mail).is_none();
        let asks = |mail: &Mail| asks(mail) && mail.header("in-reply-to").is_none();
        smtp.messages().into_iter().filter(|mail| self.is_to_me(mail) && asks(mail)).collect()
    }

    /// Waits for the mail that asks about a release and gives its link.
    pub(crate) async fn link(&self, smtp: &Smtp, service: &str, release: u32) -> Result<String> {
        let look = || async { (self.asked(smtp, service, release).first().and_then(link_in), String::new()) };
        let (link, _) = wait_for(WITHIN, look).await;
        link.with_context(|| {
            let subjects: Vec<_> = smtp.messages().iter().map(|mail| mail.subject().to_owned()).collect();
            format!("{} was not asked about {service} {release}; mails: {subjects:?}", self.address)
        })
    }

    /// Opens the page of a link. A server that is away for a moment is asked again.
    pub(crate) async fn open(&self, link: &str) -> Result<Page> {
        let look = || async {
            match self.http.get(link).send().await {
                Ok(answer) => (Some(answer), String::new()),
                Err(error) => (None, format!("{error:#}")),
            }
        };
        let (answer, seen) = wait_for(WITHIN, look).await;
        let answer = answer.with_context(|| format!("{link} is not answered: {seen}"))?;
        let status = answer.status();
        let page = answer.text().await?;
        ensure!(status == StatusCode::OK, "{link} was answered {status}: {page}");
        let csrf = hidden(&page, "_csrf").with_context(|| format!("the page has no form: {page}"))?;
        let digest = hidden(&page, "digest").unwrap_or_default();
        Ok(Page { link: link.to_owned(), digest, csrf })
    }

    /// Asks for a code and waits for its mail. A server that dies meanwhile is asked once more.
    pub(crate) async fn code(&self, smtp: &Smtp, page: &Page) -> Result<String> {
        let known: BTreeSet<_> = self.codes(smtp, &page.link).into_iter().collect();
        let look = || async {
            match self.send(&page.link, "code", &[("_csrf", &page.csrf)]).await {
                Ok(answer) => (Some(answer), String::new()),
                Err(error) => (None, format!("{error:#}")),
            }
        };
        let (answer, seen) = wait_for(WITHIN, look).await;
        let answer = answer.with_context(|| format!("no code can be asked for: {seen}"))?;
        ensure!(
            answer.status().is_redirection(),
            "the form was answered {}: {}",
            answer.status(),
            answer.text().await?
        );
        let look = || async {
            let new = self.codes(smtp, &page.link).into_iter().rfind(|code| !known.contains(code));
            (new, String::new())
        };
        wait_for(WITHIN, look).await.0.with_context(|| format!("{} got no code", self.address))
    }

    /// Decides; gives the answer to the form, whatever it is.
    pub(crate) async fn decide(&self, page: &Page, code: &str, decision: &str, comment: &str) -> Result<Response> {
        let form = [
            ("_csrf", page.csrf.as_str()),
            ("digest", &page.digest),
            ("code", code),
            ("decision", decision),
            ("comment", comment),
        ];
        self.send(&page.link, "decide", &form).await
    }

    /// Waits for the mail, opens the page and approves with the mailed code; gives the digest that the page showed.
    pub(crate) async fn approve(&self, smtp: &Smtp, service: &str, release: u32) -> Result<String> {
        let page = self.open(&self.link(smtp, service, release).await?).await?;
        let code = self.code(smtp, &page).await?;
        let answer = self.decide(&page, &code, "approve", "").await?;
        ensure!(
            answer.status().is_redirection(),
            "the form was answered {}: {}",
            answer.status(),
            answer.text().await?
        );
        Ok(page.digest)
    }

    async fn send(&self, link: &str, verb: &str, form: &[(&str, &str)]) -> Result<Response> {
        Ok(self.http.post(format!("{link}/{verb}")).form(form).send().await?)
    }

    /// The codes that were mailed about this link, oldest first.
    pub(crate) fn codes(&self, smtp: &Smtp, link: &str) -> Vec<String> {
        let root = smtp.messages().iter().find(|mail| link_in(mail).as_deref() == Some(link)).cloned();
        // The first mail of all; when somebody asks again, the new mail stands in the same thread.
        let root = root.and_then(|mail| mail.header("in-reply-to").or(mail.header("message-id")).map(str::to_owned));
        let answers = |mail: &Mail| root.is_some() && mail.header("in-reply-to") == root.as_deref();
        smtp.messages().iter().filter(|mail| self.is_to_me(mail) && answers(mail)).filter_map(code_in).collect()
    }

    fn is_to_me(&self, mail: &Mail) -> bool {
        mail.recipients.contains(&self.address)
    }
}

fn part(service: &str, release: u32) -> String {
    format!("/approve/{service}/{release}/")
}

/// The link to decide, as the text part has it.
pub(crate) fn link_in(mail: &Mail) -> Option<String> {
    mail.links().into_iter().find(|link| link.contains("/approve/"))
}

/// The 6-digit code, which stands alone on its line of the text part.
pub(crate) fn code_in(mail: &Mail) -> Option<String> {
    let is_code = |line: &&str| line.len() == 6 && line.bytes().all(|byte| byte.is_ascii_digit());
    mail.text.as_deref()?.lines().map(str::trim).find(is_code).map(str::to_owned)
}

/// The value of a hidden field of a page.
fn hidden(page: &str, name: &str) -> Option<String> {
    let field = page.split("<input").skip(1).find(|field| {
        let tag = field.split('>').next().unwrap_or_default();
        tag.contains("type=\"hidden\"") && tag.contains(&format!("name=\"{name}\""))
    })?;
    field.split("value=\"").nth(1)?.split('"').next().map(str::to_owned)
}
