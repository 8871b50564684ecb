//! The board in memory is the board of the store, after every change.

use std::sync::Arc;

use pipelines::{effect::EffectKind, ids::ServiceName, journal::Origin, plan::Strategy};

use super::*;
use crate::{
    app::{deliveries::Listed, services::ServiceInput, trains::Outcome},
    testing::{Stage, commit, test_app, test_app_with},
};

/// The board as it is shown, and as it is read without anything that was kept.
fn both(stage: &Stage) -> [String; 2] {
    let kept = format!("{:#?}", stage.app.board().unwrap());
    let names: Vec<ServiceName> = stage.app.services().unwrap().into_iter().map(|service| service.name).collect();
    let rows = names.iter().map(|name| {
        let facts = stage.app.read_facts(name).unwrap();
        stage.app.row_of(&facts, &Look::new(&stage.app)).unwrap()
    });
    [kept, format!("{:#?}", rows.collect::<Vec<_>>())]
}

fn same(stage: &Stage, after: &str) {
    // Twice: what the first look kept is what the second shows.
    both(stage);
    let [kept, read] = both(stage);
    assert_eq!(kept, read, "after {after}");
}

#[tokio::test]
async fn what_is_kept_is_never_older_than_the_store() {
    let stage = test_app();
    same(&stage, "the start");
    let run = stage.pushed("shop").await;
    same(&stage, "a push");
    stage.pushed("other").await;
    same(&stage, "another service");
    let cancelled = RunId::new("other".parse().unwrap(), 1);
    stage.app.run_cancel(&cancelled, "enough".into(), Origin::server()).await.unwrap();
    same(&stage, "a stop");
    let release = stage.built(&run, Strategy::Rolling).await;
    same(&stage, "a build");
    stage.tested(&release).await;
    same(&stage, "a healthy test");
    stage.pass_ms(60_000);
    same(&stage, "a while");
    stage.approved(&release).await;
    same(&stage, "an approval");
    stage.rolling_out(&release).await;
    same(&stage, "a rollout's start");
    stage.in_force(&release.service).await;
    same(&stage, "a share");
    let input = ServiceInput { release_branch: Some("next".into()), ..ServiceInput::default() };
    stage.app.service_update(&release.service, input, Origin::server()).await.unwrap();
    same(&stage, "an edit");
    stage.forked("shop", 7).await;
    same(&stage, "a stranger's pull request");
    let failing = stage.pending(&release.service, EffectKind::PollRepository).unwrap();
    stage.app.effect_outcome(&failing.effect.key(), &failing, Outcome::Retry("no answer".into())).await.unwrap();
    same(&stage, "a fault");
    assert!(both(&stage)[0].contains("no answer"));
}

#[tokio::test]
async fn what_changes_nothing_shown_has_nothing_read_again() {
    let stage = test_app();
    let run = stage.pushed("shop").await;
    stage.pushed("other").await;
    let kept = stage.app.facts_of(&run.service).unwrap();
    stage.pushed("other").await;
    let refs = [("refs/heads/main".to_owned(), commit(1))].into();
    let listed = Listed { refs, default_branch: Some("main".into()) };
    let nothing_new = stage.app.poll_outcome(&run.service, &listed, None).unwrap();
    stage.perform(&run.service, EffectKind::PollRepository, nothing_new).await;
    assert!(Arc::ptr_eq(&kept, &stage.app.facts_of(&run.service).unwrap()));
    stage.pushed("shop").await;
    assert!(!Arc::ptr_eq(&kept, &stage.app.facts_of(&run.service).unwrap()));
}

#[tokio::test]
async fn no_more_services_are_kept_than_the_configuration_allows() {
    let stage = test_app_with(|config| config.bounds.board_services_in_memory_max = 2);
    for service in ["a", "b", "c"] {
        stage.pushed(service).await;
    }
    assert_eq!(stage.app.board().unwrap().len(), 3);
    assert_eq!(stage.app.board_known.len(), 2);
    assert!(stage.app.service_row(&"nothing".parse().unwrap()).is_err());
    assert_eq!(stage.app.board_known.len(), 2);
}

#[tokio::test]
async fn runs_that_wait_are_numbered_over_all_services() {
    let stage = test_app();
    for service in ["a", "b", "a"] {
        stage.pushed(service).await;
    }
    let places: Vec<_> = stage.app.board().unwrap().into_iter().map(|row| row.why).collect();
    let place = |why: &Why| match why {
        Why::RunQueued { position, of } => (*position, *of),
        other => panic!("{other:?}"),
    };
    // The newest of a is the third in turn.
    assert_eq!(places.iter().map(place).collect::<Vec<_>>(), [(3, 3), (2, 3)]);
}
