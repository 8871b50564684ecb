//! Numbers that are given once.

use pipelines::{journal::Origin, time::UnixMs};

use super::*;
use crate::store::engine::{EngineConfig, EngineKind, open};

#[tokio::test]
async fn an_effect_asked_for_after_a_restart_has_another_number_than_one_that_is_still_pending() {
    let config = EngineConfig { kind: EngineKind::Memory, ..EngineConfig::default() };
    let engine = open(std::path::Path::new(""), &config).unwrap();
    let service: ServiceName = "shop".parse().unwrap();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let store = EmbeddedStore::open(Arc::clone(&engine)).unwrap();
        // It writes no line: nothing in the journal has its number.
        let mut change = TrainChange::new(service.clone(), Origin::server(), UnixMs(0));
        change.ask = vec![Effect::PollRepository { service: service.clone(), due_at: UnixMs(0) }];
        let asked = store.train_change(change).await.unwrap().pending;
        numbers.extend(asked.into_iter().map(|(_, pending)| pending.asked_by));
    }
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}
