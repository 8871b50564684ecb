//! The approval page: by the link of a mail, whose proof is a mailed code, and for people who are signed in. Reading it
//! changes nothing, whoever reads it; a failure shows the same page with what was wrong and keeps the comment.

mod view;

use std::collections::HashMap;

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use pipelines::{
    approval::{Actor, Approval, ApprovalRefusal},
    ids::{Digest, ReleaseId, ServiceName},
    train::Refusal,
};

use super::{Fields, Visit, see, show};
use crate::{
    app::{
        App, AppError,
        approvals::{actor_of, link_origin},
        throttle::WrongProof,
    },
    http::{
        access::{CSRF_FIELD, csrf_of, is_csrf},
        extract::OfRelease,
        problem::Problem,
        ui::{approval::DecideProblem, links},
    },
};
use view::{Said, Who};

/// Characters of a comment.
const COMMENT_CHARS_MAX: usize = 2_000;

/// The address of such a page opens it: it is told to nobody, not even to other pages of this server.
fn keep_link(mut response: Response) -> Response {
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Somebody at the door with a link.
struct Linked {
    visit: Visit,
    approval: Approval,
    tester: String,
    token: String,
}

/// A wrong link, one of an earlier mail, and a release that does not exist look the same.
fn no_link() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such link, or a newer mail replaced it")
        .next("open the link of the newest mail")
}

impl Linked {
    fn open(mut visit: Visit, service: &str, number: &str, token: String) -> Result<Self, Problem> {
        let wrong = || match visit.app.wrong_proof(WrongProof::Link, &visit.remote) {
            Ok(()) => no_link(),
            Err(error) => error.into(),
        };
        let name: ServiceName = service.parse().map_err(|_| wrong())?;
        // Only as it is written by us: `+7` and `007` are other addresses.
        let number = number.parse::<u32>().ok().filter(|parsed| parsed.to_string() == number).ok_or_else(wrong)?;
        let (approval, tester) = match visit.app.approval_of_link(&ReleaseId::new(name, number), &token) {
            Ok(found) => found,
            Err(AppError::NotFound { .. }) => return Err(wrong()),
            Err(error) => return Err(error.into()),
        };
        // The link proves who reads, and nothing else does: a session in the same browser has no part in it.
        visit.caller = None;
        visit.ctx.user = None;
        visit.ctx.needs_you = 0;
        (visit.ctx.shows_accounts, visit.ctx.shows_mailbox) = (false, false);
        visit.ctx.csrf = csrf_of(&visit.app, &token);
        visit.ctx.path = links::approval_by_link(service, u64::from(number), &token);
        Ok(Self { visit, approval, tester, token })
    }

    fn who(&self) -> Who<'_> {
        Who::Link { tester: &self.tester, token: &self.token }
    }
}

/// The page behind the link.
pub(in crate::http) async fn show_by_link(
    visit: Visit,
    Path((service, number, token)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let linked = Linked::open(visit, &service, &number, token)?;
    let view = view::approval_view(&linked.visit, &linked.approval, linked.who(), Said::default())?;
    Ok(keep_link(show!(linked.visit, view)))
}

/// A form of the page behind the link.
pub(in crate::http) async fn act_by_link(
    visit: Visit,
    Path((service, number, token, verb)): Path<(String, String, String, String)>,
    fields: Fields,
) -> Result<Response, Problem> {
    let linked = Linked::open(visit, &service, &number, token)?;
    if !is_csrf(&linked.visit.app, &linked.token, fields.get(CSRF_FIELD)) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "bad-form", "the form is not from the page of this link")
            .next("open the link and send the form once more"));
    }
    let (app, id, tester) = (&linked.visit.app, &linked.approval.release, &linked.tester);
    let (actor, remote) = (Actor::Tester { email: tester.clone() }, linked.visit.remote.as_str());
    let done = match verb.as_str() {
        "code" => app.approval_request_code(id, tester, remote).await.map_err(Failure::App),
        "claim" => app.approval_claim(id, actor, link_origin(tester, remote)).await.map_err(Failure::App),
        "release" => app.approval_unclaim(id, actor, link_origin(tester, remote)).await.map_err(Failure::App),
        "ask-again" => app.approval_ask_again_by_link(id, tester, remote).await.map_err(Failure::App),
        "decide" => decide_by_code(app, id, (tester, remote), &fields).await,
        _ => return Err(no_verb()),
    };
    match done {
        Ok(()) => Ok(see(&linked.visit.ctx.path)),
        Err(failure) => {
            let approval = app.approval(id)?;
            failed(&linked.visit, &approval, linked.who(), failure, &fields).map(keep_link)
        }
    }
}

async fn decide_by_code(app: &App, id: &ReleaseId, tester: (&str, &str), fields: &Fields) -> Result<(), Failure> {
    let Decision { approve, digest, comment } = Decision::read(fields)?;
    let code = fields.trimmed("code");
    if code.is_empty() {
        return Err(Failure::Form(DecideProblem::CodeNeeded));
    }
    match app.approval_decide_by_code(id, tester, code, digest, approve, comment).await {
        Err(AppError::Invalid(_)) => Err(Failure::WrongCode),
        answer => answer.map_err(Failure::App),
    }
}

/// What a form decides.
struct Decision {
    approve: bool,
    digest: Digest,
    comment: String,
}

impl Decision {
    fn read(fields: &Fields) -> Result<Self, Failure> {
        let approve = match fields.get("decision") {
            "approve" => true,
            "reject" => false,
            _ => return Err(Failure::Problem(no_verb())),
        };
        let comment = fields.trimmed("comment");
        if comment.chars().count() > COMMENT_CHARS_MAX {
            return Err(Failure::Form(DecideProblem::CommentTooLong { max_chars: COMMENT_CHARS_MAX as u64 }));
        }
        if !approve && comment.is_empty() {
            return Err(Failure::Form(DecideProblem::CommentNeeded));
        }
        let stale = || Failure::App(AppError::Refused(ApprovalRefusal::StaleDigest.into()));
        let digest = fields.get("digest").parse().map_err(|_| stale())?;
        Ok(Self { approve, digest, comment: comment.to_owned() })
    }
}

/// Why nothing was decided.
enum Failure {
    /// The form was not filled in.
    Form(DecideProblem),
    /// The code was wrong, and counted.
    WrongCode,
    /// The application says no.
    App(AppError),
    /// It was no form of this page.
    Problem(Problem),
}

fn no_verb() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid", "the form asks for nothing that this page can do")
}

/// The same page with what was wrong.
fn failed(
    visit: &Visit,
    approval: &Approval,
    who: Who<'_>,
    failure: Failure,
    fields: &Fields,
) -> Result<Response, Problem> {
    let mut said = Said { comment: fields.get("comment").chars().take(COMMENT_CHARS_MAX).collect(), ..Said::default() };
    let status = match failure {
        Failure::Problem(problem) => return Err(problem),
        Failure::Form(problem) => {
            said.problem = Some(problem);
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Failure::WrongCode => {
            said.problem = Some(DecideProblem::WrongCode { tries_left: who.tries_left(approval) });
            if who.is_locked(approval) { StatusCode::LOCKED } else { StatusCode::UNPROCESSABLE_ENTITY }
        }
        Failure::App(AppError::Refused(Refusal::Approval(refusal))) => {
            let problem = Problem::from(AppError::Refused(Refusal::Approval(refusal.clone())));
            said.refuse(refusal);
            problem.status()
        }
        // The train moved on meanwhile: the page as it is now says how.
        Failure::App(AppError::Refused(refusal)) => Problem::from(AppError::Refused(refusal)).status(),
        Failure::App(error) => return Err(error.into()),
    };
    said.failed = true;
    let view = view::approval_view(visit, approval, who, said)?;
    Ok(show!(visit, status, view))
}

/// The page for somebody who is signed in.
pub(in crate::http) async fn show_approval(visit: Visit, OfRelease(id): OfRelease) -> Result<Response, Problem> {
    let approval = visit.app.approval(&id)?;
    let view = view::approval_view(&visit, &approval, Who::Account(visit.caller()?), Said::default())?;
    Ok(show!(visit, view))
}

/// A form of the page for somebody who is signed in.
pub(in crate::http) async fn act_on_approval(
    visit: Visit,
    OfRelease(id): OfRelease,
    Path(parts): Path<HashMap<String, String>>,
    fields: Fields,
) -> Result<Response, Problem> {
    let (app, caller) = (&visit.app, visit.caller()?);
    app.approval_for_decider(&id, caller)?;
    let actor = actor_of(&caller.account);
    let done = match parts.get("verb").map_or("", String::as_str) {
        "claim" => app.approval_claim(&id, actor, caller.origin()).await.map_err(Failure::App),
        "release" => app.approval_unclaim(&id, actor, caller.origin()).await.map_err(Failure::App),
        "ask-again" => app.release_ask_again(&id, caller.origin()).await.map_err(Failure::App),
        "decide" => match Decision::read(&fields) {
            Ok(Decision { approve, digest, comment }) => app
                .approval_decide_signed_in(&id, &caller.account, digest, approve, comment, caller.origin())
                .await
                .map_err(Failure::App),
            Err(failure) => Err(failure),
        },
        _ => return Err(no_verb()),
    };
    match done {
        Ok(()) => Ok(see(&links::approval(id.service.as_str(), u64::from(id.number)))),
        Err(failure) => {
            let approval = app.approval(&id)?;
            failed(&visit, &approval, Who::Account(caller), failure, &fields)
        }
    }
}
