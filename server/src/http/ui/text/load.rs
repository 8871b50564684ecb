//! The words of the page of what waits.

use super::{Lang, Text, phrases, words};
use crate::http::ui::load::Bounded;

words! {
    load: "Load", "负载";
    load_lead: "Everything on this server that is bounded: how much of it there is, how much there may be, and how often something was refused since the server started. What refused hooks told is found by polling.", "本服务器上所有有上限的项目：当前数量、上限，以及自启动以来被拒绝的次数。被拒绝的 Webhook 所通知的内容会由轮询补上。";
    what: "What", "项目";
    now_there: "Now", "当前";
    may_be: "Bound", "上限";
    refused_head: "Refused", "已拒绝";
    waits_instead: "waits", "等待";
    each_service: "each service", "每个服务";
    is_full: "full", "已满";
}
phrases! {
    lines_left_out(t, n: u64) => format!("{} lines are left out here: the log grows faster than this page takes it", t.number(n)), format!("此处省略 {} 行：日志增长快于本页接收的速度", t.number(n));
    most_has(t, service: &str, n: &u64) => format!("most: {service}, {}", t.number(*n)), format!("最多：{service}，{}", t.number(*n));
}

impl Text<'_> {
    /// What is bounded.
    pub fn bounded(&self, what: Bounded) -> &'static str {
        let (en, zh) = match what {
            Bounded::Connections => ("Connections", "连接"),
            Bounded::Streams => ("Open streams of events and log lines", "打开的事件与日志流"),
            Bounded::HookBytes => ("Bytes of hooks that are being received", "正在接收的 Webhook 字节"),
            Bounded::Hooks => ("Hooks that were taken and not looked at yet", "已接收、尚未处理的 Webhook"),
            Bounded::Runs => ("Runs that wait or run", "等待或执行中的运行"),
            Bounded::Effects => ("Pieces of work, all kinds", "各类工作项"),
            Bounded::Performing => ("Pieces of work under way", "执行中的工作项"),
            Bounded::Mails => ("Mails to be sent", "待发邮件"),
            Bounded::StoreChanges => ("Changes that wait for the store", "等待写入存储的变更"),
            Bounded::LogBytes => ("Bytes of log lines being written down", "正在写入的日志字节"),
            Bounded::GatewayConnections => ("Connections of visitors to the gateway", "网关的访客连接"),
            Bounded::Traces => ("Runs to be told in traces", "待上报追踪的运行"),
        };
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }
}
