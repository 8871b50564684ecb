//! The sentences of the queue and the runners.

use super::{Lang, Text, phrases, words};
use crate::http::ui::runners::RunnerState;

words! {
    queue_and_runners: "Queue and runners", "队列与执行器";
    runners: "Runners", "执行器";
    queue_is_empty: "No run waits.", "没有等待的运行。";
    no_runners: "No runner yet.", "尚无执行器。";
    queue_place: "Place", "位置";
    why_head: "Why", "原因";
    waits_since: "Since", "等待";
    at_work: "At work", "工作中";
    heard: "Heard of", "心跳";
    labels: "Labels", "标签";
    embedded: "part of the server", "服务器内置";
    drain: "Drain", "排空";
    register_runner: "Register a runner", "注册执行器";
    register_runner_lead: "A token registers one runner and is good for a short time.", "一个令牌注册一个执行器，短期有效。";
    register_how: "On the runner’s machine, with the token on standard input:", "在执行器所在机器上运行，从标准输入给出令牌：";
}
phrases! {
    waiting_runs(t, count: u64) => if count == 0 { String::from("Waiting") } else { format!("Waiting: {count}") }, if count == 0 { String::from("等待中") } else { format!("等待中：{count}") };
    busy_of(t, busy: u64, of: u64) => format!("{busy} of {of}"), format!("{busy} / {of}");
    lost_with(t, names: &[String]) => format!("Begun anew: {} was lost.", t.list(names)), format!("已重新开始：{} 失联。", t.list(names));
    good_until(t, until_ms: &i64) => format!("good until {}", t.full(until_ms)), format!("有效至 {}", t.full(until_ms));
}

impl Text<'_> {
    /// The state of a runner.
    pub fn runner_state(&self, state: &RunnerState) -> &'static str {
        match state {
            RunnerState::Active => self.either("active", "正常"),
            RunnerState::Draining => self.either("draining", "排空中"),
            RunnerState::Silent => self.either("not heard of", "失联"),
        }
    }

    /// A verb of a runner.
    pub fn runner_verb(&self, verb: &str) -> &'static str {
        match verb {
            "resume" => self.either("Resume", "恢复"),
            _ => self.either("Drain", "排空"),
        }
    }

    /// No runner that is there could take a run that asks for these labels: the cause, and who acts.
    pub(super) fn no_runner(&self, labels: &str) -> (String, String) {
        let (cause, rest) = match (self.lang(), labels.is_empty()) {
            (Lang::En, true) => (
                "Queued, and no runner is there.".into(),
                "An operator has to start or register one; the run then starts by itself.",
            ),
            (Lang::En, false) => (
                format!("Queued, and no runner has the labels {labels}."),
                "An operator has to start or register one; the run then starts by itself.",
            ),
            (Lang::ZhCn, true) => ("排队中，没有可用的执行器。".into(), "需要运维人员启动或注册一个，之后会自动开始。"),
            (Lang::ZhCn, false) => {
                (format!("排队中，没有带标签 {labels} 的执行器。"), "需要运维人员启动或注册一个，之后会自动开始。")
            }
        };
        (cause, rest.to_owned())
    }
}
