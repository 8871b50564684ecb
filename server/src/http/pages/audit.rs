//! The audit log as a page: a filter, entries newest first, and the same as a file. Not here: what a filter means
//! (`api::audit`).

use std::collections::HashMap;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pipelines::journal::{Channel, Entry};

use super::{Visit, convert::page_ms, show};
use crate::{
    app::{
        Role,
        audit::{AuditPage, file},
    },
    http::{
        api::audit::AuditQuery,
        extract::Ask,
        problem::Problem,
        ui::{
            audit::{AuditCheckLine, AuditLine, AuditView},
            links,
        },
    },
};

/// Entries of a page.
const PAGE_ENTRIES: usize = 50;
/// The fields of the form.
const FIELDS: [&str; 6] = ["who", "what", "service", "channel", "from", "until"];
/// Characters of a field that are written back.
const TYPED_CHARS_MAX: usize = 200;

/// The log.
pub(in crate::http) async fn show_audit(
    visit: Visit,
    Ask(asked): Ask<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let field = |name: &str| asked.get(name).map(|text| text.chars().take(TYPED_CHARS_MAX).collect::<String>());
    let before = asked.get("before").and_then(|before| before.parse().ok());
    let [who, what, service, channel, from, until] = FIELDS.map(field);
    let query = AuditQuery { who, what, service, channel, from, until, before, ..AuditQuery::default() };
    let caller = visit.caller()?;
    let found = match query.filter(caller) {
        Ok(filter) => Ok(visit.app.audit_page(filter, before, PAGE_ENTRIES).await?),
        Err(problem) if problem.status >= 500 => return Err(problem),
        Err(problem) => Err(problem.detail),
    };
    let (page, problem) = match found {
        Ok(page) => (page, None),
        Err(problem) => (AuditPage::default(), Some(problem)),
    };
    let status = if problem.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let words = written(&query);
    let typed = |text: &Option<String>| text.clone().unwrap_or_default();
    let view = AuditView {
        entries: page.entries.iter().map(line).collect(),
        older: page.next_before.map(|before| address(links::AUDIT, &words, Some(("before", before.to_string())))),
        newest: before.map(|_| address(links::AUDIT, &words, None)),
        csv: address("/api/v1/audit/export", &words, Some(("format", "csv".into()))),
        looked_at: page.looked_at as u64,
        who: typed(&query.who),
        what: typed(&query.what),
        service: typed(&query.service),
        channel: query.channel.as_deref().and_then(Channel::from_word),
        from: typed(&query.from),
        until: typed(&query.until),
        problem,
        only_services: !visit.may(Role::Operator),
        mark: visit.app.audit_head()?.mark().to_string(),
        checked: visit.app.audit_checked().map(|check| AuditCheckLine {
            at_ms: page_ms(check.at),
            problem: check.result.err().map(|misfit| misfit.to_string()),
        }),
    };
    Ok(show!(visit, status, view).into_response())
}

fn written(query: &AuditQuery) -> Vec<(&'static str, String)> {
    let values = [&query.who, &query.what, &query.service, &query.channel, &query.from, &query.until];
    let pairs = FIELDS.into_iter().zip(values);
    pairs.filter_map(|(name, value)| Some((name, value.clone().filter(|value| !value.is_empty())?))).collect()
}

fn address(path: &str, words: &[(&'static str, String)], more: Option<(&str, String)>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(words);
    query.extend_pairs(more);
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn line(entry: &Entry) -> AuditLine {
    let (before, after) = file::before_and_after(entry);
    AuditLine {
        seq: entry.seq,
        at_ms: page_ms(entry.at),
        actor: entry.origin.actor.clone(),
        by: entry.origin.channel,
        place: entry.origin.place.clone(),
        proof: entry.origin.proof.clone(),
        word: entry.word.replace('_', " "),
        subject: entry.subject.clone(),
        service: entry.service.as_ref().map(ToString::to_string),
        before,
        after,
        detail: entry.detail.clone(),
    }
}
