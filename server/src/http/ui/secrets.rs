//! The secrets of a service, and the shared ones: names, ages, last uses, and the form that sets one. No view has a place
//! for a value: it goes in and is not shown again.

use super::links;
use super::markup::icon;
use super::text::Text;
use super::{Section, page};

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretLine {
    /// Its name.
    pub name: String,
    /// It belongs to this service; a shared one is changed elsewhere.
    pub is_own: bool,
    /// A shared one: for which services; empty: for all.
    pub services: Vec<String>,
    /// Since when it has its value.
    pub set_at_ms: i64,
    /// Who set it.
    pub set_by: String,
    /// The run that got it last, its service and number, and when.
    pub last_use: Option<(String, u64, i64)>,
}

/// The secrets of one service, or the shared ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretsView {
    /// The service; none for the shared ones.
    pub service: Option<String>,
    /// They, by name; of a service its own first.
    pub secrets: Vec<SecretLine>,
    /// This person may set and remove them.
    pub can_set: bool,
    /// The form's `name` as it was typed.
    pub name: String,
    /// The form's `services` as they were typed.
    pub services: String,
    /// Why it was not set: data, as the API says it.
    pub problem: Option<String>,
}

impl SecretsView {
    fn action(&self) -> String {
        self.service.as_deref().map_or_else(|| String::from(links::SECRETS), links::service_secrets)
    }

    fn service_href(&self) -> Option<String> {
        self.service.as_deref().map(links::service)
    }

    fn remove_action(&self, line: &SecretLine) -> String {
        format!("{}/{}/remove", self.action(), line.name)
    }

    fn for_whom(&self, line: &SecretLine, t: &Text<'_>) -> String {
        match (&self.service, line.is_own) {
            (Some(service), true) => service.clone(),
            _ if line.services.is_empty() => t.shared_by_all().to_owned(),
            _ => t.shared_by(&line.services),
        }
    }

    fn is_shared(&self) -> bool {
        self.service.is_none()
    }
}

impl SecretLine {
    fn run_href(&self) -> Option<(String, String, i64)> {
        self.last_use.as_ref().map(|(service, run, at)| (links::run(service, *run), format!("{service}/{run}"), *at))
    }
}

page!(SecretsView, SecretsPage, "secrets.html", Section::Secrets, |_| None);
