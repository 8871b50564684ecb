//! Streams of events (server-sent events): what has changed, for programs and for pages. An event carries no data but what
//! to read again; its id resumes the stream. Not here: the lines of a log (`api::logs`), the events of a run's page.

use std::{collections::VecDeque, convert::Infallible, future::Future, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, Query, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast},
    time::Instant,
};

use super::{
    api::model,
    extract::{Ask, OfService},
    problem::Problem,
};
use crate::app::{App, Changed, Missed};

/// Silence after which a comment is sent, so that nothing on the way cuts the stream and the other end knows us alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A comment, which no reader of events hears.
pub const SILENCE: &str = ":\n\n";
/// Topics that one stream is about at most.
const TOPICS_MAX: usize = 50;

/// Where a stream goes on: the header of browsers and programs that connect again, or the query of a page that was hidden.
#[derive(Clone, Debug)]
pub struct Resume(pub Option<String>);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResumeQuery {
    last_event_id: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Resume {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let header = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let query = || Query::<ResumeQuery>::try_from_uri(&parts.uri).ok().and_then(|Query(query)| query.last_event_id);
        Ok(Self(header.or_else(query).filter(|id| !id.is_empty())))
    }
}

/// A stream's place among those that may be open, and its end: then it is opened again, and who it is for is looked at
/// again.
#[derive(Debug)]
pub struct Room {
    _permit: OwnedSemaphorePermit,
    until: Instant,
}

impl Room {
    /// Takes a place.
    ///
    /// # Errors
    /// When none is free.
    pub fn take(app: &App) -> Result<Self, Problem> {
        let permit = app.load().stream().ok_or_else(|| {
            let detail = "as many streams are open as the server's configuration allows";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", detail).next("try again later")
        })?;
        let until = Instant::now() + Duration::from_millis(app.config.bounds.stream_life_ms);
        Ok(Self { _permit: permit, until })
    }

    /// Waits for `work`, or for the end of the stream's time: none.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.until, work).await.ok()
    }
}

/// Events as an answer. `next` gives some at a time, none at the end.
pub fn answer<S, F>(start: S, next: impl Fn(S) -> F + Clone + Send + 'static) -> Response
where
    S: Send + 'static,
    F: Future<Output = Option<(Vec<Event>, S)>> + Send + 'static,
{
    let batches = stream::unfold(start, next);
    let events =
        futures_util::StreamExt::flat_map(batches, |events| stream::iter(events.into_iter().map(Ok::<_, Infallible>)));
    unbuffered(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// Many events as an answer: `next` gives some at a time as they are sent, which costs less than one by one; none at the
/// end. It says something every [`KEEP_ALIVE`] ([`SILENCE`] where there is nothing to say).
pub fn answer_written<S, F>(start: S, next: impl Fn(S) -> F + Send + 'static) -> Response
where
    S: Send + 'static,
    F: Future<Output = Option<(String, S)>> + Send + 'static,
{
    let pieces = futures_util::StreamExt::map(stream::unfold(start, next), Ok::<_, Infallible>);
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    unbuffered(response)
}

fn unbuffered(mut response: Response) -> Response {
    // nginx would keep the events until its buffer is full.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// What is to be told of a change; none: this stream is not about it.
type Teller = Arc<dyn Fn(&App, Told<'_>) -> Option<Event> + Send + Sync>;

enum Told<'a> {
    One(&'a Changed),
    Everything,
}

struct Changes {
    app: Arc<App>,
    room: Room,
    tell: Teller,
    waiting: VecDeque<Event>,
    receiver: broadcast::Receiver<Changed>,
}

impl Changes {
    fn open(app: Arc<App>, resume: Option<&str>, tell: Teller) -> Result<Self, Problem> {
        let room = Room::take(&app)?;
        // Without data nobody is told; the id alone is remembered, so that the stream can be resumed from here.
        let (missed, receiver) = match resume {
            Some(id) => app.changes_since(id),
            None => app.changes_since(&app.change_id(app.change_last())),
        };
        let here = Event::default().id(app.change_id(app.change_last()));
        let mut waiting = VecDeque::new();
        match missed {
            Missed::Everything => waiting.extend(tell(&app, Told::Everything)),
            Missed::Changes(changes) => waiting.extend(changes.iter().filter_map(|it| tell(&app, Told::One(it)))),
        }
        if waiting.is_empty() {
            waiting.push_back(here);
        }
        Ok(Self { app, room, tell, waiting, receiver })
    }

    async fn next(mut self) -> Option<(Vec<Event>, Self)> {
        while self.waiting.is_empty() {
            match self.room.within(self.receiver.recv()).await? {
                Ok(changed) if changed.what.starts_with("log/") => {}
                Ok(changed) => self.waiting.extend((self.tell)(&self.app, Told::One(&changed))),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.waiting.extend((self.tell)(&self.app, Told::Everything));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
        Some((std::mem::take(&mut self.waiting).into(), self))
    }
}

/// Which changes.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only those of this service.
    pub service: Option<String>,
    /// Where the stream goes on, for programs that cannot send the header `Last-Event-ID`.
    pub last_event_id: Option<String>,
}

/// What changes, as it changes: events named `changed` whose data is an `Event`. An id resumes the stream; who was away
/// too long is told `everything`. The lines of a log have a stream of their own.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventsQuery),
    responses((status = 200, description = "a stream of events", body = model::Event, content_type = "text/event-stream")))]
pub async fn stream_events(
    State(app): State<Arc<App>>,
    Resume(resume): Resume,
    Ask(query): Ask<EventsQuery>,
) -> Result<Response, Problem> {
    let service = query.service.as_deref().map(OfService::parse).transpose()?.map(|OfService(service)| service);
    if let Some(service) = &service {
        app.service(service)?;
    }
    let tell: Teller = Arc::new(move |app, told| {
        let (event, seq) = match told {
            Told::One(changed) if service.as_ref().is_some_and(|service| *service != changed.service) => return None,
            Told::One(changed) => {
                let service = Some(changed.service.to_string());
                (model::Event { service, what: changed.what.clone() }, changed.seq)
            }
            Told::Everything => (model::Event { service: None, what: "everything".into() }, app.change_last()),
        };
        Event::default().event("changed").id(app.change_id(seq)).json_data(event).ok()
    });
    let changes = Changes::open(app, resume.as_deref(), tell)?;
    Ok(answer(changes, Changes::next))
}

/// The topics of a page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TopicsQuery {
    topics: String,
}

/// What changes of a page's topics: events named `changed` whose data is the topic that the page's parts name, `*` where
/// everything is to be read again.
pub async fn stream_topics(
    State(app): State<Arc<App>>,
    Resume(resume): Resume,
    Ask(query): Ask<TopicsQuery>,
) -> Result<Response, Problem> {
    let topics: Vec<String> = query.topics.split(',').take(TOPICS_MAX).map(str::to_owned).collect();
    let tell: Teller = Arc::new(move |app, told| {
        let (topic, seq) = match told {
            Told::One(changed) => (topics.iter().find_map(|topic| named(topic, changed))?, changed.seq),
            Told::Everything => ("*".to_owned(), app.change_last()),
        };
        Some(Event::default().event("changed").id(app.change_id(seq)).data(topic))
    });
    let changes = Changes::open(app, resume.as_deref(), tell)?;
    Ok(answer(changes, Changes::next))
}

/// What the parts of a page about `topic` that show the change are named; none: the page does not show it.
fn named(topic: &str, changed: &Changed) -> Option<String> {
    let service = changed.service.as_str();
    // Rows of the board are named as their services.
    if topic == "board" {
        return Some(format!("service:{service}"));
    }
    let shows = match topic.split(':').collect::<Vec<_>>()[..] {
        ["mailbox"] => changed.what == "mail",
        ["service", name] => name == service,
        // A rollout's page shows its release, an approval's the live version: all of the service may be on them.
        ["run" | "approval" | "rollout", name, _] => name == service,
        _ => false,
    };
    shows.then(|| topic.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Request, header};
    use futures_util::StreamExt;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        app::Role,
        testing::{Stage, test_app, test_app_with},
    };

    /// Opens a stream and reads until `wanted` events have come.
    async fn read(
        stage: &Stage,
        path: &str,
        id: Option<&str>,
        wanted: usize,
        meanwhile: impl AsyncFnOnce(),
    ) -> Vec<String> {
        let token = stage.token(Role::Developer).await;
        let mut request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        if let Some(id) = id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = stage.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body().into_data_stream();
        meanwhile().await;
        let mut text = String::new();
        while text.matches("\n\n").count() < wanted {
            let piece = tokio::time::timeout(Duration::from_secs(10), body.next()).await.expect("an event comes");
            text.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
        }
        text.split("\n\n").filter(|event| !event.is_empty()).map(str::to_owned).collect()
    }

    fn id_of(event: &str) -> &str {
        event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap()
    }

    #[tokio::test]
    async fn a_stream_tells_what_changes_and_is_resumed_without_a_gap() {
        let stage = test_app();
        stage.pushed("shop").await;
        let seen = read(&stage, "/api/v1/events", None, 2, async || {
            stage.pushed("other").await;
        })
        .await;
        assert!(!seen[0].contains("data:"), "only where the stream can be resumed: {}", seen[0]);
        assert!(seen[1].contains(r#""service":"other""#));
        let again = read(&stage, "/api/v1/events", Some(id_of(&seen[0])), 1, async || {}).await;
        assert_eq!(again[0], seen[1]);
        let lost = read(&stage, "/api/v1/events", Some("1-1"), 1, async || {}).await;
        assert!(lost[0].contains(r#""what":"everything""#));
    }

    #[tokio::test]
    async fn pages_are_told_of_their_topics_only() {
        let stage = test_app();
        stage.pushed("shop").await;
        let seen = read(&stage, "/events?topics=service:other", None, 2, async || {
            stage.pushed("shop").await;
            stage.pushed("other").await;
        })
        .await;
        assert!(seen[1].contains("data: service:other"), "{seen:?}");
        let row = read(&stage, "/events?topics=board", Some("1-1"), 1, async || {}).await;
        assert!(row[0].contains("data: *"));
        let changed = Changed { service: "shop".parse().unwrap(), what: "mail".into(), seq: 1 };
        assert_eq!(named("mailbox", &changed).as_deref(), Some("mailbox"));
        assert_eq!(named("board", &changed).as_deref(), Some("service:shop"));
        assert_eq!(named("rollout:shop:7", &changed).as_deref(), Some("rollout:shop:7"));
        assert_eq!(named("rollout:other:7", &changed), None);
    }

    #[tokio::test]
    async fn as_many_streams_are_open_as_the_configuration_allows() {
        let stage = test_app_with(|config| config.bounds.streams_max = 1);
        let token = stage.token(Role::Developer).await;
        let open = async || {
            let request = Request::get("/api/v1/events").header(header::AUTHORIZATION, format!("Bearer {token}"));
            stage.router().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap()
        };
        let first = open().await;
        assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert_eq!(open().await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_stream_ends_after_its_time() {
        let stage = test_app_with(|config| config.bounds.stream_life_ms = 0);
        let token = stage.token(Role::Developer).await;
        let answer = stage.call(Method::GET, "/api/v1/events", Some(&token), None).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}
