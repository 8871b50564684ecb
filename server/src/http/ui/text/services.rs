//! The sentences of a service and of the form that registers one.

use super::{Text, phrases, words};
use crate::http::ui::rollout::Strategy;
use crate::http::ui::service::{Became, Ignored, ReleaseOutcome, Signature};
use crate::http::ui::services::{CredentialKind, Problem};

words! {
    try_it: "Try it, without a push", "不推送，先试一下";
    edit: "Edit", "编辑";
    hook_deliveries: "Hook deliveries", "Webhook 记录";
    event: "Event", "事件";
    became: "Became", "结果";
    signature: "Signature", "签名";
    no_deliveries: "No delivery yet.", "尚无记录。";
    network: "Network", "网络";
    port: "Port", "端口";
    calls: "Calls", "调用";
    called_by: "Called by", "被调用";
    people: "People", "人员";
    testers: "Testers", "测试人员";
    deputies: "Deputies", "代理人";
    managers: "Releases", "发布";
    more: "More", "更多";
    nothing_deployed: "nothing deployed", "尚未部署";
    release: "Release", "发布";
    what_changed: "What changed", "改动";
    rollout: "Rollout", "发布方式";
    when_head: "When", "时间";
    roll_back: "Roll back", "回滚";
    rollback_note: "a rollback takes the stored image, no rebuild; it starts at once and is judged", "回滚使用已存镜像，无需重新构建；立即开始并经评判";
    no_releases: "No release yet.", "尚无发布。";
    not_decided: "not decided", "未决定";
    register: "Register", "登记";
    register_service: "Register a service", "登记服务";
    repository: "Repository", "代码库";
    repository_hint: "Over https or ssh, without a password in it. It holds a .windlass.yaml.", "https 或 ssh 地址，不含密码。其中有 .windlass.yaml。";
    release_branch: "Release branch", "发布分支";
    default_branch: "the default branch", "默认分支";
    credential: "Credential", "凭据";
    user_name: "User name", "用户名";
    user_hint: "for an access token, if the forge wants one", "访问令牌需要时填写";
    token: "Access token or private SSH key", "访问令牌或 SSH 私钥";
    token_hint: "Stored encrypted, never shown again.", "加密保存，不再显示。";
    token_kept: "One is stored. Leave it empty to keep it.", "已保存；留空则保持不变。";
    poll_every: "Look for pushes every", "轮询间隔";
    allow_unsigned: "Accept hooks without a signature", "接受无签名的 Webhook";
    allow_unsigned_hint: "Anyone who reaches this server could then start a run.", "任何能访问本服务器的人都可触发运行。";
    allow_self: "The author of a commit may approve it", "允许提交者自行验收";
    hook_lead: "Give your forge this address and secret, for push, tag and pull request. Without it Windlass still finds pushes by polling.", "请在代码平台填写此地址和密钥，勾选推送、标签和合并请求。不配置时 Windlass 仍会通过轮询发现推送。";
    forge_settings: "What to set at the forge", "在代码平台上如何设置";
    set_github: "Settings, Webhooks: content type application/json, the secret; events: pushes, pull requests.", "Settings → Webhooks：内容类型选 application/json，填写密钥；事件选 pushes 和 pull requests。";
    set_gitea: "Settings, Webhooks: POST, application/json, the secret; events: push, pull request, pull request synchronized.", "设置 → Web 钩子：POST、application/json，填写密钥；事件选推送、合并请求和合并请求同步。";
    set_gitlab: "Settings, Webhooks: the secret as secret token; or a signing token of GitLab’s, which is then given to the service as its secret. Triggers: push, tag push, merge request events.", "设置 → Webhooks：把密钥填为 secret token；或使用 GitLab 的 signing token，并将其设为本服务的密钥。触发器选推送、标签推送和合并请求事件。";
    set_bitbucket: "Repository settings, Webhooks: the secret; trigger: repository push. A pull request runs by the push of its branch.", "Repository settings → Webhooks：填写密钥；触发器选 repository push。合并请求由其分支的推送触发运行。";
    set_bitbucket_server: "Repository settings, Webhooks: the secret; events: push, pull request opened, source branch updated.", "Repository settings → Webhooks：填写密钥；事件选 push、pull request opened 和 source branch updated。";
    secret: "Secret", "密钥";
    shown_once: "shown this once: copy it now", "仅显示这一次，请立即复制";
    after_register: "shown once, after you register", "登记后显示一次";
    from_step_2: "the one from step 2", "第 2 步中的密钥";
    r202: "Received. It shows on the service’s page, under hook deliveries.", "已收到。会显示在服务页面的 Webhook 记录中。";
    r403: "There is no service of that name, or the signature is wrong: the secret differs, or a proxy changed the body.", "没有此名称的服务，或签名错误：密钥不符，或代理改动了正文。";
    ssh_key: "SSH key", "SSH 密钥";
    ssh_key_hint: "Give this public key read access to the repository.", "请为此公钥授予代码库的只读权限。";
    no_services: "No service yet.", "还没有服务。";
    pushed_head: "Last push", "最近推送";
    state_head: "State", "状态";
    good: "good", "正常";
    never: "never", "从未";
    go_to_service: "Go to the service", "前往服务页面";
}
phrases! {
    registered(t, name: &str) => format!("{name} is registered"), format!("{name} 已登记");
    edit_service(t, name: &str) => format!("Edit {name}"), format!("编辑 {name}");
    register_named(t, name: &str) => if name.is_empty() { String::from("Register") } else { format!("Register {name}") }, if name.is_empty() { String::from("登记") } else { format!("登记 {name}") };
    on_its_way(t, version: &Option<String>, run: u64) =>
        version.as_ref().map_or(format!("On its way: run {run}"), |v| format!("On its way: {v}, build {run}")),
        version.as_ref().map_or(format!("进行中：运行 {run}"), |v| format!("进行中：{v}，构建 {run}"));
    service_lead(t, repository: &str, branch: &Option<String>, base: &Option<String>) => {
        let branch = branch.as_ref().map_or(String::from("release branch is the default branch"), |b| format!("release branch {b}"));
        format!("{repository}, {branch}{}", base.as_ref().map_or(String::new(), |b| format!(", base config {b}")))
    }, {
        let branch = branch.as_ref().map_or(String::from("发布分支为默认分支"), |b| format!("发布分支 {b}"));
        format!("{repository}，{branch}{}", base.as_ref().map_or(String::new(), |b| format!("，基础配置 {b}")))
    };
    containers(t, n: u32) => t.plural(n, "container", "containers"), format!("{n} 个容器");
    claimed_by(t, who: &str) => format!("claimed by {who}"), format!("由 {who} 认领");
    approved_by(t, who: &[String]) => format!("approved by {}", t.list(who)), format!("{} 通过", t.list(who));
    roll_back_to(t, version: &str) => format!("Roll back to {version}"), format!("回滚到 {version}");
    in_steps(t, strategy: Strategy, steps: usize) =>
        if strategy == Strategy::Canary { format!("{}, {}", t.strategy(strategy), t.plural(steps, "step", "steps")) } else { String::from(t.strategy(strategy)) },
        if strategy == Strategy::Canary { format!("{}，{steps} 步", t.strategy(strategy)) } else { String::from(t.strategy(strategy)) };
    polled(t, every_ms: &Option<i64>, at_ms: &Option<i64>) =>
        every_ms.map_or(String::from("not polled"), |every| format!("polled every {} as well{}", t.duration(every), at_ms.map_or(String::new(), |at| format!(", last {} ago", t.age(at))))),
        every_ms.map_or(String::from("不轮询"), |every| format!("另每 {} 轮询{}", t.duration(every), at_ms.map_or(String::new(), |at| format!("，上次在 {}前", t.age(at)))));
    poll_failed(t, answer: &str) => format!("The last poll failed: {answer}"), format!("上次轮询失败：{answer}");
    decide_n(t, n: u32) => if n == 1 { String::from("1 decides") } else { format!("{} must approve", t.number(n)) }, if n == 1 { String::from("1 人决定即可") } else { format!("需 {n} 人通过") };
    poll_choice(t, s: u64) => if s == 0 { String::from("never, hooks only") } else { t.duration(i64::try_from(s).unwrap_or(0) * 1000) }, if s == 0 { String::from("不轮询，仅 Webhook") } else { t.duration(i64::try_from(s).unwrap_or(0) * 1000) };
    for_forge(t, forge: &str) => format!("for {forge}"), format!("用于 {forge}");
}

impl Text<'_> {
    /// How a release ended.
    pub fn outcome(&self, outcome: &ReleaseOutcome) -> String {
        let (en, zh) = match outcome {
            ReleaseOutcome::OnItsWay => ("on its way", "进行中"),
            ReleaseOutcome::Live => ("live", "线上"),
            ReleaseOutcome::Done { .. } => ("done", "完成"),
            ReleaseOutcome::RolledBack { .. } => ("rolled back by itself", "已自动回滚"),
            ReleaseOutcome::Aborted => ("aborted", "已中止"),
            ReleaseOutcome::Rejected { .. } => ("rejected", "已拒绝"),
            ReleaseOutcome::Expired => ("expired", "已过期"),
            ReleaseOutcome::Superseded { .. } => ("superseded", "已被取代"),
            ReleaseOutcome::Failed => ("failed", "失败"),
        };
        String::from(self.either(en, zh))
    }

    /// When a release went live or how it ended, beneath its age.
    pub fn outcome_detail(&self, outcome: &ReleaseOutcome, at_ms: i64) -> String {
        let (en, zh) = match outcome {
            ReleaseOutcome::Done { lived_ms } => {
                (format!("live for {}", self.span(lived_ms)), format!("在线 {}", self.span(lived_ms)))
            }
            ReleaseOutcome::RolledBack { percent } => {
                (format!("back at {percent}\u{a0}%"), format!("在 {percent}\u{a0}% 时回退"))
            }
            ReleaseOutcome::Rejected { by } => (format!("by {by}"), format!("由 {by}")),
            ReleaseOutcome::Superseded { by_version } => {
                (format!("by {by_version}, unclaimed"), format!("被 {by_version}，无人认领"))
            }
            _ => return self.day(at_ms),
        };
        self.pick(en, zh)
    }

    /// What became of a delivery, without the run, which is a link.
    pub fn became_of(&self, became: &Became) -> String {
        let (en, zh) = match became {
            Became::Received => (String::from("received"), String::from("已收到")),
            Became::Run { run, release: true } => (format!("run {run}"), format!("运行 {run}")),
            Became::Run { run, release: false } => {
                (format!("run {run}, no release"), format!("运行 {run}，不产生发布"))
            }
            Became::Repeat => (String::from("repeat of an earlier one"), String::from("重复的请求")),
            Became::Ignored { reason } => match reason {
                Ignored::Ping => (String::from("ping, answered"), String::from("连通测试，已应答")),
                Ignored::RefDeleted => {
                    (String::from("no run: the ref was deleted"), String::from("不运行：引用已删除"))
                }
                Ignored::ForkPullRequest => {
                    (String::from("no run: it comes from a fork"), String::from("不运行：来自派生库"))
                }
                Ignored::KnownCommit => {
                    (String::from("no run: the commit is known"), String::from("不运行：提交已处理"))
                }
                Ignored::Asked => (
                    String::from("no run by itself: asked the repository where the branch is now"),
                    String::from("不直接运行：已向代码库查询分支的当前位置"),
                ),
                Ignored::OtherEvent => {
                    (String::from("no run: not an event for Windlass"), String::from("不运行：与 Windlass 无关的事件"))
                }
            },
            Became::Refused { reason } => (format!("refused: {reason}"), format!("已拒绝：{reason}")),
            Became::Failed { answer } => (format!("failed: {answer}"), format!("失败：{answer}")),
        };
        self.pick(en, zh)
    }

    /// The state of a signature.
    pub fn signature_state(&self, signature: Signature) -> &'static str {
        match signature {
            Signature::Right => self.either("right", "正确"),
            Signature::Wrong => self.either("wrong", "错误"),
            Signature::None => self.either("none", "无"),
        }
    }

    /// A kind of credential.
    pub fn credential_kind(&self, kind: CredentialKind) -> &'static str {
        match kind {
            CredentialKind::None => self.either("None, it is public", "无，公开代码库"),
            CredentialKind::Token => self.either("Access token", "访问令牌"),
            CredentialKind::SshKey => self.either("SSH key", "SSH 密钥"),
        }
    }

    /// What is wrong with a field.
    pub fn problem(&self, problem: &Problem) -> String {
        let (en, zh) = match problem {
            Problem::Required => (String::from("This is needed."), String::from("此项必填。")),
            Problem::BadName => (
                String::from("Small letters, digits and hyphens, beginning with a letter."),
                String::from("仅限小写字母、数字和连字符，以字母开头。"),
            ),
            Problem::Taken => (String::from("This name is taken."), String::from("名称已被使用。")),
            Problem::NotAnAddress => {
                (String::from("This is not an address over https or ssh."), String::from("不是 https 或 ssh 地址。"))
            }
            Problem::CredentialInAddress => (
                String::from("Leave user, password and token out of the address; enter them as the credential."),
                String::from("地址中请勿包含用户名、密码或令牌，请在凭据中填写。"),
            ),
            Problem::UnsupportedKey => (
                String::from("Only Ed25519 and ECDSA keys are accepted."),
                String::from("仅接受 Ed25519 和 ECDSA 密钥。"),
            ),
            Problem::TooLong { max_chars } => (
                format!("Too long: {} at most.", self.plural(max_chars, "character", "characters")),
                format!("过长，最多 {max_chars} 个字符。"),
            ),
            Problem::TooShort { min_chars } => (
                format!("Too short: {} at least.", self.plural(min_chars, "character", "characters")),
                format!("过短，至少 {min_chars} 个字符。"),
            ),
            Problem::Different => (String::from("This is not the present password."), String::from("当前密码不正确。")),
            Problem::Unreachable { answer } => (format!("It cannot be read: {answer}"), format!("无法读取：{answer}")),
        };
        self.pick(en, zh)
    }
}
