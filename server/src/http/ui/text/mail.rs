//! The sentences of the mails.

use super::{Lang, Text, phrases, words};
use crate::http::ui::mail::{ApprovalMail, Asked, Reminder, ReminderMail};
use crate::http::ui::rollout::Strategy;

words! {
    test_here: "Test it here", "在这里测试";
    mail_until: "Until", "截止时间";
    after_that: "After that nothing is approved and nothing fails; anyone can ask again.", "过期后既不会通过，也不会判为失败；任何人都可以再次发起。";
    open_page: "Open the approval page", "打开验收页面";
    opening_mail: "Opening the page decides nothing. You approve or reject there, with a code that is mailed to you. A forwarded mail cannot approve.", "打开页面不会作出任何决定。请在页面上通过或拒绝，并填写发给您的验证码。转发的邮件无法通过验收。";
    test_environment: "test environment", "测试环境";
    code_ignore: "If you did not ask for it, do nothing: the code alone decides nothing, and whoever asked does not have it.", "若非您本人请求，请忽略：仅凭验证码不会作出任何决定，请求者也拿不到它。";
    your_code: "Your code", "您的验证码";
}

phrases! {
    approval_subject(t, asked: &Asked) =>
        format!("[{}] Please test build {} ({})", asked.service, asked.build, asked.commit),
        format!("[{}] 请验收 build {} ({})", asked.service, asked.build, asked.commit);
    code_subject(t, asked: &Asked) =>
        format!("[{}] Your code for build {} ({})", asked.service, asked.build, asked.commit),
        format!("[{}] build {} ({}) 的验证码", asked.service, asked.build, asked.commit);
    mail_head(t, service: &str) => format!("{service}, {}", t.test_environment()), format!("{service} · {}", t.test_environment());
    please_test(t, asked: &Asked) => format!("Please test {} build {}", asked.service, asked.build), format!("请验收 {} build {}", asked.service, asked.build);
    why_me(t, v: &ApprovalMail) =>
        format!("{} pushed commit {}. You get this mail because you are a tester of {}; {}.", v.pushed_by, v.asked.commit, v.asked.service,
            if v.needed == 1 { String::from("one tester decides") } else { format!("{} testers must approve", v.needed) }),
        format!("{} 推送了提交 {}。您是 {} 的测试人员，因此收到这封邮件；{}。", v.pushed_by, v.asked.commit, v.asked.service,
            if v.needed == 1 { String::from("一人验收即可") } else { format!("需 {} 人通过", v.needed) });
    preheader(t, v: &ApprovalMail) =>
        format!("{}; decide by {}.", t.plural(v.commits.len() as u64 + v.more_commits, "change", "changes"), t.full(v.asked.until_ms)),
        format!("{} 处改动，请于 {} 前决定。", v.commits.len() as u64 + v.more_commits, t.full(v.asked.until_ms));
    healthy_at(t, at_ms: i64) => format!("at {}, running exactly this image", t.when(at_ms)), format!("{} 检查，运行的正是此镜像", t.when(at_ms));
    mail_changed(t, live: &Option<String>) =>
        live.as_ref().map_or(String::from("What changed; nothing is live yet"), |v| format!("What changed since {v}, which is live")),
        live.as_ref().map_or(String::from("改动内容（尚无线上版本）"), |v| format!("与线上 {v} 相比的改动"));
    deadline(t, asked: &Asked, open_for_ms: i64) =>
        format!("{} ({})", t.full(asked.until_ms), t.duration(open_for_ms)),
        format!("{}（{}）", t.full(asked.until_ms), t.duration(open_for_ms));
    reminder_title(t, v: &ReminderMail) => match v.reminder {
        Reminder::HalfTime => format!("{} build {} still waits for you", v.asked.service, v.asked.build),
        Reminder::Deputy => format!("{} build {} waits, and its testers have not decided", v.asked.service, v.asked.build),
        Reminder::LastCall => format!("Last call for {} build {}", v.asked.service, v.asked.build),
    }, match v.reminder {
        Reminder::HalfTime => format!("{} build {} 仍在等待您验收", v.asked.service, v.asked.build),
        Reminder::Deputy => format!("{} build {} 待验收，测试人员尚未决定", v.asked.service, v.asked.build),
        Reminder::LastCall => format!("{} build {} 即将过期", v.asked.service, v.asked.build),
    };
    reminder_lead(t, v: &ReminderMail) => {
        let why = if v.is_deputy { "You get this mail because you stand in for its testers. " } else { "" };
        let left = t.duration(t.left_ms(v.asked.until_ms));
        format!("{why}{}; {left} are left.", reminder_state_en(v))
    }, {
        let why = if v.is_deputy { "您是其测试人员的代理人，因此收到这封邮件。" } else { "" };
        let left = t.duration(t.left_ms(v.asked.until_ms));
        format!("{why}{}；还剩 {left}。", reminder_state_zh(v))
    };
    code_lead(t, asked: &Asked, valid_ms: i64) =>
        format!("It proves that you decide on {} build {}. It is good for {} and for nothing else.", asked.service, asked.build, t.duration(valid_ms)),
        format!("用于证明是您本人在决定 {} build {}。{}内有效，仅限此用途。", asked.service, asked.build, t.duration(valid_ms));
    mail_what_next(t, v: &ApprovalMail) => {
        let how = match v.plan.strategy {
            Strategy::Canary => "by canary, judged at each step",
            Strategy::BlueGreen => "by blue-green, all traffic at once when it is healthy",
            Strategy::Rolling => "by a rolling update",
        };
        format!("Approve: this image goes to production {how}. Reject: {} gets your comment, {}.", v.pushed_by,
            v.live_version.as_ref().map_or(String::from("nothing goes live"), |live| format!("{live} stays live")))
    }, {
        let how = match v.plan.strategy {
            Strategy::Canary => "以金丝雀方式上线，每一步都经评判",
            Strategy::BlueGreen => "以蓝绿方式上线，健康后一次切换全部流量",
            Strategy::Rolling => "以滚动方式上线",
        };
        format!("通过：此镜像{how}。拒绝：{} 会收到您的意见，{}。", v.pushed_by,
            v.live_version.as_ref().map_or(String::from("不会上线"), |live| format!("线上仍是 {live}")))
    };
}

impl Text<'_> {
    /// The line height of a mail, which Chinese needs a little larger.
    pub fn mail_line_height(&self) -> &'static str {
        match self.lang() {
            Lang::En => "23px",
            Lang::ZhCn => "25px",
        }
    }
}

fn reminder_state_en(v: &ReminderMail) -> String {
    let testing =
        v.claimed_by.as_ref().map_or(String::from("nobody has claimed it yet"), |who| format!("{who} is testing it"));
    let said = match v.approved_by.as_slice() {
        _ if v.needed < 2 => testing,
        [] => format!("it needs {} approvals and has none yet, {testing}", v.needed),
        who => format!("{} of {} approvals are there ({}), {testing}", who.len(), v.needed, who.join(", ")),
    };
    let mut letters = said.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn reminder_state_zh(v: &ReminderMail) -> String {
    let testing = v.claimed_by.as_ref().map_or(String::from("尚无人认领"), |who| format!("{who} 正在测试"));
    match v.approved_by.as_slice() {
        _ if v.needed < 2 => testing,
        [] => format!("需 {} 人通过，尚无人通过，{testing}", v.needed),
        who => format!("已有 {} / {} 人通过（{}），{testing}", who.len(), v.needed, who.join("、")),
    }
}
