//! What may be forgotten of a service: runs with their releases and rollouts, and images. Pure: it looks at records and
//! says; whoever asked removes. What is live, may be rolled back to, waits or runs is never among it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::Digest,
    release::{Release, ReleaseState},
    rollout::Rollout,
    run::{Run, RunState},
    time::UnixMs,
    train::Train,
};

/// How much is kept. Something goes only when it is over both bounds, the number and the age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The newest runs of a service that are kept, with their releases and rollouts.
    pub runs_keep: usize,
    /// Age up to which every run is kept, in milliseconds.
    pub runs_age_ms: u64,
    /// The newest images of a service that are kept.
    pub images_keep: usize,
    /// Age up to which every image is kept, in milliseconds.
    pub images_age_ms: u64,
    /// The last releases that were live and can be rolled back to.
    pub rollback_keep: usize,
}

/// What has to be known of a run.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// Its number.
    pub number: u32,
    /// It has ended.
    pub is_final: bool,
    /// A runner has it.
    pub is_at_work: bool,
    /// When it ended, or began to be.
    pub at: UnixMs,
    /// Its image.
    pub digest: Option<Digest>,
    /// The tag of its image.
    pub tag: Option<String>,
    /// What its image was made from.
    pub inputs: Option<Digest>,
}

impl From<&Run> for RunFacts {
    fn from(run: &Run) -> Self {
        Self {
            number: run.id.number,
            is_final: run.state.is_final(),
            is_at_work: matches!(run.state, RunState::Running { .. } | RunState::Cancelling { .. }),
            at: run.finished_at.unwrap_or(run.created_at),
            digest: run.digest().cloned(),
            tag: run.tag.clone(),
            inputs: run.inputs.clone(),
        }
    }
}

/// What has to be known of a release.
#[derive(Clone, Debug)]
pub struct ReleaseFacts {
    /// Its number.
    pub number: u32,
    /// It is on its way.
    pub is_under_way: bool,
    /// Its testers may be asked once more, and then it is deployed again.
    pub is_expired: bool,
    /// When it was live last.
    pub live_at: Option<UnixMs>,
    /// Its image.
    pub digest: Digest,
    /// The tag of its image.
    pub tag: String,
}

impl From<&Release> for ReleaseFacts {
    fn from(release: &Release) -> Self {
        Self {
            number: release.id.number,
            is_under_way: release.state.is_under_way(),
            is_expired: release.state == ReleaseState::Expired,
            live_at: release.live_at,
            digest: release.digest.clone(),
            tag: release.tag.clone(),
        }
    }
}

/// What has to be known of a rollout.
#[derive(Clone, Copy, Debug)]
pub struct RolloutFacts {
    /// Its number.
    pub number: u32,
    /// Of which release.
    pub release: u32,
    /// The release that had the traffic before.
    pub stable: Option<u32>,
    /// It is over.
    pub is_final: bool,
}

impl From<&Rollout> for RolloutFacts {
    fn from(rollout: &Rollout) -> Self {
        Self {
            number: rollout.id.number,
            release: rollout.release.number,
            stable: rollout.stable.as_ref().map(|stable| stable.release),
            is_final: rollout.state.is_final(),
        }
    }
}

/// Everything that is remembered of a service, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Remembered<'a> {
    /// What moves now.
    pub train: &'a Train,
    /// Runs.
    pub runs: &'a [RunFacts],
    /// Releases.
    pub releases: &'a [ReleaseFacts],
    /// Rollouts.
    pub rollouts: &'a [RolloutFacts],
    /// Numbers of releases and runs that a pending effect is about.
    pub pending: &'a BTreeSet<u32>,
}

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgettable {
    /// Numbers of runs; of the release with the same number and its approval too.
    pub runs: BTreeSet<u32>,
    /// Numbers of rollouts, each with the release that it is of.
    pub rollouts: BTreeMap<u32, u32>,
    /// Images of the test registry, by digest.
    pub images: BTreeSet<Digest>,
    /// Images that must stay: no other is needed on any machine.
    pub images_kept: BTreeSet<Digest>,
    /// Tags of the images that must stay.
    pub tags_kept: BTreeSet<String>,
}

/// The releases that stay whatever their number and age.
#[must_use]
pub fn held(remembered: &Remembered<'_>, policy: &Policy) -> BTreeSet<u32> {
    let Remembered { train, releases, rollouts, pending, .. } = remembered;
    let mut held: BTreeSet<u32> = pending.iter().copied().collect();
    held.extend(train.releases());
    held.extend(releases.iter().filter(|release| release.is_under_way).map(|release| release.number));
    for rollout in rollouts.iter().filter(|rollout| !rollout.is_final || train.rollout == Some(rollout.number)) {
        held.insert(rollout.release);
        held.extend(rollout.stable);
    }
    let mut was_live: Vec<&ReleaseFacts> = releases.iter().filter(|release| release.live_at.is_some()).collect();
    was_live.sort_by_key(|release| std::cmp::Reverse(release.live_at));
    let back = was_live.into_iter().filter(|release| train.live != Some(release.number));
    held.extend(back.take(policy.rollback_keep).map(|release| release.number));
    held
}

/// What may be forgotten of a service at this moment.
#[must_use]
pub fn forgettable(remembered: &Remembered<'_>, policy: &Policy, at: UnixMs) -> Forgettable {
    let held = held(remembered, policy);
    let expired: BTreeSet<u32> =
        remembered.releases.iter().filter(|release| release.is_expired).map(|release| release.number).collect();
    let mut found = Forgettable::default();
    let mut images = 0;
    for (place, run) in remembered.runs.iter().enumerate() {
        let age_ms = at.since_ms(run.at);
        let may_go = run.is_final && !held.contains(&run.number);
        if may_go && place >= policy.runs_keep && age_ms > policy.runs_age_ms {
            found.runs.insert(run.number);
        }
        let Some(digest) = &run.digest else { continue };
        images += 1;
        let is_old = images > policy.images_keep && age_ms > policy.images_age_ms;
        if may_go && is_old && (!expired.contains(&run.number) || found.runs.contains(&run.number)) {
            found.images.insert(digest.clone());
        } else {
            found.images_kept.insert(digest.clone());
            found.tags_kept.extend(run.tag.clone());
        }
    }
    // A release may be there whose run is not; its image is kept all the same.
    for release in remembered.releases.iter().filter(|release| held.contains(&release.number)) {
        found.images_kept.insert(release.digest.clone());
        found.tags_kept.insert(release.tag.clone());
    }
    // One image may be the result of several runs.
    found.images.retain(|digest| !found.images_kept.contains(digest));
    let goes = |rollout: &&RolloutFacts| found.runs.contains(&rollout.release) && rollout.is_final;
    found.rollouts = remembered.rollouts.iter().filter(goes).map(|rollout| (rollout.number, rollout.release)).collect();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        plan::Strategy,
        samples::{commit, digest, name, plan, release_id, run_id, trigger},
    };

    const DAY_MS: u64 = 86_400_000;
    const POLICY: Policy =
        Policy { runs_keep: 3, runs_age_ms: DAY_MS, images_keep: 2, images_age_ms: DAY_MS, rollback_keep: 2 };
    const NOW: UnixMs = UnixMs(100 * DAY_MS);

    fn run(number: u32, image: u32, at: UnixMs) -> Run {
        let mut run = Run::new(run_id(number), trigger(number), true, None, at);
        run.state = RunState::Succeeded { digest: digest(image) };
        run.finished_at = Some(at);
        run.tag = Some(format!("t{number}"));
        run
    }

    fn release(number: u32, state: ReleaseState, live_at: Option<UnixMs>) -> Release {
        Release {
            id: release_id(number),
            digest: digest(number),
            tag: format!("t{number}"),
            plan: plan(Strategy::Rolling),
            commit: commit(number),
            state,
            created_at: UnixMs(0),
            changed_at: UnixMs(0),
            tested_at: None,
            approved: None,
            promoted_at: None,
            live_at,
        }
    }

    fn retired(number: u32) -> Release {
        release(number, ReleaseState::Retired { by: number + 1 }, Some(UnixMs(u64::from(number))))
    }

    #[test]
    fn the_newest_the_live_and_those_to_roll_back_to_stay_and_the_rest_goes() {
        let mut train = Train::new(name());
        train.live = Some(4);
        train.newest_release = Some(12);
        let mut releases: Vec<Release> = (1..=12).map(retired).collect();
        releases[3].state = ReleaseState::Live;
        releases[4] = release(5, ReleaseState::Expired, None);
        releases[5] = release(6, ReleaseState::AwaitingApproval, None);
        releases[6] = release(7, ReleaseState::Rejected { by: "x".into(), comment: String::new() }, None);
        for late in [8, 9, 10, 11, 12] {
            releases[late as usize - 1] = release(late, ReleaseState::Superseded { by: 12 }, None);
        }
        releases.reverse();
        let runs: Vec<RunFacts> = (1..=12).rev().map(|number| (&run(number, number, UnixMs(0))).into()).collect();
        let releases: Vec<ReleaseFacts> = releases.iter().map(Into::into).collect();
        let none = BTreeSet::new();
        let remembered = Remembered { train: &train, runs: &runs, releases: &releases, rollouts: &[], pending: &none };
        let found = forgettable(&remembered, &POLICY, NOW);
        // 12, 11, 10 are the newest; 4 is live; 3 and 2 were live last; 6 waits for its testers.
        assert_eq!(found.runs, [1, 5, 7, 8, 9].into());
        let images: BTreeSet<Digest> = [1, 5, 7, 8, 9, 10].map(digest).into();
        assert_eq!(found.images, images);
        let pending = [8].into();
        let found = forgettable(&Remembered { pending: &pending, ..remembered }, &POLICY, NOW);
        assert!(!found.runs.contains(&8) && !found.images.contains(&digest(8)));
        // Young ones stay, however many there are.
        assert_eq!(forgettable(&remembered, &POLICY, UnixMs(DAY_MS)).runs, [].into());
    }

    #[test]
    fn an_image_of_several_runs_stays_as_long_as_one_of_them_needs_it() {
        let mut train = Train::new(name());
        train.live = Some(1);
        let image = |number| if number == 5 { 1 } else { number };
        let runs: Vec<RunFacts> = (1..=9).rev().map(|number| (&run(number, image(number), UnixMs(0))).into()).collect();
        let releases = [(&release(1, ReleaseState::Live, Some(UnixMs(1)))).into()];
        let none = BTreeSet::new();
        let remembered = Remembered { train: &train, runs: &runs, releases: &releases, rollouts: &[], pending: &none };
        let found = forgettable(&remembered, &POLICY, NOW);
        assert!(found.runs.contains(&5) && !found.images.contains(&digest(1)), "{found:?}");
        assert!(found.images.contains(&digest(4)));
    }

    proptest! {
        #[test]
        fn nothing_that_is_held_or_moves_is_ever_forgotten(
            states in proptest::collection::vec(0..6_u8, 0..30),
            live in proptest::option::of(1..30_u32),
            keep in (0..4_usize, 0..4_usize, 0..4_usize),
        ) {
            let mut train = Train::new(name());
            train.live = live;
            let mut runs = Vec::new();
            let mut releases = Vec::new();
            for (number, state) in (1..).zip(&states) {
                let mut run = run(number, number, UnixMs(0));
                match state {
                    0 => run.state = RunState::Queued,
                    1 => run.state = RunState::Cancelled,
                    2 => releases.insert(0, release(number, ReleaseState::AwaitingApproval, None)),
                    3 => releases.insert(0, release(number, ReleaseState::RollingOut, None)),
                    4 => releases.insert(0, retired(number)),
                    _ => {}
                }
                runs.insert(0, run);
            }
            let policy = Policy {
                runs_keep: keep.0, runs_age_ms: 0, images_keep: keep.1, images_age_ms: 0, rollback_keep: keep.2,
            };
            let none = BTreeSet::new();
            let runs: Vec<RunFacts> = runs.iter().map(Into::into).collect();
            let releases: Vec<ReleaseFacts> = releases.iter().map(Into::into).collect();
            let remembered =
                Remembered { train: &train, runs: &runs, releases: &releases, rollouts: &[], pending: &none };
            let held = held(&remembered, &policy);
            let found = forgettable(&remembered, &policy, NOW);
            for run in &runs {
                let number = run.number;
                let stays = !run.is_final || held.contains(&number) || live == Some(number);
                prop_assert!(!(stays && found.runs.contains(&number)), "{number} {found:?}");
                prop_assert!(!(stays && found.images.contains(&digest(number))), "{number} {found:?}");
            }
            let was_live = releases.iter().filter(|release| release.live_at.is_some()).count();
            let kept = releases.iter().filter(|release| release.live_at.is_some() && !found.runs.contains(&release.number));
            prop_assert!(kept.count() >= was_live.min(keep.2));
            prop_assert!(runs.len() - found.runs.len() >= runs.len().min(keep.0));
        }
    }
}
