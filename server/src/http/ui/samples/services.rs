//! Samples of services, accounts, search and errors.

use pipelines::journal::Channel;

use super::super::accounts::{AccountLine, AccountsView, MeView, SessionLine, SignInProblem, SignInView, TokenLine};
use super::super::approval::Health;
use super::super::audit::{AuditCheckLine, AuditLine, AuditView};
use super::super::board::{Action, Next};
use super::super::error::{ErrorKind, ErrorView};
use super::super::load::{Bounded, LoadRow, LoadView, OfService};
use super::super::rollout::Strategy;
use super::super::search::{Hit, HitKind, SearchView};
use super::super::secrets::{SecretLine, SecretsView};
use super::super::service::{
    Became, Current, DeliveryLine, EnvironmentView, HookView, Ignored, ReleaseLine, ReleaseOutcome, ServiceView,
    Signature,
};
use super::super::services::{
    CredentialKind, Problem, RegisteredView, ServiceField, ServiceForm, ServiceFormView, ServiceLine, ServicesView,
};
use super::super::why::Why;
use super::super::{Disabled, Role};
use super::releases::checkout_train;
use super::{DAY, DIGEST, HOSTILE, HOUR, MINUTE, NOW, UNTIL, s};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHSAMPLEsampleSAMPLEsampleSAMPLEsampleSAMPLE windlass-checkout";

fn hook() -> HookView {
    let delivery = |event: &str, ref_name: &str, commit: &str, became, signature, age| DeliveryLine {
        event: s(event),
        ref_name: s(ref_name),
        commit: s(commit),
        became,
        signature,
        at_ms: NOW - age,
    };
    HookView {
        urls: vec![(s("GitHub, Gitea, Forgejo, GitLab, Bitbucket"), s("https://windlass.example.com/hooks/checkout"))],
        new_secret: None,
        allows_unsigned: false,
        polled_every_ms: Some(5 * MINUTE),
        polled_at_ms: Some(NOW - 2 * MINUTE),
        poll_error: None,
        deliveries: vec![
            delivery("push", "main", "a1b2c3d", Became::Run { run: 412, release: true }, Signature::Right, 52 * MINUTE),
            delivery("push", "main", "a1b2c3d", Became::Repeat, Signature::Right, 52 * MINUTE),
            delivery(
                "pull_request",
                "#1188",
                "3be90d7",
                Became::Run { run: 411, release: false },
                Signature::Right,
                2 * HOUR,
            ),
            delivery(
                "push",
                "main",
                "",
                Became::Refused { reason: s("its signature is wrong") },
                Signature::Wrong,
                5 * HOUR,
            ),
            delivery("ping", "", "", Became::Ignored { reason: Ignored::Ping }, Signature::Right, DAY),
        ],
    }
}

fn release(version: &str, build: u64, commit: &str, change: &str, outcome: ReleaseOutcome, days: i64) -> ReleaseLine {
    let decided = !matches!(outcome, ReleaseOutcome::Superseded { .. });
    ReleaseLine {
        version: s(version),
        build,
        commit: s(commit),
        change: s(change),
        approved_by: if decided { vec![s("tester-zm")] } else { Vec::new() },
        digest: s(DIGEST),
        strategy: Some((Strategy::Canary, 6)),
        outcome,
        at_ms: NOW - days * DAY,
        rollback: None,
    }
}

pub(super) fn service() -> ServiceView {
    let mut live = release("4.7.1", 398, "d12f07c", "Show the tax on the receipt", ReleaseOutcome::Live, 6);
    live.rollback = Some(Disabled::AlreadyLive);
    let mut back = release("4.7.0", 391, "88a60be", "Pay by QR code", ReleaseOutcome::RolledBack { percent: 25 }, 7);
    back.rollback = Some(Disabled::JudgeFailedIt { percent: 25 });
    let done = ReleaseOutcome::Done { lived_ms: 6 * DAY };
    let old = release("4.6.2", 377, "1fd5b3a", "Faster basket page", done, 12);
    let mut never =
        release("4.6.0", 365, "a90be14", super::HOSTILE, ReleaseOutcome::Superseded { by_version: s("4.6.1") }, 20);
    never.rollback = Some(Disabled::NeverLive);
    ServiceView {
        name: s("checkout"),
        repository: s("git.example.com/shop/checkout"),
        branch: Some(s("main")),
        base: Some(s("node-web 3.2.0")),
        current: Some(Current {
            version: Some(s("4.8.0")),
            run: 412,
            commit: s("a1b2c3d"),
            train: checkout_train(true),
            why: Some(Why::YouAreTesting { build: 412, since_ms: NOW - 38 * MINUTE, until_ms: UNTIL }),
            action: Some(Action::Go { next: Next::Decide, href: s("/approvals/k7Qm2x"), solid: true }),
        }),
        environments: vec![
            EnvironmentView {
                name: s("test"),
                version: Some(s("4.8.0")),
                is_production: false,
                health: Health::Healthy,
                url: Some(s("https://checkout.test.example.com/")),
                digest: Some(s(DIGEST)),
                since_ms: Some(NOW - 47 * MINUTE),
                claimed_by: Some(s("tester-lw")),
                runs_on: s("docker, machine a"),
                containers: 1,
            },
            EnvironmentView {
                name: s("production"),
                version: Some(s("4.7.1")),
                is_production: true,
                health: Health::Healthy,
                url: Some(s("https://shop.example.com/")),
                digest: Some(s(DIGEST)),
                since_ms: Some(NOW - 6 * DAY),
                claimed_by: None,
                runs_on: s("docker, machine a"),
                containers: 2,
            },
        ],
        releases: vec![live, back, old, never],
        hook: hook(),
        ssh_public_key: Some(s(KEY)),
        port: Some(8080),
        calls: vec![s("payments"), s("pricing")],
        called_by: vec![s("storefront")],
        testers: vec![s("tester-lw"), s("tester-zm")],
        deputies: vec![s("tester-sub")],
        approvals: 1,
        managers: vec![s("manager-en")],
        can_start: true,
        can_edit: true,
    }
}

pub(super) fn services() -> ServicesView {
    let line = |name: &str, live: Option<(&str, i64)>, error: Option<&str>| ServiceLine {
        name: s(name),
        repository: format!("https://git.example.com/shop/{name}.git"),
        live: live.map(|(version, days)| (s(version), NOW - days * DAY)),
        pushed_at_ms: Some(NOW - HOUR),
        error: error.map(s),
    };
    ServicesView {
        services: vec![
            line("checkout", Some(("4.7.1", 6)), None),
            line("identity", Some(("3.4.0", 1)), Some("the repository asks for a credential")),
            line("payments", None, None),
        ],
        can_register: true,
    }
}

pub(super) fn form_with_problems() -> ServiceFormView {
    ServiceFormView {
        form: ServiceForm {
            repository: s("https://user:secret@git.example.com/x.git"),
            name: s("../etc"),
            credential: CredentialKind::Token,
            has_credential: true,
            allow_unsigned: true,
            problems: vec![
                (ServiceField::Repository, Problem::CredentialInAddress),
                (ServiceField::Name, Problem::BadName),
                (ServiceField::Branch, Problem::TooLong { max_chars: 200 }),
                (ServiceField::Credential, Problem::Unreachable { answer: s("<401>") }),
            ],
            ..ServiceForm::empty()
        },
    }
}

pub(super) fn registered() -> RegisteredView {
    RegisteredView {
        name: s("checkout"),
        hook: HookView { new_secret: Some(s("sample-secret-of-a-hook")), ..hook() },
        ssh_public_key: Some(s(KEY)),
    }
}

pub(super) fn sign_in() -> SignInView {
    SignInView { next: s("/needs-you"), name: s("admin"), problem: Some(SignInProblem::WrongNameOrPassword) }
}

pub(super) fn secrets() -> SecretsView {
    let line = |name: &str, is_own, services: &[&str], last_use| SecretLine {
        name: s(name),
        is_own,
        services: services.iter().map(|name| s(name)).collect(),
        set_at_ms: NOW - 40 * DAY,
        set_by: s("admin"),
        last_use,
    };
    SecretsView {
        service: Some(s("checkout")),
        secrets: vec![
            line("DEPLOY_TOKEN", true, &[], Some((s("checkout"), 412, NOW - HOUR))),
            line("NPM_TOKEN", false, &[], None),
            line("REPORTS_API_KEY", false, &["checkout", "payments"], None),
        ],
        can_set: true,
        name: String::new(),
        services: String::new(),
        problem: None,
    }
}

pub(super) fn shared_secrets() -> SecretsView {
    let mut secrets = secrets().secrets;
    secrets.remove(0);
    let problem = Some(s("`npm-token` is not a name of a secret: use letters, digits and underscores"));
    SecretsView { service: None, secrets, name: s("npm-token\"><b>"), problem, ..self::secrets() }
}

pub(super) fn audit() -> AuditView {
    let line = |seq, by, word: &str, before: &str, after: &str| AuditLine {
        seq,
        at_ms: NOW - HOUR,
        actor: s("mei"),
        by,
        place: s("192.0.2.7"),
        proof: s("session 9f2c41d07be6"),
        word: s(word),
        subject: s("run checkout/412"),
        service: Some(s("checkout")),
        before: s(before),
        after: s(after),
        detail: s(HOSTILE),
    };
    let mut failed = line(410, Channel::Machine, "key rotated", "", "");
    failed.service = None;
    AuditView {
        entries: vec![
            line(412, Channel::Page, "run cancel requested", "running", "cancelling"),
            line(411, Channel::MailLink, "release approved", "awaiting approval", HOSTILE),
            failed,
        ],
        older: Some(s("/audit?who=mei&before=410")),
        newest: Some(s("/audit?who=mei")),
        csv: s("/api/v1/audit/export?who=mei&format=csv"),
        looked_at: 50_000,
        who: s(HOSTILE),
        what: s("run"),
        service: s("checkout"),
        channel: Some(Channel::Hook),
        from: s("2026-08-01"),
        until: String::new(),
        problem: None,
        only_services: true,
        mark: format!("412@{DIGEST}"),
        checked: Some(AuditCheckLine { at_ms: NOW - 3 * HOUR, problem: None }),
    }
}

pub(super) fn audit_empty() -> AuditView {
    AuditView {
        entries: Vec::new(),
        older: None,
        newest: None,
        looked_at: 0,
        channel: None,
        problem: Some(s("from is a day or a moment: 2026-11-23, 2026-11-23T08:00:00Z")),
        only_services: false,
        checked: Some(AuditCheckLine {
            at_ms: NOW - HOUR,
            problem: Some(s("entry 7 was changed after it was written: its digest is not that of its content")),
        }),
        ..audit()
    }
}

pub(super) fn accounts() -> AccountsView {
    let account = |name: &str, roles: &[Role], made: i64| AccountLine {
        name: s(name),
        mail: Some(format!("{name}@example.com")),
        roles: roles.to_vec(),
        made_at_ms: NOW - made,
        locked: false,
        is_you: name == "tester-lw",
    };
    let mut locked = account("dev-cy", &[Role::Developer], DAY);
    locked.locked = true;
    AccountsView {
        accounts: vec![
            account("admin", &Role::ALL, HOUR),
            locked,
            account("tester-lw", &[Role::Tester, Role::ReleaseManager], MINUTE),
            account("tester-zm", &[Role::Tester], 3 * DAY),
        ],
        new_password: Some((s("tester-zm"), s("sample-Password-1"))),
        name: s("Bad Name"),
        mail: String::new(),
        name_problem: Some(Problem::BadName),
        mail_problem: Some(Problem::Required),
    }
}

pub(super) fn me() -> MeView {
    MeView {
        name: s("tester-lw"),
        mail: Some(s("tester-lw@example.com")),
        roles: vec![Role::Tester],
        tokens: vec![TokenLine {
            id: s("t1"),
            name: s("laptop"),
            scopes: vec![s("read"), s("approve")],
            made_at_ms: NOW - 9 * DAY,
            until_ms: Some(NOW + 80 * DAY),
        }],
        sessions: [(true, 0, "192.0.2.7"), (false, 3, "2001:db8::17")]
            .map(|(is_this, days, remote)| SessionLine {
                id: format!("{days}f3a9c0d1e2b4"),
                remote: Some(s(remote)),
                agent: (!is_this).then(|| s("Mozilla/5.0 (X11; Linux x86_64) <b>")),
                began_at_ms: NOW - (days + 1) * DAY,
                used_at_ms: NOW - days * DAY,
                is_this,
            })
            .to_vec(),
        scopes: vec![s("read"), s("run"), s("approve")],
        new_token: Some(s("wl_sample0token0sample0token")),
        password_changed: true,
        password_problem: Some(Problem::TooShort { min_chars: 12 }),
    }
}

pub(super) fn search() -> SearchView {
    let hit = |kind, title: &str, detail: &str, at_ms| Hit {
        kind,
        title: s(title),
        detail: s(detail),
        href: s("/services/checkout"),
        at_ms,
    };
    SearchView {
        query: s("<check>"),
        hits: vec![
            hit(HitKind::Service, "checkout", "git.example.com/shop/checkout", None),
            hit(HitKind::Release, "checkout 4.8.0", DIGEST, Some(NOW - HOUR)),
            hit(HitKind::Run, "checkout run 412", super::HOSTILE, Some(NOW - HOUR)),
        ],
        more: true,
    }
}

pub(super) fn error() -> ErrorView {
    ErrorView {
        kind: ErrorKind::Internal,
        status: 500,
        detail: Some(s("the store answered <nothing>")),
        request_id: s("01J6-8XT0"),
    }
}

/// A server that is flooded with the hooks of one service.
pub(in super::super) fn load() -> LoadView {
    let row = |what, length, bound, refused, key| LoadRow {
        what,
        length,
        bound,
        is_bytes: what == Bounded::HookBytes,
        refused,
        key,
        of_service: None,
    };
    let of_service =
        OfService { bound: 1_000, key: "bounds.hooks_waiting_per_service_max", fullest: Some((s("checkout"), 1_000)) };
    LoadView {
        rows: vec![
            row(Bounded::Connections, 112, 4_096, None, "bounds.connections_max"),
            row(Bounded::HookBytes, 48_211, 67_108_864, Some(0), "bounds.hook_bytes_in_flight_max"),
            LoadRow {
                of_service: Some(of_service),
                ..row(Bounded::Hooks, 1_004, 20_000, Some(3_118), "bounds.hooks_waiting_max")
            },
        ],
    }
}
