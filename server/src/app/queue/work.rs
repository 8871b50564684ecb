//! The work for runners: which runs wait, in which order they are given out, and who has which. Not here: giving them out
//! (`agents`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pipelines::{
    effect::{Effect, PendingEffect},
    ids::{RunId, RunnerName, ServiceName},
    time::UnixMs,
};

/// The work for runners.
#[derive(Debug, Default)]
pub struct Work {
    /// Runs that wait, in the order in which they are given out: of the service with the fewest runs under way the oldest.
    pub waiting: Vec<RunId>,
    /// Runs that a runner has.
    pub held: BTreeMap<RunId, RunnerName>,
    places: HashMap<RunId, usize>,
}

impl Work {
    pub(super) fn of<'a>(pending: impl Iterator<Item = &'a PendingEffect>) -> Self {
        let mut held = BTreeMap::new();
        let mut asked: Vec<(UnixMs, &RunId)> = Vec::new();
        for one in pending {
            match &one.effect {
                Effect::ExecuteRun { run } => asked.push((one.asked_at, run)),
                Effect::ExpireLease { run, runner, .. } => drop(held.insert(run.clone(), runner.clone())),
                _ => {}
            }
        }
        asked.sort();
        let mut under_way: BTreeMap<&ServiceName, usize> = BTreeMap::new();
        let mut queues: BTreeMap<&ServiceName, VecDeque<(UnixMs, &RunId)>> = BTreeMap::new();
        for (at, run) in asked {
            if held.contains_key(run) {
                *under_way.entry(&run.service).or_default() += 1;
            } else {
                queues.entry(&run.service).or_default().push_back((at, run));
            }
        }
        let mut waiting = Vec::new();
        let mut next: BTreeSet<(usize, UnixMs, &ServiceName)> = queues
            .iter()
            .filter_map(|(service, queue)| {
                Some((under_way.get(service).copied().unwrap_or(0), queue.front()?.0, *service))
            })
            .collect();
        while let Some((busy, _, service)) = next.pop_first() {
            let Some(queue) = queues.get_mut(service) else { continue };
            waiting.extend(queue.pop_front().map(|(_, run)| run.clone()));
            next.extend(queue.front().map(|(at, _)| (busy + 1, *at, service)));
        }
        let places = waiting.iter().enumerate().map(|(index, run)| (run.clone(), index + 1)).collect();
        Self { waiting, held, places }
    }

    /// The place of a run among those that wait, from 1.
    #[must_use]
    pub fn place(&self, run: &RunId) -> Option<usize> {
        self.places.get(run).copied()
    }
}
