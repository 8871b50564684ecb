//! Turns, lanes and counts of the pending effects.

use pipelines::{
    effect::Effect,
    ids::{ReleaseId, RunId},
};

use super::*;

fn pending(effect: Effect) -> (String, PendingEffect) {
    let not_before = effect.due_at();
    let pending = PendingEffect { effect, asked_by: 1, asked_at: UnixMs(0), failures: 0, not_before, last_error: None };
    (pending.effect.key(), pending)
}

fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}

fn deploy(service: &str, number: u32) -> Effect {
    Effect::DeployTest { release: ReleaseId::new(name(service), number) }
}

fn promote(service: &str, number: u32) -> Effect {
    Effect::Promote { release: ReleaseId::new(name(service), number) }
}

fn hook(service: &str, delivery: u64) -> Effect {
    Effect::ProcessDelivery { delivery, service: name(service) }
}

fn queue(effects: impl IntoIterator<Item = Effect>) -> EffectQueue {
    EffectQueue::new(effects.into_iter().map(pending).collect(), 8)
}

fn lease(queue: &EffectQueue, limit: usize) -> Vec<String> {
    queue.lease_due(UnixMs(5), limit).0.into_iter().map(|(key, _)| key).collect()
}

fn done(queue: &EffectQueue, key: &str) {
    queue.take(EffectsChanged { gone: vec![key.into()], ..EffectsChanged::default() });
    queue.release(key);
}

#[test]
fn a_lane_is_performed_one_by_one_and_services_side_by_side() {
    let queue = queue([deploy("a", 1), deploy("a", 2), deploy("b", 1)]);
    assert_eq!(lease(&queue, 10), ["deploy-test/a/1", "deploy-test/b/1"]);
    // Withdrawn while it is being performed: what comes after it still waits for its end.
    queue.take(EffectsChanged { gone: vec!["deploy-test/a/1".into()], ..EffectsChanged::default() });
    assert_eq!(lease(&queue, 10), [""; 0]);
    queue.release("deploy-test/a/1");
    assert_eq!(lease(&queue, 10), ["deploy-test/a/2"]);
}

#[test]
fn what_is_not_due_says_when_and_takes_no_lane() {
    let poll = Effect::PollRepository { service: name("a"), due_at: UnixMs(9) };
    let queue = queue([poll, hook("a", 1)]);
    let (due, next) = queue.lease_due(UnixMs(5), 10);
    assert_eq!((due.len(), next), (1, Some(UnixMs(9))));
}

#[test]
fn a_service_with_a_thousand_hooks_does_not_delay_another() {
    let flood = (1..=1_000).map(|number| hook("flooded", number));
    let queue = queue(flood.chain([hook("quiet", 1_001), deploy("quiet", 1), hook("zebra", 1_002)]));
    // One place: the turns go round, and the quiet ones are through after six of them.
    let mut order = Vec::new();
    for _ in 0..6 {
        let [key] = lease(&queue, 1).try_into().unwrap();
        done(&queue, &key);
        order.push(key.replace('0', ""));
    }
    let expected = [
        "process-delivery/1",
        "deploy-test/quiet/1",
        "process-delivery/12",
        "process-delivery/2",
        "process-delivery/11",
        "process-delivery/3",
    ];
    assert_eq!(order, expected);
    assert_eq!(queue.waiting_of(&name("flooded")).hooks, 997);
}

#[test]
fn a_service_takes_no_more_places_than_it_may() {
    let queue = EffectQueue::new((1..=40).map(|number| pending(promote("a", number))).collect(), 8);
    assert_eq!(lease(&queue, 32).len(), 8);
    assert_eq!(queue.waiting().performing, 8);
    queue.take(EffectsChanged { pending: vec![pending(promote("b", 1))], ..EffectsChanged::default() });
    assert_eq!(lease(&queue, 24), ["promote/b/1"], "its place was kept free");
    done(&queue, "promote/a/1");
    assert_eq!(lease(&queue, 24).len(), 1);
}

#[test]
fn runs_of_a_service_that_has_many_come_after_the_first_of_each() {
    let run = |service: &str, number: u32, asked_at: u64| {
        let (key, pending) = pending(Effect::ExecuteRun { run: RunId::new(name(service), number) });
        (key, PendingEffect { asked_at: UnixMs(asked_at), ..pending })
    };
    let many = (1..=100).map(|number| run("many", number, u64::from(number)));
    let queue = EffectQueue::new(many.chain([run("late", 1, 500), run("late", 2, 501)]).collect(), 8);
    let runs: Vec<String> = queue.work().waiting.iter().take(5).map(ToString::to_string).collect();
    assert_eq!(runs, ["many/1", "late/1", "many/2", "late/2", "many/3"]);
    assert_eq!(queue.fullest(|waiting| waiting.runs), Some((name("many"), 100)));
    assert_eq!(lease(&queue, 10), [""; 0], "they are for runners");
}

#[test]
fn what_is_asked_anew_or_failed_while_it_is_performed_is_performed_afterwards() {
    let queue = queue([hook("a", 1)]);
    let [key] = lease(&queue, 10).try_into().unwrap();
    let (_, asked_anew) = pending(hook("a", 1));
    let asked_anew = PendingEffect { asked_by: 2, ..asked_anew };
    queue.take(EffectsChanged { pending: vec![(key.clone(), asked_anew.clone())], ..EffectsChanged::default() });
    assert_eq!(lease(&queue, 10), [""; 0]);
    queue.release(&key);
    assert_eq!(lease(&queue, 10), [key.as_str()]);
    queue.retry(&key, PendingEffect { failures: 1, not_before: UnixMs(7), ..asked_anew });
    queue.release(&key);
    assert_eq!(queue.lease_due(UnixMs(6), 10), (Vec::new(), Some(UnixMs(7))));
    assert_eq!(queue.hurry("poll-repository/a", UnixMs(6)), Hurried::Absent);
    assert_eq!(queue.hurry(&key, UnixMs(6)), Hurried::Due);
    assert_eq!(queue.lease_due(UnixMs(6), 10).0.len(), 1);
    assert_eq!(queue.hurry(&key, UnixMs(6)), Hurried::Underway);
    done(&queue, &key);
    assert_eq!((queue.waiting(), queue.counts().len()), (Waiting::default(), 0));
}

#[test]
fn what_waits_is_counted_by_what_it_is() {
    let run = RunId::new(name("a"), 1);
    let held = Effect::ExpireHold { run: RunId::new(name("a"), 2), due_at: UnixMs(9) };
    let mail = Effect::SendCodeMail {
        release: ReleaseId::new(name("b"), 1),
        round: 1,
        tester: "qa@example.com".into(),
        serial: 1,
    };
    let queue = queue([hook("a", 1), Effect::ExecuteRun { run }, held, mail, deploy("b", 1)]);
    let expected = Waiting { effects: 5, performing: 0, hooks: 1, runs: 1, mails: 1 };
    assert_eq!(queue.waiting(), expected);
    assert_eq!(queue.waiting_of(&name("b")), Waiting { effects: 2, mails: 1, ..Waiting::default() });
    assert_eq!(queue.of_service(&name("b")).len(), 2);
    lease(&queue, 10);
    assert_eq!(queue.waiting().performing, 3);
}

#[test]
fn runs_are_given_out_fairly_between_services() {
    let at = |effect: Effect, at: u64| (effect.key(), PendingEffect { asked_at: UnixMs(at), ..pending(effect).1 });
    let run = |text: &str| text.parse::<RunId>().unwrap();
    let asked = |text: &str, ms| at(Effect::ExecuteRun { run: run(text) }, ms);
    let held = |text: &str| {
        let runner = "r".parse().unwrap();
        pending(Effect::ExpireLease { run: run(text), runner, attempt: 1, due_at: UnixMs(0) })
    };
    let effects = vec![
        asked("busy/1", 1),
        held("busy/1"),
        asked("busy/2", 2),
        asked("busy/3", 3),
        asked("calm/1", 9),
        asked("calm/2", 10),
    ];
    let queue = EffectQueue::new(effects, 8);
    let work = queue.work();
    let order: Vec<String> = work.waiting.iter().map(ToString::to_string).collect();
    assert_eq!(order, ["calm/1", "busy/2", "calm/2", "busy/3"]);
    assert_eq!((work.held.len(), work.place(&run("busy/2")), work.place(&run("busy/1"))), (1, Some(2), None));
    queue.take(EffectsChanged { gone: vec!["expire-lease/busy/1".into()], ..EffectsChanged::default() });
    assert_eq!(queue.work().waiting[0], run("busy/1"), "what was lost is first again");
}
