//! The sentences of a rollout and its plots.

use super::{Text, phrases, words};
use crate::http::ui::Role;
use crate::http::ui::rollout::{CheckNote, RolloutState, RolloutView, Strategy, Verb};

words! {
    figures_title: "Weight and figures", "权重与指标";
    weight: "Weight", "权重";
    replaced: "Replaced", "替换进度";
    preview: "Preview", "预览";
    checks: "Checks", "检查项";
    check: "Check", "检查";
    verdict: "Verdict", "判定";
    last_verdicts: "last", "最近";
    passed: "passed", "已通过";
    held: "held", "暂停中";
    went_back: "went back", "已回退";
    no_checks: "No checks are set: the health of the containers decides.", "未设置检查项：以容器健康为准。";
}
phrases! {
    then_live(t) => "then live", "随后上线";
    left(t, ms: i64) => format!("{} left", t.duration(ms)), format!("还剩 {}", t.duration(ms));
    holds(t, ms: i64) => format!("holds {}", t.duration(ms)), format!("停留 {}", t.duration(ms));
    rollout_of(t, version: &str) => format!("rollout of {version}"), format!("{version} 的发布");
    where_version_is(t, service: &str, version: &str) => format!("Where {service} {version} is"), format!("{service} {version} 的进度");
    judged(t, every_ms: i64, since_ms: &Option<i64>) =>
        format!("judged every {}{}", t.duration(every_ms), since_ms.map_or(String::new(), |at| format!(", on requests since {}", t.clock(at)))),
        format!("每 {} 评判一次{}", t.duration(every_ms), since_ms.map_or(String::new(), |at| format!("，依据 {} 以来的请求", t.clock(at))));
    plot_title(t, measure: &str, from_ms: i64, to_ms: i64) =>
        format!("{measure}, new against stable, {} to {}", t.clock(from_ms), t.clock(to_ms)),
        format!("{measure}，新版本对比稳定版，{} 至 {}", t.clock(from_ms), t.clock(to_ms));
    plot_description(t, canary: Option<String>, stable: Option<String>, over: Option<(String, u64)>) => {
        let now = format!(
            "New {}, stable {} now.",
            canary.as_deref().unwrap_or("without data"),
            stable.as_deref().unwrap_or("without data")
        );
        match &over {
            Some((limit, 0)) => format!("{now} The new version kept the limit of {limit} all the time."),
            Some((limit, n)) => format!("{now} The new version broke the limit of {limit} at {}.", t.plural(*n, "point", "points")),
            None => now,
        }
    }, {
        let now = format!("当前新版本 {}，稳定版 {}。", canary.as_deref().unwrap_or("无数据"), stable.as_deref().unwrap_or("无数据"));
        match &over {
            Some((limit, 0)) => format!("{now}新版本始终满足限值 {limit}。"),
            Some((limit, n)) => format!("{now}新版本有 {n} 个点超出限值 {limit}。"),
            None => now,
        }
    };
}

impl Text<'_> {
    /// The title of a rollout: state, step.
    pub fn rollout_title(&self, v: &RolloutView) -> String {
        let (percent, step, of) = (v.percent, v.step, v.steps.len());
        let canary = |en: &str, zh: &str| {
            (
                format!("Canary {percent}\u{a0}%, step {step} of {of}, {en}"),
                format!("金丝雀 {percent}\u{a0}%，第 {step} / {of} 步，{zh}"),
            )
        };
        let plain = |en: &str, zh: &str| {
            let name = self.strategy(v.strategy);
            let mut chars = name.chars();
            let capital: String = chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect();
            (format!("{capital}, {en}"), format!("{name}，{zh}"))
        };
        let (en, zh) = match (v.state, v.strategy) {
            (RolloutState::Starting, _) => plain("starting", "启动中"),
            (RolloutState::Healthy, Strategy::Canary) => canary("healthy", "健康"),
            (RolloutState::Held, Strategy::Canary) => canary("held", "暂停"),
            (RolloutState::Paused, Strategy::Canary) => canary("paused", "已暂停"),
            (RolloutState::Healthy, Strategy::BlueGreen) => plain("the preview is healthy", "预览健康"),
            (RolloutState::Healthy, Strategy::Rolling) => {
                plain(&format!("{step} of {of} replaced"), &format!("已替换 {step} / {of}"))
            }
            (RolloutState::Held, _) => plain("held", "暂停"),
            (RolloutState::Paused, _) => plain("paused", "已暂停"),
            (RolloutState::RollingBack, _) => plain("going back", "回退中"),
            (RolloutState::RolledBack, Strategy::Canary) => {
                (format!("Rolled back by itself at {percent}\u{a0}%"), format!("在 {percent}\u{a0}% 时自动回滚"))
            }
            (RolloutState::RolledBack | RolloutState::Failed, _) => {
                (String::from("Went back by itself"), String::from("已自动回退"))
            }
            (RolloutState::Aborted, _) => (String::from("Aborted"), String::from("已中止")),
            (RolloutState::Done, _) => (format!("{} is live", v.version), format!("{} 已上线", v.version)),
        };
        self.pick(en, zh)
    }

    /// The line beneath the title: who takes over from whom, and the sentence of the moment.
    pub fn rollout_lead(&self, v: &RolloutView) -> String {
        let over = v.from.as_ref().map_or_else(
            || self.pick(format!("{} is the first version.", v.version), format!("{} 是首个版本。", v.version)),
            |from| self.pick(format!("{} takes over from {from}.", v.version), format!("{} 接替 {from}。", v.version)),
        );
        let why = self.why(&v.why);
        let full = matches!(
            v.state,
            RolloutState::Held
                | RolloutState::Paused
                | RolloutState::RolledBack
                | RolloutState::Failed
                | RolloutState::Aborted
                | RolloutState::RollingBack
        );
        let gap = self.either(" ", "");
        if full { format!("{over}{gap}{}{}", why.cause, why.rest) } else { format!("{over}{}", why.rest) }
    }

    /// A verb of a rollout.
    pub fn verb(&self, verb: &Verb) -> &'static str {
        match verb {
            Verb::Promote { .. } => self.either("Promote one step", "推进一步"),
            Verb::PromoteFully => self.either("Promote fully", "直接全量"),
            Verb::Pause { .. } => self.either("Pause", "暂停"),
            Verb::Resume => self.either("Resume", "继续"),
            Verb::Abort { .. } => self.either("Abort", "中止"),
            Verb::Replace { .. } => self.either("Replace", "替换"),
            Verb::TryAgain => self.either("Try again", "重新发布"),
        }
    }

    /// What a verb of a rollout does.
    pub fn consequence(&self, verb: &Verb) -> String {
        let (en, zh) = match verb {
            Verb::Promote { to_percent } => (format!("to {to_percent}\u{a0}%"), format!("升至 {to_percent}\u{a0}%")),
            Verb::PromoteFully => (String::from("to 100\u{a0}%"), String::from("升至 100\u{a0}%")),
            Verb::Pause { at_percent } => (format!("stay at {at_percent}\u{a0}%"), format!("停在 {at_percent}\u{a0}%")),
            Verb::Resume => (String::from("the judge goes on"), String::from("评判继续")),
            Verb::Abort { to: Some(to) } => (format!("100\u{a0}% to {to}"), format!("100\u{a0}% 回到 {to}")),
            Verb::Abort { to: None } => (String::from("nothing stays live"), String::from("没有线上版本")),
            Verb::Replace { by } => (format!("go back, then roll out {by}"), format!("先回退，再发布 {by}")),
            Verb::TryAgain => (String::from("from the first step"), String::from("从第一步开始")),
        };
        self.pick(en, zh)
    }

    /// What a verdict rests on.
    pub fn check_note(&self, note: &CheckNote) -> String {
        let (en, zh) = match note {
            CheckNote::TooFew { have, need } => (
                format!("{} of {} requests: too few to judge", self.number(have), self.number(need)),
                format!("{} / {} 个请求：样本不足", self.number(have), self.number(need)),
            ),
            CheckNote::NoDifference { p } => {
                (format!("p\u{a0}{p:.2}, no difference shown"), format!("p\u{a0}{p:.2}，未见差异"))
            }
            CheckNote::Difference { p } => {
                (format!("p\u{a0}{p:.3}, worse than stable"), format!("p\u{a0}{p:.3}，差于稳定版"))
            }
            CheckNote::FailedOnce { at_ms, in_a_row } => (
                format!("failed at {}; {in_a_row} in a row roll back", self.clock(at_ms)),
                format!("{} 时不通过；连续 {in_a_row} 次则回滚", self.clock(at_ms)),
            ),
            CheckNote::NoData => (String::from("no data: held, never passed"), String::from("无数据：暂停，绝不放行")),
        };
        self.pick(en, zh)
    }

    /// Names in a row.
    pub fn list(&self, names: &[String]) -> String {
        names.join(self.either(", ", "、"))
    }

    /// Roles in a row.
    pub fn roles(&self, roles: &[Role]) -> String {
        roles.iter().map(|role| self.role_name(*role)).collect::<Vec<_>>().join(self.either(", ", "、"))
    }
}
