//! The pages of services: the list, the form that registers or changes one, and one service with what is done from there.
//! Not here: how releases and deliveries are shown (`convert::service`).

use std::collections::HashMap;

use axum::{http::StatusCode, response::Response};
use pipelines::{
    effect::Effect,
    ids::{ReleaseId, RolloutId, RunId, SERVICE_NAME_MAX_CHARS, ServiceName},
    protocol::Secret,
    release::{Release, ReleaseState},
    repository::{GitTransport, RepositoryAddress, shown},
    rollout::Rollout,
    service::{CredentialKind as StoredKind, Service},
    time::UnixMs,
    train::Refusal,
    trigger::TriggerSource,
    why::Why,
};

use super::{
    Fields, Visit,
    convert::{
        board_row, page_ms,
        service::{self as convert, too_long},
        version,
    },
    see, show,
};
use crate::{
    app::{
        App, AppError, Delivery, DeliveryState, Page, Role,
        board::ServiceRow,
        services::{NewCredential, ServiceInput},
    },
    http::{
        extract::OfService,
        problem::Problem,
        ui::{
            board::Action,
            links,
            service::{Current, DeliveryLine, HookView, ReleaseLine, ServiceView},
            services::{
                CredentialKind, Problem as FieldProblem, RegisteredView, ServiceField, ServiceForm, ServiceFormView,
                ServiceLine, ServicesView,
            },
        },
    },
    random::{self, KEY_BYTES},
};

/// Releases that the page of a service lists.
const RELEASES_MAX: usize = 20;
/// Rollouts that are looked at for how these releases went.
const ROLLOUTS_SEEN_MAX: usize = 60;
/// Deliveries that the page of a service lists.
const DELIVERIES_MAX: usize = 20;
/// Runs that are looked at for the last push.
const RUNS_SEEN_MAX: usize = 10;
/// Characters of a branch's name, and of a user's.
const WORD_CHARS_MAX: usize = 200;
/// Characters of what was typed that a form with problems repeats.
const TYPED_CHARS_MAX: usize = 500;
/// Characters of a token or key.
const SECRET_CHARS_MAX: usize = 2_000;
/// Characters of a reason to roll back.
const REASON_CHARS_MAX: usize = 200;
/// Names that are addresses of other pages.
const RESERVED_NAMES: [&str; 1] = ["new"];

/// The services.
pub(in crate::http) async fn show_services(visit: Visit) -> Result<Response, Problem> {
    let app = &visit.app;
    let services = app.services()?.iter().map(|service| line(app, service)).collect::<Result<_, AppError>>()?;
    Ok(show!(visit, ServicesView { services, can_register: visit.may(Role::Operator) }))
}

fn line(app: &App, service: &Service) -> Result<ServiceLine, AppError> {
    let live = app.release_live(&service.name)?;
    let runs = app.runs(&service.name, Page::newest(RUNS_SEEN_MAX))?;
    let pushed = runs.iter().find(|run| run.trigger.source != TriggerSource::Person);
    Ok(ServiceLine {
        name: service.name.to_string(),
        repository: shown(&service.repository_url),
        live: live.map(|live| (version(&live), page_ms(live.live_at.unwrap_or(live.changed_at)))),
        pushed_at_ms: pushed.map(|run| page_ms(run.created_at)),
        error: app.poll_fault(&service.name).map(|fault| fault.error),
    })
}

/// The form for a new service.
pub(in crate::http) async fn show_service_form(visit: Visit) -> Result<Response, Problem> {
    Ok(show!(visit, ServiceFormView { form: ServiceForm::empty() }))
}

/// Registers a service. Its hook's secret is made here and shown this once.
pub(in crate::http) async fn create_service(visit: Visit, fields: Fields) -> Result<Response, Problem> {
    let (mut form, given) = read_form(&fields, None)?;
    if form.problems.is_empty() {
        let name: ServiceName = form.name.parse().map_err(|error| AppError::Invalid(format!("{error}")))?;
        let secret = (!form.allow_unsigned).then(|| random::text(KEY_BYTES));
        let key = match &given {
            Some(NewCredential::SshKey(key)) => convert::ssh_public_key(key, &name),
            _ => None,
        };
        let input = ServiceInput {
            repository_url: Some(form.repository.clone()),
            credential: given,
            hook_secret: secret.clone().map(Secret::new),
            allow_unsigned_hooks: Some(form.allow_unsigned),
            poll_interval_ms: Some(form.poll_s.saturating_mul(1_000)),
            release_branch: Some(form.branch.clone()),
            allow_self_approval: Some(form.allow_self_approval),
            ..ServiceInput::default()
        };
        match visit.app.service_create(name, input, visit.caller()?.origin()).await {
            Ok(service) => {
                let view = RegisteredView {
                    name: service.name.to_string(),
                    hook: hook(&visit, &service, secret),
                    ssh_public_key: key,
                };
                return Ok(show!(visit, view));
            }
            Err(AppError::Exists(_)) => form.problems.push((ServiceField::Name, FieldProblem::Taken)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(show!(visit, StatusCode::UNPROCESSABLE_ENTITY, ServiceFormView { form }))
}

/// The form that changes a service; what is secret stays out of it.
pub(in crate::http) async fn show_service_edit(visit: Visit, OfService(name): OfService) -> Result<Response, Problem> {
    let service = visit.app.service(&name)?;
    let form = ServiceForm {
        editing: Some(name.to_string()),
        repository: shown(&service.repository_url),
        name: name.to_string(),
        branch: service.release_branch.clone().unwrap_or_default(),
        credential: page_kind(service.credential),
        user: String::new(),
        has_credential: service.credential != StoredKind::None,
        poll_s: service.poll_interval_ms / 1_000,
        allow_unsigned: service.allow_unsigned_hooks,
        allow_self_approval: service.allow_self_approval,
        problems: Vec::new(),
    };
    Ok(show!(visit, ServiceFormView { form }))
}

/// Changes a service. A credential that is left empty stays. Where hooks must be signed and there is no secret yet, one is
/// made and shown this once.
pub(in crate::http) async fn update_service(
    visit: Visit,
    OfService(name): OfService,
    fields: Fields,
) -> Result<Response, Problem> {
    let app = &visit.app;
    let service = app.service(&name)?;
    let (form, credential) = read_form(&fields, Some(&service))?;
    if !form.problems.is_empty() {
        return Ok(show!(visit, StatusCode::UNPROCESSABLE_ENTITY, ServiceFormView { form }));
    }
    let (_, secret_set_at) = app.service_secret_ages(&name)?;
    let secret = (!form.allow_unsigned && secret_set_at.is_none()).then(|| random::text(KEY_BYTES));
    // With a secret a hook must be signed: who allows unsigned ones from now on gives it up.
    let gives_up = form.allow_unsigned && !service.allow_unsigned_hooks;
    let is_same_address = form.repository == shown(&service.repository_url);
    let is_same_poll = form.poll_s == service.poll_interval_ms / 1_000;
    let input = ServiceInput {
        repository_url: (!is_same_address).then(|| form.repository.clone()),
        credential,
        hook_secret: if gives_up { Some(Secret::new("")) } else { secret.clone().map(Secret::new) },
        allow_unsigned_hooks: Some(form.allow_unsigned),
        poll_interval_ms: (!is_same_poll).then(|| form.poll_s.saturating_mul(1_000)),
        release_branch: Some(form.branch.clone()),
        allow_self_approval: Some(form.allow_self_approval),
        ..ServiceInput::default()
    };
    app.service_update(&name, input, visit.caller()?.origin()).await?;
    if secret.is_some() {
        let view = service_view(&visit, &name, secret)?;
        return Ok(show!(visit, view));
    }
    Ok(see(&links::service(name.as_str())))
}

/// The page of a service.
pub(in crate::http) async fn show_service(visit: Visit, OfService(name): OfService) -> Result<Response, Problem> {
    let view = service_view(&visit, &name, None)?;
    Ok(show!(visit, view))
}

/// Runs the newest commit of the release branch.
pub(in crate::http) async fn start_run(visit: Visit, OfService(name): OfService) -> Result<Response, Problem> {
    let run = visit.app.run_create(&name, None, visit.caller()?.origin(), None).await?;
    Ok(see(&links::run(name.as_str(), u64::from(run.number))))
}

/// Goes back to a release that was live before.
pub(in crate::http) async fn rollback_service(
    visit: Visit,
    OfService(name): OfService,
    fields: Fields,
) -> Result<Response, Problem> {
    let app = &visit.app;
    let to: u32 = fields.trimmed("to").parse().map_err(|_| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "the form names no release to go back to")
    })?;
    let reason = fields.trimmed("reason").chars().take(REASON_CHARS_MAX).collect();
    let page = links::service(name.as_str());
    match app.release_rollback(&ReleaseId::new(name.clone(), to), reason, visit.caller()?.origin()).await {
        Ok(()) => {}
        // Somebody pressed it on a page of a moment ago: the page of now says why there is no such button.
        Err(AppError::Refused(Refusal::NotNow(_) | Refusal::Illegal(_))) => return Ok(see(&page)),
        Err(error) => return Err(error.into()),
    }
    let rollout = running(app, &name, app.train(&name)?.rollout)?;
    let begun = rollout.filter(|rollout| rollout.release.number == to);
    Ok(see(&begun.map_or(page, |rollout| links::rollout(name.as_str(), u64::from(rollout.id.number)))))
}

fn running(app: &App, name: &ServiceName, number: Option<u32>) -> Result<Option<Rollout>, AppError> {
    number.map(|number| app.rollout(&RolloutId::new(name.clone(), number))).transpose()
}

fn service_view(visit: &Visit, name: &ServiceName, new_secret: Option<String>) -> Result<ServiceView, Problem> {
    let app = &visit.app;
    let row = app.service_row(name)?;
    let gateway = &app.config.gateway;
    let in_test = row.train.in_test.map(|number| app.release(&ReleaseId::new(name.clone(), number))).transpose()?;
    let claim = in_test.as_ref().map(|release| app.approval_maybe(&release.id)).transpose()?.flatten();
    // The newest release is of the newest pipeline file, whether the row is about it or not.
    let newest = row.release.as_deref().or(row.live.as_deref());
    let managers = app.accounts()?.into_iter().filter(|it| !it.disabled && it.role >= Role::ReleaseManager);
    Ok(ServiceView {
        name: name.to_string(),
        repository: convert::repository(&row.service),
        branch: row.service.release_branch.clone().or_else(|| row.service.default_branch.clone()),
        base: newest.map(convert::base),
        current: current(visit, &row),
        environments: vec![
            convert::test_environment(gateway, name, in_test.as_ref().map(|release| (release, claim.as_ref()))),
            convert::production_environment(gateway, name, row.live.as_deref()),
        ],
        releases: releases(visit, &row)?,
        hook: HookView { deliveries: deliveries(app, name)?, ..hook(visit, &row.service, new_secret) },
        // A sealed key is opened for drivers and runners only; its public half was shown when it was given.
        ssh_public_key: None,
        port: newest.map(|release| release.plan.deploy.port),
        // Releases do not carry whom the service calls.
        calls: Vec::new(),
        called_by: Vec::new(),
        testers: newest.map(|release| release.plan.test.testers.clone()).unwrap_or_default(),
        deputies: newest.map(|release| release.plan.test.deputies.clone()).unwrap_or_default(),
        approvals: newest.map_or(1, |release| release.plan.test.approvals),
        managers: managers.map(|account| account.name).collect(),
        can_start: visit.may(Role::Developer),
        can_edit: visit.may(Role::Operator),
    })
}

/// The release or run of the row, unless nothing more is to come of it.
fn current(visit: &Visit, row: &ServiceRow) -> Option<Current> {
    let is_over = matches!(
        row.why,
        Why::NothingPushed | Why::NoRelease { .. } | Why::Live { .. } | Why::Retired { .. } | Why::Superseded { .. }
    );
    if is_over {
        return None;
    }
    let shown = board_row(row, visit.caller.as_ref(), visit.ctx.clock.now_ms);
    let this_page = links::service(&shown.service);
    Some(Current {
        version: shown.version,
        run: shown.run,
        commit: shown.commit,
        train: shown.train,
        why: shown.why,
        action: shown.action.filter(|action| !matches!(action, Action::Go { href, .. } if *href == this_page)),
    })
}

fn releases(visit: &Visit, row: &ServiceRow) -> Result<Vec<ReleaseLine>, AppError> {
    let app = &visit.app;
    let name = &row.service.name;
    let mut last: HashMap<u32, Rollout> = HashMap::new();
    for rollout in app.rollouts(name, Page::newest(ROLLOUTS_SEEN_MAX))? {
        last.entry(rollout.release.number).or_insert(rollout);
    }
    let running = running(app, name, row.train.rollout)?;
    let line = |release: &Release| {
        let was_rolled_back = matches!(release.state, ReleaseState::RolledBack { .. });
        let why = was_rolled_back.then(|| app.release_why(release)).transpose()?;
        Ok(convert::release_line(&convert::Past {
            release,
            rollout: last.get(&release.id.number),
            why: why.as_ref(),
            train: &row.train,
            running: running.as_ref(),
            may: visit.may(Role::ReleaseManager),
        }))
    };
    app.releases(name, Page::newest(RELEASES_MAX))?.iter().map(line).collect()
}

fn hook(visit: &Visit, service: &Service, new_secret: Option<String>) -> HookView {
    let app = &visit.app;
    let poll = Effect::PollRepository { service: service.name.clone(), due_at: UnixMs(0) };
    let pending = app.queue().get(&poll.key());
    let facts = convert::HookFacts {
        service,
        base_url: &app.config.public_url,
        poll_due_at: pending.as_ref().and_then(|pending| match pending.effect {
            Effect::PollRepository { due_at, .. } => Some(due_at),
            _ => None,
        }),
        poll_error: pending.and_then(|pending| pending.last_error),
        now: app.now(),
    };
    convert::hook(facts, new_secret)
}

fn deliveries(app: &App, name: &ServiceName) -> Result<Vec<DeliveryLine>, AppError> {
    let (_, secret_set_at) = app.service_secret_ages(name)?;
    let line = |delivery: &Delivery| {
        let releases = match delivery.state {
            DeliveryState::Ran { run } => app.run(&RunId::new(name.clone(), run)).is_ok_and(|run| run.may_release),
            _ => false,
        };
        let processing = Effect::ProcessDelivery { service: name.clone(), delivery: delivery.id };
        let trouble = app.effect_trouble(&processing).map(|(error, _)| error);
        Ok(convert::delivery_line(delivery, releases, secret_set_at, trouble))
    };
    app.deliveries(name, None, DELIVERIES_MAX)?.iter().map(line).collect()
}

const fn page_kind(kind: StoredKind) -> CredentialKind {
    match kind {
        StoredKind::None => CredentialKind::None,
        StoredKind::Token => CredentialKind::Token,
        StoredKind::SshKey => CredentialKind::SshKey,
    }
}

/// What the form holds, with what is wrong with it, and the credential to store; `None` keeps the stored one.
fn read_form(fields: &Fields, stored: Option<&Service>) -> Result<(ServiceForm, Option<NewCredential>), Problem> {
    let not_of_page =
        |what: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("the form's {what} is not one"));
    let credential = match fields.trimmed("credential") {
        "" => CredentialKind::None,
        tag => CredentialKind::ALL
            .into_iter()
            .find(|kind| kind.tag() == tag)
            .ok_or_else(|| not_of_page("kind of credential"))?,
    };
    let mut form = ServiceForm {
        editing: stored.map(|service| service.name.to_string()),
        repository: fields.trimmed("repository").to_owned(),
        name: stored.map_or_else(|| fields.trimmed("name").to_owned(), |service| service.name.to_string()),
        branch: fields.trimmed("branch").to_owned(),
        credential,
        user: fields.trimmed("user").to_owned(),
        has_credential: stored.is_some_and(|service| service.credential != StoredKind::None),
        poll_s: fields.trimmed("poll_s").parse().map_err(|_| not_of_page("polling interval"))?,
        allow_unsigned: !fields.get("allow_unsigned").is_empty(),
        allow_self_approval: !fields.get("allow_self_approval").is_empty(),
        problems: Vec::new(),
    };
    let given = match credential_of(&form, Secret::new(fields.trimmed("token")), stored) {
        Ok(given) => given,
        Err(problem) => {
            form.problems.push((ServiceField::Credential, problem));
            None
        }
    };
    if let Some(problem) = convert::repository_problem(&form.repository) {
        form.repository = shown(&form.repository);
        form.problems.push((ServiceField::Repository, problem));
    }
    if stored.is_none() {
        form.problems.extend(name_problem(&form.name).map(|problem| (ServiceField::Name, problem)));
    }
    form.problems.extend(too_long(&form.branch, WORD_CHARS_MAX).map(|problem| (ServiceField::Branch, problem)));
    if !form.problems.is_empty() {
        let texts = [&mut form.repository, &mut form.name, &mut form.branch, &mut form.user];
        for text in texts {
            *text = text.chars().take(TYPED_CHARS_MAX).collect();
        }
    }
    Ok((form, given))
}

fn name_problem(name: &str) -> Option<FieldProblem> {
    if name.is_empty() {
        return Some(FieldProblem::Required);
    }
    too_long(name, SERVICE_NAME_MAX_CHARS)
        .or_else(|| name.parse::<ServiceName>().is_err().then_some(FieldProblem::BadName))
        .or_else(|| RESERVED_NAMES.contains(&name).then_some(FieldProblem::Taken))
}

fn credential_of(
    form: &ServiceForm,
    secret: Secret,
    stored: Option<&Service>,
) -> Result<Option<NewCredential>, FieldProblem> {
    let is_stored = stored.is_some_and(|service| page_kind(service.credential) == form.credential);
    let transport = form.repository.parse::<RepositoryAddress>().map(|address| address.transport());
    let cannot = |answer: &str| Err(FieldProblem::Unreachable { answer: answer.to_owned() });
    match (form.credential, transport) {
        (CredentialKind::Token, Ok(GitTransport::Ssh)) => {
            return cannot("an ssh address needs an SSH key, not a token");
        }
        (CredentialKind::SshKey, Ok(GitTransport::Http | GitTransport::Https)) => {
            return cannot("an SSH key opens ssh addresses only; use a token");
        }
        _ => {}
    }
    if let Some(problem) = too_long(secret.expose(), SECRET_CHARS_MAX).or_else(|| too_long(&form.user, WORD_CHARS_MAX))
    {
        return Err(problem);
    }
    match (form.credential, secret.expose().is_empty()) {
        (CredentialKind::None, _) => Ok((!is_stored).then_some(NewCredential::None)),
        // The user is stored with the token: another one needs it once more.
        (CredentialKind::Token, true) if is_stored && form.user.is_empty() => Ok(None),
        (CredentialKind::SshKey, true) if is_stored => Ok(None),
        (_, true) => Err(FieldProblem::Required),
        (CredentialKind::Token, false) => Ok(Some(NewCredential::Token { user: form.user.clone(), token: secret })),
        (CredentialKind::SshKey, false) => {
            convert::ssh_key(secret.expose()).map(|key| Some(NewCredential::SshKey(key)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_free_or_says_why_not() {
        assert_eq!(name_problem("checkout-2"), None);
        assert_eq!(name_problem(""), Some(FieldProblem::Required));
        assert_eq!(name_problem("../etc"), Some(FieldProblem::BadName));
        assert_eq!(name_problem("new"), Some(FieldProblem::Taken));
        let max_chars = SERVICE_NAME_MAX_CHARS as u64;
        assert_eq!(name_problem(&"a".repeat(54)), Some(FieldProblem::TooLong { max_chars }));
    }
}
