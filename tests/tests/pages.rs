//! The pages in a real browser, filled by a running `windlass demo` and some pushes of a developer: looked at in both
//! languages, light and dark, narrow and wide; used without JavaScript; and live with it.

#[path = "pages/developer.rs"]
mod developer;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use developer::{Developer, STRANGERS_TITLE};
use tests::{
    Browser, BrowserOptions,
    evidence::{Tier, record},
    parts::{Part, require},
};

const SOON: Duration = Duration::from_secs(60);
const PARTS: [Part; 5] = [Part::Docker, Part::Registry, Part::Git, Part::Chromium, Part::Axe];

/// What is looked at: a name for the picture, the path, what must be on it.
fn pages(developer: &Developer) -> Vec<(&'static str, String, &'static str)> {
    let shop = "/services/shop";
    let mut pages = vec![
        ("board", "/".to_owned(), "shop"),
        ("services", "/services".to_owned(), "shop"),
        ("service-new", "/services/new".to_owned(), "repository"),
        ("service", shop.to_owned(), "/hooks/shop"),
        ("service-edit", format!("{shop}/edit"), "repository"),
        ("run-good", format!("{shop}/runs/1"), "checkout"),
        ("run-bad", format!("{shop}/runs/{}", developer.bad_run), "false"),
        ("approval-decided", format!("{shop}/approvals/1"), "sha256:"),
        ("approval-open", format!("{shop}/approvals/{}", developer.open_release), "sha256:"),
        ("rollout-done", format!("{shop}/rollouts/2"), "svg"),
        ("rollout-holding", format!("{shop}/rollouts/3"), "svg"),
        ("needs-you", "/needs-you".to_owned(), "shop"),
        ("search", "/search?q=shop".to_owned(), "shop"),
        ("accounts", "/accounts".to_owned(), "admin"),
        // Its sessions name the browser that looks.
        ("me", "/me".to_owned(), "Chrome"),
        ("secrets", format!("{shop}/secrets"), "DEPLOY_KEY"),
        ("secrets-shared", "/secrets".to_owned(), "REGISTRY_MIRROR"),
        ("run-held", format!("/services/stranger/runs/{}", developer.held_run), STRANGERS_TITLE),
        ("audit", "/audit".to_owned(), "sha256:"),
        ("mailbox", "/mailbox".to_owned(), "shop"),
        ("missing", "/services/nothing".to_owned(), "nothing"),
    ];
    pages.push(("approval-link", developer.link_path.clone(), "sha256:"));
    pages
}

/// Where the pictures go.
fn pictures() -> PathBuf {
    tests::evidence::folder().with_file_name("screens")
}

#[tokio::test]
async fn pages_are_well_in_both_languages_themes_and_widths_and_work_without_scripts() -> Result<()> {
    if !require(&PARTS) {
        return Ok(());
    }
    let developer = Developer::start().await?;
    let looked_at = look_at_all(&developer).await?;
    record("axe-core finds nothing on any page, in either language, theme or width", Tier::Live, looked_at);
    board_is_live(&developer).await?;
    record("the board follows a push by itself", Tier::Live, "no reload");
    without_scripts(&developer).await?;
    record("a tester approves by the mailed link and code without JavaScript", Tier::Live, "one approval");
    Ok(())
}

async fn look_at_all(developer: &Developer) -> Result<String> {
    let browser = Browser::start(BrowserOptions::default()).await?;
    let base = &developer.base;
    let pages = pages(developer);
    let mut problems = Vec::new();
    let mut looks = 0;
    for language in ["en", "zh-CN"] {
        browser.set_language(language).await?;
        browser.goto(&format!("{base}/sign-in")).await?;
        sign_in(&browser, developer).await?;
        for (width, height) in [(1280, 900), (390, 844)] {
            browser.set_size(width, height).await?;
            for dark in [false, true] {
                browser.set_dark(dark).await?;
                for (name, path, wanted) in &pages {
                    browser.goto(&format!("{base}{path}")).await?;
                    let shade = if dark { "dark" } else { "light" };
                    let look = format!("{name}-{language}-{shade}-{width}");
                    let source = browser.source().await?;
                    if !source.contains(wanted) {
                        problems.push(format!("{look}: there is no {wanted:?} on it"));
                    }
                    let html_language = browser.attribute("html", "lang").await?.unwrap_or_default();
                    if html_language != language {
                        problems.push(format!("{look}: the page says that it is in {html_language:?}"));
                    }
                    let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                    let too_wide = browser.execute(wide, &[]).await?.as_i64().unwrap_or_default();
                    if too_wide > 0 {
                        problems.push(format!("{look}: {too_wide} px wider than the window"));
                    }
                    for found in browser.axe().await? {
                        let places: Vec<_> = found.nodes.iter().map(|node| node.html.as_str()).take(3).collect();
                        problems.push(format!("{look}: {} ({}): {places:?}", found.id, found.help));
                    }
                    // A page that is missing is answered 404, which the browser notes.
                    let console = browser.console().await?.into_iter().filter(|_| *name != "missing");
                    problems.extend(console.map(|line| format!("{look}: console: {line}")));
                    browser.screenshot(&pictures().join(format!("{look}.png"))).await?;
                    looks += 1;
                }
            }
        }
        browser.cdp("Network.clearBrowserCookies", serde_json::json!({})).await?;
    }
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    Ok(format!("{} pages, {looks} looks", pages.len()))
}

async fn sign_in(browser: &Browser, developer: &Developer) -> Result<()> {
    browser.type_into("#name", "admin").await?;
    browser.type_into("#password", &developer.password).await?;
    browser.click("main form button").await?;
    browser.wait_for("a.me", SOON).await
}

/// The row of the service changes while nobody touches the page.
async fn board_is_live(developer: &Developer) -> Result<()> {
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.goto(&format!("{}/sign-in", developer.base)).await?;
    sign_in(&browser, developer).await?;
    browser.goto(&format!("{}/", developer.base)).await?;
    browser.execute("window.untouched = true", &[]).await?;
    let sha = developer.push("live on the board").await?;
    let short = &sha[..7];
    let deadline = tokio::time::Instant::now() + SOON;
    while !browser.source().await?.contains(short) {
        ensure!(tokio::time::Instant::now() < deadline, "the board never showed {short}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let untouched = browser.execute("return window.untouched === true", &[]).await?;
    ensure!(untouched.as_bool() == Some(true), "the page was loaded again");
    Ok(())
}

/// A tester who is not signed in, in a browser that runs no scripts, opens the link, asks for the code and approves.
async fn without_scripts(developer: &Developer) -> Result<()> {
    let browser = Browser::start(BrowserOptions { javascript: false, ..BrowserOptions::default() }).await?;
    let number = developer.newest_open_release().await?;
    let link = developer.link_of(number).await?;
    let page = format!("{}{link}", developer.base);
    browser.goto(&page).await?;
    browser.click("button[formaction$='/code']").await?;
    let code = developer.code_of(number).await?;
    // As from the mail that holds the code: the link is opened anew.
    browser.goto(&page).await?;
    browser.wait_for("input[name=code]", SOON).await?;
    browser.type_into("input[name=code]", &code).await?;
    browser.click("button[name=decision][value=approve]").await?;
    developer.decided(number).await.context("the release still waits after the decision")?;
    browser.goto(&page).await?;
    let again = browser.source().await?;
    ensure!(!again.contains("value=\"approve\""), "a decided release can still be decided");
    developer.approved_once(number).await.context("the decision was taken once")
}
