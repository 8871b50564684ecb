//! Sign-in, accounts, and a person's own account with its tokens. Not here: passwords and sessions.

use super::markup::icon;
use super::services::Problem;
use super::text::Text;
use super::{Role, Section, page};

/// What was wrong with a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the problem that it names")]
pub enum SignInProblem {
    WrongNameOrPassword,
    TooManyTries { wait_ms: i64 },
    SessionEnded,
}

/// The sign-in page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInView {
    /// `next`: the page to go to, a path of this server.
    pub next: String,
    /// The name as it was typed.
    pub name: String,
    /// What was wrong.
    pub problem: Option<SignInProblem>,
}

page!(SignInView, SignInPage, "sign_in.html", Section::None, |_| None);

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLine {
    /// Its name.
    pub name: String,
    /// Its mail address.
    pub mail: Option<String>,
    /// What it may do.
    pub roles: Vec<Role>,
    /// When it was made.
    pub made_at_ms: i64,
    /// It cannot sign in.
    pub locked: bool,
    /// It is the account of the person who looks, who cannot lock it.
    pub is_you: bool,
}

impl AccountLine {
    fn roles_text(&self, t: &Text<'_>) -> String {
        t.roles(&self.roles)
    }
}

/// The accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountsView {
    /// Every account, by name.
    pub accounts: Vec<AccountLine>,
    /// The account that was made or whose password was set: name and password, shown this once.
    pub new_password: Option<(String, String)>,
    /// The form's `name` as it was typed.
    pub name: String,
    /// The form's `mail` as it was typed.
    pub mail: String,
    /// What is wrong with the name.
    pub name_problem: Option<Problem>,
    /// What is wrong with the mail address.
    pub mail_problem: Option<Problem>,
}

impl AccountsView {
    fn role_choices(&self, t: &Text<'_>) -> Vec<(&'static str, &'static str)> {
        Role::ALL.into_iter().map(|role| (role.tag(), t.role_name(role))).collect()
    }

    fn name_problem_text(&self, t: &Text<'_>) -> Option<String> {
        self.name_problem.as_ref().map(|problem| t.problem(problem))
    }

    fn mail_problem_text(&self, t: &Text<'_>) -> Option<String> {
        self.mail_problem.as_ref().map(|problem| t.problem(problem))
    }
}

page!(AccountsView, AccountsPage, "accounts.html", Section::Accounts, |_| None);

/// One bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLine {
    /// Its id, for the form.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it may do: data, as the API names it.
    pub scopes: Vec<String>,
    /// When it was made.
    pub made_at_ms: i64,
    /// When it ends.
    pub until_ms: Option<i64>,
}

impl TokenLine {
    fn scopes_text(&self, t: &Text<'_>) -> String {
        t.list(&self.scopes)
    }
}

/// A signed-in browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLine {
    /// Its id, for the form.
    pub id: String,
    /// The address that it began from.
    pub remote: Option<String>,
    /// How the browser describes itself: data.
    pub agent: Option<String>,
    /// When it began.
    pub began_at_ms: i64,
    /// When it was last used.
    pub used_at_ms: i64,
    /// It is the browser that asks.
    pub is_this: bool,
}

/// A person's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeView {
    /// Its name.
    pub name: String,
    /// Its mail address.
    pub mail: Option<String>,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Its tokens.
    pub tokens: Vec<TokenLine>,
    /// The browsers that it is signed in with, last used first.
    pub sessions: Vec<SessionLine>,
    /// The scopes that a new token can have: data.
    pub scopes: Vec<String>,
    /// The token that was just made, shown this once.
    pub new_token: Option<String>,
    /// The password was changed.
    pub password_changed: bool,
    /// What is wrong with the passwords that were sent.
    pub password_problem: Option<Problem>,
}

impl MeView {
    fn roles_text(&self, t: &Text<'_>) -> String {
        t.roles(&self.roles)
    }

    fn has_other_sessions(&self) -> bool {
        self.sessions.iter().any(|session| !session.is_this)
    }

    fn password_problem_text(&self, t: &Text<'_>) -> Option<String> {
        self.password_problem.as_ref().map(|problem| t.problem(problem))
    }
}

page!(MeView, MePage, "me.html", Section::None, |_| None);
