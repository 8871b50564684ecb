//! From the domain and the application's read models to what the API gives. One function per model; nothing is decided
//! here. Not here: the shapes (`model`).

mod stations;

use pipelines::{
    approval::{Approval, ApprovalState, Decision, Proof},
    effect::PendingEffect,
    hold::{Proposal, ProposedStep},
    ids::ReleaseId,
    journal::Entry,
    protocol::{Blame, StepOutcome},
    release::{Release, ReleaseState},
    repository::shown,
    rollout::{
        Cause, Pause, Rollout, RolloutState, Sample,
        judge::{Judgement, RevisionStats},
    },
    run::{Run, RunState, StepRecord},
    service::{CredentialKind, Service},
    time::UnixMs,
    trigger::TriggerSource,
    why::{Fault, Person, Why},
};

use super::model;
use crate::app::{
    Account, App, AppError, Delivery, DeliveryState, RunnerToken, Token,
    accounts::Caller,
    addresses,
    board::{ServiceRow, Subject, fault_of},
    load::{Over, Queue},
    runners::{RunnerRow, WaitingRun},
    sessions::SeenSession,
};

fn ms(at: Option<UnixMs>) -> Option<u64> {
    at.map(|at| at.0)
}

pub(super) fn why(why: &Why) -> model::Why {
    let fault = match why {
        Why::Fault(of) | Why::MailWaits { fault: of, .. } => Some(fault(of)),
        _ => None,
    };
    model::Why {
        word: why.word().to_owned(),
        text: why.to_string(),
        next: why.next(),
        person: person(why.person()),
        until_ms: ms(why.until()),
        fault,
    }
}

fn person(person: Person) -> model::Person {
    let (kind, names) = match person {
        Person::Nobody => ("nobody", Vec::new()),
        Person::Author(name) => ("author", vec![name]),
        Person::Testers(names) => ("testers", names),
        Person::Named(name) => ("named", vec![name]),
        Person::Anyone => ("anyone", Vec::new()),
        Person::ReleaseManager => ("release_manager", Vec::new()),
        Person::Operator => ("operator", Vec::new()),
    };
    model::Person { kind: kind.to_owned(), names: names.into_iter().filter(|name| !name.is_empty()).collect() }
}

pub(super) fn fault(fault: &Fault) -> model::Fault {
    model::Fault {
        party: fault.party.word().to_owned(),
        error: fault.error.clone(),
        tries: fault.tries,
        next_at_ms: fault.next_at.0,
    }
}

pub(super) fn service(app: &App, service: &Service) -> Result<model::Service, AppError> {
    let (credential_at, hook_at) = app.service_secret_ages(&service.name)?;
    Ok(model::Service {
        name: service.name.to_string(),
        repository_url: shown(&service.repository_url),
        credential: match service.credential {
            CredentialKind::None => model::CredentialKind::None,
            CredentialKind::Token => model::CredentialKind::Token,
            CredentialKind::SshKey => model::CredentialKind::SshKey,
        },
        credential_set_at_ms: ms(credential_at),
        hook_secret_set_at_ms: ms(hook_at),
        hook_url: format!("{}/hooks/{}", app.config.public_url, service.name),
        allow_unsigned_hooks: service.allow_unsigned_hooks,
        poll_interval_ms: service.poll_interval_ms,
        release_branch: service.release_branch.clone(),
        default_branch: service.default_branch.clone(),
        allow_self_approval: service.allow_self_approval,
        known_hosts: service.known_hosts.clone(),
        ca_pem: service.ca_pem.clone(),
        created_at_ms: service.created_at.0,
        created_by: service.created_by.clone(),
        poll_fault: app.poll_fault(&service.name).as_ref().map(fault),
    })
}

pub(super) fn delivery(delivery: &Delivery) -> model::Delivery {
    let (state, run, reason) = match &delivery.state {
        DeliveryState::Received => ("received", None, None),
        DeliveryState::Ran { run } => ("ran", Some(*run), None),
        DeliveryState::Ignored { reason } => ("ignored", None, Some(reason.clone())),
        DeliveryState::Refused { reason } => ("refused", None, Some(reason.clone())),
    };
    model::Delivery {
        id: delivery.id,
        forge: delivery.forge.clone(),
        forge_id: delivery.forge_id.clone(),
        event: delivery.event.clone(),
        at_ms: delivery.at.0,
        remote: delivery.remote.clone(),
        repeats: delivery.repeats,
        state: state.to_owned(),
        run,
        reason,
    }
}

fn blame(blame: Blame) -> String {
    match blame {
        Blame::Code => "code",
        Blame::Infrastructure => "infrastructure",
    }
    .to_owned()
}

pub(super) fn run(app: &App, run: &Run) -> Result<model::Run, AppError> {
    let why = app.run_why(run)?;
    run_with(app, run, &why)
}

fn run_with(app: &App, run: &Run, reason_why: &Why) -> Result<model::Run, AppError> {
    let (reason, blamed) = match &run.state {
        RunState::Held { reason } | RunState::Declined { reason } => (Some(reason.clone()), None),
        RunState::Cancelling { .. } | RunState::Cancelled => (run.cancel_reason.clone(), None),
        RunState::Failed { blame: whose, reason } => (Some(reason.clone()), Some(blame(*whose))),
        RunState::Queued | RunState::Running { .. } | RunState::Passed | RunState::Succeeded { .. } => (None, None),
    };
    let runner = run.holder().filter(|_| run.state != RunState::Queued).map(|(runner, _)| runner.to_string());
    let queue = match reason_why {
        Why::RunQueued { position, of } => Some(model::QueuePlace { position: *position, of: *of }),
        _ => None,
    };
    let made_release = run.digest().is_some() && run.releases();
    Ok(model::Run {
        service: run.id.service.to_string(),
        number: run.id.number,
        state: run.state.word().to_owned(),
        finished: run.state.is_final(),
        reason: reason.filter(|reason| !reason.is_empty()),
        blame: blamed,
        commit: model::Commit {
            sha: run.trigger.commit.to_string(),
            subject: run.trigger.subject.clone(),
            author: run.trigger.author.clone(),
            author_email: run.trigger.author_email.clone(),
        },
        git_ref: run.trigger.git_ref.clone(),
        trigger: run.trigger.kind.word().to_owned(),
        trigger_source: match run.trigger.source {
            TriggerSource::Hook => "hook",
            TriggerSource::Poll => "poll",
            TriggerSource::Person => "person",
        }
        .to_owned(),
        pull_request: run.trigger.pull_request,
        requested_by: run.trigger.requested_by.clone(),
        may_release: run.may_release,
        created_at_ms: run.created_at.0,
        started_at_ms: ms(run.started_at),
        finished_at_ms: ms(run.finished_at),
        usual_ms: match (reason_why, run.state.is_final()) {
            (Why::RunRunning { usual_ms, .. }, _) => *usual_ms,
            (_, false) => app.run_usual_ms(&run.id)?,
            (_, true) => None,
        },
        runner,
        attempt: run.attempt,
        lost: run.lost.iter().map(ToString::to_string).collect(),
        queue,
        steps: run.steps.iter().map(step).collect(),
        digest: run.digest().map(ToString::to_string),
        tag: run.tag.clone(),
        reused_from: run.reused_from.as_ref().map(|run| run.number),
        rerun_of: run.rerun_of.as_ref().map(|run| run.number),
        release: made_release.then_some(run.id.number),
        from_fork: run.trigger.from_fork,
        allowed_by: run.allowed_by.clone(),
        proposal: run.proposal.as_ref().map(proposal),
        comparison_url: if run.trigger.from_fork { app.run_comparison(run)? } else { None },
        why: why(reason_why),
    })
}

fn proposal(proposal: &Proposal) -> model::Proposal {
    let Proposal { pipeline_file, file_changed, diff, steps, files_changed, problem } = proposal.clone();
    let step = |step: ProposedStep| model::ProposedStep { name: step.name, image: step.image, commands: step.commands };
    let steps = steps.into_iter().map(step).collect();
    model::Proposal { pipeline_file, file_changed, diff, steps, files_changed, problem }
}

fn step(step: &StepRecord) -> model::Step {
    let (state, reason, blamed, exit_code) = match &step.outcome {
        None if step.started_at.is_some() => ("running", None, None, None),
        None => ("waiting", None, None, None),
        Some(StepOutcome::Passed) => ("passed", None, None, Some(0)),
        Some(StepOutcome::Skipped { reason }) => ("skipped", Some(reason.clone()), None, None),
        Some(StepOutcome::Failed { blame: whose, exit_code, reason }) => {
            ("failed", Some(reason.clone()), Some(blame(*whose)), *exit_code)
        }
        Some(StepOutcome::Cancelled) => ("cancelled", None, None, None),
    };
    model::Step {
        name: step.name.clone(),
        state: state.to_owned(),
        reason,
        blame: blamed,
        exit_code,
        started_at_ms: ms(step.started_at),
        finished_at_ms: ms(step.finished_at),
    }
}

pub(super) fn release(app: &App, release: &Release) -> Result<model::Release, AppError> {
    let why = app.release_why(release)?;
    let approval = app.approval_maybe(&release.id)?;
    let rollout = app.rollout_of(&release.id)?.map(|rollout| rollout.id.number);
    Ok(release_with(app, release, approval.as_ref(), rollout, &why))
}

fn release_with(
    app: &App,
    release: &Release,
    approval_of: Option<&Approval>,
    rollout: Option<u32>,
    reason_why: &Why,
) -> model::Release {
    let service = &release.id.service;
    let gateway = &app.config.gateway;
    let reason = match &release.state {
        ReleaseState::TestFailed { reason } | ReleaseState::RolledBack { reason } => Some(reason.clone()),
        ReleaseState::Rejected { comment, .. } => Some(comment.clone()),
        _ => None,
    };
    model::Release {
        service: service.to_string(),
        number: release.id.number,
        digest: release.digest.to_string(),
        tag: release.tag.clone(),
        base: release.plan.base.clone(),
        state: release.state.word().to_owned(),
        under_way: release.state.is_under_way(),
        reason,
        commit: model::Commit {
            sha: release.commit.sha.to_string(),
            subject: release.commit.message.lines().next().unwrap_or_default().to_owned(),
            author: release.commit.author.clone(),
            author_email: release.commit.author_email.clone(),
        },
        changes: release
            .commit
            .changes
            .iter()
            .map(|it| model::Change { id: it.short.clone(), subject: it.subject.clone(), author: it.author.clone() })
            .collect(),
        created_at_ms: release.created_at.0,
        changed_at_ms: release.changed_at.0,
        tested_at_ms: ms(release.tested_at),
        approved_at_ms: release.approved.as_ref().map(|(at, _)| at.0),
        approved_by: release.approved.as_ref().map(|(_, by)| by.clone()),
        promoted_at_ms: ms(release.promoted_at),
        live_at_ms: ms(release.live_at),
        strategy: release.plan.production.strategy.word().to_owned(),
        test_url: gateway.address(&addresses::test_host(gateway, service)),
        production_url: gateway.address(&addresses::production_host(gateway, service, &release.plan.deploy)),
        approval: approval_of.map(|it| approval(app, it)),
        rollout,
        why: why(reason_why),
    }
}

fn approval(app: &App, approval: &Approval) -> model::Approval {
    let (decision, superseded_by) = match &approval.state {
        ApprovalState::Approved { decision } | ApprovalState::Rejected { decision } => (Some(decision), None),
        ApprovalState::Superseded { by } => (None, Some(*by)),
        ApprovalState::Open | ApprovalState::Expired => (None, None),
    };
    let ReleaseId { service, number } = &approval.release;
    let is_open = approval.state == ApprovalState::Open;
    model::Approval {
        round: approval.round,
        digest: approval.digest.to_string(),
        state: approval.state.word().to_owned(),
        testers: approval.testers.clone(),
        needed: approval.needed.max(1),
        approvals: approval.approved_by.iter().map(decision_of).collect(),
        deputies: approval.deputies.clone(),
        deputies_asked_at_ms: ms(approval.deputies_asked_at),
        undecided: if is_open { approval.undecided() } else { Vec::new() },
        next_reminder: approval
            .next_reminder()
            .filter(|_| is_open)
            .map(|(reminder, at)| model::NextReminder { kind: reminder.word().to_owned(), at_ms: at.0 }),
        undelivered: app
            .undelivered(approval)
            .iter()
            .map(|mail| model::Undelivered { to: mail.to.clone(), fault: fault(&mail.fault) })
            .collect(),
        allow_self_approval: approval.allow_self_approval,
        opened_at_ms: approval.opened_at.0,
        expires_at_ms: approval.expires_at.0,
        claim: approval.claim.as_ref().map(|claim| model::Claim { by: claim.by.clone(), at_ms: claim.at.0 }),
        decision: decision.map(decision_of),
        superseded_by,
        page_url: format!("{}/services/{service}/approvals/{number}", app.config.public_url),
    }
}

fn decision_of(decision: &Decision) -> model::Decision {
    model::Decision {
        by: decision.by.clone(),
        at_ms: decision.at.0,
        proof: match decision.proof {
            Proof::MailedCode => "mailed_code",
            Proof::SignedIn => "signed_in",
        }
        .to_owned(),
        comment: decision.comment.clone(),
    }
}

/// A rollout; with all its samples where somebody asks for this one.
pub(super) fn rollout(app: &App, rollout: &Rollout, with_samples: bool) -> Result<model::Rollout, AppError> {
    let release = app.release(&rollout.release)?;
    let why = app.release_why(&release)?;
    Ok(rollout_with(app, rollout, with_samples, &why))
}

fn rollout_with(app: &App, rollout: &Rollout, with_samples: bool, reason_why: &Why) -> model::Rollout {
    let gateway = &app.config.gateway;
    let (paused, paused_by) = match &rollout.state {
        RolloutState::Holding { paused: Some(Pause::Person { by }), .. } => (Some("person"), Some(by.clone())),
        RolloutState::Holding { paused: Some(Pause::Insufficient), .. } => (Some("insufficient"), None),
        _ => (None, None),
    };
    let reason = match &rollout.state {
        RolloutState::RollingBack { reason }
        | RolloutState::DrainingBack { reason }
        | RolloutState::RolledBack { reason } => Some(reason.clone()),
        _ => None,
    };
    let stage_until_ms = match &rollout.state {
        RolloutState::Holding { until, .. } => Some(until.0),
        _ => None,
    };
    let (cause, requested_by) = match &rollout.cause {
        Cause::Promotion => ("promotion", None),
        Cause::Rollback { by, .. } => ("rollback", Some(by.clone())),
    };
    let preview = || gateway.address(&addresses::preview_host(gateway, &rollout.id.service));
    model::Rollout {
        service: rollout.id.service.to_string(),
        number: rollout.id.number,
        release: rollout.release.number,
        revision: rollout.revision.to_string(),
        stable_release: rollout.stable.as_ref().map(|stable| stable.release),
        cause: cause.to_owned(),
        requested_by,
        strategy: rollout.plan.strategy.word().to_owned(),
        stages: rollout
            .stages
            .iter()
            .map(|stage| model::Stage {
                weight_percent: stage.weight_percent,
                hold_ms: stage.hold_ms,
                judged: stage.judged,
            })
            .collect(),
        stage: rollout.stage(),
        state: rollout.state.word().to_owned(),
        finished: rollout.state.is_final(),
        reason,
        paused: paused.map(str::to_owned),
        paused_by,
        weight_percent: rollout.weight_percent,
        started_at_ms: rollout.started_at.0,
        stage_until_ms,
        finished_at_ms: ms(rollout.finished_at),
        can_abort: rollout.can_abort(),
        shares: rollout
            .shares
            .iter()
            .map(|(at, percent)| model::Share { at_ms: at.0, weight_percent: *percent })
            .collect(),
        judgement: rollout.judgement().map(judgement),
        samples: if with_samples { rollout.samples.iter().map(sample).collect() } else { Vec::new() },
        preview_url: rollout.wants_preview().then(preview),
        why: why(reason_why),
    }
}

fn judgement(judgement: &Judgement) -> model::Judgement {
    let check = |check: &pipelines::rollout::judge::CheckResult| model::Check {
        name: check.name.clone(),
        outcome: check.outcome.word().to_owned(),
        value: check.value,
        stable: check.stable,
        limit: check.limit,
        p_value: check.p_value,
    };
    model::Judgement {
        outcome: judgement.outcome.word().to_owned(),
        requests: judgement.requests,
        checks: judgement.checks.iter().map(check).collect(),
    }
}

fn sample(sample: &Sample) -> model::Sample {
    model::Sample {
        at_ms: sample.at.0,
        stage: sample.stage,
        weight_percent: sample.weight_percent,
        canary: measured(&sample.canary),
        stable: measured(&sample.stable),
        outcome: sample.judgement.outcome.word().to_owned(),
    }
}

fn measured(stats: &RevisionStats) -> model::Measured {
    model::Measured {
        requests: stats.requests,
        errors: stats.errors,
        p50_ms: stats.latency_ms(0.50),
        p95_ms: stats.latency_ms(0.95),
        p99_ms: stats.latency_ms(0.99),
    }
}

pub(super) fn board_row(app: &App, row: &ServiceRow, caller: &Caller) -> Result<model::BoardRow, AppError> {
    let why_is_of_run = |it: &Run| match (row.subject, &row.release) {
        (Subject::Run, _) => true,
        (Subject::Release, Some(release)) => it.id == release.id.run() && it.digest().is_some(),
        _ => false,
    };
    let run = match &row.run {
        Some(it) if why_is_of_run(it) => Some(run_with(app, it, &row.why)?),
        Some(it) => Some(run(app, it)?),
        None => None,
    };
    let subject_release = match (&row.release, row.subject) {
        (Some(it), Subject::Release) => {
            Some(release_with(app, it, row.approval.as_deref(), row.release_rollout, &row.why))
        }
        (Some(it), _) => Some(release(app, it)?),
        (None, _) => None,
    };
    let live = match (&row.live, &subject_release) {
        (Some(it), Some(shown)) if it.id.number == shown.number => Some(shown.clone()),
        (Some(it), _) => {
            let why = app.live_why(row)?;
            why.map(|why| release_with(app, it, row.live_approval.as_deref(), row.live_rollout, &why))
        }
        (None, _) => None,
    };
    Ok(model::BoardRow {
        service: row.service.name.to_string(),
        group: row.group(Some(caller)).word().to_owned(),
        subject: match row.subject {
            Subject::Release => "release",
            Subject::Run => "run",
            Subject::Nothing => "nothing",
        }
        .to_owned(),
        stations: stations::stations(row),
        run,
        release: subject_release,
        rollout: row.rollout.as_ref().map(|it| rollout_with(app, it, false, &row.why)),
        live,
        waiting_release: row.train.rollout_next,
        why: why(&row.why),
        poll_fault: row.poll_fault.as_ref().map(fault),
    })
}

pub(super) fn pending(key: String, pending: &PendingEffect) -> model::PendingEffect {
    model::PendingEffect {
        key,
        effect: pending.effect.kind().word().to_owned(),
        service: pending.effect.service().to_string(),
        asked_at_ms: pending.asked_at.0,
        not_before_ms: pending.not_before.0,
        fault: fault_of(pending).as_ref().map(fault),
    }
}

pub(super) fn queue(queue: Queue) -> model::Queue {
    model::Queue {
        name: queue.kind.word().to_owned(),
        length: queue.length,
        bound: queue.bound,
        unit: if queue.kind.is_bytes() { "bytes" } else { "count" }.to_owned(),
        over: match queue.kind.over() {
            Over::Refused => "refused",
            Over::Waits => "waits",
        }
        .to_owned(),
        refused: queue.refused,
        key: queue.kind.key().to_owned(),
        of_service: queue.of_service.map(|of| {
            let (fullest, length) = of.fullest.map_or((None, 0), |(name, length)| (Some(name.to_string()), length));
            model::QueueOfService { bound: of.bound, key: of.key.to_owned(), fullest, length }
        }),
    }
}

pub(super) fn account(account: &Account) -> model::Account {
    model::Account {
        name: account.name.clone(),
        email: account.email.clone(),
        role: account.role,
        disabled: account.disabled,
        created_at_ms: account.created_at.0,
    }
}

pub(super) fn token(id: String, token: &Token) -> model::Token {
    model::Token {
        id,
        label: token.label.clone(),
        account: token.account.clone(),
        scope: token.scope,
        read_only: token.read_only,
        created_at_ms: token.created_at.0,
        expires_at_ms: ms(token.expires_at),
    }
}

pub(super) fn session(session: SeenSession) -> model::Session {
    model::Session {
        id: session.id,
        remote: session.remote,
        agent: session.agent,
        created_at_ms: session.created_at.0,
        used_at_ms: session.used_at.0,
        ends_at_ms: session.ends_at.0,
        current: session.is_this,
    }
}

pub(super) fn entry(entry: Entry) -> model::AuditEntry {
    let (before, after) = entry.change.map_or((None, None), |(before, after)| (Some(before), Some(after)));
    let changed = entry.changed.into_iter();
    model::AuditEntry {
        seq: entry.seq,
        at_ms: entry.at.0,
        service: entry.service.map(|service| service.to_string()),
        actor: entry.origin.actor,
        channel: entry.origin.channel.word().to_owned(),
        place: entry.origin.place,
        proof: entry.origin.proof,
        subject: entry.subject,
        word: entry.word,
        before,
        after,
        changed: changed.map(|it| model::AuditChange { field: it.field, before: it.before, after: it.after }).collect(),
        detail: entry.detail,
        previous: entry.previous.map(|digest| digest.to_string()),
        digest: entry.digest.map(|digest| digest.to_string()),
    }
}

pub(super) fn runner(row: &RunnerRow) -> model::Runner {
    let record = &row.record;
    model::Runner {
        name: record.name.to_string(),
        state: record.state.word().to_owned(),
        embedded: record.embedded,
        there: row.is_there,
        heard_at_ms: record.heard_at.0,
        version: record.about.version.clone(),
        labels: record.labels().clone().into(),
        capacity: record.about.capacity,
        runs: row.runs.iter().map(ToString::to_string).collect(),
        registered_at_ms: record.registered_at.0,
        registered_by: record.registered_by.clone(),
    }
}

pub(super) fn waiting_run(waiting: &WaitingRun) -> model::WaitingRun {
    let run = &waiting.run;
    model::WaitingRun {
        service: run.id.service.to_string(),
        number: run.id.number,
        position: waiting.position,
        since_ms: run.created_at.0,
        labels: run.labels.clone().into(),
        reason: waiting.why.to_string(),
        lost: run.lost.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn runner_token(id: String, token: &RunnerToken) -> model::RunnerToken {
    model::RunnerToken {
        id,
        label: token.label.clone(),
        uses_left: token.uses_left,
        created_at_ms: token.created_at.0,
        created_by: token.created_by.clone(),
        expires_at_ms: token.expires_at.0,
    }
}
