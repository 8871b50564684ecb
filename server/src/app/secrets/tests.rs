//! Tests of secrets that steps can name: who gets which, what is refused, and that nothing is kept in plain.

use pipelines::protocol::RunnerRequest;

use super::*;
use crate::testing::{Stage, test_app, test_app_with};

fn of(service: &str) -> SecretScope {
    SecretScope::Service { service: service.parse().unwrap() }
}

fn valued(value: &str) -> SecretInput {
    SecretInput { value: Some(Secret::new(value)), services: None }
}

async fn set(stage: &Stage, scope: SecretScope, name: &str, input: SecretInput) -> Result<SecretInfo, AppError> {
    let origin = Origin::new("mei", pipelines::journal::Channel::Api);
    stage.app.secret_set(scope, name.parse().unwrap(), input, origin).await
}

/// A runner takes the run and asks for secrets: those that it gets, or why it gets none.
async fn ask(stage: &Stage, run: &RunId, names: &[&str]) -> Result<Vec<String>, Withheld> {
    let runner: RunnerName = "runner-1".parse().unwrap();
    let mut busy_with = Vec::new();
    while busy_with.last() != Some(run) {
        let reply = stage.asked_for_work(&runner, busy_with.clone()).await;
        let ServerReply::Job(job) = reply else { panic!("no job") };
        busy_with.push(job.run);
    }
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    let attempt = stage.app.run(run).unwrap().attempt;
    let request = RunnerRequest::Secrets { run: run.clone(), attempt, names };
    match stage.app.agent_request(&runner, request).await.unwrap() {
        ServerReply::Secrets { withheld: Some(withheld), given } => {
            assert!(given.is_empty());
            Err(withheld)
        }
        ServerReply::Secrets { given, .. } => {
            Ok(given.iter().map(|secret| format!("{}={}", secret.name, secret.value.expose())).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_run_gets_what_its_steps_name_and_its_service_has() {
    let stage = test_app();
    let run = stage.pushed("shop").await;
    stage.pushed("other").await;
    let for_other = SecretInput { services: Some(vec!["other".parse().unwrap()]), ..valued("of the other") };
    set(&stage, of("shop"), "A", valued("own value")).await.unwrap();
    set(&stage, SecretScope::Shared, "A", valued("shared value")).await.unwrap();
    set(&stage, SecretScope::Shared, "B", valued("shared value")).await.unwrap();
    set(&stage, SecretScope::Shared, "C", for_other).await.unwrap();
    set(&stage, of("other"), "D", valued("of the other")).await.unwrap();
    set(&stage, of("shop"), "E", valued("not asked for")).await.unwrap();
    stage.pass_ms(1_000);
    let given = ask(&stage, &run, &["A", "B", "C", "D", "F"]).await.unwrap();
    assert_eq!(given, ["A=own value", "B=shared value"]);

    let seen = stage.app.secrets_of_service(&"shop".parse().unwrap()).unwrap();
    let used: Vec<_> = seen.iter().map(|secret| (secret.name.as_str(), secret.last_use.is_some())).collect();
    assert_eq!(used, [("A", true), ("E", false), ("B", true)]);
    let last = seen[0].last_use.clone().unwrap();
    assert_eq!((last.run, last.at), (run, stage.app.now()));
    assert!(seen.iter().all(|secret| secret.set_by == "mei"));
}

#[tokio::test]
async fn a_run_that_is_not_trusted_gets_none() {
    let stage = test_app();
    let pushed = stage.pushed("shop").await;
    set(&stage, of("shop"), "A", valued("own value")).await.unwrap();
    stage.app.run_cancel(&pushed, "enough".into(), Origin::server()).await.unwrap();
    // Somebody is talked into running the head of a pull request by hand.
    let mut trigger = stage.app.run(&pushed).unwrap().trigger;
    trigger.kind = pipelines::trigger::TriggerKind::Manual;
    trigger.git_ref = "refs/pull/7/head".into();
    trigger.pull_request = Some(7);
    trigger.commit = crate::testing::commit(9);
    let event = pipelines::train::Event::Triggered { trigger, rerun_of: None, hold: stage.app.config.hold };
    let run = stage.app.train_event(&pushed.service, Origin::server(), event).await.unwrap().runs.remove(0);
    let withheld = ask(&stage, &run, &["A"]).await.unwrap_err();
    assert_eq!(withheld.blame, Blame::Code);
    assert!(withheld.reason.contains("fork"), "{}", withheld.reason);
    assert_eq!(stage.app.secrets_of_service(&run.service).unwrap()[0].last_use, None);
}

#[tokio::test]
async fn more_than_can_be_hidden_is_not_handed_out() {
    let stage = test_app_with(|config| config.job.secret_bytes_per_run_max = 20);
    let run = stage.pushed("shop").await;
    set(&stage, of("shop"), "A", valued("0123456789")).await.unwrap();
    set(&stage, of("shop"), "B", valued("0123456789a")).await.unwrap();
    let withheld = ask(&stage, &run, &["A", "B"]).await.unwrap_err();
    assert!(withheld.reason.contains("21 bytes"), "{}", withheld.reason);
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_refused_with_the_reason() {
    let stage = test_app_with(|config| {
        config.bounds.secret_bytes_max = 100;
        config.bounds.secrets_per_scope_max = 1;
    });
    stage.pushed("shop").await;
    for (value, why) in
        [("abc", "shorter than 4"), ("a\nb\nc\nd", "none of its lines"), (&*"x".repeat(101), "101 bytes")]
    {
        let error = set(&stage, of("shop"), "A", valued(value)).await.unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains(value), "{error}");
    }
    let nothing = set(&stage, of("shop"), "A", SecretInput::default()).await.unwrap_err();
    assert!(nothing.to_string().contains("give its value"), "{nothing}");
    let unknown = SecretInput { services: Some(vec!["shpo".parse().unwrap()]), ..valued("a value") };
    assert!(matches!(set(&stage, SecretScope::Shared, "A", unknown).await, Err(AppError::NotFound { .. })));
    assert!(matches!(set(&stage, of("shpo"), "A", valued("a value")).await, Err(AppError::NotFound { .. })));
    set(&stage, of("shop"), "A", valued("a value")).await.unwrap();
    set(&stage, of("shop"), "A", valued("another value")).await.unwrap();
    assert!(set(&stage, of("shop"), "B", valued("a value")).await.is_err());
}

#[tokio::test]
async fn whom_a_shared_secret_is_for_changes_without_its_value_and_is_sealed_to_it() {
    let stage = test_app();
    let run = stage.pushed("shop").await;
    let shop = SecretInput { value: None, services: Some(vec!["shop".parse().unwrap()]) };
    let before = set(&stage, SecretScope::Shared, "A", valued("shared value")).await.unwrap();
    stage.pass_ms(5);
    let after = set(&stage, SecretScope::Shared, "A", shop).await.unwrap();
    assert_eq!((after.set_at, after.services.len()), (before.set_at, 1));
    // Somebody who can write into the store widens it again.
    let mut record = stage.app.store().secret(&SecretScope::Shared, &"A".parse().unwrap()).unwrap().unwrap();
    record.services.clear();
    let entry = stage.app.secret_entry(&SecretScope::Shared, &record.name, "forged", Origin::server());
    stage.app.store().secret_put(&record, entry).await.unwrap();
    let withheld = ask(&stage, &run, &["A"]).await.unwrap_err();
    assert_eq!(withheld.blame, Blame::Infrastructure);
}

#[tokio::test]
async fn a_value_is_nowhere_in_plain_and_a_removed_secret_is_gone() {
    let stage = test_app();
    stage.pushed("shop").await;
    set(&stage, of("shop"), "DEPLOY_TOKEN", valued("q8Zr+plain/value")).await.unwrap();
    set(&stage, SecretScope::Shared, "DEPLOY_TOKEN", valued("q8Zr+plain/value")).await.unwrap();
    let is_there = |text: &str| {
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        stage.dump().iter().any(|(name, content)| holds(name.as_bytes()) || holds(content))
    };
    assert!(is_there("DEPLOY_TOKEN"));
    assert!(!is_there("plain/value") && !is_there("cGxhaW4v"));
    let name: SecretName = "DEPLOY_TOKEN".parse().unwrap();
    stage.app.secret_remove(of("shop"), name.clone(), Origin::server()).await.unwrap();
    assert_eq!(stage.app.store().secret(&of("shop"), &name).unwrap(), None);
    let again = stage.app.secret_remove(of("shop"), name, Origin::server()).await;
    assert!(matches!(again, Err(AppError::NotFound { .. })));
    let words: Vec<_> = stage.app.store().journal(None, None, 3).unwrap().into_iter().map(|entry| entry.word).collect();
    assert_eq!(words, ["secret_removed", "secret_set", "secret_set"]);
}
