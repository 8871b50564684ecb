//! The pages: what each shows (plain structs that the handlers fill), how it is written (templates), in both languages.
//! Not here: routes, sign-in checks, and where the data comes from.
//!
//! Every page renders by `View::render(&PageContext)`; live pages also by `View::fragment(&PageContext)`, which is the
//! content of `<main>` alone: the script fetches it (`?fragment=main`) when an event names a topic, and swaps the elements
//! whose `data-live` names that topic. A page works without the script.

pub mod accounts;
pub mod ansi;
pub mod approval;
pub mod assets;
pub mod audit;
pub mod board;
pub mod error;
pub mod links;
pub mod load;
pub mod log;
pub mod mail;
pub mod mailbox;
mod markup;
pub mod plot;
pub mod rollout;
pub mod run;
pub mod runners;
#[cfg(test)]
mod samples;
pub mod search;
pub mod secrets;
pub mod service;
pub mod services;
#[cfg(test)]
mod tests;
pub mod text;
pub mod train;
pub mod why;

use self::markup::Markup;
use self::text::{Clock, Lang, Text};

/// The `Content-Security-Policy` of every page: nothing from elsewhere, nothing inline; the frame is that of a mail.
pub const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The `Content-Security-Policy` of a mail's HTML part within the mail folder's frame: its own inline style, nothing else.
pub const MAIL_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'self'; \
     form-action 'none'; sandbox allow-popups allow-popups-to-escape-sandbox";

/// A page or mail could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the page")]
pub struct RenderError(#[from] askama::Error);

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// As the system says.
    #[default]
    System,
    /// Always light.
    Light,
    /// Always dark.
    Dark,
}

impl Theme {
    /// The value of the cookie, the form field and `data-theme`; empty for the system's.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::System => "",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// Reads what a cookie or form holds; anything unknown is the system's.
    pub fn from_tag(tag: &str) -> Self {
        match tag {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }
}

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the role that it names")]
pub enum Role {
    Developer,
    Tester,
    ReleaseManager,
    Operator,
    Admin,
}

impl Role {
    /// Every role, in the order of the menu.
    pub const ALL: [Self; 5] = [Self::Developer, Self::Tester, Self::ReleaseManager, Self::Operator, Self::Admin];

    /// The value in forms.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Tester => "tester",
            Self::ReleaseManager => "release-manager",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The person who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserBadge {
    /// The account's name.
    pub name: String,
    /// What they may do.
    pub roles: Vec<Role>,
}

/// The part of the site that a page belongs to, marked in the menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the menu entry that it names")]
pub enum Section {
    Board,
    Services,
    Runners,
    Secrets,
    Accounts,
    Audit,
    Mailbox,
    None,
}

/// What every page needs besides its own data.
#[derive(Debug, Clone)]
pub struct PageContext {
    /// The language of the page.
    pub lang: Lang,
    /// Light, dark, or the system's.
    pub theme: Theme,
    /// Now, and the zone of every time on the page.
    pub clock: Clock,
    /// Who is signed in; nobody on the sign-in page and behind the mailed link.
    pub user: Option<UserBadge>,
    /// The value of `_csrf` in every form.
    pub csrf: String,
    /// How many releases wait for this person.
    pub needs_you: u64,
    /// The path and query of this page, to which the language and theme forms lead back.
    pub path: String,
    /// What the server is reached by from outside, without a slash at its end.
    pub base_url: String,
    /// The menu shows the shared secrets.
    pub shows_secrets: bool,
    /// The menu shows the accounts.
    pub shows_accounts: bool,
    /// The menu shows the audit log.
    pub shows_audit: bool,
    /// The menu shows the folder that mails are written to (demo).
    pub shows_mailbox: bool,
    /// Why nothing new begins on this server, where that is so.
    pub no_room: Option<NoRoom>,
}

/// Why nothing new begins on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The disk is nearly full.
    Low {
        /// What is free, in MiB.
        free_mib: u64,
        /// What is kept for finishing what has begun, in MiB.
        min_mib: u64,
    },
    /// The state folder is read-only.
    ReadOnly,
    /// The store refuses changes.
    Refused,
}

impl PageContext {
    /// The catalogue in this page's language.
    pub const fn text(&self) -> Text<'_> {
        Text::new(self.lang, &self.clock)
    }
}

/// What the layout and every template see of the context.
pub(crate) struct Page<'a> {
    pub(crate) ctx: &'a PageContext,
    pub(crate) section: Section,
    /// The whole page, or the content of `<main>` alone.
    pub(crate) whole: bool,
    /// Where the page's live events come from.
    pub(crate) events: Option<String>,
}

impl Page<'_> {
    fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn current(&self, section: Section) -> Markup {
        Markup::known(if self.section == section { " aria-current=\"page\"" } else { "" })
    }

    fn csrf(&self) -> Markup {
        let mut field = Markup::known("<input type=\"hidden\" name=\"_csrf\" value=\"");
        field.text(&self.ctx.csrf);
        field.raw("\">");
        field
    }

    fn icons(&self) -> Markup {
        Markup::known(include_str!("../../templates/icons.svg"))
    }
}

/// Why a button cannot be pressed now, said beneath its verb.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the reason that it gives")]
pub enum Disabled {
    RunEnded { at_ms: i64 },
    RunNotEnded,
    PausedResumeFirst,
    LastStep,
    RolloutEnded,
    NotAllowed { role: Role },
    JudgeFailedIt { percent: u32 },
    AlreadyLive,
    NeverLive,
    ImageGone,
    AnotherRollout { version: String },
    OwnCommit,
    ApprovedAlready,
}

/// A form's button: it posts to `action`, or says why it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Press {
    /// Where it posts to.
    pub action: String,
    /// Set where it cannot be pressed.
    pub disabled: Option<Disabled>,
}

impl Press {
    /// A button that posts to a path.
    pub fn to(action: impl Into<String>) -> Self {
        Self { action: action.into(), disabled: None }
    }

    /// The same button, which cannot be pressed now.
    #[must_use]
    pub fn unless(mut self, disabled: Option<Disabled>) -> Self {
        self.disabled = disabled;
        self
    }
}

/// Ties a view to its template: `page!(BoardView, BoardPage, "board.html", Section::Board, |v| events)`.
macro_rules! page {
    ($view:ident, $page:ident, $path:tt, $section:expr, $events:expr) => {
        #[derive(askama::Template)]
        #[template(path = $path)]
        struct $page<'a> {
            p: crate::http::ui::Page<'a>,
            t: crate::http::ui::text::Text<'a>,
            v: &'a $view,
        }

        impl $view {
            /// Writes the whole page.
            ///
            /// # Errors
            /// Where the template fails to write, which it does only when memory ends.
            pub fn render(&self, ctx: &crate::http::ui::PageContext) -> Result<String, crate::http::ui::RenderError> {
                self.write(ctx, true)
            }

            /// Writes the content of `<main>` alone, for a live update.
            ///
            /// # Errors
            /// As for [`Self::render`].
            pub fn fragment(&self, ctx: &crate::http::ui::PageContext) -> Result<String, crate::http::ui::RenderError> {
                self.write(ctx, false)
            }

            fn write(
                &self,
                ctx: &crate::http::ui::PageContext,
                whole: bool,
            ) -> Result<String, crate::http::ui::RenderError> {
                let events: fn(&$view) -> Option<String> = $events;
                let page = crate::http::ui::Page { ctx, section: $section, whole, events: events(self) };
                Ok(askama::Template::render(&$page { p: page, t: ctx.text(), v: self })?)
            }
        }
    };
}
pub(crate) use page;
