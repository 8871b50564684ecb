//! The words of the pages of secrets.

use super::{phrases, words};

words! {
    secrets: "Secrets", "机密";
    shared_secrets: "Shared secrets", "共享机密";
    secrets_lead: "What steps get when they name it in the pipeline file. Values are never shown again; logs hide them.", "步骤在流水线文件中写出名称即可获得。值不会再次显示，日志中会被隐藏。";
    no_secrets: "No secret yet.", "尚无机密。";
    for_whom: "For", "适用于";
    set_head: "Set", "设置";
    never_used: "never", "从未";
    remove: "Remove", "移除";
    set_secret: "Set a secret", "设置机密";
    set_secret_hint: "The name of one that is there gives it a new value.", "填写已有名称会更新其值。";
    secret_name_hint: "Letters, digits and underscores, such as DEPLOY_TOKEN.", "字母、数字和下划线，例如 DEPLOY_TOKEN。";
    value: "Value", "值";
    value_hint: "At least 4 characters, so that logs can hide it; of several lines, those with 8 and more are hidden.", "至少 4 个字符，以便在日志中隐藏；多行时隐藏 8 个字符及以上的行。";
    only_for: "Only for these services", "仅限以下服务";
    only_for_hint: "Names with spaces between them; empty: for all, or as it was.", "名称之间用空格分隔；留空表示全部服务，或保持不变。";
    shared_by_all: "all services", "全部服务";
    not_set: "The secret was not set.", "机密未设置。";
}
phrases! {
    shared_by(t, services: &[String]) => format!("shared by {}", t.list(services)), format!("由 {} 共享", t.list(services));
    set_by(t, at_ms: &i64, who: &str) => format!("{} by {who}", t.day(at_ms)), format!("{}，{who}", t.day(at_ms));
}
