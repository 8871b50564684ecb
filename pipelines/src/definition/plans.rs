//! From the pipeline file to what the rest of the domain works with: who tests, how traffic moves, and whether a trigger
//! makes a release or runs a step. Nothing here reads text.

use super::model::{Check, Definition, Event, Judge, Strategy, Test, When};
use super::names::Glob;
use crate::plan;
use crate::trigger::{Trigger, TriggerKind};

impl Definition {
    /// Whether the trigger makes a release: first what is registered bounds it (the release branch, or a tag), then `on`
    /// narrows that.
    ///
    /// | `on` | the release branch | a tag | anything else |
    /// |---|---|---|---|
    /// | left out | yes | no | no |
    /// | `branches` only | where a pattern fits it | no | no |
    /// | `tags` only | no | where a pattern fits it | no |
    /// | both | where a pattern fits it | where a pattern fits it | no |
    pub fn releases(&self, trigger: &Trigger, release_branch: &str) -> bool {
        if !trigger.may_release(release_branch) {
            return false;
        }
        let fits = |globs: &Option<Vec<Glob>>, name| globs.as_ref().is_some_and(|globs| any_fits(globs, name));
        match (&self.on, trigger.branch(), trigger.tag()) {
            (None, branch, _) => branch.is_some(),
            (Some(on), Some(branch), _) => fits(&on.branches, branch),
            (Some(on), None, Some(tag)) => fits(&on.tags, tag),
            (Some(_), None, None) => false,
        }
    }

    /// How many of whom decide, and until when.
    pub fn test_plan(&self) -> plan::TestPlan {
        let Test { testers, approvals, expires, deputies } = &self.test;
        plan::TestPlan {
            testers: testers.iter().map(ToString::to_string).collect(),
            approvals: *approvals,
            deputies: deputies.iter().map(ToString::to_string).collect(),
            expires_ms: expires.as_millis(),
        }
    }

    /// How traffic moves to a new revision, and who says no.
    pub fn production_plan(&self) -> plan::ProductionPlan {
        let production = &self.production;
        let strategy = match production.strategy {
            Strategy::Rolling => plan::Strategy::Rolling,
            Strategy::BlueGreen => plan::Strategy::BlueGreen {
                preview_ms: production.preview.unwrap_or(super::Production::DEFAULT_PREVIEW).as_millis(),
                keep_ms: production.keep.unwrap_or(super::Production::DEFAULT_KEEP).as_millis(),
            },
            Strategy::Canary => plan::Strategy::Canary {
                steps: production
                    .steps
                    .iter()
                    .map(|step| plan::CanaryStep {
                        weight_percent: step.weight.percent(),
                        hold_ms: step.hold.as_millis(),
                    })
                    .collect(),
            },
        };
        let judge = production.judge.clone().unwrap_or_default();
        let Judge { compare, min_requests, insufficient: _, insufficient_limit } = judge;
        plan::ProductionPlan {
            strategy,
            judge: plan::JudgePolicy {
                checks: production.checks.iter().map(check).collect(),
                compare_with_stable: compare,
                min_requests,
                insufficient_limit_ms: insufficient_limit.as_millis(),
            },
        }
    }
}

/// A check in the judge's units: percent for rates, milliseconds for latencies.
fn check(check: &Check) -> plan::Check {
    let limit = match check {
        Check::SuccessRate(limit) => f64::from(limit.0.as_ppm()) / 10_000.0,
        Check::LatencyP50(limit) | Check::LatencyP95(limit) | Check::LatencyP99(limit) => {
            limit.0.as_duration().as_secs_f64() * 1_000.0
        }
    };
    plan::Check { metric: check.metric(), limit }
}

fn any_fits(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

impl When {
    /// Whether a step with this `when` runs for the trigger.
    pub fn holds(&self, trigger: &Trigger) -> bool {
        let event = self.event.as_ref().is_none_or(|events| events.contains(&Event::of(trigger.kind)));
        let name_fits = |globs: &Option<Vec<Glob>>, name: Option<&str>| {
            globs.as_ref().is_none_or(|globs| name.is_some_and(|name| any_fits(globs, name)))
        };
        // The head of a pull request is no branch of ours, whatever its ref is called.
        let branch = trigger.branch().filter(|_| trigger.kind != TriggerKind::PullRequest);
        event && name_fits(&self.branch, branch) && name_fits(&self.tag, trigger.tag())
    }
}

impl Event {
    /// The event of a trigger.
    pub fn of(kind: TriggerKind) -> Self {
        match kind {
            TriggerKind::Push => Event::Push,
            TriggerKind::Tag => Event::Tag,
            TriggerKind::PullRequest => Event::PullRequest,
            TriggerKind::Manual => Event::Manual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::TriggerSource;

    fn trigger(kind: TriggerKind, git_ref: &str) -> Trigger {
        Trigger {
            kind,
            source: TriggerSource::Hook,
            git_ref: git_ref.to_owned(),
            commit: "a".repeat(40).parse().unwrap(),
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

    fn definition(on: &str) -> Definition {
        let text = format!("service: a\nbase: dockerfile@1\ntest: {{testers: [a@b.c]}}\n{on}\n");
        let (definition, found) = super::super::parse(".windlass.yaml", &text);
        assert!(found.is_empty(), "{found:?}");
        definition.unwrap()
    }

    #[test]
    fn what_is_registered_bounds_and_on_only_narrows() {
        use TriggerKind::{Manual, PullRequest, Push, Tag};
        let cases = [
            ("", Push, "refs/heads/main", true),
            ("", Push, "refs/heads/dev", false),
            ("", Tag, "refs/tags/v1", false),
            ("", Manual, "refs/heads/main", true),
            ("", PullRequest, "refs/heads/main", false),
            ("", PullRequest, "refs/pull/7/head", false),
            ("on: {branches: [main]}", Push, "refs/heads/main", true),
            ("on: {branches: [main]}", Tag, "refs/tags/main", false),
            // Naming another branch does not widen what is registered.
            ("on: {branches: ['**']}", Push, "refs/heads/dev", false),
            ("on: {branches: ['**']}", Push, "refs/heads/main", true),
            ("on: {branches: [dev]}", Push, "refs/heads/main", false),
            ("on: {branches: []}", Push, "refs/heads/main", false),
            ("on: {tags: ['v*']}", Tag, "refs/tags/v1", true),
            ("on: {tags: ['v*']}", Tag, "refs/tags/nightly", false),
            ("on: {tags: ['v*']}", Push, "refs/heads/main", false),
            ("on: {tags: ['v*']}", Manual, "refs/tags/v1", true),
            ("on: {branches: main, tags: 'v*'}", Push, "refs/heads/main", true),
            ("on: {branches: main, tags: 'v*'}", Tag, "refs/tags/v2", true),
            ("on: {branches: main, tags: 'v*'}", PullRequest, "refs/pull/7/head", false),
        ];
        for (on, kind, git_ref, expected) in cases {
            let found = definition(on).releases(&trigger(kind, git_ref), "main");
            assert_eq!(found, expected, "{on:?} {kind:?} {git_ref}");
        }
        let fork = Trigger { from_fork: true, ..trigger(Push, "refs/heads/main") };
        assert!(!definition("").releases(&fork, "main"));
    }

    #[test]
    fn a_step_runs_where_all_of_its_when_holds() {
        let when = |text: &str| {
            let step = format!("steps: [{{name: a, image: b, commands: c, when: {text}}}]");
            definition(&step).steps[0].when.clone().unwrap()
        };
        let push = trigger(TriggerKind::Push, "refs/heads/release/1");
        let tag = trigger(TriggerKind::Tag, "refs/tags/v1");
        let pull = trigger(TriggerKind::PullRequest, "refs/pull/7/head");
        assert!(when("{event: push}").holds(&push));
        assert!(!when("{event: [tag, pull_request]}").holds(&push));
        assert!(when("{event: [tag, pull_request]}").holds(&pull));
        assert!(when("{branch: 'release/*'}").holds(&push));
        assert!(!when("{branch: ['**']}").holds(&tag));
        assert!(!when("{branch: ['**']}").holds(&pull));
        assert!(when("{event: tag, tag: 'v*'}").holds(&tag));
        assert!(!when("{event: push, tag: 'v*'}").holds(&tag));
    }

    #[test]
    fn the_plan_has_the_judges_units() {
        let text = "production: {strategy: canary, steps: [{weight: 5, hold: 30s}], \
                    checks: [{success_rate: '>= 99.5%'}, {latency_p99: '<= 500ms'}]}";
        let plan = definition(text).production_plan();
        let steps = vec![plan::CanaryStep { weight_percent: 5, hold_ms: 30_000 }];
        assert_eq!(plan.strategy, plan::Strategy::Canary { steps });
        assert_eq!(
            plan.judge.checks,
            [
                plan::Check { metric: plan::Metric::SuccessRate, limit: 99.5 },
                plan::Check { metric: plan::Metric::LatencyP99, limit: 500.0 },
            ]
        );
        assert_eq!(plan.judge.min_requests, plan::JudgePolicy::default().min_requests);
        assert_eq!(definition("").production_plan().strategy, plan::Strategy::Rolling);
    }
}
