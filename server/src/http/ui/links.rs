//! The addresses of the pages and forms, in one place, so that the router and the pages agree. Names and tokens are
//! percent-encoded by the caller's types (service names and ids hold nothing to encode).

/// The releases board.
pub const BOARD: &str = "/";
/// The services, and the form for a new one (POST registers).
pub const SERVICES: &str = "/services";
/// The form for a new service.
pub const NEW_SERVICE: &str = "/services/new";
/// What waits for the person who is signed in.
pub const NEEDS_YOU: &str = "/needs-you";
/// Search over services, runs, commits and digests (`?q=`).
pub const SEARCH: &str = "/search";
/// The queue and the runners.
pub const RUNNERS: &str = "/runners";
/// Sign in (GET form, POST).
pub const SIGN_IN: &str = "/sign-in";
/// Sign out (POST).
pub const SIGN_OUT: &str = "/sign-out";
/// The accounts (GET, POST adds one).
pub const ACCOUNTS: &str = "/accounts";
/// The audit log (GET).
pub const AUDIT: &str = "/audit";
/// The shared secrets (GET, POST sets one).
pub const SECRETS: &str = "/secrets";
/// The person's own account: password and tokens.
pub const ME: &str = "/me";
/// What waits on the server, and how much may.
pub const LOAD: &str = "/load";
/// The folder that mails are written to.
pub const MAILBOX: &str = "/mailbox";
/// Sets the language cookie (POST `lang`, `back`).
pub const SET_LANGUAGE: &str = "/settings/language";
/// Sets the theme cookie (POST `theme`, `back`).
pub const SET_THEME: &str = "/settings/theme";
/// The live events of a page (`?topics=`).
pub const EVENTS: &str = "/events";

/// A service's page.
pub fn service(name: &str) -> String {
    format!("/services/{name}")
}

/// The form to edit a service (GET, POST).
pub fn service_edit(name: &str) -> String {
    format!("/services/{name}/edit")
}

/// The secrets of a service (GET, POST sets one).
pub fn service_secrets(name: &str) -> String {
    format!("/services/{name}/secrets")
}

/// Starts a run by hand (POST).
pub fn service_run(name: &str) -> String {
    format!("/services/{name}/runs")
}

/// Rolls back to a release (POST `to`).
pub fn service_rollback(name: &str) -> String {
    format!("/services/{name}/rollback")
}

/// Asks the repository now (POST).
pub fn service_poll(name: &str) -> String {
    format!("/services/{name}/poll")
}

/// The address that a forge calls.
pub fn hook(base_url: &str, service: &str) -> String {
    format!("{base_url}/hooks/{service}")
}

/// A run's page; runs are numbered per service.
pub fn run(service: &str, run: u64) -> String {
    format!("/services/{service}/runs/{run}")
}

/// A run's verb: `rerun`, `cancel` (POST).
pub fn run_verb(service: &str, run_number: u64, verb: &str) -> String {
    format!("{}/{verb}", run(service, run_number))
}

/// A run's log as plain text.
pub fn run_log(service: &str, run_number: u64) -> String {
    format!("{}/log", run(service, run_number))
}

/// A run's page with a window of a step's log that begins at a line.
pub fn run_window(service: &str, run_number: u64, step: &str, from_line: u64) -> String {
    let step: String = url::form_urlencoded::byte_serialize(step.as_bytes()).collect();
    format!("{}?step={step}&from={from_line}", run(service, run_number))
}

/// The live events of a run and its logs, from the lines on that the page has.
pub fn run_events(service: &str, run_number: u64, from: &str) -> String {
    format!("{}/events?from={from}", run(service, run_number))
}

/// The approval page of a signed-in person; approvals have the number of their build.
pub fn approval(service: &str, build: u64) -> String {
    format!("/services/{service}/approvals/{build}")
}

/// The approval page behind the mailed link.
pub fn approval_by_link(service: &str, build: u64, token: &str) -> String {
    format!("/approve/{service}/{build}/{token}")
}

/// A rollout; rollouts are numbered per service.
pub fn rollout(service: &str, number: u64) -> String {
    format!("/services/{service}/rollouts/{number}")
}

/// A runner's verb: `drain`, `resume`, `remove` (POST).
pub fn runner_verb(name: &str, verb: &str) -> String {
    format!("{RUNNERS}/{name}/{verb}")
}

/// A mail of the folder.
pub fn mail(id: &str) -> String {
    format!("{MAILBOX}/{id}")
}

/// The live events of some topics: `board`, `service:NAME`, `run:SERVICE:N`, `approval:SERVICE:BUILD`,
/// `rollout:SERVICE:N`, `mailbox`.
pub fn events(topics: &[&str]) -> String {
    format!("{EVENTS}?topics={}", topics.join(","))
}
