//! The link of a mail under torture: thousands of tries to have a release approved by somebody who may not, and not one that
//! succeeds. At the end the door opens to the one who may, so that it was a door.

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pipelines::{approval::ApprovalState, ids::ServiceName, release::ReleaseState};
use reqwest::{Method, StatusCode};
use server::app::keys::Keys;
use tests::{Tier, evidence::record};

use crate::{
    attacks::Attacker,
    people,
    stage::{Stage, TESTERS},
    target::{CODES_WINDOW_MS, QA, Target, none_passed, token_of},
};

const SCANS: usize = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_a_tester_with_link_and_code_approves() -> Result<()> {
    // What is wrong is not slowed here, so that all of it is looked at.
    let stage = Stage::start(|config| {
        config.bounds.wrong_proofs_max = u32::MAX;
    })
    .await?;
    let attacker = Attacker::new(&stage);
    let service = |name: &'static str| stage.service(name);

    let target = Target::of(&attacker, &service("shop").await?).await?;
    scanners(&attacker, &target).await?;
    pressers(&attacker, &target).await?;
    forwarded(&attacker, &target).await?;
    guessed_tokens(&attacker, &target).await?;
    odd_requests(&attacker, &target).await?;
    odd_codes(&attacker, &target).await?;
    foreign(&attacker, &target, &service("cart").await?).await?;
    guessed_codes(&attacker, &Target::of(&attacker, &service("guessed").await?).await?).await?;
    replayed(&attacker, &service("replayed").await?).await?;
    at_once(&attacker, &Target::of(&attacker, &service("raced").await?).await?).await?;
    people::one_person_twice(&attacker, &service("twice").await?).await?;
    people::at_once(&attacker, &service("two").await?).await?;

    target.waits(&attacker)?;
    let code = target.code(&attacker).await?;
    ensure!(attacker.post(&target.decide(), &target.approve(&code)).await? == StatusCode::SEE_OTHER);
    ensure!(!stage.is_waiting(&target.release)?, "the door opens to nobody at all");
    // Last, because they let weeks go by.
    people::author(&attacker, &service("author").await?).await?;
    people::deputy(&attacker, &service("deputy").await?).await?;
    over(&attacker, &service("late").await?).await?;
    let sent = attacker.sent.into_inner();
    ensure!(sent > 5_000, "only {sent} requests were sent");
    record("no false approval by the link of a mail", Tier::Contract, format!("{sent} attempts, 0 false approvals"));
    stage.stop().await;
    Ok(())
}

/// Programs that open every link of a mail, in all the ways there are.
async fn scanners(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let app = &attacker.stage.app;
    let before = (app.approval(&target.release)?, app.journal(None, None, 1)?);
    let headers = [
        ("purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("x-moz", "prefetch"),
        ("user-agent", "Mozilla/5.0 (compatible; SafeLinks scanner)"),
        ("x-http-method-override", "POST"),
        ("x-requested-with", "XMLHttpRequest"),
    ];
    let mut requests = Vec::new();
    for at in 0..SCANS {
        let (name, value) = headers[at % headers.len()];
        let query = format!("?decision=approve&digest={}&_csrf={}&code=123456", target.digest, target.csrf);
        let url = if at % 2 == 0 { target.link.clone() } else { format!("{}{query}", target.link) };
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            requests.push(attacker.request(&method, &url).header(name, value));
        }
    }
    for verb in ["decide", "code", "claim", "release"] {
        for method in
            [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::PATCH, Method::DELETE, Method::TRACE]
        {
            requests.push(attacker.request(&method, &format!("{}/{verb}", target.link)));
        }
    }
    attacker.all(requests).await?;
    ensure!(
        (app.approval(&target.release)?, app.journal(None, None, 1)?) == before,
        "opening a link changed something"
    );
    target.waits(attacker)
}

/// Programs that open a link and press every button of its page.
async fn pressers(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    for filled in ["", "1", "yes", "123456789"] {
        for _ in 0..5 {
            for form in attacker.forms(&target.link).await? {
                let fields: Vec<(&str, &str)> = form
                    .fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), if value.is_empty() { filled } else { value.as_str() }))
                    .collect();
                attacker.post(&form.action, &fields).await?;
                attacker.send(attacker.stage.http.get(&form.action).query(&fields)).await?;
                for script in as_scripts_do(attacker, &form.action, &fields, &target.csrf) {
                    attacker.send(script).await?;
                }
                target.waits(attacker)?;
            }
        }
    }
    Ok(())
}

/// The same form as a page's script sends it, from here and from elsewhere.
fn as_scripts_do(
    attacker: &Attacker<'_>,
    action: &str,
    fields: &[(&str, &str)],
    csrf: &str,
) -> Vec<reqwest::RequestBuilder> {
    let by_name: serde_json::Map<String, serde_json::Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    ["same-origin", "cross-site"]
        .into_iter()
        .flat_map(|site| {
            let fetch = attacker.stage.http.post(action).header("x-csrf-token", csrf);
            let fetch = fetch.header("sec-fetch-mode", "cors").header("sec-fetch-site", site);
            let beacon = attacker.stage.http.post(action).header("sec-fetch-mode", "no-cors");
            [fetch.json(&by_name), beacon.header("content-type", "text/plain").body(as_text(fields))]
        })
        .collect()
}

fn as_text(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Somebody whom the mail was forwarded to: they have the link, and no code.
async fn forwarded(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let statuses = ["", " ", "\u{a0}", "null", "undefined", "000000 ", "'", "%", "../code"];
    for code in statuses {
        none_passed(&[attacker.post(&target.decide(), &target.approve(code)).await?])?;
    }
    let bare = [("_csrf", target.csrf.as_str()), ("decision", "approve"), ("digest", target.digest.as_str())];
    none_passed(&[attacker.post(&target.decide(), &bare).await?])?;
    target.waits(attacker)
}

/// Links that nobody was mailed: near the true one, by another key, for somebody who is no tester.
async fn guessed_tokens(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let token = token_of(&target.link);
    let approval = attacker.stage.app.approval(&target.release)?;
    let bytes = URL_SAFE_NO_PAD.decode(token)?;
    let mut tokens: Vec<String> = Vec::new();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        tokens.push(URL_SAFE_NO_PAD.encode(flipped));
    }
    tokens.extend((0..token.len()).map(|length| token[..length].to_owned()));
    tokens.extend((1..token.len()).map(|start| token[start..].to_owned()));
    // The last letter of the text has two bits that carry nothing: only one way of writing them is the link.
    let last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars();
    tokens.extend(last.map(|c| format!("{}{c}", &token[..token.len() - 1])).filter(|other| other != token));
    for key in 0..=255_u8 {
        let other = Keys::from_bytes([key; 32]);
        tokens.push(other.approval_token(&approval, QA));
    }
    tokens.retain(|other| other != token);
    for stranger in ["mallory@example.com", "QA@example.com", "qa@example.com ", "", "admin"] {
        tokens.push(attacker.stage.app.keys().approval_token(&approval, stranger));
    }
    for odd in [format!("{token}="), format!("{token}A"), token.to_lowercase(), token.to_uppercase(), "*".into()] {
        tokens.push(odd);
    }
    tokens.extend([hex::encode(&bytes), "%00".into(), format!("{token}%00"), format!("{token}%20"), "x".repeat(6_000)]);
    let base = target.link.strip_suffix(token).context("the link ends in its token")?;
    let mut requests = Vec::new();
    for other in tokens.iter().filter(|other| !other.is_empty()) {
        requests.push(attacker.request(&Method::GET, &format!("{base}{other}")));
        let csrf = attacker.stage.app.keys().mac("csrf", &[other.as_bytes()]);
        let mut form = target.approve("123456").to_vec();
        let own = URL_SAFE_NO_PAD.encode(csrf);
        form[0].1 = &own;
        requests.push(attacker.request(&Method::POST, &format!("{base}{other}/decide")).form(&form));
    }
    none_passed(&attacker.all(requests).await?)?;
    target.waits(attacker)
}

/// Verbs, bodies and kinds of content that no page sends; some with a code that is right.
async fn odd_requests(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let code = target.code(attacker).await?;
    let good = target.approve(&code);
    for verb in [
        "Decide",
        "DECIDE",
        "approve",
        "decide%2F",
        "decide%00",
        "decide.json",
        "ask-again",
        "..%2Fdecide",
        "%64ecide%20",
        "x",
    ] {
        none_passed(&[attacker.post(&format!("{}/{verb}", target.link), &good).await?])?;
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE] {
        let request = attacker.request(&method, &target.decide()).form(&good).header("x-http-method-override", "POST");
        none_passed(&[attacker.send(request.query(&good)).await?.status()])?;
    }
    let http = &attacker.stage.http;
    let json = serde_json::json!({"_csrf": target.csrf, "digest": target.digest, "decision": "approve", "code": code});
    let encoded: String = good
        .iter()
        .map(|(name, value)| format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"))
        .collect();
    let odd = [
        http.post(target.decide()).json(&json),
        http.post(target.decide())
            .header("content-type", "multipart/form-data; boundary=b")
            .body(format!("{encoded}--b--\r\n")),
        http.post(target.decide()).body(Vec::new()),
        http.post(target.decide()).body(vec![0_u8; 4_096]),
        http.post(target.decide()).body(vec![b'a'; 3 << 20]),
        http.post(target.decide()).body("a=1&".repeat(200_000)),
        http.post(target.decide()).query(&good).form(&[("_csrf", &target.csrf)]),
    ];
    for request in odd {
        none_passed(&[attacker.send(request).await?.status()])?;
    }
    // The first field of a name counts; a form token of another link, none, or a changed one does not.
    let twice = [("decision", "reject"), good[2], good[0], good[1], good[3]];
    none_passed(&[attacker.post(&target.decide(), &twice).await?])?;
    for csrf in ["", "x", &target.csrf[1..], token_of(&target.link)] {
        let mut form = good;
        form[0].1 = csrf;
        none_passed(&[attacker.post(&target.decide(), &form).await?])?;
    }
    let other = format!("sha256:{}", "0".repeat(64));
    for digest in
        ["", "latest", &other, &target.digest[..70], &target.digest.to_uppercase(), &format!("{}\0", target.digest)]
    {
        let mut form = good;
        form[1].1 = digest;
        none_passed(&[attacker.post(&target.decide(), &form).await?])?;
    }
    for decision in ["", "Approve", "approve ", "approved", "yes", "1", "approve\0"] {
        let mut form = good;
        form[2].1 = decision;
        none_passed(&[attacker.post(&target.decide(), &form).await?])?;
    }
    target.waits(attacker)
}

/// The right code, written as nobody writes it.
async fn odd_codes(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let in_digits = |code: &str, zero: u32| -> String {
        code.chars().filter_map(|c| char::from_u32(zero + c.to_digit(10)?)).collect()
    };
    // Full width, Arabic-Indic, Devanagari, mathematical bold.
    for zero in [0xff10, 0x0660, 0x0966, 0x1d7ce] {
        let code = in_digits(&target.code(attacker).await?, zero);
        none_passed(&[attacker.post(&target.decide(), &target.approve(&code)).await?])?;
    }
    let code = target.code(attacker).await?;
    let odd = [format!("{code}\0"), format!("\0{code}"), format!("+{code}"), format!("{code}.0")];
    for code in &odd {
        none_passed(&[attacker.post(&target.decide(), &target.approve(code)).await?])?;
    }
    let code = target.code(attacker).await?;
    for code in [format!("0{code}"), format!("{code}\u{200b}"), format!("{}\u{0301}", code), code.repeat(10_000)] {
        none_passed(&[attacker.post(&target.decide(), &target.approve(&code)).await?])?;
    }
    target.waits(attacker)
}

/// Link and code of one thing on another: the other tester's code, another release's link, another service's.
async fn foreign(attacker: &Attacker<'_>, target: &Target, other: &ServiceName) -> Result<()> {
    let other = Target::of(attacker, other).await?;
    let (code, of_other) = (target.code(attacker).await?, other.code(attacker).await?);
    let base = target.link.strip_suffix(token_of(&target.link)).context("the link ends in its token")?;
    let other_base = other.link.strip_suffix(token_of(&other.link)).context("the link ends in its token")?;
    for code in [&code, &of_other] {
        for url in [
            format!("{base}{}/decide", token_of(&other.link)),
            format!("{other_base}{}/decide", token_of(&target.link)),
        ] {
            for form in [target.approve(code), other.approve(code)] {
                none_passed(&[attacker.post(&url, &form).await?])?;
            }
        }
    }
    // Each link with the other's code, unless both happen to be the same.
    if code != of_other {
        none_passed(&[attacker.post(&target.decide(), &target.approve(&of_other)).await?])?;
        none_passed(&[attacker.post(&other.decide(), &other.approve(&code)).await?])?;
    }
    let second = Target::mailed(attacker, &target.release, TESTERS[1]).await?;
    none_passed(&[attacker.post(&second.decide(), &second.approve(&code)).await?])?;
    let of_second = second.code(attacker).await?;
    if code != of_second {
        none_passed(&[
            attacker.post(&second.decide(), &second.approve(&code)).await?,
            attacker.post(&target.decide(), &target.approve(&of_second)).await?,
        ])?;
    }
    // Each form with the other's token and link.
    for (here, there, code) in [(target, &second, &code), (&second, target, &of_second)] {
        let mut form = here.approve(code);
        form[0].1 = &there.csrf;
        none_passed(&[
            attacker.post(&here.decide(), &form).await?,
            attacker.post(&there.decide(), &here.approve(code)).await?,
        ])?;
    }
    other.waits(attacker)?;
    target.waits(attacker)
}

/// Codes are guessed until no new one is mailed: five tries each, twenty codes, and then a person has to sign in.
async fn guessed_codes(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let (mut codes, mut tries) = (0, 0);
    loop {
        attacker.stage.pass_ms(CODES_WINDOW_MS);
        let status = attacker.post(&format!("{}/code", target.link), &[("_csrf", &target.csrf)]).await?;
        if status != StatusCode::SEE_OTHER {
            ensure!(status == StatusCode::LOCKED, "no more codes was answered {status}");
            break;
        }
        codes += 1;
        ensure!(codes <= 50, "codes are mailed without end");
        let right = attacker.stage.code(&target.release, QA).await?;
        // Thirty at once, one after the other counted: five are looked at, the right one among the late ones is not.
        let wrong = (0..30).map(|n| format!("{:06}", (right.parse::<u32>().unwrap_or_default() + 1 + n) % 1_000_000));
        let requests = wrong.map(|code| attacker.request(&Method::POST, &target.decide()).form(&target.approve(&code)));
        let statuses = attacker.all(requests.collect()).await?;
        none_passed(&statuses)?;
        tries += statuses.iter().filter(|status| **status == StatusCode::UNPROCESSABLE_ENTITY).count() + 1;
        none_passed(&[attacker.post(&target.decide(), &target.approve(&right)).await?])?;
        target.waits(attacker)?;
    }
    ensure!((codes, tries) == (20, 100), "{codes} codes and {tries} tries were let through");
    // Nobody locks out somebody else by guessing.
    let second = Target::mailed(attacker, &target.release, TESTERS[1]).await?;
    ensure!(second.approves(attacker).await? == StatusCode::SEE_OTHER, "the other tester is locked out as well");
    Ok(())
}

/// A decision that was made is sent again: it decides nothing more, and nothing of the next release.
async fn replayed(attacker: &Attacker<'_>, service: &ServiceName) -> Result<()> {
    let first = Target::of(attacker, service).await?;
    let code = first.code(attacker).await?;
    let form = first.approve(&code);
    ensure!(attacker.post(&first.decide(), &form).await? == StatusCode::SEE_OTHER);
    let decided = attacker.stage.app.approval(&first.release)?;
    let again = (0..300).map(|_| attacker.request(&Method::POST, &first.decide()).form(&form)).collect();
    none_passed(&attacker.all(again).await?)?;
    ensure!(attacker.stage.app.approval(&first.release)? == decided, "a decision was changed by its repeat");
    let next = Target::of(attacker, service).await?;
    for url in [first.decide(), next.decide()] {
        none_passed(&[attacker.post(&url, &form).await?])?;
    }
    next.waits(attacker)
}

/// The right form, 64 times at the same moment: one decision.
async fn at_once(attacker: &Attacker<'_>, target: &Target) -> Result<()> {
    let code = target.code(attacker).await?;
    let form = target.approve(&code);
    let same = (0..64).map(|_| attacker.request(&Method::POST, &target.decide()).form(&form)).collect();
    let statuses = attacker.all(same).await?;
    let passed = statuses.iter().filter(|status| **status == StatusCode::SEE_OTHER).count();
    ensure!(passed == 1, "{passed} of 64 decided");
    let entries = attacker.stage.app.journal(Some(&target.release.service), None, 1_000)?;
    let decided = entries.iter().filter(|entry| format!("{entry:?}").contains("approval_approved")).count();
    ensure!(decided == 1, "the journal has {decided} decisions");
    Ok(())
}

/// Links and codes of what is over: expired, asked again, superseded.
async fn over(attacker: &Attacker<'_>, service: &ServiceName) -> Result<()> {
    let stage = attacker.stage;
    let late = Target::of(attacker, service).await?;
    let code = late.code(attacker).await?;
    let expires_at = stage.app.approval(&late.release)?.expires_at;
    stage.pass_ms(expires_at.since_ms(stage.app.now()));
    none_passed(&[attacker.post(&late.decide(), &late.approve(&code)).await?])?;
    stage.expire(&late.release).await?;
    none_passed(&[attacker.post(&late.decide(), &late.approve(&code)).await?])?;
    ensure!(matches!(stage.app.approval(&late.release)?.state, ApprovalState::Expired));

    asked_again(attacker, &late).await?;
    let form = late.approve(&code);
    let old = [attacker.get(&late.link).await?.status(), attacker.post(&late.decide(), &form).await?];
    ensure!(old == [StatusCode::NOT_FOUND; 2], "the link of an earlier round is answered {old:?}");
    let fresh = stage.link(&late.release, QA).await?;
    ensure!(fresh != late.link, "the new round has the old link");
    let csrf = attacker.form_token(&fresh).await?;
    let mut form = late.approve(&code);
    form[0].1 = &csrf;
    none_passed(&[attacker.post(&format!("{fresh}/decide"), &form).await?])?;
    late.waits(attacker)?;

    let newer = Target::of(attacker, service).await?;
    let superseded = Target { link: fresh, csrf, ..late };
    let asked = attacker.post(&format!("{}/code", superseded.link), &[("_csrf", &superseded.csrf)]).await?;
    none_passed(&[asked, attacker.post(&superseded.decide(), &superseded.approve(&code)).await?])?;
    let state = stage.app.release(&superseded.release)?.state;
    ensure!(!matches!(state, ReleaseState::Promoting | ReleaseState::AwaitingApproval), "it is {state:?}");
    newer.waits(attacker)
}

/// The button of an expired page, pressed 64 times by a program: the testers are asked once, and nothing is approved.
async fn asked_again(attacker: &Attacker<'_>, late: &Target) -> Result<()> {
    let stage = attacker.stage;
    let urls = [format!("{}/ask-again", late.link), format!("{}x/ask-again", late.link)];
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        attacker.send(attacker.request(&method, &urls[0])).await?;
    }
    none_passed(&[
        attacker.post(&urls[0], &[]).await?,
        attacker.post(&urls[0], &[("_csrf", "x")]).await?,
        attacker.post(&urls[1], &[("_csrf", &late.csrf)]).await?,
    ])?;
    ensure!(stage.app.release(&late.release)?.state == ReleaseState::Expired, "it was asked again");
    let press = || attacker.request(&Method::POST, &urls[0]).form(&[("_csrf", &late.csrf)]);
    let statuses = attacker.all((0..64).map(|_| press()).collect()).await?;
    let passed = statuses.iter().filter(|status| **status == StatusCode::SEE_OTHER).count();
    ensure!(passed == 1, "{passed} of 64 asked again");
    ensure!(stage.app.release(&late.release)?.state == ReleaseState::DeployingTest);
    stage.tested(&late.release).await?;
    let approval = stage.app.approval(&late.release)?;
    ensure!((approval.round, approval.have()) == (2, 0), "{approval:?}");
    Ok(())
}
