//! The sentences of the board and of a run, and why a button cannot be pressed.

use super::{Lang, Text, phrases, words};
use crate::http::ui::Disabled;
use crate::http::ui::board::Next;
use crate::http::ui::run::{RunState, StepState, Trigger};
use crate::http::ui::why::Phase;

words! {
    colon: ": ", "：";
    comma: ", ", "，";
    semicolon: "; ", "；";
    stop: ".", "。";
    gap: " ", "";
    live_now: "Live", "实时更新";
    live_lost: "Live updates lost {} s ago, retrying", "实时更新已中断 {} 秒，正在重试";
    order_changed: "Something moved to another group.", "有条目换了分组。";
    reload: "Show the new order", "显示新顺序";
    group_empty: "Nothing here now.", "此处暂无内容。";
    not_pushed_yet: "nothing pushed yet", "尚未推送";
    start_run: "Start a run", "开始运行";
    needs_you_lead: "Releases that wait for you, and for nobody else first.", "正在等待您处理的发布。";
    nothing_waits: "Nothing waits for you.", "没有等待您处理的事项。";
    first_lead: "No service yet. Register a repository, and its next push takes this way:", "还没有服务。登记一个代码库，它的下一次推送将走这条路：";
    way_of_release: "The way of a release", "发布之路";
    step_register: "1. Register a service", "1. 登记服务";
    step_hook: "2. Add the webhook to the repository", "2. 在代码库中添加 Webhook";
    step_try: "3. Try it, without a push", "3. 不推送，先试一下";
    from_terminal: "From a terminal", "在终端中";
    this_server: "This server", "本服务器";
    as_doctor: "As windlass doctor says it.", "与 windlass doctor 的结果一致。";
}
phrases! {
    times_are(t) => format!("Times are {}", t.zone()), format!("时间均为 {}", t.zone());
    requests_of(t, n: u64) => t.plural(n, "request", "requests"), format!("{} 个请求", t.number(n));
    ago(t, at_ms: i64) => format!("{} ago", t.age(at_ms)), format!("{}前", t.age(at_ms));
}

words! {
    steps: "Steps", "步骤";
    log: "Log", "日志";
    rerun_all: "Rerun all", "全部重跑";
    search_log: "Search this log", "搜索此日志";
    first_error: "First error", "首个错误";
    next_error: "Next error", "下一个错误";
    no_log_yet: "No line yet.", "尚无日志。";
    log_cut: "The log reached its bound; later lines were dropped.", "日志已达上限，其后的行被丢弃。";
    reason: "Reason", "原因";
    new_lines: "new lines", "行新日志";
    code_not_windlass: "The code failed, not Windlass.", "失败原因在代码，不在 Windlass。";
    problems_of_file: "What to correct", "需要改正的地方";
    instead: "Instead:", "改为：";
    what_would_run: "What would run", "将要执行的内容";
    allow_run: "Allow this run", "放行此运行";
    decline_run: "Decline", "拒绝";
    a_stranger_wrote_it: "It comes from a fork. It gets no secrets and pushes nothing, but its commands run on your machine.", "它来自派生库。它得不到任何机密，也不会推送镜像，但其中的命令会在您的机器上执行。";
    compare_on_forge: "See all that it changes", "查看全部改动";
    file_is_changed: "It changes the pipeline file:", "它修改了流水线文件：";
    file_is_same: "Its pipeline file is that of the release branch.", "其流水线文件与发布分支相同。";
    not_looked_at: "Its commit is being looked at.", "正在查看该提交。";
    no_steps: "No step; only the image is built.", "没有步骤，仅构建镜像。";
    pushed_image: "The image it pushed", "推送的镜像";
    where_release_is: "Where its release is", "发布进度";
}
phrases! {
    log_of_run(t, run: u64) => format!("Log of run {run}"), format!("运行 {run} 的日志");
    whole_log(t, lines: u64) => format!("Whole log, {}", t.plural(lines, "line", "lines")), format!("完整日志，{} 行", t.number(lines));
    usually(t, ms: i64) => format!("usually {}", t.duration(ms)), format!("通常 {}", t.duration(ms));
    tick_is_median(t, n: u64) => format!("The tick on a bar is the median of the last {}.", t.plural(n, "run", "runs")), format!("条上的刻度是最近 {n} 次运行的中位数。");
    line_no(t, n: u64) => format!("line {n}"), format!("第 {n} 行");
    lines_range(t, from: u64, to: u64) => format!("Lines {} to {}", t.number(from), t.number(to)), format!("第 {} 至 {} 行", t.number(from), t.number(to));
    found(t, total: u64, query: &str) => format!("{} with “{query}”", t.plural(total, "line", "lines")), format!("{} 行含“{query}”", t.number(total));
    nothing_pushed(t, live: Option<&str>) =>
        live.map_or(String::from("Nothing was built or pushed."), |v| format!("Nothing was built or pushed; {v} stays live.")),
        live.map_or(String::from("没有构建或推送任何镜像。"), |v| format!("没有构建或推送任何镜像；线上仍是 {v}。"));
    files_differ(t, n: u64) => format!("{} from the release branch.", t.plural(n, "file differs", "files differ")), format!("与发布分支相比，{} 个文件不同。", t.number(n));
    took(t, ms: i64) => format!("took {}", t.duration(ms)), format!("用时 {}", t.duration(ms));
}

impl Text<'_> {
    /// The title of a run's page.
    pub fn run_title(&self, run: u64, state: &RunState) -> String {
        let (en, zh) = match state {
            RunState::Held => (format!("Run {run} waits for your word"), format!("运行 {run} 等待放行")),
            RunState::Declined => (format!("Run {run} was not executed"), format!("运行 {run} 未执行")),
            RunState::Queued { position, of } => (
                format!("Run {run} is queued, {position} of {of}"),
                format!("运行 {run} 排队中，第 {position} / {of} 个"),
            ),
            RunState::Running { phase } => match phase {
                Phase::Step(step) => {
                    (format!("Run {run} is at step {step}"), format!("运行 {run} 正在执行步骤 {step}"))
                }
                _ => (
                    format!("Run {run}: {}", self.running(phase).to_lowercase()),
                    format!("运行 {run}：{}", self.running(phase)),
                ),
            },
            RunState::Passed => (format!("Run {run} passed"), format!("运行 {run} 成功")),
            RunState::Failed { phase } => match phase {
                Phase::Step(step) => {
                    (format!("Run {run} failed at step {step}"), format!("运行 {run} 在步骤 {step} 失败"))
                }
                Phase::Image => (format!("Run {run} failed at the image"), format!("运行 {run} 镜像构建失败")),
                Phase::Checkout => (format!("Run {run} failed at checkout"), format!("运行 {run} 检出失败")),
                Phase::Push => (format!("Run {run} failed at the push"), format!("运行 {run} 推送失败")),
            },
            RunState::FileInvalid => {
                (format!("Run {run}: the pipeline file is not valid"), format!("运行 {run}：流水线文件有误"))
            }
            RunState::CommitGone => (format!("Run {run}: its commit is gone"), format!("运行 {run}：提交已消失")),
            RunState::Fault { .. } => {
                (format!("Run {run} is held up by the infrastructure"), format!("运行 {run} 因基础设施受阻"))
            }
            RunState::Cancelled => (format!("Run {run} was cancelled"), format!("运行 {run} 已取消")),
        };
        self.pick(en, zh)
    }

    /// Who started a run and when: `pushed to main by dev-cy at 10:06`.
    pub fn started(&self, trigger: Trigger, ref_name: &str, by: &str, at_ms: i64) -> String {
        let when = self.when(at_ms);
        let (en, zh) = match trigger {
            Trigger::Push => {
                (format!("pushed to {ref_name} by {by} at {when}"), format!("{by} 于 {when} 推送到 {ref_name}"))
            }
            Trigger::Tag => {
                (format!("tagged {ref_name} by {by} at {when}"), format!("{by} 于 {when} 打上标签 {ref_name}"))
            }
            Trigger::PullRequest => {
                (format!("pull request {ref_name} of {by} at {when}"), format!("{by} 于 {when} 的合并请求 {ref_name}"))
            }
            Trigger::Poll => {
                (format!("found on {ref_name} by polling at {when}"), format!("{when} 轮询时在 {ref_name} 上发现"))
            }
            Trigger::Manual => {
                (format!("started on {ref_name} by {by} at {when}"), format!("{by} 于 {when} 在 {ref_name} 上手动开始"))
            }
            Trigger::Rerun => {
                (format!("run again on {ref_name} by {by} at {when}"), format!("{by} 于 {when} 在 {ref_name} 上重跑"))
            }
        };
        self.pick(en, zh)
    }

    /// The state of a step in a word, where no time stands.
    pub fn step_state(&self, state: StepState) -> &'static str {
        let (en, zh) = match state {
            StepState::NotReached => ("not reached", "未到达"),
            StepState::Waiting => ("waits", "等待"),
            StepState::Running => ("running", "运行中"),
            StepState::Passed => ("passed", "通过"),
            StepState::Reused => ("reused", "复用"),
            StepState::Skipped => ("skipped", "跳过"),
            StepState::Failed => ("failed", "失败"),
            StepState::Fault => ("infrastructure", "基础设施"),
            StepState::Cancelled => ("cancelled", "已取消"),
        };
        self.either(en, zh)
    }

    /// The verb of a row's action.
    pub fn next(&self, next: &Next) -> String {
        let (en, zh) = match next {
            Next::Decide => (String::from("Decide"), String::from("去验收")),
            Next::OpenRollout => (String::from("Open rollout"), String::from("查看发布")),
            Next::SeeLine(line) => (format!("See line {line}"), format!("看第 {line} 行")),
            Next::SeeLog => (String::from("See log"), String::from("看日志")),
            Next::SeeProblems => (String::from("See problems"), String::from("查看问题")),
            Next::SeeChecks => (String::from("See checks"), String::from("查看检查项")),
            Next::SeeTries => (String::from("See tries"), String::from("查看重试")),
            Next::SeeRelease => (String::from("See release"), String::from("查看发布")),
            Next::Watch => (String::from("Watch"), String::from("观察")),
            Next::FollowLog => (String::from("Follow log"), String::from("跟随日志")),
            Next::AskAgain => (String::from("Ask again"), String::from("再次发起")),
        };
        self.pick(en, zh)
    }

    /// Why a button cannot be pressed.
    pub fn disabled(&self, disabled: &Disabled) -> String {
        let (en, zh) = match disabled {
            Disabled::RunEnded { at_ms } => {
                (format!("ended {} ago", self.age(at_ms)), format!("{}前已结束", self.age(at_ms)))
            }
            Disabled::RunNotEnded => (String::from("it still runs"), String::from("仍在运行")),
            Disabled::PausedResumeFirst => (String::from("paused; resume first"), String::from("已暂停，请先继续")),
            Disabled::LastStep => (String::from("this is the last step"), String::from("已是最后一步")),
            Disabled::RolloutEnded => (String::from("the rollout has ended"), String::from("发布已结束")),
            Disabled::NotAllowed { role } => {
                (format!("only a {} can", self.role_name(*role)), format!("仅{}可操作", self.role_name(*role)))
            }
            Disabled::JudgeFailedIt { percent } => {
                (format!("the judge failed it at {percent}\u{a0}%"), format!("评判器在 {percent}\u{a0}% 时判为不通过"))
            }
            Disabled::AlreadyLive => (String::from("100\u{a0}% of traffic"), String::from("已有 100\u{a0}% 流量")),
            Disabled::NeverLive => (String::from("never was live"), String::from("从未上线")),
            Disabled::ImageGone => (String::from("its image is gone"), String::from("镜像已不存在")),
            Disabled::AnotherRollout { version } => {
                (format!("{version} is rolling out"), format!("{version} 正在发布"))
            }
            Disabled::ApprovedAlready => (String::from("you have approved it"), String::from("您已通过")),
            Disabled::OwnCommit => (String::from("it is your own commit"), String::from("这是您自己的提交")),
        };
        self.pick(en, zh)
    }

    pub(super) fn either(&self, en: &'static str, zh: &'static str) -> &'static str {
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }
}
