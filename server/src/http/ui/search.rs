//! What a search found. Not here: the search.

use super::{Section, page};

/// What a hit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the kind that it names")]
pub enum HitKind {
    Service,
    Run,
    Release,
}

/// One hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What it is.
    pub kind: HitKind,
    /// Its title: data, `checkout`, `checkout 4.8.0`.
    pub title: String,
    /// What was found in it: data, a commit's subject, a digest.
    pub detail: String,
    /// Its page.
    pub href: String,
    /// When; none for a service.
    pub at_ms: Option<i64>,
}

/// The hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchView {
    /// What was asked.
    pub query: String,
    /// The hits, the best first, bounded.
    pub hits: Vec<Hit>,
    /// There are more.
    pub more: bool,
}

page!(SearchView, SearchPage, "search.html", Section::None, |_| None);
