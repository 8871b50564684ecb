//! The sentences of the approval page.

use super::{Text, phrases, words};
use crate::http::ui::approval::{ApprovalState, ApprovalView, AskedAs, Asking, DecideProblem};
use crate::http::ui::mail::Reminder;
use crate::http::ui::rollout::Strategy;

words! {
    test_it: "1. Test it", "1. 测试";
    decide: "3. Decide", "3. 决定";
    image_you_decide_on: "The image you decide on", "您所决定的镜像";
    exactly_this_image: "Exactly this image goes to production. Nothing is built again.", "上生产的正是此镜像，不会重新构建。";
    i_am_testing: "I am testing this", "我来测试";
    give_back: "Give it back", "放弃认领";
    until: "Until", "截止";
    needed: "Approvals", "通过";
    still_asked: "Asked", "待决定";
    next_mail_head: "Next mail", "下次邮件";
    you_are: "You are", "您是";
    comment: "Comment", "意见";
    needed_to_reject: "needed to reject", "拒绝时必填";
    code: "6-digit code", "6 位验证码";
    mail_code: "Mail me a code", "发送验证码";
    mail_new_code: "Mail me a new code", "重新发送验证码";
    what_next: "What happens next", "接下来会发生什么";
    ask_again: "Ask again", "再次发起";
    watch_rollout: "Watch the rollout", "观察发布";
    not_deployed_yet: "Not deployed yet.", "尚未部署。";
    runs_exactly_this: "it runs exactly this image", "运行的正是此镜像";
    runs_another: "another release has it now", "目前由另一个发布占用";
    opening_decides_nothing: "Opening or forwarding this page decides nothing.", "打开或转发此页面不会作出任何决定。";
    diff_cut: "The rest is not shown.", "其余部分未显示。";
    request: "Request", "请求";
}
phrases! {
    changed_since(t, live: Option<&str>) =>
        live.map_or(String::from("2. What changed; nothing is live yet"), |v| format!("2. What changed since {v}, which is live")),
        live.map_or(String::from("2. 改动内容（尚无线上版本）"), |v| format!("2. 与线上 {v} 相比的改动"));
    more_commits(t, n: u64) => format!("and {} more", t.plural(n, "commit", "commits")), format!("另有 {} 个提交", t.number(n));
    steps_passed(t, n: u64) => format!("{} passed", t.plural(n, "step", "steps")), format!("{n} 个步骤通过");
    run_n(t, n: u64) => format!("run {n}"), format!("运行 {n}");
    diff_summary(t, files: u64, added: u64, removed: u64) =>
        format!("{} changed, {} added, {} removed", t.plural(files, "file", "files"), t.plural(added, "line", "lines"), t.number(removed)),
        format!("{} 个文件，新增 {} 行，删除 {} 行", t.number(files), t.number(added), t.number(removed));
    keeps_environment(t, service: &str, build: u64) =>
        format!("Keeps the test environment on build {build} until you decide. Newer releases of {service} wait."),
        format!("测试环境会保留构建 {build}，直到您决定；{service} 的新发布会等待。");
    code_hint(t, valid_ms: i64, tries: u32) =>
        format!("It proves that you decide, not a mail scanner. Good for {}, {}.", t.duration(valid_ms), t.plural(tries, "try", "tries")),
        format!("用于证明是您本人在决定，而非邮件扫描程序。{}内有效，可试 {tries} 次。", t.duration(valid_ms));
    code_sent(t, at_ms: i64) => format!("A code was mailed at {}.", t.clock(at_ms)), format!("验证码已于 {} 发出。", t.clock(at_ms));
    approve_build(t, build: u64) => format!("Approve build {build}"), format!("通过构建 {build}");
    time_left(t, ms: i64) => format!("{} left", t.duration(ms)), format!("还剩 {}", t.duration(ms));
    needed_of(t, needed: u32, by: &[(String, i64)]) =>
        if by.is_empty() { format!("{needed} needed; nobody has decided yet") }
        else { format!("{} of {needed}: {}", by.len(), t.approvals(by)) },
        if by.is_empty() { format!("需 {needed} 人；尚无人决定") } else { format!("{} / {needed} 人：{}", by.len(), t.approvals(by)) };
    next_mail(t, next: &(Reminder, i64)) => {
        let at = t.when(next.1);
        match next.0 {
            Reminder::HalfTime => format!("a reminder, {at}"),
            Reminder::Deputy => format!("the deputies are asked, {at}"),
            Reminder::LastCall => format!("the last call, {at}"),
        }
    }, {
        let at = t.when(next.1);
        match next.0 {
            Reminder::HalfTime => format!("{at} 提醒"),
            Reminder::Deputy => format!("{at} 请求代理人"),
            Reminder::LastCall => format!("{at} 最后提醒"),
        }
    };
    mail_not_taken(t, to: &str) => format!("The mail to {to} is not sent:"), format!("给 {to} 的邮件未能发出：");
    mail_answer(t, said: &str) =>
        format!("{said}. Correct the address in the pipeline file, or look at the mail server; it is tried again by itself."),
        format!("{said}。请更正流水线文件中的地址，或检查邮件服务器；系统会自动重试。");
    answered(t, status: u16, ms: u32, at_ms: i64) =>
        format!("answered {status} in {ms}\u{a0}ms, checked {} ago", t.age(at_ms)),
        format!("{ms}\u{a0}毫秒内返回 {status}，{}前检查", t.age(at_ms));
    checked(t, at_ms: i64) => format!("checked {} ago", t.age(at_ms)), format!("{}前检查", t.age(at_ms));
    if_rejected(t, by: &str, live: Option<&str>) =>
        format!("{by} gets your comment, the test environment is free again, {}.", live.map_or(String::from("nothing goes live"), |v| format!("{v} stays live"))),
        format!("{by} 会收到您的意见，测试环境被释放，{}。", live.map_or(String::from("不会上线"), |v| format!("线上仍是 {v}")));
    go_to_build(t, build: u64) => format!("Go to build {build}"), format!("前往构建 {build}");
    where_build_is(t, build: u64) => format!("Where build {build} is"), format!("构建 {build} 的进度");
}

impl Text<'_> {
    /// What approving does: the strategy with its weights.
    pub fn if_approved(&self, view: &ApprovalView) -> String {
        let weights = view.plan.weights.iter().map(|w| format!("{w}\u{a0}%")).collect::<Vec<_>>();
        let (en, zh) = match view.plan.strategy {
            Strategy::Canary => (
                format!(
                    "this image goes to the production registry, then canary {}, each step judged; a bad one goes back by itself.",
                    weights.join(", ")
                ),
                format!("此镜像进入生产仓库，随后金丝雀 {}，每一步都经评判；不合格会自动回退。", weights.join("、")),
            ),
            Strategy::BlueGreen => (
                String::from(
                    "this image goes to the production registry, is started beside the live one, and gets all traffic at once when it is healthy.",
                ),
                String::from("此镜像进入生产仓库，在线上版本旁启动，健康后一次切换全部流量。"),
            ),
            Strategy::Rolling => (
                String::from(
                    "this image goes to the production registry and replaces the live one container by container, each healthy before the next.",
                ),
                String::from("此镜像进入生产仓库，逐个容器替换线上版本，每个健康后再换下一个。"),
            ),
        };
        self.pick(en, zh)
    }

    /// Who approved when: `lee 14:02, quinn 14:10`.
    pub fn approvals(&self, by: &[(String, i64)]) -> String {
        let all: Vec<String> = by.iter().map(|(who, at)| format!("{who} {}", self.when(*at))).collect();
        self.list(&all)
    }

    /// The title of the approval page.
    pub fn approval_title(&self, view: &ApprovalView) -> String {
        let build = view.build;
        let (en, zh) = match view.state {
            ApprovalState::Open | ApprovalState::YouAreTesting { .. } | ApprovalState::SomeoneIsTesting { .. } => {
                (format!("Please test build {build}"), format!("请验收构建 {build}"))
            }
            ApprovalState::Approved { .. } => (format!("Build {build} was approved"), format!("构建 {build} 已通过")),
            ApprovalState::Rejected { .. } => (format!("Build {build} was rejected"), format!("构建 {build} 已拒绝")),
            ApprovalState::Expired { .. } => (format!("Build {build} expired"), format!("构建 {build} 已过期")),
            ApprovalState::Superseded { build: newer, .. } => (
                format!("Build {build} was superseded by build {newer}"),
                format!("构建 {build} 已被构建 {newer} 取代"),
            ),
            ApprovalState::NotYours { .. } => {
                (format!("Build {build} is not yours to decide"), format!("构建 {build} 不由您决定"))
            }
            ApprovalState::Locked => {
                (format!("This link to build {build} is locked"), format!("构建 {build} 的链接已锁定"))
            }
            ApprovalState::Stale => (String::from("The image changed"), String::from("镜像已变更")),
        };
        self.pick(en, zh)
    }

    /// The line beneath the title: version, who pushed it, as what this person is asked, until when.
    pub fn approval_lead(&self, view: &ApprovalView) -> String {
        let (version, by, at) = (&view.version, &view.pushed_by, self.when(view.pushed_at_ms));
        let (asked_en, asked_zh) = match view.asked_as {
            AskedAs::Tester => (
                format!(" You are asked as a tester of {}.", view.service),
                format!("您是 {} 的测试人员。", view.service),
            ),
            AskedAs::Deputy => (
                format!(" You are asked because you stand in for the testers of {}.", view.service),
                format!("您是 {} 测试人员的代理人。", view.service),
            ),
            AskedAs::ReleaseManager => (
                format!(" You can decide as a release manager of {}.", view.service),
                format!("您可以作为 {} 的发布经理决定。", view.service),
            ),
            AskedAs::Onlooker => (String::new(), String::new()),
        };
        let until = self.full(view.until_ms);
        let open = matches!(
            view.state,
            ApprovalState::Open | ApprovalState::YouAreTesting { .. } | ApprovalState::SomeoneIsTesting { .. }
        );
        let (until_en, until_zh) = if open {
            (format!(" Decide by {until}."), format!("请在 {until} 前决定。"))
        } else {
            (String::new(), String::new())
        };
        self.pick(
            format!("{version}, pushed by {by} at {at}.{asked_en}{until_en}"),
            format!("{version}，{by} 于 {at} 推送。{asked_zh}{until_zh}"),
        )
    }

    /// The heading and the sentence of a state other than open.
    pub fn approval_state(&self, view: &ApprovalView) -> (String, String) {
        let live = |t: &Self| {
            view.live_version
                .as_ref()
                .map_or(String::new(), |v| t.pick(format!(" {v} stays live."), format!("线上仍是 {v}。")))
        };
        let ((head_en, text_en), (head_zh, text_zh)) = match &view.state {
            ApprovalState::Open => return (String::new(), String::new()),
            ApprovalState::YouAreTesting { since_ms } => (
                (
                    String::from("You are testing it"),
                    format!(
                        "Since {}. The test environment stays on build {} until {}.",
                        self.when(since_ms),
                        view.build,
                        self.when(view.until_ms)
                    ),
                ),
                (
                    String::from("您正在测试"),
                    format!(
                        "从 {} 起。测试环境保留构建 {}，直到 {}。",
                        self.when(since_ms),
                        view.build,
                        self.when(view.until_ms)
                    ),
                ),
            ),
            ApprovalState::SomeoneIsTesting { who, since_ms } => (
                (
                    String::from("Someone else is testing it"),
                    format!("{who}, since {}. You may decide as well.", self.when(since_ms)),
                ),
                (String::from("他人正在测试"), format!("{who}，从 {} 起。您也可以决定。", self.when(since_ms))),
            ),
            ApprovalState::Approved { by, at_ms, .. } => (
                (String::from("Approved"), format!("By {}, {}.", self.list(by), self.when(at_ms))),
                (String::from("已通过"), format!("{} 于 {} 通过。", self.list(by), self.when(at_ms))),
            ),
            ApprovalState::Rejected { by, at_ms, comment } => (
                (String::from("Rejected"), format!("By {by}, {}: “{comment}”.{}", self.when(at_ms), live(self))),
                (String::from("已拒绝"), format!("{by} 于 {} 拒绝：“{comment}”。{}", self.when(at_ms), live(self))),
            ),
            ApprovalState::Expired { at_ms, have, need } => {
                let (so_far_en, so_far_zh) = match have {
                    0 => (String::from("without a decision"), String::from("无人决定")),
                    _ => (format!("with {have} of {need} approvals"), format!("仅 {have} / {need} 人通过")),
                };
                (
                    (
                        String::from("Expired"),
                        format!("At {}, {so_far_en}. Nothing was approved, nothing failed.", self.when(at_ms)),
                    ),
                    (
                        String::from("已过期"),
                        format!("已于 {} 过期，{so_far_zh}。既未通过，也不算失败。", self.when(at_ms)),
                    ),
                )
            }
            ApprovalState::Superseded { build, by, at_ms, .. } => (
                (
                    format!("Superseded by build {build}"),
                    format!(
                        "Pushed at {} by {by}, before anyone claimed build {}. Test that one instead.",
                        self.when(at_ms),
                        view.build
                    ),
                ),
                (
                    format!("已被构建 {build} 取代"),
                    format!("{by} 于 {} 推送，当时无人认领构建 {}。请改为测试新构建。", self.when(at_ms), view.build),
                ),
            ),
            ApprovalState::NotYours { mailed_to, who_can } => (
                (
                    String::from("Not yours"),
                    format!(
                        "This link was mailed to {mailed_to}. {} can decide.",
                        super::sentences::names_en(who_can, "or")
                    ),
                ),
                (String::from("不由您决定"), format!("此链接发给了 {mailed_to}。可决定的人：{}。", self.list(who_can))),
            ),
            ApprovalState::Locked => (
                (
                    String::from("Locked"),
                    String::from("Too many wrong codes. Nothing was decided. A new code opens this page again."),
                ),
                (
                    String::from("已锁定"),
                    String::from("验证码错误次数过多。没有作出任何决定。新的验证码可重新打开此页面。"),
                ),
            ),
            ApprovalState::Stale => (
                (
                    String::from("The image changed"),
                    String::from(
                        "Your link belongs to another digest, so your decision was not taken (409). Open the newest mail.",
                    ),
                ),
                (
                    String::from("镜像已变更"),
                    String::from("您的链接属于另一个摘要，因此决定未被采纳（409）。请打开最新的邮件。"),
                ),
            ),
        };
        (self.pick(head_en, head_zh), self.pick(text_en, text_zh))
    }

    /// What is to be said of asking again.
    pub fn asking(&self, asking: Asking) -> &'static str {
        match asking {
            Asking::UnderWay => self.either(
                "It was asked again. A new mail comes as soon as the test environment runs it.",
                "已再次发起。测试环境就绪后会发出新邮件。",
            ),
            Asking::SignIn => self.either(
                "It was asked again from its mails as often as it may. Sign in to ask again.",
                "从邮件再次发起的次数已达上限，请登录后再次发起。",
            ),
        }
    }

    /// What was wrong with a decision.
    pub fn decide_problem(&self, problem: &DecideProblem) -> String {
        let (en, zh) = match problem {
            DecideProblem::WrongCode { tries_left } => (
                format!("The code is wrong. {} left.", self.plural(*tries_left, "try", "tries")),
                format!("验证码错误，还可试 {tries_left} 次。"),
            ),
            DecideProblem::CodeExpired => {
                (String::from("The code is too old. Ask for a new one."), String::from("验证码已过期，请重新发送。"))
            }
            DecideProblem::CodeNeeded => (
                String::from("Enter the 6-digit code that was mailed to you."),
                String::from("请填写发给您的 6 位验证码。"),
            ),
            DecideProblem::CommentNeeded => (
                String::from("A rejection needs a comment: what must change?"),
                String::from("拒绝时请填写意见：需要改什么？"),
            ),
            DecideProblem::CommentTooLong { max_chars } => (
                format!("The comment is too long; {} at most.", self.plural(max_chars, "character", "characters")),
                format!("意见过长，最多 {max_chars} 字。"),
            ),
            DecideProblem::TooManyCodes => (
                String::from("Too many codes were asked for. Sign in to decide."),
                String::from("验证码请求过多，请登录后再决定。"),
            ),
            DecideProblem::OwnCommit => (
                String::from("It is your own commit: another tester has to approve it."),
                String::from("这是您自己的提交，须由其他测试人员验收。"),
            ),
            DecideProblem::AlreadyApproved { missing } => (
                format!("You have approved it already. It waits for {missing} more, from other people."),
                format!("您已通过。还需另外 {missing} 人通过。"),
            ),
            DecideProblem::ClaimedBy { who } => (format!("{who} is testing it already."), format!("{who} 已在测试。")),
        };
        self.pick(en, zh)
    }
}
