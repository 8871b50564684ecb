//! The sentences of the queue and the runners.

use super::{Lang, Text};

impl Text<'_> {
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
