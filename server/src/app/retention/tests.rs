//! Records, logs and hooks that are over their bounds go, what is needed stays, and a kill in between loses nothing.

use std::collections::BTreeMap;

use pipelines::{ids::RunnerName, plan::Strategy, protocol::ServerReply};

use super::*;
use crate::{
    store::{NewDelivery, embedded::EmbeddedStore, records::HookContent},
    testing::{Stage, test_app_with},
};

fn tight(config: &mut crate::config::Config) {
    config.bounds.lease_wait_ms = 1;
    config.retention = Retention {
        runs_keep: 2,
        runs_days: 1,
        images_keep: 1,
        images_days: 1,
        rollback_keep: 1,
        deliveries_keep: 2,
        deliveries_days: 1,
        logs_days: 2,
        ..Retention::default()
    };
}

/// Runs 1 to 6 of `shop`, each with a log and all but the last live in their time, a week ago.
async fn with_history() -> (Stage, ServiceName) {
    let stage = test_app_with(tight);
    for _ in 0..5 {
        stage.live("shop").await;
        stage.pass_ms(60_000);
    }
    let last = stage.pushed("shop").await;
    stage.built(&last, Strategy::Rolling).await;
    stage.pass_ms(7 * DAY_MS);
    (stage, last.service)
}

fn whole(stage: &Stage) {
    let store = EmbeddedStore::open(std::sync::Arc::clone(stage.engine())).unwrap();
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
}

async fn sweep(stage: &Stage, service: &ServiceName) -> Swept {
    let mut swept = Swept::default();
    let gone = stage.app.images_to_forget(service).await.unwrap().map(|(images, _)| images.doomed).unwrap_or_default();
    stage.app.forget_records(service, &gone, &mut swept).await.unwrap();
    stage.app.forget_logs(&mut swept).unwrap();
    swept
}

fn numbers(stage: &Stage, service: &ServiceName) -> Vec<u32> {
    stage.app.runs(service, Page::newest(100)).unwrap().iter().map(|run| run.id.number).collect()
}

#[tokio::test]
async fn what_is_over_its_bounds_goes_and_what_is_needed_stays() {
    let (stage, service) = with_history().await;
    let journal = stage.app.store().journal(None, None, 10_000).unwrap();
    let swept = sweep(&stage, &service).await;
    // 6 is on its way, 5 is live, 4 can be rolled back to.
    assert_eq!((numbers(&stage, &service), swept.runs, swept.runs_kept), (vec![6, 5, 4], 3, 3));
    assert_eq!(stage.app.logs().runs().unwrap(), ["shop/5", "shop/6"], "4 is over the age of logs");
    assert_eq!(swept.logs, 4);
    whole(&stage);
    assert_eq!(stage.app.store().journal(None, None, 10_000).unwrap(), journal, "the journal is kept");
    assert_eq!(sweep(&stage, &service).await.runs, 0, "once is enough");
    // It still can.
    let origin = pipelines::journal::Origin::server();
    let event = pipelines::train::Event::Rollback { to: 4, by: "mei".into(), reason: "prices".into() };
    stage.app.train_event(&service, origin, event).await.unwrap();
    sweep(&stage, &service).await;
    assert_eq!(numbers(&stage, &service), [6, 5, 4]);
}

#[tokio::test]
async fn an_image_that_goes_is_not_offered_to_a_run_any_more_and_no_run_begins_meanwhile() {
    let (stage, service) = with_history().await;
    let inputs = |number: u32| Digest::of(format!("inputs of shop/{number}").as_bytes());
    assert!(stage.app.store().image_of_inputs(&service, &inputs(2)).unwrap().is_some());
    stage.pushed("shop").await;
    let runner: RunnerName = "runner-1".parse().unwrap();
    let lease = || stage.asked_for_work(&runner, Vec::new());
    let (images, quiet) = stage.app.images_to_forget(&service).await.unwrap().unwrap();
    assert_eq!(images.forgettable.keys().map(String::as_str).collect::<Vec<_>>(), ["1", "2", "3"]);
    for number in 1..=6 {
        let known = stage.app.store().image_of_inputs(&service, &inputs(number)).unwrap();
        assert_eq!(known.is_some(), number > 3, "{number}");
    }
    assert!(matches!(lease().await, ServerReply::NoJob));
    drop(quiet);
    assert!(matches!(lease().await, ServerReply::Job(_)));
    assert!(stage.app.images_to_forget(&service).await.unwrap().is_none(), "a run is at work");
    // Nobody has looked after their images: they are remembered until somebody has.
    sweep(&stage, &service).await;
    assert_eq!(numbers(&stage, &service), [7, 6, 5, 4, 3, 2, 1]);
    whole(&stage);
}

#[tokio::test]
async fn a_kill_between_the_parts_of_a_sweep_loses_nothing_and_the_next_one_goes_on() {
    let (stage, service) = with_history().await;
    let (found, _) = stage.app.forgettable_of(&service).unwrap();
    // Killed after the rollouts.
    let rollouts = found.rollouts.into_keys().collect();
    stage.app.store().forget(Forget { rollouts, ..Forget::of(service.clone()) }).await.unwrap();
    whole(&stage);
    let stage = stage.with_config(tight);
    // Killed after some of the runs, before their logs.
    let inputs = stage.app.run(&RunId::new(service.clone(), 1)).unwrap().inputs;
    let forget = Forget { runs: vec![1], images: inputs.into_iter().collect(), ..Forget::of(service.clone()) };
    stage.app.store().forget(forget).await.unwrap();
    whole(&stage);
    assert!(stage.app.logs().runs().unwrap().contains(&"shop/1".to_owned()));
    let stage = stage.with_config(tight);
    let swept = sweep(&stage, &service).await;
    assert_eq!((numbers(&stage, &service), swept.logs), (vec![6, 5, 4], 4));
    whole(&stage);
}

#[tokio::test]
async fn logs_stay_within_their_space_and_hooks_within_their_number() {
    let (stage, service) = with_history().await;
    let stage = stage.with_config(|config| {
        tight(config);
        config.retention.logs_days = 1_000;
        config.retention.runs_keep = 100;
        config.retention.logs_bytes_max = 300;
    });
    for n in 0..5_u64 {
        let delivery = NewDelivery {
            service: service.clone(),
            forge: "gitea",
            forge_id: format!("{n}"),
            event: "ping".into(),
            at: UnixMs(stage.app.now().0 - 2 * DAY_MS),
            remote: String::new(),
            content: Ok(HookContent::Nothing { reason: "a ping".into() }),
        };
        stage.app.delivery_record(delivery).await.unwrap();
    }
    assert_eq!(sweep(&stage, &service).await.deliveries, 0, "they were not looked at yet");
    while let Some(pending) = stage.pending(&service, EffectKind::ProcessDelivery) {
        let Effect::ProcessDelivery { delivery, .. } = pending.effect else { unreachable!() };
        let outcome = stage.app.delivery_outcome(&service, delivery, &BTreeMap::new()).unwrap();
        stage.perform(&service, EffectKind::ProcessDelivery, outcome).await;
    }
    let swept = sweep(&stage, &service).await;
    assert_eq!((swept.deliveries, stage.app.deliveries(&service, None, 100).unwrap().len()), (3, 2));
    assert!(swept.log_bytes <= 300 || stage.app.logs().runs().unwrap() == ["shop/5", "shop/6"], "{swept:?}");
    assert_eq!(numbers(&stage, &service).len(), 6);
    whole(&stage);
}
