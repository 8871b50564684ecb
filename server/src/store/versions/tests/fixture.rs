//! Stores of every version that was ever written, small, as files; and the maker of a new one. Not here: what is asked of
//! them (`tests`).

use std::{io::Write, path::PathBuf, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use pipelines::{
    effect::EffectKind,
    ids::{RunId, SecretName, ServiceName},
    journal::Origin,
    plan::{CanaryStep, Strategy},
    protocol::{Report, RunnerRequest, Secret},
    release::ReleaseEvent,
    rollout::RolloutEvent,
    train::Event,
    trigger::{Trigger, TriggerKind, TriggerSource},
};

use crate::{
    app::{
        HookContent, NewDelivery, Role, runners::NewRunnerToken, secrets::SecretInput, services::ServiceInput,
        sessions::SeenFrom,
    },
    store::{
        SecretScope, SecretUse,
        engine::{self, Batch, Direction, Engine, EngineConfig, KeyRange, Table},
        versions::STORE_VERSION,
    },
    testing::{Stage, commit, test_app},
};

/// Where they lie: `vN.redb.gz`.
pub(super) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/store/versions/fixtures")
}

/// Every record of an engine, with the number of its table.
pub(super) fn all_records(engine: &dyn Engine) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for number in 0..=u8::MAX {
        let records = engine.scan(Table::new(number, "any"), &KeyRange::all(), Direction::Forward, usize::MAX).unwrap();
        all.extend(records.into_iter().map(|(key, value)| (number, key, value)));
    }
    all
}

fn hook(service: &ServiceName, id: &str, content: Result<HookContent, String>) -> NewDelivery {
    NewDelivery {
        service: service.clone(),
        forge: "gitea",
        forge_id: id.to_owned(),
        event: "push".into(),
        at: pipelines::time::UnixMs(crate::testing::START_MS),
        remote: "192.0.2.7".into(),
        content,
    }
}

fn pull_request() -> HookContent {
    HookContent::Trigger {
        trigger: Trigger {
            kind: TriggerKind::PullRequest,
            source: TriggerSource::Hook,
            git_ref: "refs/pull/7/head".into(),
            commit: commit(70),
            pull_request: Some(7),
            from_fork: true,
            subject: "Try it".into(),
            author: "Somebody".into(),
            author_email: String::new(),
            requested_by: None,
            heard_at: None,
            traceparent: None,
        },
        from: None,
    }
}

/// A stage with records of every table: services at every station of the train, people, hooks.
pub(super) async fn full_stage() -> Stage {
    let stage = test_app();
    // Live, then a canary that moves.
    let first = stage.live("shop").await;
    stage.pass_ms(60_000);
    let run = stage.pushed("shop").await;
    let steps = [10, 50].map(|weight_percent| CanaryStep { weight_percent, hold_ms: 120_000 });
    let second = stage.built(&run, Strategy::Canary { steps: steps.to_vec() }).await;
    stage.tested(&second).await;
    stage.approved(&second).await;
    stage.rolling_out(&second).await;
    stage.in_force(&first.service).await;
    // Rejected; then one that waits for its testers; then a run that failed.
    let cart = stage.awaiting("cart").await;
    let tester = stage.caller(Role::Tester).await;
    let (digest, origin) = (stage.app.release(&cart).unwrap().digest, tester.origin());
    stage
        .app
        .approval_decide_signed_in(&cart, &tester.account, digest, false, "the basket is empty".into(), origin)
        .await
        .unwrap();
    stage.awaiting("cart").await;
    let failing = stage.pushed("cart").await;
    let runner = "runner-1".parse().unwrap();
    stage.asked_for_work(&runner, Vec::new()).await;
    let report = Report::Failed { blame: pipelines::protocol::Blame::Code, reason: "step test ended with 1".into() };
    stage.app.agent_request(&runner, RunnerRequest::Report { run: failing, attempt: 1, report }).await.unwrap();
    // A rollout that went back, and an unhealthy one in the test environment.
    let back = stage.awaiting("stock").await;
    stage.approved(&back).await;
    stage.rolling_out(&back).await;
    let event = RolloutEvent::Abort { by: "mei".into(), reason: "prices are wrong".into() };
    let number = stage.app.rollout_running(&back.service).unwrap().id.number;
    stage.app.train_event(&back.service, Origin::server(), Event::Rollout { number, event }).await.unwrap();
    let run = stage.pushed("mail").await;
    let sick = stage.built(&run, Strategy::Rolling).await;
    let event = ReleaseEvent::TestUnhealthy { reason: "GET / answered 500".into() };
    let outcome = crate::app::trains::Outcome::event(Event::Release { number: sick.number, event });
    stage.perform(&sick.service, EffectKind::DeployTest, outcome).await;
    // Hooks, credentials, people.
    let shop = first.service;
    stage.app.delivery_record(hook(&shop, "d-1", Ok(pull_request()))).await.unwrap();
    stage.app.delivery_record(hook(&shop, "d-1", Ok(pull_request()))).await.unwrap();
    stage.app.delivery_record(hook(&shop, "d-2", Err("its signature is wrong".into()))).await.unwrap();
    let private: ServiceName = "private".parse().unwrap();
    let input = ServiceInput {
        repository_url: Some("https://git.example.com/private.git".into()),
        hook_secret: Some(Secret::new("of the hook")),
        ..ServiceInput::default()
    };
    stage.app.service_create(private, input, Origin::server()).await.unwrap();
    stage.token(Role::Developer).await;
    let (scope, name) = (SecretScope::Service { service: shop.clone() }, "TOKEN".parse::<SecretName>().unwrap());
    let input = SecretInput { value: Some(Secret::new("the value of a token")), services: None };
    stage.app.secret_set(scope.clone(), name.clone(), input, Origin::server()).await.unwrap();
    let last = SecretUse { run: RunId::new(shop, 1), at: stage.app.now() };
    stage.app.store().secrets_used(&[(scope, name)], &last).await.unwrap();
    stage.app.store().instance_set("fixture").await.unwrap();
    let (operator, one) =
        (stage.caller(Role::Operator).await, NewRunnerToken { label: "box".into(), uses: 1, life_ms: None });
    stage.app.runner_token_create(&operator, one).await.unwrap();
    // Last, because it is what a runner would get next.
    stage.pushed("cart").await;
    let from = SeenFrom { remote: "192.0.2.7".into(), agent: "a browser".into() };
    stage.app.sign_in_from(&from, None, "developer", Secret::new("password of developer")).await.unwrap();
    stage
}

/// Writes the store of [`full_stage`] as the fixture of a version, where that is asked for. For a new version, in the commit
/// before it: `WINDLASS_STORE_FIXTURE=N cargo test -p server --lib the_present_version_has_a_fixture`.
#[tokio::test]
async fn the_present_version_has_a_fixture() {
    let Ok(version) = std::env::var("WINDLASS_STORE_FIXTURE") else {
        let present = folder().join(format!("v{STORE_VERSION}.redb.gz"));
        assert!(present.is_file(), "{} is not there", present.display());
        return;
    };
    let version: u32 = version.parse().unwrap();
    let stage = full_stage().await;
    let scratch = tempfile::tempdir().unwrap();
    let engine: Arc<dyn Engine> = engine::open(&scratch.path().join("store"), &EngineConfig::default()).unwrap();
    let mut batch = Batch::new();
    for (number, key, value) in all_records(&**stage.engine()) {
        batch.put(Table::new(number, "any"), key, value);
    }
    engine.commit(&batch).unwrap();
    // The copy of an engine is smaller than the file that it works on.
    engine.backup(&scratch.path().join("copy")).unwrap();
    let bytes = std::fs::read(scratch.path().join("copy/store.redb")).unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bytes).unwrap();
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(folder().join(format!("v{version}.redb.gz")), packed.finish().unwrap()).unwrap();
}
