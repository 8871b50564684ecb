//! The sentences of sign-in, accounts, the mail folder, search and errors.

use super::{Lang, Text, phrases, words};
use crate::http::ui::error::ErrorKind;
use crate::http::ui::search::HitKind;

words! {
    sign_in_lead: "The first start printed the admin’s password once, on the server’s terminal.", "首次启动时，管理员密码在服务器终端中显示过一次。";
    mail_address: "Mail address", "邮箱";
    roles_head: "Roles", "角色";
    add_account: "Add an account", "添加账号";
    add: "Add", "添加";
    lock: "Lock", "锁定";
    unlock: "Unlock", "解锁";
    locked: "locked", "已锁定";
    new_password_for: "New password", "新密码";
    this_is_you: "this is you", "这是您";
    your_account: "Your account", "您的账号";
    change_password: "Change the password", "修改密码";
    present_password: "Present password", "当前密码";
    new_password: "New password", "新密码";
    password_changed: "The password was changed. Your other browsers and command lines have to sign in again.", "密码已修改。您的其他浏览器和命令行需要重新登录。";
    end_tokens_too: "End my tokens too; programs that use them need new ones", "同时撤销我的所有令牌；使用它们的程序需要新令牌";
    tokens: "Tokens", "令牌";
    tokens_lead: "for the command line and the API", "用于命令行和 API";
    scopes: "Scopes", "权限";
    made: "Made", "创建";
    ends: "Ends", "到期";
    revoke: "Revoke", "撤销";
    make_token: "Make a token", "创建令牌";
    sessions: "Sessions", "会话";
    sessions_lead: "the browsers that you are signed in with", "您已登录的浏览器";
    this_browser: "this browser", "当前浏览器";
    place: "From", "来源";
    last_used: "Last used", "最近使用";
    end: "End", "结束";
    end_others: "End all others", "结束其他所有会话";
    began: "Began", "开始";
    no_tokens: "No token yet.", "尚无令牌。";
    mailbox_lead: "This server writes its mails here instead of sending them.", "本服务器将邮件写入此处，而不发送。";
    no_mails: "No mail yet.", "尚无邮件。";
    from: "From", "发件人";
    to: "To", "收件人";
    sent: "Sent", "时间";
    as_text: "As text", "纯文本";
    mail_html_title: "The mail as it looks", "邮件样式";
    nothing_found: "Nothing found.", "未找到。";
    more_hits: "There are more; write more of it.", "还有更多结果，请输入更完整的内容。";
    search_lead: "Service, commit or digest, its beginning is enough.", "服务、提交或摘要，输入开头即可。";
    to_board: "To the board", "回到看板";
}
phrases! {
    search_title(t, query: &str) => if query.is_empty() { String::from("Search") } else { format!("Search for “{query}”") }, if query.is_empty() { String::from("搜索") } else { format!("搜索“{query}”") };
    sign_in_problem(t, problem: &crate::http::ui::accounts::SignInProblem) => {
        use crate::http::ui::accounts::SignInProblem as P;
        match problem {
            P::WrongNameOrPassword => String::from("The name or the password is wrong."),
            P::TooManyTries { wait_ms } => format!("Too many tries. Wait {}.", t.duration(wait_ms)),
            P::SessionEnded => String::from("Your session has ended. Sign in again."),
        }
    }, {
        use crate::http::ui::accounts::SignInProblem as P;
        match problem {
            P::WrongNameOrPassword => String::from("名称或密码错误。"),
            P::TooManyTries { wait_ms } => format!("尝试次数过多，请等待 {}。", t.duration(wait_ms)),
            P::SessionEnded => String::from("会话已结束，请重新登录。"),
        }
    };
}

impl Text<'_> {
    /// What a hit is.
    pub fn hit_kind(&self, kind: HitKind) -> &'static str {
        match kind {
            HitKind::Service => self.either("service", "服务"),
            HitKind::Run => self.either("run", "运行"),
            HitKind::Release => self.either("release", "发布"),
        }
    }

    /// An error's title, and what to do next.
    pub fn error(&self, kind: ErrorKind) -> (&'static str, &'static str) {
        let (en, zh) = match kind {
            ErrorKind::NotFound => (
                ("Not found", "There is no such page, or you may not see it. Look for it on the board."),
                ("未找到", "没有此页面，或您无权查看。请从看板查找。"),
            ),
            ErrorKind::Forbidden => (
                ("Not allowed", "Your roles do not cover this. An admin can give you the role."),
                ("无权限", "您的角色不允许此操作。请联系管理员。"),
            ),
            ErrorKind::StaleForm => (
                ("The form is too old", "Nothing was changed. Go back, load the page again, and send it once more."),
                ("表单已过期", "没有任何更改。请返回并刷新页面后重新提交。"),
            ),
            ErrorKind::Conflict => (
                ("It has moved on", "Nothing was changed. Load the page again to see where it is now."),
                ("状态已变化", "没有任何更改。请刷新页面查看当前状态。"),
            ),
            ErrorKind::TooLarge => {
                (("Too large", "Nothing was changed. Send less."), ("内容过大", "没有任何更改。请减少内容。"))
            }
            ErrorKind::TooManyRequests => {
                (("Too many requests", "Wait a little and try again."), ("请求过多", "请稍后再试。"))
            }
            ErrorKind::BadRequest => (
                ("Not understood", "Nothing was changed. Go back and correct what was sent."),
                ("无法理解请求", "没有任何更改。请返回并更正提交的内容。"),
            ),
            ErrorKind::Internal => (
                (
                    "Windlass failed",
                    "This is not your doing. Try again; if it stays, give an operator the request’s number.",
                ),
                ("Windlass 出错", "这不是您的问题。请重试；若仍然出现，请将请求编号告知运维人员。"),
            ),
            ErrorKind::Unavailable => (
                ("Not available now", "Windlass is starting or something it needs is away. Try again in a moment."),
                ("暂不可用", "Windlass 正在启动，或其依赖暂不可用。请稍后再试。"),
            ),
        };
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }
}
