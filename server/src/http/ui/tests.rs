//! What holds for every page and mail: both languages, escaping, the strict policy, the budgets.

use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::approval::ApprovalState;
use super::assets::ASSETS;
use super::samples::{self, HOSTILE};
use super::text::Lang;
use super::why::Why;

const BOARD_MAX_GZIP_BYTES: usize = 30 * 1024;
const MAIL_MAX_BYTES: usize = 60 * 1024;

fn gzip(text: &str) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory").len()
}

fn written(lang: Lang) -> Vec<(String, String)> {
    samples::pages(lang).into_iter().map(|(name, page)| (name, page.expect("the page"))).collect()
}

/// The values of an attribute, of every tag that has it.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    html.match_indices(&start).filter_map(|(at, _)| html[at + start.len()..].split('"').next()).collect()
}

fn visible(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        let skip = if rest[at..].starts_with("<bdi") {
            "</bdi>"
        } else if rest[at..].starts_with("<code") {
            "</code>"
        } else {
            ">"
        };
        rest = rest[at..].split_once(skip).map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text
}

#[test]
fn every_page_is_written_in_both_languages() {
    for lang in Lang::ALL {
        for (name, html) in written(lang) {
            assert!(html.contains(&format!("<html lang=\"{}\"", lang.tag())), "{name}");
            assert!(html.contains("<a class=\"skip\" href=\"#main\">"), "{name}");
            assert_eq!(html.matches("<h1").count(), 1, "{name} has one title");
        }
    }
    for ((name, en), (_, zh)) in written(Lang::En).into_iter().zip(written(Lang::ZhCn)) {
        assert_ne!(en, zh, "{name}");
        let wide = visible(&en).chars().filter(|c| ('\u{4e00}'..='\u{9fff}').contains(c)).collect::<String>();
        assert_eq!(wide, "中文", "{name} in English holds no other Chinese");
    }
}

#[test]
fn the_strict_policy_holds_on_every_page() {
    for lang in Lang::ALL {
        for (name, html) in written(lang) {
            assert!(!html.contains("style="), "{name} has no inline style");
            assert!(!html.contains("<style"), "{name}");
            assert!(!html.contains("data:"), "{name} has no data URI");
            assert!(!html.contains("javascript:"), "{name}");
            assert_eq!(html.matches("<script").count(), 1, "{name} has one script, from a file");
            for handler in ["onclick", "onload", "onerror", "onsubmit", "onchange"] {
                assert!(attributes(&html, handler).is_empty(), "{name} has {handler}");
            }
        }
    }
}

#[test]
fn every_posting_form_carries_the_token_and_every_id_is_unique() {
    for (name, html) in written(Lang::En) {
        for form in html.split("<form").skip(1).filter_map(|rest| rest.split("</form>").next()) {
            if form.contains("method=\"post\"") {
                assert!(form.contains("name=\"_csrf\" value=\"3c2f&quot;&lt;sample&gt;\""), "{name}: {form}");
            }
        }
        let mut ids = attributes(&html, "id");
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "{name} has an id twice");
        for icon in attributes(&html, "href").into_iter().filter(|href| href.starts_with("#i-")) {
            assert!(ids.contains(&&icon[1..]), "{name} uses the unknown icon {icon}");
        }
    }
}

#[test]
fn hostile_text_is_shown_and_never_obeyed() {
    let mut approval = samples::approval();
    approval.commits[0].subject = String::from(HOSTILE);
    approval.commits[0].author = String::from(HOSTILE);
    approval.pushed_by = String::from(HOSTILE);
    approval.state = ApprovalState::Rejected { by: String::from(HOSTILE), at_ms: 0, comment: String::from(HOSTILE) };
    let mut board = samples::board();
    board.rows[0].why = Some(Why::Rejected { by: String::from(HOSTILE), at_ms: 0, comment: String::from(HOSTILE) });
    board.rows[0].service = String::from(HOSTILE);
    board.rows[0].version = Some(String::from(HOSTILE));
    let mut run = samples::run();
    run.subject = String::from(HOSTILE);
    run.steps[0].name = String::from(HOSTILE);
    run.log.groups[0].name = String::from(HOSTILE);
    let mut rollout = samples::rollout();
    rollout.version = String::from(HOSTILE);
    rollout.from = Some(String::from(HOSTILE));
    rollout.checks[0].query = String::from(HOSTILE);
    let mut mail = samples::approval_mail();
    mail.commits[0].subject = String::from(HOSTILE);
    mail.how_to_test[0] = String::from(HOSTILE);
    for lang in Lang::ALL {
        let ctx = samples::context(lang);
        for html in [
            approval.render(&ctx),
            board.render(&ctx),
            run.render(&ctx),
            rollout.render(&ctx),
            mail.render(&samples::mail_context(lang)).map(|mail| mail.html),
        ] {
            let html = html.expect("the page");
            assert!(!html.contains("<script>"), "a script came through");
            assert!(html.contains("&lt;script&gt;") || html.contains("&#60;script&#62;"), "the text is shown");
            assert!(!html.contains("\"' onload"), "an attribute was ended");
        }
    }
}

#[test]
fn the_pages_keep_to_their_budget() {
    let ctx = samples::context(Lang::En);
    let board = gzip(&samples::board_of(50).render(&ctx).expect("the board"));
    assert!(board <= BOARD_MAX_GZIP_BYTES, "the board of 50 rows has {board} bytes");
    for lang in Lang::ALL {
        for (name, html) in written(lang) {
            let bytes = gzip(&html);
            assert!(bytes <= BOARD_MAX_GZIP_BYTES, "{name} has {bytes} bytes");
        }
    }
}

#[test]
fn a_fragment_is_the_content_of_main_alone() {
    let ctx = samples::context(Lang::En);
    let board = samples::board();
    let (whole, part) = (board.render(&ctx).expect("the page"), board.fragment(&ctx).expect("the fragment"));
    assert!(!part.contains("<header") && !part.contains("<footer") && part.contains("id=\"service-checkout\""));
    assert!(whole.contains(part.trim()), "the same content");
}

#[test]
fn a_live_row_keeps_its_id_and_topic() {
    let html = samples::board().render(&samples::context(Lang::En)).expect("the page");
    assert!(html.contains("id=\"service-payments\" data-live=\"service:payments\""));
    assert!(html.contains("data-events=\"/events?topics=board\""));
}

#[test]
fn mails_keep_to_their_rules() {
    for lang in Lang::ALL {
        for (name, mail) in samples::mails(lang) {
            let mail = mail.expect("the mail");
            assert!(mail.html.len() + mail.text.len() < MAIL_MAX_BYTES, "{name}");
            assert!(!mail.html.contains("<img") && !mail.html.contains("<script"), "{name}");
            assert!(!mail.subject.contains(['\r', '\n']), "{name}");
            if name != "code" {
                let url = "https://windlass.example.com/a/k7Qm2x";
                assert!(mail.text.lines().any(|line| line == url), "{name}: the address stands alone on its line");
            }
        }
        let subjects: Vec<String> = samples::mails(lang)
            .into_iter()
            .filter(|(name, _)| name != "code")
            .map(|(_, mail)| mail.expect("the mail").subject)
            .collect();
        assert!(subjects.iter().all(|subject| *subject == subjects[0]), "one subject for the life of an approval");
    }
    let en = samples::approval_mail().render(&samples::mail_context(Lang::En)).expect("the mail");
    assert_eq!(en.subject, "[checkout] Please test build 412 (a1b2c3d)");
    let zh = samples::approval_mail().render(&samples::mail_context(Lang::ZhCn)).expect("the mail");
    assert_eq!(zh.subject, "[checkout] 请验收 build 412 (a1b2c3d)");
}

#[test]
fn a_subject_stays_one_line_whatever_its_data() {
    let mut mail = samples::code_mail();
    mail.asked.commit = String::from("a\r\nBcc: everyone@example.com");
    let mail = mail.render(&samples::mail_context(Lang::En)).expect("the mail");
    assert!(!mail.subject.contains(['\r', '\n']));
}

#[test]
fn the_text_of_the_mail_reads_as_it_should() {
    for (lang, name) in [(Lang::En, "approval_mail_en"), (Lang::ZhCn, "approval_mail_zh")] {
        let mail = samples::approval_mail().render(&samples::mail_context(lang)).expect("the mail");
        insta::assert_snapshot!(name, mail.text);
    }
}

#[test]
fn the_board_says_why_in_both_languages() {
    for (lang, name) in [(Lang::En, "board_en"), (Lang::ZhCn, "board_zh")] {
        let ctx = samples::context(lang);
        let t = ctx.text();
        let said: Vec<String> = samples::board()
            .rows
            .iter()
            .filter_map(|row| row.why.as_ref().map(|why| t.why(why)))
            .map(|why| format!("**{}**{}", why.cause, why.rest))
            .collect();
        insta::assert_snapshot!(name, said.join("\n"));
    }
}

/// Writes every page and mail with the assets to `WINDLASS_UI_DIR`, to look at; without it there is nothing to do.
#[test]
fn pages_can_be_looked_at() {
    let Some(dir) = std::env::var_os("WINDLASS_UI_DIR").map(PathBuf::from) else { return };
    for lang in Lang::ALL {
        let to = dir.join(lang.tag());
        std::fs::create_dir_all(&to).expect("the folder");
        for (name, html) in written(lang) {
            std::fs::write(to.join(format!("{name}.html")), html).expect("the page");
        }
        for (name, mail) in samples::mails(lang) {
            let mail = mail.expect("the mail");
            std::fs::write(to.join(format!("mail-{name}.html")), mail.html).expect("the mail");
            std::fs::write(to.join(format!("mail-{name}.txt")), mail.text).expect("the mail");
        }
    }
    for asset in ASSETS {
        let path = dir.join(super::assets::url(asset.name).trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
        std::fs::write(path, asset.content).expect("the asset");
    }
}
