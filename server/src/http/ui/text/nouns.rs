//! Single words: navigation, stations, the word under each, states, labels of fields.

use super::{Lang, Text, words};
use crate::http::ui::train::{STATIONS, Word};
use crate::http::ui::why::{Measure, Party};
use crate::http::ui::{NoRoom, Role, rollout::Strategy};

words! {
    skip_to_content: "Skip to content", "跳到正文";
    main_menu: "Main", "主导航";
    releases: "Releases", "发布";
    releases_board: "Releases", "发布看板";
    services: "Services", "服务";
    accounts: "Accounts", "账号";
    mailbox: "Mail folder", "邮件目录";
    search: "Search", "搜索";
    search_placeholder: "Service, commit, digest…", "服务、提交、摘要…";
    sign_in: "Sign in", "登录";
    sign_out: "Sign out", "退出";
    go_light: "Light colours", "浅色";
    go_dark: "Dark colours", "深色";
    keys_title: "for keys", "查看快捷键";
    press: "Press", "按";
    filter: "Filter", "筛选";
    all: "All", "全部";
    needs_you: "Needs you", "待您处理";
    failing: "Failing", "失败";
    moving: "Moving", "进行中";
    idle: "Idle", "空闲";
    service: "Service", "服务";
    train: "Train", "列车";
    not_yet: "not yet", "未到";
    still: "still", "仍是";
    nothing_live: "nothing live", "尚未上线";
    run: "run", "运行";
    build: "build", "构建";
    key_help: "show or hide this list", "显示或隐藏此列表";
    key_search: "search", "搜索";
    key_board: "go to the board", "回到看板";
    key_rows: "next or last row", "下一行或上一行";
    key_errors: "next or last error of a log", "日志中下一个或上一个错误";
    key_follow: "follow the end of a log", "跟随日志末尾";
    approve: "Approve", "通过";
    reject: "Reject", "拒绝";
    cancel: "Cancel", "取消";
    save: "Save", "保存";
    name: "Name", "名称";
    password: "Password", "密码";
    role: "Role", "角色";
    age_head: "Age", "时间";
    address: "Address", "地址";
    image: "Image", "镜像";
    since: "Since", "起始";
    runs_on: "Runs on", "运行于";
    healthy: "healthy", "健康";
    unhealthy: "unhealthy", "不健康";
    unknown: "unknown", "未知";
    live: "live", "线上";
    pass: "PASS", "通过";
    fail: "FAIL", "不通过";
    insufficient: "INSUFFICIENT", "样本不足";
    canary: "canary", "金丝雀";
    new_revision: "new", "新版本";
    stable: "stable", "稳定版";
    limit: "limit", "限值";
    requests: "requests", "请求数";
    time: "time", "时间";
    figures: "Figures", "数据表";
    no_data: "no data", "无数据";
}

impl Text<'_> {
    /// The names of the stations, in their order.
    pub fn stations(&self) -> [&'static str; STATIONS] {
        match self.lang() {
            Lang::En => [
                "commit",
                "build",
                "test registry",
                "test environment",
                "approval",
                "production registry",
                "rollout",
                "live",
            ],
            Lang::ZhCn => ["提交", "构建", "测试仓库", "测试环境", "验收", "生产仓库", "发布", "线上"],
        }
    }

    /// The word under a station.
    pub fn word(&self, word: &Word) -> String {
        let (en, zh): (String, String) = match word {
            Word::Pushed => two("pushed", "已推送"),
            Word::Tagged => two("tagged", "已打标签"),
            Word::PullRequest => two("pull request", "合并请求"),
            Word::Started => two("started by hand", "手动开始"),
            Word::Queued => two("queued", "排队中"),
            Word::Built => two("built", "已构建"),
            Word::Reused => two("built (reused)", "已构建（复用）"),
            Word::CheckingOut => two("checking out", "检出中"),
            Word::StepOf { n, of } => (format!("step {n} of {of}"), format!("第 {n} / {of} 步")),
            Word::BuildingImage => two("building image", "构建镜像"),
            Word::Pushing => two("pushing", "推送镜像"),
            Word::StepFailed { step } => (format!("{step} failed"), format!("{step} 失败")),
            Word::ImageFailed => two("image failed", "镜像失败"),
            Word::FileInvalid => two("file invalid", "配置有误"),
            Word::CommitGone => two("commit gone", "提交已消失"),
            Word::TimedOut => two("timed out", "超时"),
            Word::Cancelled => two("cancelled", "已取消"),
            Word::Stored => two("stored", "已入库"),
            Word::Deploying => two("deploying", "部署中"),
            Word::Healthy => two("healthy", "健康"),
            Word::Unhealthy => two("unhealthy", "不健康"),
            Word::NeedsYou => two("needs you", "待您处理"),
            Word::NeedsYouToo { have, need } => {
                (format!("needs you, {have}/{need}"), format!("待您处理 {have}/{need}"))
            }
            Word::ApprovedOf { have, need } => (format!("{have}/{need} approved"), format!("已通过 {have}/{need}")),
            Word::Yours => two("yours", "您已认领"),
            Word::WaitsFor { who } => (format!("with {who}"), format!("{who} 处理中")),
            Word::AwaitingTesters => two("with testers", "待验收"),
            Word::Approved => two("approved", "已通过"),
            Word::Rejected => two("rejected", "已拒绝"),
            Word::Expired => two("expired", "已过期"),
            Word::Superseded => two("superseded", "已被取代"),
            Word::Copying => two("copying", "复制中"),
            Word::Promoted => two("promoted", "已晋级"),
            Word::WaitsForRollout => two("waits", "等待"),
            Word::Canary { percent } => (format!("canary {percent}\u{a0}%"), format!("金丝雀 {percent}\u{a0}%")),
            Word::Preview => two("preview", "预览"),
            Word::Rolling { ready, of } => (format!("{ready} of {of} new"), format!("{ready} / {of} 已更新")),
            Word::HeldAt { percent } => (format!("held at {percent}\u{a0}%"), format!("{percent}\u{a0}% 暂停")),
            Word::Held => two("held", "已搁置"),
            Word::Paused => two("paused", "已暂停"),
            Word::RollingBack => two("rolling back", "回滚中"),
            Word::RolledBack => two("rolled back", "已自动回滚"),
            Word::Aborted => two("aborted", "已中止"),
            Word::RolledOut => two("done", "完成"),
            Word::Retrying => two("retrying", "重试中"),
            Word::Unreachable => two("unreachable", "无法连接"),
            Word::Live => two("live", "线上"),
            Word::Still { version } => (format!("still {version}"), format!("仍是 {version}")),
            Word::NothingLive => two("nothing live", "尚未上线"),
        };
        self.pick(en, zh)
    }

    /// The name of a party that a fault is at, within a sentence.
    pub fn party(&self, party: Party) -> &'static str {
        let (en, zh) = match party {
            Party::Git => ("the git server", "Git 服务器"),
            Party::TestRegistry => ("the test registry", "测试仓库"),
            Party::ProductionRegistry => ("the production registry", "生产仓库"),
            Party::Registries => ("a registry", "镜像仓库"),
            Party::Engine => ("the container engine", "容器引擎"),
            Party::Mail => ("the mail server", "邮件服务器"),
            Party::Gateway => ("the gateway", "网关"),
            Party::Runner => ("the runner", "执行器"),
            Party::Store => ("the store", "存储"),
        };
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }

    /// Why nothing new begins on this server, and what helps.
    pub fn no_room(&self, no: &NoRoom) -> String {
        let (en, zh) = match no {
            NoRoom::Low { free_mib, min_mib } => (
                format!(
                    "The disk of the server is nearly full: {free_mib} MiB free, {min_mib} MiB kept. What has begun goes \
                     on, nothing new is accepted. Free space under the state folder."
                ),
                format!(
                    "服务器磁盘将满：剩余 {free_mib} MiB，保留 {min_mib} MiB。已开始的工作会继续，不再接受新的工作。请清理状态目录所在的磁盘。"
                ),
            ),
            NoRoom::ReadOnly => two(
                "The state folder of the server is read-only: nothing can be changed. Make it writable again.",
                "服务器的状态目录为只读，无法做任何更改。请恢复写入。",
            ),
            NoRoom::Refused => two(
                "The server cannot store changes at present. Free space under the state folder, or make it writable.",
                "服务器目前无法保存更改。请清理状态目录所在的磁盘，或恢复写入。",
            ),
        };
        self.pick(en, zh)
    }

    /// The name of what a check measures.
    pub fn measure(&self, measure: Measure) -> &'static str {
        let (en, zh) = match measure {
            Measure::SuccessRate => ("Success rate", "成功率"),
            Measure::LatencyP50 => ("p50", "p50"),
            Measure::LatencyP95 => ("p95", "p95"),
            Measure::LatencyP99 => ("p99", "p99"),
            Measure::ErrorsAgainstStable => ("Errors against stable", "错误率对比稳定版"),
            Measure::LatencyAgainstStable => ("Latency against stable", "延迟对比稳定版"),
        };
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }

    /// The name of a role.
    pub fn role_name(&self, role: Role) -> &'static str {
        let (en, zh) = match role {
            Role::Developer => ("developer", "开发人员"),
            Role::Tester => ("tester", "测试人员"),
            Role::ReleaseManager => ("release manager", "发布经理"),
            Role::Operator => ("operator", "运维人员"),
            Role::Admin => ("admin", "管理员"),
        };
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }

    /// The name of a rollout strategy.
    pub fn strategy(&self, strategy: Strategy) -> &'static str {
        let (en, zh) = match strategy {
            Strategy::Canary => ("canary", "金丝雀"),
            Strategy::BlueGreen => ("blue-green", "蓝绿"),
            Strategy::Rolling => ("rolling", "滚动"),
        };
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }

    pub(super) fn pick(&self, en: String, zh: String) -> String {
        match self.lang() {
            Lang::En => en,
            Lang::ZhCn => zh,
        }
    }
}

fn two(en: &str, zh: &str) -> (String, String) {
    (String::from(en), String::from(zh))
}
