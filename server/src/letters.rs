//! The letters of the mail drivers, written with the templates that the pages use too.

use jiff::tz::TimeZone;
use pipelines::{approval::Reminder, plan::Strategy, release::Release, time::UnixMs};

use crate::driver::mail::{Facts, Letter, Letters};
use crate::http::ui::{
    approval::{Commit, Plan},
    mail::{ApprovalMail, Asked, CodeMail, Mail, MailContext, Reminder as ReminderWord, ReminderMail},
    rollout::Strategy as StrategyWord,
    text::{Clock, Lang},
};

/// Commits that a mail lists.
const COMMITS_MAX: usize = 10;

/// Writes letters with the templates.
#[derive(Clone, Copy, Debug)]
pub struct TemplateLetters;

impl Letters for TemplateLetters {
    fn approval(&self, facts: &Facts) -> Result<Letter, String> {
        let release = &facts.release;
        let commits: Vec<Commit> = release
            .commit
            .changes
            .iter()
            .take(COMMITS_MAX)
            .map(|one| Commit { id: one.short.clone(), subject: one.subject.clone(), author: one.author.clone() })
            .collect();
        let mail = ApprovalMail {
            asked: asked(facts),
            pushed_by: release.commit.author.clone(),
            needed: facts.approval.needed.max(1),
            test_url: facts.test_url.clone(),
            healthy_at_ms: page_ms(release.tested_at.unwrap_or(release.changed_at)),
            how_to_test: Vec::new(),
            live_version: facts.live.as_ref().map(version),
            more_commits: (release.commit.changes.len().saturating_sub(commits.len())) as u64,
            commits,
            steps_passed: facts.steps_passed as u64,
            digest: release.digest.to_string(),
            open_for_ms: i64::try_from(facts.approval.expires_at.since_ms(facts.approval.opened_at))
                .unwrap_or(i64::MAX),
            plan: plan(&release.plan.production.strategy),
        };
        letter(mail.render(&context(facts)))
    }

    fn reminder(&self, facts: &Facts, reminder: Reminder, is_deputy: bool) -> Result<Letter, String> {
        let approval = &facts.approval;
        let mail = ReminderMail {
            asked: asked(facts),
            reminder: match reminder {
                Reminder::HalfTime => ReminderWord::HalfTime,
                Reminder::Deputies => ReminderWord::Deputy,
                Reminder::LastCall => ReminderWord::LastCall,
            },
            is_deputy,
            test_url: facts.test_url.clone(),
            claimed_by: approval.claim.as_ref().map(|claim| claim.by.clone()),
            approved_by: approval.approved_by.iter().map(|decision| decision.by.clone()).collect(),
            needed: approval.needed.max(1),
        };
        letter(mail.render(&context(facts)))
    }

    fn code(&self, facts: &Facts, code: &str, life_ms: u64) -> Result<Letter, String> {
        let valid_ms = i64::try_from(life_ms).unwrap_or(i64::MAX);
        let mail = CodeMail { asked: asked(facts), code: code.to_owned(), valid_ms };
        letter(mail.render(&context(facts)))
    }
}

/// How a release is called where people compare releases: its tag in git, or its number.
#[must_use]
pub fn version(release: &Release) -> String {
    release.id.number.to_string()
}

/// A moment as the templates take it.
#[must_use]
pub fn page_ms(at: UnixMs) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// The strategy as the templates take it.
#[must_use]
pub fn plan(strategy: &Strategy) -> Plan {
    match strategy {
        Strategy::Rolling => Plan { strategy: StrategyWord::Rolling, weights: Vec::new() },
        Strategy::BlueGreen { .. } => Plan { strategy: StrategyWord::BlueGreen, weights: Vec::new() },
        Strategy::Canary { steps } => Plan {
            strategy: StrategyWord::Canary,
            weights: steps.iter().map(|step| u32::from(step.weight_percent)).chain([100]).collect(),
        },
    }
}

fn asked(facts: &Facts) -> Asked {
    let release = &facts.release;
    Asked {
        service: release.id.service.to_string(),
        build: u64::from(release.id.number),
        commit: release.commit.sha.short().to_owned(),
        version: version(release),
        url: facts.url.clone(),
        until_ms: page_ms(facts.approval.expires_at),
    }
}

fn context(facts: &Facts) -> MailContext {
    MailContext {
        lang: Lang::from_tag(&facts.language).unwrap_or_default(),
        clock: Clock { now_ms: page_ms(facts.now), zone: TimeZone::system() },
    }
}

fn letter(mail: Result<Mail, crate::http::ui::RenderError>) -> Result<Letter, String> {
    let Mail { subject, html, text } = mail.map_err(|error| format!("the mail could not be written: {error}"))?;
    Ok(Letter { subject, html, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::tests::markup::{MARK, hostile, obeyed},
        testing::{TESTER, test_app},
    };

    #[tokio::test]
    async fn text_of_others_never_becomes_markup_or_a_header_of_a_mail() {
        let stage = test_app();
        let id = hostile(&stage).await.release();
        let (release, approval) = (stage.app.release(&id).unwrap(), stage.app.approval(&id).unwrap());
        for language in ["en", "zh-CN"] {
            let facts = Facts {
                language: language.into(),
                now: stage.app.now(),
                url: stage.app.approval_url(&approval, TESTER),
                test_url: "http://shop.test.localhost/".into(),
                live: Some(release.clone()),
                steps_passed: 1,
                release: release.clone(),
                approval: approval.clone(),
            };
            for letter in [TemplateLetters.approval(&facts), TemplateLetters.code(&facts, "123456", 60_000)] {
                let letter = letter.unwrap();
                // A mail has its styles within, under a policy of its own where it is shown.
                let found: Vec<String> =
                    obeyed(&letter.html).into_iter().filter(|found| !found.starts_with("style=")).collect();
                assert_eq!(found, Vec::<String>::new(), "{}", letter.html);
                assert!(!letter.subject.chars().any(char::is_control), "{:?}", letter.subject);
            }
            let letter = TemplateLetters.approval(&facts).unwrap();
            assert!(letter.html.contains(MARK), "nothing of the corpus is in the mail: {}", letter.html);
        }
    }
}
