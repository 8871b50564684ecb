//! The one sentence of a release: cause first, then who and when. One arm for each reason that a release is not live.

use super::{Lang, Text};
use crate::http::ui::why::{Against, Answer, FailedCheck, Figure, Limit, Phase, Sentence, Why};

impl Text<'_> {
    /// The sentence for a reason.
    pub fn why(&self, why: &Why) -> Sentence {
        let (cause, rest) = match self.lang() {
            Lang::En => self.why_en(why),
            Lang::ZhCn => self.why_zh(why),
        };
        let rest = match self.lang() {
            Lang::En if !rest.is_empty() => format!(" {rest}"),
            _ => rest,
        };
        Sentence { cause, rest }
    }

    fn why_en(&self, why: &Why) -> (String, String) {
        match why {
            Why::NothingPushed => {
                (String::from("Nothing was pushed yet."), String::from("A push to the release branch starts it."))
            }
            Why::RunHeld { reason } => (String::from("It waits for a release manager:"), format!("{reason}.")),
            Why::RunDeclined { reason } => {
                (String::from("The run was not executed:"), format!("{reason}. Run it again, and it is asked anew."))
            }
            Why::Cancelling { reason } => (
                String::from("The run is being stopped"),
                format!("{}. It ends when the runner confirms.", said_en(reason)),
            ),
            Why::CodeFailed { step, reason } => (
                step.as_ref().map_or(String::from("It failed, in the code:"), |step| {
                    format!("Step {step} failed, in the code:")
                }),
                format!("{reason}."),
            ),
            Why::RunFault { step, reason } => (
                String::from("Infrastructure, not the code:"),
                format!(
                    "{}{reason}. Run it again when that is well.",
                    step.as_ref().map_or(String::new(), |step| format!("at step {step}, "))
                ),
            ),
            Why::Queued { position, of, behind } => (
                format!("Queued, {} of {of}.", ordinal(*position)),
                match behind {
                    Some((service, run)) => format!("Every runner is busy; run {run} of {service} is next to end."),
                    None => String::from("It starts as soon as a runner is free."),
                },
            ),
            Why::NoRunner { labels } => self.no_runner(labels),
            Why::Running { phase, elapsed_ms, usual_ms } => (
                format!("{},", self.running(phase)),
                match usual_ms {
                    Some(usual) => {
                        format!("{} so far; it usually takes {}.", self.duration(elapsed_ms), self.duration(usual))
                    }
                    None => format!("{} so far; it has not run before.", self.duration(elapsed_ms)),
                },
            ),
            Why::StepFailed { step, exit_code, line, told } => (
                format!("Step {step} failed, in the code:"),
                format!(
                    "exit code {exit_code}{}.{}",
                    line.map_or(String::new(), |line| format!(", first error at line {line}")),
                    told_en(told.as_deref())
                ),
            ),
            Why::StepTimedOut { step, limit_ms, told } => (
                format!("Step {step} took too long, in the code:"),
                format!("ended at its limit of {}.{}", self.duration(limit_ms), told_en(told.as_deref())),
            ),
            Why::ImageFailed { line, told } => (
                String::from("The image could not be built, in the code:"),
                format!(
                    "{}.{}",
                    line.map_or(String::from("see the log"), |line| format!("first error at line {line}")),
                    told_en(told.as_deref())
                ),
            ),
            Why::FileInvalid { file, problems } => (
                format!("{file} is not valid:"),
                format!("{}. Correct what is listed and push again.", self.plural(problems, "problem", "problems")),
            ),
            Why::CommitGone { commit } => (
                format!("Commit {commit} is no longer in the repository,"),
                String::from("a force push removed it. The next push starts a new run."),
            ),
            Why::RunCancelled { by, reason } => {
                let by = by.as_deref().unwrap_or("Somebody");
                (format!("{by} cancelled it"), format!("{}. Run it again when it is wanted.", said_en(reason)))
            }
            Why::NoRelease { ref_name } => (
                String::from("This run makes no release:"),
                format!("{ref_name} is neither the release branch nor a release tag."),
            ),
            Why::Fault { party, answer, attempt, next_in_ms } => (
                String::from("Infrastructure, not the code:"),
                format!(
                    "{} {}. Try {attempt} in {}; nobody needs to act yet.",
                    self.party(*party),
                    self.answer(answer),
                    self.duration(next_in_ms)
                ),
            ),
            Why::FaultLasts { party, answer, attempts, next_in_ms } => (
                String::from("Infrastructure, not the code:"),
                format!(
                    "{} {}, {}. An operator has to look; next try in {}.",
                    self.party(*party),
                    self.answer(answer),
                    self.plural(*attempts, "try", "tries in a row"),
                    self.duration(next_in_ms)
                ),
            ),
            Why::MailWaits { to, others, answer, next_in_ms } => (
                if others.is_empty() {
                    String::from("The testers’ mail is not sent yet:")
                } else {
                    format!("The mail to {} is not sent yet:", names_en(to, "and"))
                },
                format!(
                    "the mail server {}. An operator corrects the address or the mail server; next try in {}.{}",
                    self.answer(answer),
                    self.duration(next_in_ms),
                    if others.is_empty() { String::new() } else { format!(" {} can decide.", names_en(others, "or")) }
                ),
            ),
            Why::DeployingToTest { build } => {
                (format!("Build {build} is being deployed to test."), String::from("Then the testers are mailed."))
            }
            Why::UnhealthyInTest { detail, told } => {
                (String::from("It does not become healthy in test:"), format!("{detail}.{}", told_en(told.as_deref())))
            }
            Why::YouMayDecide { build, have, need, until_ms } => (
                match need {
                    0..=1 => format!("Build {build} waits for your decision."),
                    _ => format!("Build {build} waits for your decision, {have} of {need} approvals are there."),
                },
                format!("Test it, then approve or reject by {}.", self.when(until_ms)),
            ),
            Why::YouAreTesting { build, since_ms, until_ms } => (
                format!("You are testing it since {}.", self.when(since_ms)),
                format!("The test environment is kept for build {build} until you decide, or {}.", self.when(until_ms)),
            ),
            Why::TestersMayDecide { testers, short, until_ms } => (
                format!("It waits for {}", end(&deciders_en(testers, *short))),
                format!("Nobody has claimed it yet; they have until {}.", self.when(until_ms)),
            ),
            Why::SomeoneIsTesting { who, since_ms, until_ms } => (
                format!("{who} is testing it since {}.", self.when(since_ms)),
                format!("The decision is due by {}.", self.when(until_ms)),
            ),
            Why::MoreApprovals { have, need, testers, short, until_ms } => (
                format!("{have} of {need} approvals."),
                format!(
                    "It waits for {} more until {}; asked: {}.",
                    need.saturating_sub(*have),
                    self.when(until_ms),
                    deciders_en(testers, *short)
                ),
            ),
            Why::BehindClaim { build, who, until_ms } => (
                format!("Build {build} has the test environment:"),
                format!(
                    "{} is testing it{}. Then it is this one’s turn.",
                    who.as_deref().unwrap_or("somebody"),
                    until_ms.map_or(String::new(), |until| format!(", until {} at the latest", self.when(until)))
                ),
            ),
            Why::Rejected { by, at_ms, comment } => (
                format!("{by} rejected it at {}:", self.when(at_ms)),
                format!("“{comment}”. A new push makes a new release."),
            ),
            Why::Expired { at_ms, have, need } => (
                match have {
                    0 => String::from("Nobody decided in time."),
                    _ => format!("Only {have} of {need} approved it in time."),
                },
                format!(
                    "It expired at {}; nothing was approved, nothing failed. Anyone can ask again.",
                    self.when(at_ms)
                ),
            ),
            Why::Superseded { build, by } => (
                format!("Superseded by build {build},"),
                by.as_ref().map_or(String::from("a newer one."), |by| format!("pushed by {by} after this one.")),
            ),
            Why::Promoting { bytes } => (
                String::from("Copying to the production registry,"),
                bytes.map_or(String::from("it has just begun."), |(done, of)| {
                    format!("{} of {} there.", self.bytes(done), self.bytes(of))
                }),
            ),
            Why::WaitsForRollout { version } => (
                format!("{} is rolling out,", version.as_deref().unwrap_or("Another version")),
                String::from("and is never overtaken. A release manager can replace it."),
            ),
            Why::Canary { percent, step, of, next_percent, next_in_ms } => (
                format!("Canary {percent}\u{a0}%, step {step} of {of}, healthy."),
                match (next_percent, next_in_ms) {
                    (Some(next), Some(ms)) => {
                        format!("{next}\u{a0}% in {} if every check passes.", self.duration(ms))
                    }
                    (None, Some(ms)) => format!("Live in {} if every check passes.", self.duration(ms)),
                    (_, None) => String::from("The gateway takes over the new share."),
                },
            ),
            Why::Starting => (
                String::from("The new version’s containers are starting."),
                String::from("It gets traffic when they are healthy."),
            ),
            Why::Keeping { until_ms } => (
                String::from("All traffic is on the new version."),
                until_ms.map_or(String::from("The old one is kept ready."), |until| {
                    format!("The old one is kept ready until {}.", self.when(until))
                }),
            ),
            Why::Draining => (
                String::from("All traffic is on the new version."),
                String::from("The old one finishes what it has; then it is done."),
            ),
            Why::Preview { switches_in_ms } => (
                String::from("The preview is up, no traffic yet."),
                match switches_in_ms {
                    Some(ms) => format!("All traffic switches in {} if every check passes.", self.duration(ms)),
                    None => String::from("A release manager switches the traffic."),
                },
            ),
            Why::Rolling { ready, of } => {
                (format!("Rolling, {ready} of {of} replaced."), String::from("Each must be healthy before the next."))
            }
            Why::TooFewRequests { have, need, until_ms } => (
                format!("Too few requests to judge: {} of {}.", self.number(have), self.number(need)),
                match until_ms {
                    Some(until) => format!("It holds until {}, then a release manager is asked.", self.when(until)),
                    None => String::from("It holds until traffic comes, or a release manager promotes one step."),
                },
            ),
            Why::Paused { by } => {
                (format!("Paused by {by}."), String::from("The judge still watches; resume it or abort it."))
            }
            Why::RollingBack { to } => (
                to.as_ref().map_or(String::from("Traffic is being taken away."), |to| {
                    format!("Traffic is going back to {to}.")
                }),
                String::from("The new version stops when it is drained."),
            ),
            Why::RolledBack { percent, failed, requests, to, at_ms } => (
                format!("The judge rolled it back at {percent}\u{a0}%:"),
                format!(
                    "{} {} over {}. {}",
                    lower_first(self.measure(failed.measure)),
                    self.against(failed),
                    self.plural(requests, "request", "requests"),
                    self.back_to_en(to.as_deref(), *at_ms)
                ),
            ),
            Why::RolloutFailed { detail, to, at_ms } => (
                String::from("The rollout went back by itself:"),
                format!("{detail}. {}", self.back_to_en(to.as_deref(), *at_ms)),
            ),
            Why::Aborted { by, to, at_ms } => {
                (format!("{by} aborted the rollout."), self.back_to_en(to.as_deref(), *at_ms))
            }
            Why::Live { version, since_ms } => {
                (format!("{version} is live"), format!("since {}.", self.when(since_ms)))
            }
            Why::Retired { version } => {
                (format!("{version} took over."), String::from("This one can be rolled back to."))
            }
        }
    }

    fn why_zh(&self, why: &Why) -> (String, String) {
        match why {
            Why::NothingPushed => (String::from("尚未推送过。"), String::from("推送到发布分支即开始。")),
            Why::RunHeld { .. } => {
                (String::from("等待发布经理放行："), String::from("来自派生库的合并请求须有人允许才会运行。"))
            }
            Why::RunDeclined { reason } => {
                (String::from("此运行未执行："), format!("{reason}。可再次运行，届时重新询问。"))
            }
            Why::Cancelling { reason } => {
                (String::from("正在停止"), format!("{}。执行器确认后结束。", said_zh(reason)))
            }
            Why::CodeFailed { step, reason } => (
                step.as_ref().map_or(String::from("失败，原因在代码："), |step| {
                    format!("步骤 {step} 失败，原因在代码：")
                }),
                format!("{reason}。"),
            ),
            Why::RunFault { step, reason } => (
                String::from("基础设施问题，与代码无关："),
                format!(
                    "{}{reason}。恢复后可再次运行。",
                    step.as_ref().map_or(String::new(), |step| format!("在步骤 {step}，"))
                ),
            ),
            Why::Queued { position, of, behind } => (
                format!("排队中，第 {position} / {of} 个。"),
                match behind {
                    Some((service, run)) => format!("执行器都在忙；{service} 的运行 {run} 将最先结束。"),
                    None => String::from("执行器一空闲就开始。"),
                },
            ),
            Why::NoRunner { labels } => self.no_runner(labels),
            Why::Running { phase, elapsed_ms, usual_ms } => (
                format!("{}，", self.running(phase)),
                match usual_ms {
                    Some(usual) => format!("已 {}，通常需 {}。", self.duration(elapsed_ms), self.duration(usual)),
                    None => format!("已 {}，此前没有运行过。", self.duration(elapsed_ms)),
                },
            ),
            Why::StepFailed { step, exit_code, line, told } => (
                format!("步骤 {step} 失败，原因在代码："),
                format!(
                    "退出码 {exit_code}{}。{}",
                    line.map_or(String::new(), |line| format!("，首个错误在第 {line} 行")),
                    told_zh(told.as_deref())
                ),
            ),
            Why::StepTimedOut { step, limit_ms, told } => (
                format!("步骤 {step} 耗时过长，原因在代码："),
                format!("到达时限 {} 后被终止。{}", self.duration(limit_ms), told_zh(told.as_deref())),
            ),
            Why::ImageFailed { line, told } => (
                String::from("镜像构建失败，原因在代码："),
                format!(
                    "{}。{}",
                    line.map_or(String::from("请看日志"), |line| format!("首个错误在第 {line} 行")),
                    told_zh(told.as_deref())
                ),
            ),
            Why::FileInvalid { file, problems } => {
                (format!("{file} 有误："), format!("共 {} 处问题，请改正后再推送。", self.number(problems)))
            }
            Why::CommitGone { commit } => {
                (format!("提交 {commit} 已不在代码库中，"), String::from("被强制推送移除。下一次推送会开始新的运行。"))
            }
            Why::RunCancelled { by, reason } => (
                by.as_ref().map_or(String::from("已被取消"), |by| format!("{by} 取消了它")),
                format!("{}。需要时可再次运行。", said_zh(reason)),
            ),
            Why::NoRelease { ref_name } => {
                (String::from("此运行不产生发布："), format!("{ref_name} 既不是发布分支，也不是发布标签。"))
            }
            Why::Fault { party, answer, attempt, next_in_ms } => (
                String::from("基础设施问题，与代码无关："),
                format!(
                    "{}{}。{}后第 {attempt} 次尝试，目前无需处理。",
                    self.party(*party),
                    self.answer(answer),
                    self.duration(next_in_ms)
                ),
            ),
            Why::FaultLasts { party, answer, attempts, next_in_ms } => (
                String::from("基础设施问题，与代码无关："),
                format!(
                    "{}{}，已连续尝试 {attempts} 次。请运维人员处理；{}后再试。",
                    self.party(*party),
                    self.answer(answer),
                    self.duration(next_in_ms)
                ),
            ),
            Why::MailWaits { to, others, answer, next_in_ms } => (
                if others.is_empty() {
                    String::from("给测试人员的邮件尚未发出：")
                } else {
                    format!("给 {} 的邮件尚未发出：", names_zh(to))
                },
                format!(
                    "邮件服务器{}。请运维人员更正地址或邮件服务器；{}后再试。{}",
                    self.answer(answer),
                    self.duration(next_in_ms),
                    if others.is_empty() { String::new() } else { format!("{} 可以决定。", names_zh(others)) }
                ),
            ),
            Why::DeployingToTest { build } => {
                (format!("构建 {build} 正在部署到测试环境。"), String::from("随后会发邮件给测试人员。"))
            }
            Why::UnhealthyInTest { detail, told } => {
                (String::from("在测试环境中未能变为健康："), format!("{detail}。{}", told_zh(told.as_deref())))
            }
            Why::YouMayDecide { build, have, need, until_ms } => {
                let so_far = if *need > 1 { format!("，已有 {have} / {need} 人通过") } else { String::new() };
                (
                    format!("构建 {build} 等待您的决定{so_far}。"),
                    format!("请测试，并在 {} 前通过或拒绝。", self.when(until_ms)),
                )
            }
            Why::YouAreTesting { build, since_ms, until_ms } => (
                format!("您从 {} 起正在测试。", self.when(since_ms)),
                format!("测试环境会一直保留构建 {build}，直到您作出决定，最迟 {}。", self.when(until_ms)),
            ),
            Why::TestersMayDecide { testers, short, until_ms } => (
                format!("等待 {} 验收。", deciders_zh(testers, *short)),
                format!("尚无人认领，截止 {}。", self.when(until_ms)),
            ),
            Why::SomeoneIsTesting { who, since_ms, until_ms } => (
                format!("{who} 从 {} 起正在测试。", self.when(since_ms)),
                format!("最迟 {} 作出决定。", self.when(until_ms)),
            ),
            Why::MoreApprovals { have, need, testers, short, until_ms } => (
                format!("已有 {have} / {need} 人通过。"),
                format!(
                    "还需 {} 人，截止 {}；已请求 {}。",
                    need.saturating_sub(*have),
                    self.when(until_ms),
                    deciders_zh(testers, *short)
                ),
            ),
            Why::BehindClaim { build, who, until_ms } => (
                format!("测试环境正被构建 {build} 占用："),
                format!(
                    "{} 正在测试{}，随后轮到此构建。",
                    who.as_deref().unwrap_or("有人"),
                    until_ms.map_or(String::new(), |until| format!("，最迟 {} 结束", self.when(until)))
                ),
            ),
            Why::Rejected { by, at_ms, comment } => {
                (format!("{by} 于 {} 拒绝：", self.when(at_ms)), format!("“{comment}”。新的推送会产生新的发布。"))
            }
            Why::Expired { at_ms, have, need } => (
                match have {
                    0 => String::from("无人在期限内决定。"),
                    _ => format!("期限内只有 {have} / {need} 人通过。"),
                },
                format!("已于 {} 过期；既未通过，也不算失败。任何人都可以再次发起。", self.when(at_ms)),
            ),
            Why::Superseded { build, by } => (
                format!("已被构建 {build} 取代，"),
                by.as_ref().map_or(String::from("它更新。"), |by| format!("由 {by} 在此之后推送。")),
            ),
            Why::Promoting { bytes } => (
                String::from("正在复制到生产仓库，"),
                bytes.map_or(String::from("刚刚开始。"), |(done, of)| {
                    format!("已有 {} / {}。", self.bytes(done), self.bytes(of))
                }),
            ),
            Why::WaitsForRollout { version } => (
                format!("{} 正在发布，", version.as_deref().unwrap_or("另一个版本")),
                String::from("不会被超越；发布经理可以改为替换。"),
            ),
            Why::Canary { percent, step, of, next_percent, next_in_ms } => (
                format!("金丝雀 {percent}\u{a0}%，第 {step} / {of} 步，健康。"),
                match (next_percent, next_in_ms) {
                    (Some(next), Some(ms)) => {
                        format!("各项检查通过则 {}后升至 {next}\u{a0}%。", self.duration(ms))
                    }
                    (None, Some(ms)) => format!("各项检查通过则 {}后上线。", self.duration(ms)),
                    (_, None) => String::from("网关正在切换到新的权重。"),
                },
            ),
            Why::Starting => (String::from("新版本的容器正在启动。"), String::from("健康之后才接收流量。")),
            Why::Keeping { until_ms } => (
                String::from("全部流量已在新版本。"),
                until_ms.map_or(String::from("旧版本保持就绪。"), |until| {
                    format!("旧版本保持就绪到 {}。", self.when(until))
                }),
            ),
            Why::Draining => (String::from("全部流量已在新版本。"), String::from("旧版本处理完手头请求即完成。")),
            Why::Preview { switches_in_ms } => (
                String::from("预览已就绪，尚无流量。"),
                match switches_in_ms {
                    Some(ms) => format!("各项检查通过则 {}后切换全部流量。", self.duration(ms)),
                    None => String::from("由发布经理切换流量。"),
                },
            ),
            Why::Rolling { ready, of } => {
                (format!("滚动更新，已替换 {ready} / {of}。"), String::from("每个健康之后才替换下一个。"))
            }
            Why::TooFewRequests { have, need, until_ms } => (
                format!("样本不足，无法判断：{} / {} 个请求。", self.number(have), self.number(need)),
                match until_ms {
                    Some(until) => format!("停留到 {}，之后由发布经理决定。", self.when(until)),
                    None => String::from("等待流量，或由发布经理推进一步。"),
                },
            ),
            Why::Paused { by } => (format!("{by} 已暂停。"), String::from("评判器仍在观察；请继续或中止。")),
            Why::RollingBack { to } => (
                to.as_ref().map_or(String::from("正在撤走流量。"), |to| format!("流量正在回到 {to}。")),
                String::from("新版本排空后停止。"),
            ),
            Why::RolledBack { percent, failed, requests, to, at_ms } => (
                format!("评判器在 {percent}\u{a0}% 时自动回滚："),
                format!(
                    "{} 个请求，{} {}。{}",
                    self.number(requests),
                    self.measure(failed.measure),
                    self.against(failed),
                    self.back_to_zh(to.as_deref(), *at_ms)
                ),
            ),
            Why::RolloutFailed { detail, to, at_ms } => {
                (String::from("发布已自动回退："), format!("{detail}。{}", self.back_to_zh(to.as_deref(), *at_ms)))
            }
            Why::Aborted { by, to, at_ms } => (format!("{by} 中止了发布。"), self.back_to_zh(to.as_deref(), *at_ms)),
            Why::Live { version, since_ms } => {
                (format!("{version} 已上线，"), format!("自 {} 起。", self.when(since_ms)))
            }
            Why::Retired { version } => (format!("{version} 已接替。"), String::from("可以回滚到此版本。")),
        }
    }

    fn back_to_en(&self, to: Option<&str>, at_ms: i64) -> String {
        match to {
            Some(to) => format!("All traffic is on {to} since {}.", self.when(at_ms)),
            None => format!("It has no traffic since {}; nothing was live before.", self.when(at_ms)),
        }
    }

    fn back_to_zh(&self, to: Option<&str>, at_ms: i64) -> String {
        match to {
            Some(to) => format!("{} 起全部流量回到 {to}。", self.when(at_ms)),
            None => format!("{} 起不再有流量；此前没有线上版本。", self.when(at_ms)),
        }
    }

    /// What of the code failed, where "the code failed" stands before it.
    pub fn code_failure(&self, why: &Why) -> String {
        let (en, zh) = match why {
            Why::StepFailed { step, exit_code, told, .. } => (
                format!("Step {step} ended with exit code {exit_code}.{}", told_en(told.as_deref())),
                format!("步骤 {step} 以退出码 {exit_code} 结束。{}", told_zh(told.as_deref())),
            ),
            Why::StepTimedOut { step, limit_ms, told } => (
                format!(
                    "Step {step} was ended at its limit of {}.{}",
                    self.duration(limit_ms),
                    told_en(told.as_deref())
                ),
                format!("步骤 {step} 到达时限 {} 后被终止。{}", self.duration(limit_ms), told_zh(told.as_deref())),
            ),
            Why::ImageFailed { told, .. } => (
                format!("The image could not be built.{}", told_en(told.as_deref())),
                format!("镜像构建失败。{}", told_zh(told.as_deref())),
            ),
            _ => {
                let said = self.why(why);
                return format!("{}{}", said.cause, said.rest);
            }
        };
        self.pick(en, zh)
    }

    /// What a party answered, after its name.
    pub fn answer(&self, answer: &Answer) -> String {
        let (en, zh) = match answer {
            Answer::Status(status) => (format!("answered {status}"), format!("返回 {status}")),
            Answer::Refused => (String::from("refused the connection"), String::from("拒绝连接")),
            Answer::Unreachable => (String::from("cannot be reached"), String::from("无法连接")),
            Answer::TimedOut => (String::from("did not answer in time"), String::from("未及时响应")),
            Answer::CutOff => (String::from("cut the connection"), String::from("中断了连接")),
            Answer::WantsCredential => (String::from("refused the credential"), String::from("拒绝了凭据")),
            Answer::LostHeartbeat => (String::from("lost its heartbeat"), String::from("失去心跳")),
            Answer::Full => (String::from("has no space left"), String::from("空间已满")),
            Answer::Said(words) => (format!("answered “{words}”"), format!("返回“{words}”")),
        };
        self.pick(en, zh)
    }

    /// What a run is doing: `Running step test`.
    pub fn running(&self, phase: &Phase) -> String {
        let (en, zh) = match phase {
            Phase::Checkout => (String::from("Checking out"), String::from("正在检出")),
            Phase::Step(step) => (format!("Running step {step}"), format!("正在执行步骤 {step}")),
            Phase::Image => (String::from("Building the image"), String::from("正在构建镜像")),
            Phase::Push => (String::from("Pushing the image"), String::from("正在推送镜像")),
        };
        self.pick(en, zh)
    }

    /// A figure with its unit: `99.64 %`, `334 ms`, `p 0.53`.
    pub fn figure(&self, figure: &Figure) -> String {
        match figure {
            Figure::Percent(share) => self.share(*share),
            Figure::Ms(ms) => self.ms(*ms),
            Figure::Probability(p) => format!("p\u{a0}{p:.2}"),
        }
    }

    /// A limit with its sign: `≥ 99.0 %`.
    pub fn limit_of(&self, limit: &Limit) -> String {
        let sign = if limit.at_least { '≥' } else { '≤' };
        match limit.figure {
            Figure::Probability(p) => format!("p\u{a0}{sign}\u{a0}{p:.2}"),
            _ => format!("{sign}\u{a0}{}", self.limit_figure(limit)),
        }
    }

    /// A limit's figure without its sign, shares with one decimal: `99.0 %`.
    pub fn limit_figure(&self, limit: &Limit) -> String {
        match limit.figure {
            Figure::Percent(share) if share < 100.0 => self.share(share),
            ref other => self.figure(other),
        }
    }

    /// A share with two decimals, or one where the second says nothing; none for all of it.
    fn share(&self, share: f64) -> String {
        let hundredths = (share * 100.0).round();
        let decimals = match hundredths {
            h if h >= 10_000.0 => 0,
            h if h % 10.0 == 0.0 => 1,
            _ => 2,
        };
        self.percent(share, decimals)
    }

    fn against(&self, failed: &FailedCheck) -> String {
        let value = self.figure(&failed.value);
        match &failed.against {
            Against::Limit(limit) => {
                let sign = if limit.at_least { '<' } else { '>' };
                format!("{value} {sign} {}", self.limit_figure(limit))
            }
            Against::Stable(stable) => {
                let stable = self.figure(stable);
                self.pick(format!("{value}, stable {stable}"), format!("{value}，稳定版 {stable}"))
            }
        }
    }
}

fn ordinal(n: u64) -> String {
    let suffix = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

fn end(text: &str) -> String {
    format!("{text}.")
}

/// What somebody said, behind a colon; nothing where they said nothing.
fn said_en(words: &str) -> String {
    if words.trim().is_empty() { String::new() } else { format!(": “{}”", words.trim()) }
}

fn said_zh(words: &str) -> String {
    if words.trim().is_empty() { String::new() } else { format!("：“{}”", words.trim()) }
}

fn told_en(who: Option<&str>) -> String {
    who.map_or(String::new(), |who| format!(" {who}, who pushed it, has been told."))
}

fn told_zh(who: Option<&str>) -> String {
    who.map_or(String::new(), |who| format!("已通知提交者 {who}。"))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_lowercase().chain(chars).collect())
}

/// Who is waited for; where those who are asked are too few, somebody who signs in has to decide too.
fn deciders_en(testers: &[String], short: bool) -> String {
    match (testers, short) {
        ([], true) => String::from("a release manager"),
        (names, true) => format!("{} and a release manager", names.join(", ")),
        (names, false) => names_en(names, "or"),
    }
}

fn deciders_zh(testers: &[String], short: bool) -> String {
    match (testers, short) {
        ([], true) => String::from("发布经理"),
        (names, true) => format!("{}和发布经理", names.join("、")),
        (names, false) => names_zh(names),
    }
}

/// Names in a row, in Chinese.
pub(super) fn names_zh(names: &[String]) -> String {
    if names.is_empty() { String::from("测试人员") } else { names.join("、") }
}

/// Names in a row: `a`, `a or b`, `a, b or c`.
pub(super) fn names_en(names: &[String], last: &str) -> String {
    match names {
        [] => String::from("a tester"),
        [one] => one.clone(),
        [rest @ .., end] => format!("{} {last} {end}", rest.join(", ")),
    }
}
