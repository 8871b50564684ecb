//! From the domain's records to what the pages show. Not here: reading the records.

pub(super) mod rollout;
pub(super) mod run;
pub(super) mod service;
pub(super) mod train;
pub(super) mod why;

pub(super) use crate::letters::{page_ms, plan, version};
use crate::{
    app::{
        Role,
        accounts::Caller,
        board::{Group, ServiceRow, Subject, waits_for},
    },
    http::ui::{
        Role as PageRole,
        board::{Action, BoardRow, Group as PageGroup, Next},
        links,
        rollout::Strategy as StrategyWord,
    },
};
use pipelines::{
    approval::{Approval, ApprovalState},
    plan::Strategy,
    why::Why,
};

/// The role as the pages name it.
pub(super) fn page_role(role: Role) -> PageRole {
    match role {
        Role::Developer => PageRole::Developer,
        Role::Tester => PageRole::Tester,
        Role::ReleaseManager => PageRole::ReleaseManager,
        Role::Operator => PageRole::Operator,
        Role::Admin => PageRole::Admin,
    }
}

/// The role that a form names.
pub(super) fn role_of_tag(tag: &str) -> Option<Role> {
    Role::ALL.into_iter().find(|role| page_role(*role).tag() == tag)
}

/// The strategy without its figures.
pub(super) fn strategy(strategy: &Strategy) -> StrategyWord {
    plan(strategy).strategy
}

/// A span as the pages count it.
pub(super) fn span(span_ms: u64) -> i64 {
    i64::try_from(span_ms).unwrap_or(i64::MAX)
}

/// Whether the claim on an approval is the caller's.
pub(super) fn is_mine(claimed_by: &str, caller: &Caller) -> bool {
    claimed_by == caller.account.name || claimed_by.eq_ignore_ascii_case(&caller.account.email)
}

/// One row of the board, as `caller` sees it.
pub(super) fn board_row(row: &ServiceRow, caller: Option<&Caller>, now_ms: i64) -> BoardRow {
    let release = row.release.as_deref().filter(|_| row.subject == Subject::Release);
    let group = match row.group(caller) {
        Group::NeedsYou => PageGroup::NeedsYou,
        Group::Failing => PageGroup::Failing,
        Group::Moving => PageGroup::Moving,
        Group::Idle => PageGroup::Idle,
    };
    let run = row.run.as_deref();
    let is_idle = matches!(row.why, Why::Live { .. } | Why::NothingPushed | Why::NoRelease { .. });
    let reader = why::Reader { caller, approval: row.approval.as_deref(), now_ms };
    BoardRow {
        service: row.service.name.to_string(),
        version: release.map(version),
        run: run.map_or(0, |run| u64::from(run.id.number)),
        commit: run.map(|run| run.trigger.commit.short().to_owned()).unwrap_or_default(),
        group,
        train: train::train(&train::Facts::of(row, caller)),
        why: (!is_idle).then(|| reader.why(run.map_or(0, |run| run.id.number), &row.why)),
        action: action(row, group),
    }
}

/// The one thing that is next on a row.
pub(super) fn action(row: &ServiceRow, group: PageGroup) -> Option<Action> {
    let service = row.service.name.as_str();
    let solid = group == PageGroup::NeedsYou;
    let go = |next, href| Some(Action::Go { next, href, solid });
    let run = row.run.as_deref().map(|run| links::run(service, u64::from(run.id.number)));
    let build = row.release.as_deref().map_or(0, |release| u64::from(release.id.number));
    let approval = links::approval(service, build);
    let rollout = row.rollout.as_deref().map(|rollout| links::rollout(service, u64::from(rollout.id.number)));
    match &row.why {
        Why::NothingPushed => None,
        Why::Live { .. } | Why::Retired { .. } | Why::NoRelease { .. } => Some(Action::StartRun),
        Why::RunQueued { .. }
        | Why::NoRunner { .. }
        | Why::RunHeld { .. }
        | Why::RunDeclined { .. }
        | Why::RunCancelling { .. }
        | Why::RunCancelled { .. } => go(Next::SeeLog, run?),
        Why::RunRunning { .. } => go(Next::FollowLog, run?),
        Why::CodeFailed { .. } | Why::RunFault { .. } => go(Next::SeeLog, run?),
        Why::AwaitingDecision { .. } | Why::Claimed { .. } | Why::MailWaits { .. } if solid => {
            go(Next::Decide, approval)
        }
        Why::Expired { .. } => go(Next::AskAgain, approval),
        Why::Canary { .. }
        | Why::Preview { .. }
        | Why::Keeping { .. }
        | Why::Rolling { .. }
        | Why::Starting
        | Why::Draining
        | Why::RollingBack { .. } => go(Next::Watch, rollout?),
        Why::TooFewRequests { .. } | Why::Paused { .. } => go(Next::OpenRollout, rollout?),
        Why::RolledBack { .. } => go(Next::SeeChecks, rollout?),
        Why::Fault(_) if rollout.is_some() => go(Next::SeeTries, rollout?),
        Why::Fault(_) => go(Next::SeeTries, links::service(service)),
        _ => go(Next::SeeRelease, links::service(service)),
    }
}

/// Whether the caller is one whom the approval waits for now.
pub(super) fn may_decide(approval: Option<&Approval>, caller: Option<&Caller>) -> bool {
    match (approval, caller) {
        (Some(approval), Some(caller)) => approval.state == ApprovalState::Open && waits_for(approval, caller),
        _ => false,
    }
}

/// An address as it is shown: without what stands before the host and after the path.
pub(super) fn shown_url(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/').trim_end_matches(".git").to_owned()
}
