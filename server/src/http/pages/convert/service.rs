//! A service as its page shows it: environments, releases with the way back, and what became of each hook delivery; and
//! the address and key that its form takes. Not here: reading the records.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipelines::{
    approval::{Approval, ApprovalState},
    ids::ServiceName,
    protocol::Secret,
    release::{Release, ReleaseState},
    repository::{ADDRESS_BYTES_MAX, AddressError, RepositoryAddress, shown},
    rollout::{Rollout, RolloutState},
    service::Service,
    time::UnixMs,
    train::Train,
    why::{BackCause, Why},
};
use zeroize::Zeroizing;

use super::{page_ms, plan, shown_url, span, strategy, version};
use crate::{
    app::{Delivery, DeliveryState, HookContent, addresses, deliveries::ASKED},
    config::GatewaySettings,
    http::ui::{
        Disabled, Role as PageRole,
        approval::Health,
        links,
        service::{Became, DeliveryLine, EnvironmentView, HookView, Ignored, ReleaseLine, ReleaseOutcome, Signature},
        services::Problem as FieldProblem,
    },
};

/// The forges whose hooks are read.
const FORGES: &str = "GitHub, Gitea, Forgejo, GitLab, Bitbucket";
/// What the services run on.
const ENGINE: &str = "docker";
/// Characters of a line of a key.
const KEY_LINE_CHARS: usize = 64;

/// A repository's address where it stands in a sentence.
pub(in crate::http::pages) fn repository(service: &Service) -> String {
    shown_url(&shown(&service.repository_url))
}

/// The base config with its version.
pub(in crate::http::pages) fn base(release: &Release) -> String {
    release.plan.base.replacen('@', " ", 1)
}

/// The test environment with the release that it shows, and who has claimed it.
pub(in crate::http::pages) fn test_environment(
    gateway: &GatewaySettings,
    service: &ServiceName,
    shown: Option<(&Release, Option<&Approval>)>,
) -> EnvironmentView {
    let claim = shown
        .and_then(|(_, approval)| approval)
        .filter(|approval| approval.state == ApprovalState::Open)
        .and_then(|approval| approval.claim.as_ref());
    let release = shown.map(|(release, _)| release);
    let url = format!("{}/", gateway.address(&addresses::test_host(gateway, service)));
    EnvironmentView {
        since_ms: release.and_then(|release| release.tested_at).map(page_ms),
        claimed_by: claim.map(|claim| claim.by.clone()),
        containers: u32::from(release.is_some()),
        ..environment("test", release, url)
    }
}

/// Production with the release that has the traffic.
pub(in crate::http::pages) fn production_environment(
    gateway: &GatewaySettings,
    service: &ServiceName,
    live: Option<&Release>,
) -> EnvironmentView {
    let host = live.map_or_else(
        || format!("{service}.{}", gateway.production_domain),
        |live| addresses::production_host(gateway, service, &live.plan.deploy),
    );
    EnvironmentView {
        is_production: true,
        since_ms: live.and_then(|live| live.live_at).map(page_ms),
        containers: live.map_or(0, |live| live.plan.deploy.replicas.max(1)),
        ..environment("production", live, format!("{}/", gateway.address(&host)))
    }
}

fn environment(name: &str, release: Option<&Release>, url: String) -> EnvironmentView {
    EnvironmentView {
        name: name.to_owned(),
        version: release.map(version),
        is_production: false,
        // A release is in an environment only after it was healthy there.
        health: if release.is_some() { Health::Healthy } else { Health::Unknown },
        url: release.is_some().then_some(url),
        digest: release.map(|release| release.digest.to_string()),
        since_ms: None,
        claimed_by: None,
        runs_on: ENGINE.to_owned(),
        containers: 0,
    }
}

/// What the line of a release is made of.
#[derive(Clone, Copy)]
pub(in crate::http::pages) struct Past<'a> {
    /// The release.
    pub release: &'a Release,
    /// Its last rollout.
    pub rollout: Option<&'a Rollout>,
    /// Why it is not live, where it was rolled back.
    pub why: Option<&'a Why>,
    /// What moves on the service now.
    pub train: &'a Train,
    /// The rollout that runs.
    pub running: Option<&'a Rollout>,
    /// Whether the reader may roll back.
    pub may: bool,
}

/// One release of the history.
pub(in crate::http::pages) fn release_line(past: &Past<'_>) -> ReleaseLine {
    let release = past.release;
    let commit = &release.commit;
    let outcome = outcome(past);
    let has_moved = past.rollout.is_some() || release.was_live();
    let steps = plan(&release.plan.production.strategy).weights.len();
    let at = match release.state {
        ReleaseState::Live => release.live_at.unwrap_or(release.changed_at),
        _ => release.changed_at,
    };
    ReleaseLine {
        version: version(release),
        build: u64::from(release.id.number),
        commit: commit.sha.short().to_owned(),
        change: commit.message.lines().next().unwrap_or_default().to_owned(),
        approved_by: release.approved.iter().map(|(_, by)| by.clone()).collect(),
        digest: release.digest.to_string(),
        strategy: has_moved.then(|| (strategy(&release.plan.production.strategy), steps)),
        rollback: no_way_back(past, &outcome),
        outcome,
        at_ms: page_ms(at),
    }
}

fn outcome(past: &Past<'_>) -> ReleaseOutcome {
    let release = past.release;
    let lived_ms = release.live_at.map(|live| span(release.changed_at.since_ms(live)));
    match &release.state {
        state if state.is_under_way() => ReleaseOutcome::OnItsWay,
        ReleaseState::Live => ReleaseOutcome::Live,
        ReleaseState::Retired { .. } => ReleaseOutcome::Done { lived_ms: lived_ms.unwrap_or_default() },
        ReleaseState::Rejected { by, .. } => ReleaseOutcome::Rejected { by: by.clone() },
        ReleaseState::Expired => ReleaseOutcome::Expired,
        ReleaseState::Superseded { by } => ReleaseOutcome::Superseded { by_version: by.to_string() },
        ReleaseState::RolledBack { .. } => match (past.why, lived_ms) {
            (Some(Why::RolledBack { cause: BackCause::Judge { percent, .. }, .. }), _) => {
                ReleaseOutcome::RolledBack { percent: u32::from(*percent) }
            }
            (Some(Why::RolledBack { cause: BackCause::Person { .. }, .. }), _) => ReleaseOutcome::Aborted,
            // It was live until somebody went back to an older one.
            (_, Some(lived_ms)) if is_completed(past.rollout) => ReleaseOutcome::Done { lived_ms },
            _ => ReleaseOutcome::Failed,
        },
        _ => ReleaseOutcome::Failed,
    }
}

fn is_completed(rollout: Option<&Rollout>) -> bool {
    rollout.is_none_or(|rollout| rollout.state == RolloutState::Completed)
}

/// Why a release cannot be rolled back to, as the train itself would refuse it.
fn no_way_back(past: &Past<'_>, outcome: &ReleaseOutcome) -> Option<Disabled> {
    let (release, train) = (past.release, past.train);
    let number = release.id.number;
    if !release.was_live() {
        return Some(match outcome {
            ReleaseOutcome::RolledBack { percent } => Disabled::JudgeFailedIt { percent: *percent },
            _ => Disabled::NeverLive,
        });
    }
    match past.running {
        None if train.live == Some(number) => return Some(Disabled::AlreadyLive),
        Some(rollout) if rollout.release.number == number && !is_going_back(rollout) => {
            return Some(Disabled::AnotherRollout { version: version(release) });
        }
        _ => {}
    }
    (!past.may).then_some(Disabled::NotAllowed { role: PageRole::ReleaseManager })
}

fn is_going_back(rollout: &Rollout) -> bool {
    matches!(rollout.state, RolloutState::RollingBack { .. } | RolloutState::DrainingBack { .. })
}

/// What is known about a service's hook and polling.
pub(in crate::http::pages) struct HookFacts<'a> {
    /// The service.
    pub service: &'a Service,
    /// Under which address people reach the server.
    pub base_url: &'a str,
    /// When its repository is asked again, as it was planned.
    pub poll_due_at: Option<UnixMs>,
    /// What the last try to ask it said, if that failed.
    pub poll_error: Option<String>,
    /// Now.
    pub now: UnixMs,
}

/// The hook; without its deliveries.
pub(in crate::http::pages) fn hook(facts: HookFacts<'_>, new_secret: Option<String>) -> HookView {
    let service = facts.service;
    let every_ms = service.poll_interval_ms;
    // The next poll is planned from the last one; one that is due at once was asked for by a change of the service.
    let polled_at =
        facts.poll_due_at.filter(|due| every_ms > 0 && *due > facts.now).map(|due| page_ms(due) - span(every_ms));
    HookView {
        urls: vec![(FORGES.to_owned(), links::hook(facts.base_url, service.name.as_str()))],
        new_secret,
        allows_unsigned: service.allow_unsigned_hooks,
        polled_every_ms: (every_ms > 0).then(|| span(every_ms)),
        polled_at_ms: polled_at,
        poll_error: facts.poll_error,
        deliveries: Vec::new(),
    }
}

/// One delivery. `releases`: whether the run that it made may release; `secret_set_at`: since when the hook's secret is the
/// present one; `trouble`: what keeps it from being looked at.
pub(in crate::http::pages) fn delivery_line(
    delivery: &Delivery,
    releases: bool,
    secret_set_at: Option<UnixMs>,
    trouble: Option<String>,
) -> DeliveryLine {
    let first = match &delivery.content {
        Some(HookContent::Several { all }) => all.first(),
        one => one.as_ref(),
    };
    let (ref_name, commit) = match first {
        Some(HookContent::Trigger { trigger, .. }) => (trigger.ref_name(), trigger.commit.short().to_owned()),
        Some(HookContent::Deleted { git_ref } | HookContent::Moved { git_ref }) => {
            let short = git_ref.strip_prefix("refs/heads/").or_else(|| git_ref.strip_prefix("refs/tags/"));
            (short.unwrap_or(git_ref).to_owned(), String::new())
        }
        Some(HookContent::Nothing { .. } | HookContent::Several { .. }) | None => (String::new(), String::new()),
    };
    let event = match delivery.repeats {
        0 => delivery.event.clone(),
        repeats => format!("{} ×{}", delivery.event, u64::from(repeats) + 1),
    };
    DeliveryLine {
        event,
        ref_name,
        commit,
        became: became(delivery, releases, trouble),
        signature: signature(delivery, secret_set_at),
        at_ms: page_ms(delivery.at),
    }
}

fn became(delivery: &Delivery, releases: bool, trouble: Option<String>) -> Became {
    match (&delivery.state, trouble) {
        (DeliveryState::Received, Some(answer)) => Became::Failed { answer },
        (DeliveryState::Received, None) => Became::Received,
        (DeliveryState::Ran { run }, _) => Became::Run { run: u64::from(*run), release: releases },
        (DeliveryState::Refused { reason }, _) => Became::Refused { reason: reason.clone() },
        (DeliveryState::Ignored { reason }, _) => Became::Ignored {
            reason: match &delivery.content {
                _ if reason.ends_with(ASKED) => Ignored::Asked,
                Some(HookContent::Several { .. }) => Ignored::KnownCommit,
                Some(HookContent::Trigger { .. }) => Ignored::KnownCommit,
                Some(HookContent::Deleted { .. }) => Ignored::RefDeleted,
                _ if matches!(delivery.event.as_str(), "ping" | "diagnostics:ping") => Ignored::Ping,
                _ => Ignored::OtherEvent,
            },
        },
    }
}

/// What is known of a delivery's signature: one that was taken while the present secret was set had the right one. Of one
/// from before nothing is known, so nothing is claimed.
fn signature(delivery: &Delivery, secret_set_at: Option<UnixMs>) -> Signature {
    match &delivery.state {
        DeliveryState::Refused { reason } if reason.starts_with("its signature is") => Signature::Wrong,
        // Refused before its signature was looked at, or for having none.
        DeliveryState::Refused { .. } => Signature::None,
        _ if secret_set_at.is_some_and(|set_at| set_at <= delivery.at) => Signature::Right,
        _ => Signature::None,
    }
}

/// Text that is longer than its field.
pub(in crate::http::pages) fn too_long(text: &str, chars_max: usize) -> Option<FieldProblem> {
    (text.chars().count() > chars_max).then_some(FieldProblem::TooLong { max_chars: chars_max as u64 })
}

/// What is wrong with a repository's address.
pub(in crate::http::pages) fn repository_problem(text: &str) -> Option<FieldProblem> {
    match text.parse::<RepositoryAddress>() {
        Ok(_) => None,
        Err(AddressError::Empty) => Some(FieldProblem::Required),
        Err(AddressError::TooLong) => Some(FieldProblem::TooLong { max_chars: ADDRESS_BYTES_MAX as u64 }),
        Err(AddressError::Credential) => Some(FieldProblem::CredentialInAddress),
        Err(_) => Some(FieldProblem::NotAnAddress),
    }
}

/// A pasted key. A field of one line takes the line ends away, so they are put back.
pub(in crate::http::pages) fn ssh_key(text: &str) -> Result<Secret, FieldProblem> {
    let has_passphrase = || FieldProblem::Unreachable { answer: "the key has a passphrase; give one without".into() };
    let not_a_key = || FieldProblem::Unreachable { answer: "this is not a private key".into() };
    let rest = text.strip_prefix("-----BEGIN ").ok_or_else(not_a_key)?;
    let (label, rest) = rest.split_once("-----").ok_or_else(not_a_key)?;
    let (body, _) = rest.split_once("-----END ").ok_or_else(not_a_key)?;
    if !label.ends_with("PRIVATE KEY") {
        return Err(not_a_key());
    }
    if label.starts_with("RSA") || label.starts_with("DSA") {
        return Err(FieldProblem::UnsupportedKey);
    }
    if label.contains("ENCRYPTED") {
        return Err(has_passphrase());
    }
    let body: Vec<char> = body.chars().filter(|c| !c.is_whitespace()).collect();
    let lines: String = body.chunks(KEY_LINE_CHARS).flat_map(|line| line.iter().copied().chain(['\n'])).collect();
    let key = Secret::new(format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n"));
    match open_part(key.expose()) {
        Some(open) if open.is_encrypted => Err(has_passphrase()),
        Some(open) if open.kind != "ssh-ed25519" && !open.kind.starts_with("ecdsa-") => {
            Err(FieldProblem::UnsupportedKey)
        }
        None if label.starts_with("OPENSSH") => Err(not_a_key()),
        _ => Ok(key),
    }
}

/// The line that the forge is given for a key, where its format has the public half in clear.
pub(in crate::http::pages) fn ssh_public_key(key: &Secret, name: &ServiceName) -> Option<String> {
    open_part(key.expose()).map(|open| format!("{} {} windlass-{name}", open.kind, open.public))
}

/// What a private key says in clear, if it is in OpenSSH's format ("openssh-key-v1", PROTOCOL.key of OpenSSH).
fn open_part(private_key: &str) -> Option<OpenPart> {
    let body: String = private_key.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let bytes = Zeroizing::new(STANDARD.decode(&*Zeroizing::new(body)).ok()?);
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let cipher = take_text(&mut rest)?;
    let (_kdf, _kdf_options) = (take_text(&mut rest)?, take_text(&mut rest)?);
    let _keys = rest.split_off(..4)?;
    let public = take_text(&mut rest)?;
    let kind = std::str::from_utf8(take_text(&mut &*public)?).ok()?.to_owned();
    Some(OpenPart { is_encrypted: cipher != b"none", public: STANDARD.encode(public), kind })
}

/// What an OpenSSH private key says in clear.
struct OpenPart {
    /// Its kind, such as `ssh-ed25519`.
    kind: String,
    /// It needs a passphrase.
    is_encrypted: bool,
    /// Its public half, base64.
    public: String,
}

/// A text with its length before it (RFC 4251, section 5).
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (text, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_or_its_field_says_what_is_wrong() {
        for (text, problem) in [
            ("https://git.example.com/shop/checkout.git", None),
            ("git@git.example.com:shop/checkout.git", None),
            ("", Some(FieldProblem::Required)),
            ("https://hunter2@host/x", Some(FieldProblem::CredentialInAddress)),
            ("host:path", Some(FieldProblem::NotAnAddress)),
            (&format!("https://host/{}", "x".repeat(2_048)), Some(FieldProblem::TooLong { max_chars: 2_048 })),
        ] {
            assert_eq!(repository_problem(text), problem, "{text}");
        }
    }

    /// A key in OpenSSH's format as far as it is in clear, on one line as a field leaves it.
    fn pasted(cipher: &str, kind: &str) -> String {
        let text = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
        let public = [text(kind.as_bytes()), text(&[7; 32])].concat();
        let head = [text(cipher.as_bytes()), text(b"none"), text(b""), 1_u32.to_be_bytes().to_vec()].concat();
        let bytes = [b"openssh-key-v1\0".to_vec(), head, text(&public), text(&[9; 64])].concat();
        format!("-----BEGIN OPENSSH PRIVATE KEY-----{}-----END OPENSSH PRIVATE KEY-----", STANDARD.encode(bytes))
    }

    #[test]
    fn a_pasted_key_gets_its_lines_back_and_tells_its_public_half() {
        let key = ssh_key(&pasted("none", "ssh-ed25519")).unwrap();
        let lines: Vec<&str> = key.expose().lines().collect();
        assert!(lines.len() > 3 && lines.iter().all(|line| line.len() <= KEY_LINE_CHARS), "{lines:?}");
        assert_eq!(ssh_key(key.expose().trim()).unwrap().expose(), key.expose());
        let public = ssh_public_key(&key, &"checkout".parse().unwrap()).unwrap();
        assert!(
            public.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5") && public.ends_with(" windlass-checkout"),
            "{public}"
        );
    }

    #[test]
    fn a_key_that_opens_nothing_is_refused_when_it_is_given() {
        assert_eq!(ssh_key(&pasted("none", "ssh-rsa")).unwrap_err(), FieldProblem::UnsupportedKey);
        for bad in
            [pasted("aes256-ctr", "ssh-ed25519"), "ssh-ed25519 AAAA".into(), pasted("none", "x").replace("PRIVATE", "")]
        {
            assert!(matches!(ssh_key(&bad), Err(FieldProblem::Unreachable { .. })), "{bad}");
        }
    }
}
