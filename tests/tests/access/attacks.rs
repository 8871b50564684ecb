//! The tools of whoever stands at the door with a link: sending many requests, reading the page's forms, counting.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, stream};
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use crate::stage::Stage;

/// Requests under way at once.
const AT_ONCE: usize = 64;

/// A form of a page: where it goes, and its fields.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) action: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// Sends, and counts what was sent.
pub(crate) struct Attacker<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) sent: AtomicUsize,
}

impl<'a> Attacker<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        Self { stage, sent: AtomicUsize::new(0) }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let answer = request.send().await?;
        let status = answer.status();
        ensure!(!status.is_server_error(), "answered {status}");
        Ok(answer)
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Response> {
        self.send(self.stage.http.get(url)).await
    }

    pub(crate) async fn post(&self, url: &str, fields: &[(&str, &str)]) -> Result<StatusCode> {
        Ok(self.send(self.stage.http.post(url).form(fields)).await?.status())
    }

    /// Sends all, many at once; gives the statuses.
    pub(crate) async fn all(&self, requests: Vec<RequestBuilder>) -> Result<Vec<StatusCode>> {
        let sent = requests.into_iter().map(async |request| Ok(self.send(request).await?.status()));
        stream::iter(sent).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
    }

    pub(crate) fn request(&self, method: &Method, url: &str) -> RequestBuilder {
        self.stage.http.request(method.clone(), url)
    }

    /// The page's forms, and the addresses of buttons that go elsewhere, with all fields as they stand.
    pub(crate) async fn forms(&self, link: &str) -> Result<Vec<Form>> {
        let page = self.get(link).await?.text().await?;
        let mut forms = Vec::new();
        for form in page.split("<form").skip(1).filter_map(|rest| rest.split("</form>").next()) {
            let fields: Vec<_> = ["<input", "<textarea", "<button"]
                .iter()
                .flat_map(|tag| form.split(tag).skip(1))
                .filter_map(|field| {
                    let tag = field.split('>').next()?;
                    Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()))
                })
                .collect();
            let head = form.split('>').next().unwrap_or_default();
            let buttons =
                form.split("<button").skip(1).filter_map(|tag| attribute(tag.split('>').next()?, "formaction"));
            for action in attribute(head, "action").into_iter().chain(buttons) {
                forms.push(Form { action: format!("{}{action}", self.stage.url), fields: fields.clone() });
            }
        }
        Ok(forms)
    }

    /// The token that the forms of the page carry.
    pub(crate) async fn form_token(&self, link: &str) -> Result<String> {
        let forms = self.forms(link).await?;
        let mut fields = forms.into_iter().flat_map(|form| form.fields);
        fields.find(|(name, _)| name == "_csrf").map(|(_, value)| value).context("the page has no form")
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(value.replace("&#38;", "&").replace("&amp;", "&"))
}
