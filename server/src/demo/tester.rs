//! The demo's tester: reads the mail, opens the link, asks for the code, types it in and decides, all by the real page.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use server::mailbox::{self, FolderMail};

/// How long a mail may take.
const MAIL_WITHIN: Duration = Duration::from_secs(120);

/// Somebody who reads mails in a folder.
pub(super) struct Tester {
    folder: PathBuf,
    client: reqwest::Client,
}

impl Tester {
    pub(super) fn new(folder: PathBuf) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self { folder, client })
    }

    /// Mails that asked for an approval: those that hold a link to decide and no code.
    pub(super) fn approval_mails(&self) -> Vec<FolderMail> {
        let mails = mailbox::list(&self.folder).unwrap_or_default();
        mails.into_iter().filter(|mail| link_in(mail).is_some() && code_in(mail).is_none()).collect()
    }

    async fn mail(&self, what: &str, wanted: impl Fn(&FolderMail) -> bool) -> anyhow::Result<FolderMail> {
        let deadline = tokio::time::Instant::now() + MAIL_WITHIN;
        loop {
            let mails = mailbox::list(&self.folder).unwrap_or_default();
            if let Some(mail) = mails.into_iter().find(|mail| wanted(mail)) {
                return Ok(mail);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("no mail with {what} came within {} s", MAIL_WITHIN.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the mail that asks about a release.
    pub(super) async fn asked(&self, service: &str, number: u32) -> anyhow::Result<()> {
        let part = format!("/approve/{service}/{number}/");
        let is_it = |mail: &FolderMail| link_in(mail).is_some_and(|link| link.contains(&part));
        self.mail("the link to decide", is_it).await.map(drop)
    }

    /// Decides on a release as its mail asks, and gives the digest that the page showed.
    pub(super) async fn approve(&self, service: &str, number: u32) -> anyhow::Result<String> {
        let part = format!("/approve/{service}/{number}/");
        let is_it = |mail: &FolderMail| link_in(mail).is_some_and(|link| link.contains(&part));
        let mail = self.mail("the link to decide", is_it).await?;
        let link = link_in(&mail).context("the mail holds no link")?;

        // What a mail scanner does: it changes nothing.
        self.client.head(&link).send().await?.error_for_status()?;
        let page = self.page(&link).await?;
        let csrf = hidden(&page, "_csrf").context("the page has no form")?;
        let digest = hidden(&page, "digest").context("the page shows no digest")?;
        self.post(&format!("{link}/code"), &[("_csrf", &csrf)]).await?;
        let mine = format!("{service}.{number}.");
        let is_code = |mail: &FolderMail| mail.message_id.starts_with(&mine) && code_in(mail).is_some();
        let code = self.mail("the code", is_code).await?;
        let code = code_in(&code).context("the mail holds no code")?;
        let form =
            [("_csrf", csrf.as_str()), ("digest", &digest), ("code", &code), ("decision", "approve"), ("comment", "")];
        self.post(&format!("{link}/decide"), &form).await?;
        Ok(digest)
    }

    async fn page(&self, link: &str) -> anyhow::Result<String> {
        Ok(self.client.get(link).send().await?.error_for_status()?.text().await?)
    }

    async fn post(&self, url: &str, form: &[(&str, &str)]) -> anyhow::Result<()> {
        let answer = self.client.post(url).form(form).send().await?;
        let status = answer.status();
        if !(status.is_success() || status.is_redirection()) {
            let text = answer.text().await.unwrap_or_default();
            bail!("the approval page answered {status}: {}", text.chars().take(300).collect::<String>());
        }
        Ok(())
    }
}

/// The link to decide, which stands alone on its line of the text part.
fn link_in(mail: &FolderMail) -> Option<String> {
    let is_link = |line: &&str| line.starts_with("http") && line.contains("/approve/") && !line.contains(' ');
    mail.text.lines().map(str::trim).find(is_link).map(str::to_owned)
}

/// The 6-digit code, which stands alone on its line of the text part.
fn code_in(mail: &FolderMail) -> Option<String> {
    let is_code = |line: &&str| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
    mail.text.lines().map(str::trim).find(is_code).map(str::to_owned)
}

/// The value of a hidden field of a page.
fn hidden(page: &str, name: &str) -> Option<String> {
    let field = page.split("<input").find(|field| {
        let tag = field.split('>').next().unwrap_or_default();
        tag.contains("type=\"hidden\"") && tag.contains(&format!("name=\"{name}\""))
    })?;
    field.split("value=\"").nth(1)?.split('"').next().map(str::to_owned)
}
