//! Looking at something until it ends: the server's signals say when to look again, a timer does too, and a server that is
//! away for a while is waited for. Not here: what is looked at.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _};
use pipelines::time::parse_duration_ms;
use serde::de::DeserializeOwned;
use server::http::api::model;
use tokio::time::Instant;

use super::{
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{Output, span},
    sse,
};

/// Time between two looks where no signal came.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time between two looks where signals cannot be had.
const LOOK_EVERY_ALONE: Duration = Duration::from_secs(1);
/// Signals come in swarms: one look is enough for all of so short a time.
const SWARM: Duration = Duration::from_millis(50);

/// How long to look.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct FollowArguments {
    /// Give up after this time, such as 30m; the command then ends with 14
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    timeout: Option<u64>,
    /// End with 13 as soon as a person is asked to act
    #[arg(long)]
    pub(crate) exit_when_waiting: bool,
}

impl FollowArguments {
    /// Looks at things of `service` through `client`.
    pub(crate) fn follow(&self, client: &Client, out: &Output, service: &str) -> Follow {
        Follow {
            client: client.clone(),
            out: out.clone(),
            service: service.to_owned(),
            timeout_ms: self.timeout,
            deadline: self.timeout.map(|ms| Instant::now() + Duration::from_millis(ms)),
            signals: Signals::Closed,
            last_id: None,
        }
    }
}

/// Reads a time as people write it.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    parse_duration_ms(text)
}

enum Signals {
    Closed,
    Open(Pin<Box<dyn Stream<Item = Result<sse::Event, Failure>> + Send>>),
    Unknown,
}

/// Looks again and again.
pub(crate) struct Follow {
    client: Client,
    out: Output,
    service: String,
    timeout_ms: Option<u64>,
    deadline: Option<Instant>,
    signals: Signals,
    last_id: Option<String>,
}

impl Follow {
    /// Reads something. A server that is away is tried again for a while: it may just be restarted.
    pub(crate) async fn look<T: DeserializeOwned>(
        &mut self,
        what: &str,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        let mut lost_since = None;
        let mut pause = Duration::from_millis(200);
        loop {
            let failure = match self.client.get(what, path, query).await {
                Err(failure) if failure.exit == Exit::Unreachable => failure,
                other => return other,
            };
            let since = *lost_since.get_or_insert_with(|| {
                let why = failure.why.clone().unwrap_or_default();
                self.out.note(&format!("the server is away, trying again ({why})"));
                Instant::now()
            });
            let patience = Duration::from_millis(self.client.limits.lost_max_ms);
            if since.elapsed() > patience {
                return Err(failure);
            }
            self.in_time(tokio::time::sleep(pause)).await?;
            pause = (pause * 2).min(LOOK_EVERY);
        }
    }

    /// Waits until it is worth to look again.
    pub(crate) async fn changed(&mut self) -> Result<(), Failure> {
        if matches!(self.signals, Signals::Closed) {
            self.open().await;
        }
        let every = if matches!(self.signals, Signals::Open(_)) { LOOK_EVERY } else { LOOK_EVERY_ALONE };
        let until = Instant::now() + every;
        loop {
            let Signals::Open(events) = &mut self.signals else {
                return self.in_time(tokio::time::sleep_until(until)).await;
            };
            let deadline = self.deadline.unwrap_or(until).min(until);
            match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(Some(Ok(event))) => {
                    let concerns = concerns(&event, &self.service);
                    self.last_id = event.id.or(self.last_id.take());
                    if concerns {
                        return self.in_time(tokio::time::sleep(SWARM)).await;
                    }
                }
                // The stream ended or broke: whatever was missed is seen by looking now.
                Ok(_) => {
                    self.signals = Signals::Closed;
                    return self.in_time(tokio::time::sleep(SWARM)).await;
                }
                Err(_) => return self.in_time(std::future::ready(())).await,
            }
        }
    }

    /// Reads a stream until `each` has what it wants, or the stream ends or breaks: then it is worth to look again.
    pub(crate) async fn stream(
        &self,
        what: &str,
        path: &str,
        query: &[(&str, String)],
        mut each: impl FnMut(sse::Event) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut events = match self.in_time(self.client.events(what, path, query, None)).await? {
            Err(failure) if failure.exit == Exit::Unreachable => {
                return self.in_time(tokio::time::sleep(LOOK_EVERY_ALONE)).await;
            }
            other => other?,
        };
        while let Some(Ok(event)) = self.in_time(events.next()).await? {
            if each(event)? {
                break;
            }
        }
        Ok(())
    }

    async fn open(&mut self) {
        let query = [("service", self.service.clone())];
        let opened = self.client.events("cannot listen", "api/v1/events", &query, self.last_id.as_deref()).await;
        self.signals = match opened {
            Ok(events) => Signals::Open(Box::pin(events)),
            Err(failure) if failure.exit == Exit::Unreachable => Signals::Closed,
            // Without signals the timer alone does it.
            Err(_) => Signals::Unknown,
        };
    }

    /// Waits for something, but not beyond the deadline.
    async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Result<T, Failure> {
        let late = || {
            let time = span(self.timeout_ms.unwrap_or_default());
            Failure::new(Exit::TimedOut, format!("it did not end within {time}"))
                .next("look again with a longer --timeout")
        };
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(late()),
            Some(deadline) => tokio::time::timeout_at(deadline, wait).await.map_err(|_| late()),
            None => Ok(wait.await),
        }
    }
}

/// Whether a signal is a reason to look at things of `service` again.
fn concerns(event: &sse::Event, service: &str) -> bool {
    match serde_json::from_str::<model::Event>(&event.data) {
        Ok(event) => event.service.as_deref().is_none_or(|of| of == service) && !event.what.starts_with("log/"),
        // Whatever it says, looking does no harm.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> sse::Event {
        sse::Event { id: None, event: String::new(), data: data.into() }
    }

    #[test]
    fn only_what_concerns_the_service_wakes() {
        let concerned = |data: &str| concerns(&event(data), "shop");
        assert!(concerned(r#"{"service":"shop","what":"run/1"}"#));
        assert!(!concerned(r#"{"service":"other","what":"run/1"}"#));
        assert!(concerned(r#"{"service":null,"what":"everything"}"#));
        assert!(!concerned(r#"{"service":"shop","what":"log/1"}"#));
        assert!(concerned("reload"));
    }

    #[tokio::test]
    async fn the_time_that_was_given_ends_with_its_own_code() {
        // A port that was just free: nothing answers, which is waited for.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let base = super::super::credentials::server_url(&format!("http://127.0.0.1:{port}")).unwrap();
        let client = Client::new(base, None, None).unwrap();
        let out = Output::of_process(super::super::output::Format::Json);
        let arguments = FollowArguments { timeout: Some(300), exit_when_waiting: false };
        let mut follow = arguments.follow(&client, &out, "shop");
        let failure = follow.look::<serde_json::Value>("cannot look", "x", &[]).await.unwrap_err();
        assert_eq!(failure.exit, Exit::TimedOut, "{failure:?}");
    }
}
