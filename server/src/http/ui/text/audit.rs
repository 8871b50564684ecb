//! The words of the page of the audit log.

use pipelines::journal::Channel;

use super::{Lang, Text, phrases, words};

words! {
    audit: "Audit", "审计";
    audit_lead: "Who changed what, from where and how. Entries are only added; each one names the one before it by its digest.", "谁、从哪里、以何种方式、更改了什么。记录只增不改，每条都以摘要指向前一条。";
    audit_only_services: "You see what is about services; operators see everything.", "您看到的是与服务相关的记录；运维人员可查看全部。";
    audit_when: "When", "时间";
    audit_who: "Who", "操作人";
    audit_what: "What", "操作";
    audit_change: "Before → after", "变更前 → 变更后";
    audit_how: "How", "方式";
    audit_who_hint: "Part of a name, or how the address begins.", "名称的一部分，或地址的开头。";
    audit_what_hint: "Part of the word, the subject or the detail, such as secret.", "操作、对象或说明的一部分，例如 secret。";
    audit_any: "any", "不限";
    audit_from: "From day", "起始日期";
    audit_until: "To day", "截止日期";
    audit_show: "Show", "显示";
    audit_all: "Show everything", "显示全部";
    audit_csv: "Download as CSV", "下载 CSV";
    audit_none: "No entry fits.", "没有符合条件的记录。";
    audit_older: "Older", "更早";
    audit_newest: "Newest", "最新";
    audit_bad_filter: "The filter cannot be used.", "无法使用该筛选条件。";
    audit_chain: "Chain", "链";
    audit_keep: "Keep this mark elsewhere: it shows later that nothing up to it was changed or cut off.", "请将此标记保存在别处：日后可证明此前的记录未被更改或截断。";
    audit_not_checked: "Not checked yet since the start.", "启动后尚未检查。";
}
phrases! {
    audit_looked_at(t, n: &u64) => format!("{} looked at", t.plural(n, "entry", "entries")), format!("已查看 {} 条记录", t.number(n));
    audit_whole(t, at_ms: &i64) => format!("Whole when it was checked, {} ago", t.age(at_ms)), format!("{}前检查：完整", t.age(at_ms));
    audit_broken(t, at_ms: &i64) => format!("Not what was written, seen {} ago:", t.age(at_ms)), format!("{}前检查发现与写入内容不符：", t.age(at_ms));
}

impl Text<'_> {
    /// The name of a way.
    pub fn by_way(&self, way: &Channel) -> &'static str {
        let (en, zh) = match way {
            Channel::Page => ("page", "页面"),
            Channel::Api => ("API", "API"),
            Channel::MailLink => ("mailed link", "邮件链接"),
            Channel::Hook => ("hook", "钩子"),
            Channel::Runner => ("runner", "执行器"),
            Channel::Server => ("the server itself", "服务器自身"),
            Channel::Machine => ("command on the server's machine", "服务器本机命令"),
        };
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }
}
