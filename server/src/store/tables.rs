//! The tables of the embedded store: their numbers, names and what lies in them. A number is part of every stored key, so
//! it is never given to another table. Not here: what is written when (`embedded`).

use super::engine::Table;

/// What the store says of itself: see `versions`.
pub(super) const META: Table = Table::new(1, "meta");
pub(super) const SERVICES: Table = Table::new(2, "services");
pub(super) const SECRETS: Table = Table::new(3, "secrets");
pub(super) const TRAINS: Table = Table::new(4, "trains");
pub(super) const RUNS: Table = Table::new(5, "runs");
pub(super) const RELEASES: Table = Table::new(6, "releases");
pub(super) const APPROVALS: Table = Table::new(7, "approvals");
pub(super) const ROLLOUTS: Table = Table::new(8, "rollouts");
pub(super) const EFFECTS: Table = Table::new(9, "effects");
pub(super) const JOURNAL: Table = Table::new(10, "journal");
pub(super) const JOURNAL_BY_SERVICE: Table = Table::new(11, "journal by service");
pub(super) const DELIVERIES: Table = Table::new(12, "deliveries");
pub(super) const DELIVERIES_BY_FORGE_ID: Table = Table::new(13, "deliveries by forge id");
pub(super) const DELIVERIES_BY_SERVICE: Table = Table::new(14, "deliveries by service");
pub(super) const IMAGES: Table = Table::new(15, "images by inputs");
pub(super) const REFS: Table = Table::new(16, "refs");
pub(super) const ACCOUNTS: Table = Table::new(17, "accounts");
pub(super) const SESSIONS: Table = Table::new(18, "sessions");
pub(super) const TOKENS: Table = Table::new(19, "tokens");
pub(super) const NAMED_SECRETS: Table = Table::new(40, "named secrets");
pub(super) const SECRET_USES: Table = Table::new(41, "uses of secrets");
/// What tells this server from others.
pub(super) const SERVER: Table = Table::new(42, "server");
pub(super) const RUNNERS: Table = Table::new(50, "runners");
pub(super) const RUNNER_TOKENS: Table = Table::new(51, "runner tokens");
/// Where the journal's chain is: see `audit`.
pub(super) const JOURNAL_HEAD: Table = Table::new(60, "journal head");

/// The tables whose values are records in an envelope with a version. The others are [`META`] and indexes.
#[cfg(test)]
pub(super) const RECORDS: [Table; 22] = [
    SERVICES,
    SECRETS,
    TRAINS,
    RUNS,
    RELEASES,
    APPROVALS,
    ROLLOUTS,
    EFFECTS,
    JOURNAL,
    JOURNAL_HEAD,
    DELIVERIES,
    DELIVERIES_BY_FORGE_ID,
    IMAGES,
    REFS,
    ACCOUNTS,
    SESSIONS,
    TOKENS,
    NAMED_SECRETS,
    SECRET_USES,
    SERVER,
    RUNNERS,
    RUNNER_TOKENS,
];
