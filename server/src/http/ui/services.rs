//! The list of services, and the form that registers or edits one. Not here: what the form's values mean to git.

use super::markup::icon;
use super::service::HookView;
use super::text::Text;
use super::{Section, links, page};

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the kind that it names")]
pub enum CredentialKind {
    None,
    Token,
    SshKey,
}

impl CredentialKind {
    /// Every kind, in the order of the menu.
    pub const ALL: [Self; 3] = [Self::None, Self::Token, Self::SshKey];

    /// The value in the form.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::SshKey => "ssh-key",
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the problem that it names")]
pub enum Problem {
    Required,
    BadName,
    Taken,
    NotAnAddress,
    CredentialInAddress,
    UnsupportedKey,
    TooLong { max_chars: u64 },
    Unreachable { answer: String },
    TooShort { min_chars: u64 },
    Different,
}

/// A field of the service's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the field that it names")]
pub enum ServiceField {
    Repository,
    Name,
    Branch,
    Credential,
    Poll,
    Secret,
}

/// The polling intervals that the form offers, in seconds; 0 is never.
pub const POLL_CHOICES_S: [u64; 5] = [60, 300, 900, 3_600, 0];

/// The form for a service; secrets are never filled in again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceForm {
    /// The service that is edited; none for a new one.
    pub editing: Option<String>,
    /// `repository`.
    pub repository: String,
    /// `name`.
    pub name: String,
    /// `branch`; empty for the repository's default.
    pub branch: String,
    /// `credential`.
    pub credential: CredentialKind,
    /// `user`, sent with a token over https; empty for none.
    pub user: String,
    /// A token or key is stored already (never shown).
    pub has_credential: bool,
    /// `poll_s`: seconds between polls, 0 for never.
    pub poll_s: u64,
    /// `allow_unsigned`.
    pub allow_unsigned: bool,
    /// `allow_self_approval`.
    pub allow_self_approval: bool,
    /// What is wrong with what was sent.
    pub problems: Vec<(ServiceField, Problem)>,
}

impl ServiceForm {
    /// An empty form for a new service, polled every five minutes.
    pub fn empty() -> Self {
        Self {
            editing: None,
            repository: String::new(),
            name: String::new(),
            branch: String::new(),
            credential: CredentialKind::None,
            user: String::new(),
            has_credential: false,
            poll_s: 300,
            allow_unsigned: false,
            allow_self_approval: false,
            problems: Vec::new(),
        }
    }

    fn problem(&self, field: ServiceField, t: &Text<'_>) -> Option<String> {
        self.problems.iter().find(|(at, _)| *at == field).map(|(_, problem)| t.problem(problem))
    }

    pub(super) fn repository_problem(&self, t: &Text<'_>) -> Option<String> {
        self.problem(ServiceField::Repository, t)
    }

    pub(super) fn name_problem(&self, t: &Text<'_>) -> Option<String> {
        self.problem(ServiceField::Name, t)
    }

    pub(super) fn branch_problem(&self, t: &Text<'_>) -> Option<String> {
        self.problem(ServiceField::Branch, t)
    }

    pub(super) fn credential_problem(&self, t: &Text<'_>) -> Option<String> {
        self.problem(ServiceField::Credential, t)
    }

    pub(super) fn action(&self) -> String {
        self.editing.as_deref().map_or_else(|| String::from(links::SERVICES), links::service_edit)
    }

    pub(super) fn example_name(&self) -> &str {
        if self.name.is_empty() { "checkout" } else { &self.name }
    }

    pub(super) fn kinds(&self, t: &Text<'_>) -> Vec<(&'static str, &'static str, bool)> {
        CredentialKind::ALL
            .into_iter()
            .map(|kind| (kind.tag(), t.credential_kind(kind), kind == self.credential))
            .collect()
    }

    pub(super) fn polls(&self, t: &Text<'_>) -> Vec<(u64, String, bool)> {
        // What is stored stays chosen, also where it was set by other means to what the form does not offer.
        let stored = Some(self.poll_s).filter(|stored| !POLL_CHOICES_S.contains(stored));
        stored.into_iter().chain(POLL_CHOICES_S).map(|s| (s, t.poll_choice(s), s == self.poll_s)).collect()
    }
}

/// One service of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLine {
    /// Its name.
    pub name: String,
    /// Its repository, without credentials.
    pub repository: String,
    /// The live version, and since when.
    pub live: Option<(String, i64)>,
    /// When something was last pushed.
    pub pushed_at_ms: Option<i64>,
    /// Its last poll or hook failed with this: data.
    pub error: Option<String>,
}

impl ServiceLine {
    fn href(&self) -> String {
        links::service(&self.name)
    }
}

/// The list of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicesView {
    /// The services, by name.
    pub services: Vec<ServiceLine>,
    /// This person may register one.
    pub can_register: bool,
}

page!(ServicesView, ServicesPage, "services.html", Section::Services, |_| None);

/// The page of the form, for a new service or an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFormView {
    /// The form.
    pub form: ServiceForm,
}

page!(ServiceFormView, ServiceFormPage, "service_form_page.html", Section::Services, |_| None);

/// What a person needs right after a service was registered: its hook with the secret, shown this once, and how to try it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredView {
    /// The service.
    pub name: String,
    /// Its hook; `new_secret` is set.
    pub hook: HookView,
    /// The public half of the SSH key that the repository must know.
    pub ssh_public_key: Option<String>,
}

impl RegisteredView {
    fn href(&self) -> String {
        links::service(&self.name)
    }
}

page!(RegisteredView, RegisteredPage, "registered.html", Section::Services, |_| None);
