//! The audit log: a page of it with a filter, where its chain is, and all of it as a file.

use std::{io, sync::Arc};

use axum::{
    body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::{civil::Date, tz::TimeZone};
use pipelines::{journal::Channel, time::UnixMs};
use serde::Deserialize;

use super::{
    Paging, Reply, convert,
    model::{self, Answer},
    reply,
};
use crate::{
    app::{
        App, Role,
        accounts::Caller,
        audit::{AuditFilter, file},
    },
    http::{
        access::Signed,
        events::Room,
        extract::{Ask, OfService},
        problem::Problem,
    },
};

/// Characters of a word that is looked for.
const WORD_CHARS_MAX: usize = 200;

/// Which entries of the audit log.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// In the name of who did it, or the start of the address.
    pub who: Option<String>,
    /// In the word, the subject or the detail.
    pub what: Option<String>,
    /// Only of this service.
    pub service: Option<String>,
    /// Only by this way: `page`, `api`, `mail_link`, `hook`, `runner`, `server`, `machine`.
    pub channel: Option<String>,
    /// Not before this moment: `2026-11-23` (in the server's zone) or `2026-11-23T08:00:00Z`.
    pub from: Option<String>,
    /// Before this moment; a day counts whole.
    pub until: Option<String>,
    /// Only entries with a smaller place.
    pub before: Option<u64>,
    /// How many at most, up to 100; without it 20.
    pub limit: Option<usize>,
    /// Of an export: `ndjson`, which `windlass audit verify` reads best, or `csv`.
    pub format: Option<String>,
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-query", detail)
}

impl AuditQuery {
    /// The filter that it means, for this caller: who is no operator sees what is about services.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    pub fn filter(&self, caller: &Caller) -> Result<AuditFilter, Problem> {
        let given = |text: &Option<String>| -> Option<String> {
            let text = text.as_deref().unwrap_or_default().trim();
            (!text.is_empty()).then(|| text.chars().take(WORD_CHARS_MAX).collect())
        };
        let channel = |word: String| {
            let words = Channel::ALL.map(Channel::word).join(", ");
            Channel::from_word(&word).ok_or_else(|| bad(format!("channel is one of {words}")))
        };
        Ok(AuditFilter {
            who: given(&self.who),
            what: given(&self.what),
            service: given(&self.service).map(|name| OfService::parse(&name)).transpose()?.map(|OfService(name)| name),
            channel: given(&self.channel).map(channel).transpose()?,
            from: given(&self.from).map(|text| moment("from", &text, false)).transpose()?,
            until: given(&self.until).map(|text| moment("until", &text, true)).transpose()?,
            of_services: !caller.may(Role::Operator),
        })
    }
}

/// A moment, or the beginning (or end) of a day in the server's zone.
fn moment(name: &str, text: &str, is_end: bool) -> Result<UnixMs, Problem> {
    let of_day = |day: Date| {
        let day = if is_end { day.tomorrow().ok()? } else { day };
        Some(day.to_zoned(TimeZone::system()).ok()?.timestamp())
    };
    let found = text.parse::<Date>().ok().and_then(of_day).filter(|_| !text.contains('T'));
    let found = found.or_else(|| text.parse::<jiff::Timestamp>().ok());
    let wrong = || bad(format!("{name} is a day or a moment: 2026-11-23, 2026-11-23T08:00:00Z"));
    let ms = found.and_then(|moment| u64::try_from(moment.as_millisecond()).ok()).ok_or_else(wrong)?;
    Ok(UnixMs(ms))
}

/// Who changed what, from where, by which way; newest first. Who is no operator sees what is about services. Looks at a
/// bounded number of entries: `next_before` says where it goes on, also where little was found.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Answer<model::AuditLog>, description = "a page of it")))]
pub async fn list_audit(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Ask(query): Ask<AuditQuery>,
) -> Reply<model::AuditLog> {
    let filter = query.filter(&caller)?;
    if let Some(service) = &filter.service {
        app.service(service)?;
    }
    let limit = Paging { before: query.before, limit: query.limit }.limit();
    let page = app.audit_page(filter, query.before, limit).await?;
    let items = page.entries.into_iter().map(convert::entry).collect();
    reply(model::AuditLog { items, next_before: page.next_before, looked_at: page.looked_at })
}

/// Where the chain is: keep the mark elsewhere, and `windlass audit verify --head` shows later that nothing up to it was
/// changed or cut off. And what the server's own look at the whole of it found last.
#[utoipa::path(get, path = "/api/v1/audit/head", tag = "audit",
    responses((status = 200, body = Answer<model::AuditHead>, description = "the head")))]
pub async fn show_audit_head(State(app): State<Arc<App>>) -> Reply<model::AuditHead> {
    let (head, checked) = (app.audit_head()?, app.audit_checked());
    reply(model::AuditHead {
        mark: head.mark().to_string(),
        seq: head.seq,
        digest: head.digest.to_string(),
        genesis: head.genesis.to_string(),
        entries: head.entries,
        adopted: head.adopted,
        checked_at_ms: checked.as_ref().map(|check| check.at.0),
        problem: checked.and_then(|check| check.result.err()).map(|misfit| misfit.to_string()),
    })
}

/// The log as a file, oldest first, as far as it is when the answer begins. Without a filter it can be verified.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", params(AuditQuery),
    responses((status = 200, body = String, content_type = "application/x-ndjson", description = "lines of JSON, or CSV")))]
pub async fn export_audit(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Ask(query): Ask<AuditQuery>,
) -> Result<Response, Problem> {
    if query.before.is_some() || query.limit.is_some() {
        return Err(bad("an export has no pages: leave out before and limit".into()));
    }
    let (format, kind, name) = match query.format.as_deref() {
        None | Some("ndjson") => (file::Format::Ndjson, "application/x-ndjson", "ndjson"),
        Some("csv") => (file::Format::Csv, "text/csv; charset=utf-8", "csv"),
        Some(_) => return Err(bad("format is ndjson or csv".into())),
    };
    let filter = query.filter(&caller)?;
    let room = Room::take(&app)?;
    let head = app.audit_head()?;
    let is_whole = filter.is_everything();
    let first = Some(file::start(format, &head, is_whole));
    let pieces = futures_util::stream::try_unfold((Some(0), first), move |(after, first)| {
        let (app, filter) = (Arc::clone(&app), filter.clone());
        // It holds a place among the streams as long as it goes on.
        let _room = &room;
        let until = head.seq;
        async move {
            if let Some(first) = first {
                return Ok(Some((Bytes::from(first), (after, None))));
            }
            let Some(after) = after else { return Ok(None) };
            let (entries, next) = app.audit_export(filter, after, until).await.map_err(io::Error::other)?;
            let text: String = entries.iter().map(|entry| file::entry(format, entry)).collect();
            Ok::<_, io::Error>(Some((Bytes::from(text), (next, None))))
        }
    });
    let mut response = body::Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let part = if is_whole { "" } else { "-part" };
    let name = HeaderValue::try_from(format!("attachment; filename=\"windlass-audit{part}.{name}\""));
    headers.extend(name.ok().map(|name| (header::CONTENT_DISPOSITION, name)));
    Ok(response)
}
