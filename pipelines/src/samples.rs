//! Records and events for the unit tests of the state machines. Not here: any assertion.

use std::collections::BTreeMap;

use crate::{
    ids::{CommitSha, Digest, ReleaseId, RevisionId, RunId, RunnerName, ServiceName},
    plan::{DeliveryPlan, DeployPlan, JudgePolicy, ProductionPlan, Strategy, TestPlan},
    protocol::{CommitInfo, Report},
    service::{CredentialKind, Service},
    time::UnixMs,
    trigger::{Trigger, TriggerKind, TriggerSource},
};

pub(crate) const HOUR_MS: u64 = 3_600_000;

pub(crate) fn name() -> ServiceName {
    "shop".parse().unwrap()
}

pub(crate) fn run_id(number: u32) -> RunId {
    RunId::new(name(), number)
}

pub(crate) fn release_id(number: u32) -> ReleaseId {
    ReleaseId::new(name(), number)
}

pub(crate) fn digest(number: u32) -> Digest {
    Digest::of(&number.to_be_bytes())
}

pub(crate) fn revision(number: u32) -> RevisionId {
    release_id(number).revision(&digest(number))
}

pub(crate) fn runner(name: &str) -> RunnerName {
    name.parse().unwrap()
}

pub(crate) fn sha(number: u32) -> CommitSha {
    format!("{number:040x}").parse().unwrap()
}

pub(crate) fn service() -> Service {
    Service {
        name: name(),
        repository_url: "https://git.example/shop.git".into(),
        credential: CredentialKind::None,
        known_hosts: Vec::new(),
        ca_pem: None,
        allow_unsigned_hooks: false,
        poll_interval_ms: 0,
        release_branch: None,
        default_branch: Some("main".into()),
        allow_self_approval: false,
        created_at: UnixMs(0),
        created_by: "admin".into(),
    }
}

pub(crate) fn trigger(number: u32) -> Trigger {
    Trigger {
        kind: TriggerKind::Push,
        source: TriggerSource::Hook,
        git_ref: "refs/heads/main".into(),
        commit: sha(number),
        pull_request: None,
        from_fork: false,
        subject: String::new(),
        author: String::new(),
        author_email: String::new(),
        requested_by: None,
        heard_at: None,
        traceparent: None,
    }
}

pub(crate) fn commit(number: u32) -> CommitInfo {
    CommitInfo {
        sha: sha(number),
        message: format!("change {number}\n\nmore"),
        author: "Dev".into(),
        author_email: "dev@example.com".into(),
        committed_at: UnixMs(0),
        changes: Vec::new(),
    }
}

pub(crate) fn production(strategy: Strategy) -> ProductionPlan {
    let judge = JudgePolicy { min_requests: 50, insufficient_limit_ms: 60_000, ..JudgePolicy::default() };
    ProductionPlan { strategy, judge }
}

pub(crate) fn plan(strategy: Strategy) -> DeliveryPlan {
    DeliveryPlan {
        base: "static-site@1.0.0".into(),
        deploy: DeployPlan {
            port: 8080,
            host: None,
            env: BTreeMap::new(),
            health_path: "/".into(),
            health_timeout_ms: 1_000,
            replicas: 2,
            memory_bytes: None,
            cpu_milli: None,
            command: Vec::new(),
        },
        test: TestPlan {
            testers: vec!["qa@example.com".into(), "dev@example.com".into()],
            approvals: 1,
            deputies: Vec::new(),
            expires_ms: HOUR_MS,
        },
        production: production(strategy),
    }
}

pub(crate) fn succeeded(number: u32) -> Report {
    Report::Succeeded {
        digest: digest(number),
        tag: format!("t{number}"),
        reused_from: None,
        inputs: Digest::of(format!("inputs {number}").as_bytes()),
    }
}
