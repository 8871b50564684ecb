//! Tests of masking: the forms of a secret, and every way in which a stream may be cut.

use super::forms::encoded;
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use pipelines::secret::hidden_lines;
use proptest::prelude::*;

fn secrets(texts: &[&str]) -> Secrets {
    let secrets: Vec<_> = texts.iter().map(|text| Secret::new(*text)).collect();
    Secrets::new(&secrets).expect("they are small")
}

fn run(secrets: &Secrets, parts: &[(&[u8], bool)]) -> Vec<String> {
    let mut masker = LineMasker::new(secrets.clone(), 100_000);
    let mut out = Vec::new();
    for (bytes, ends) in parts {
        masker.push(bytes, *ends, (), &mut out);
    }
    masker.finish(&mut out);
    out.into_iter().map(|line| line.text).collect()
}

#[test]
fn a_secret_is_masked_in_every_form() {
    let secrets = secrets(&["p@ss w\"rd/1"]);
    let basic = STANDARD.encode("user:p@ss w\"rd/1");
    for (text, expected) in [
        ("x p@ss w\"rd/1 y", "x *** y"),
        ("x p%40ss%20w%22rd%2F1 y", "x *** y"),
        ("x p%40ss%20w%22rd%2f1 y", "x *** y"),
        (r#"{"a":"p@ss w\"rd/1"}"#, r#"{"a":"***"}"#),
    ] {
        assert_eq!(secrets.mask(text), expected);
    }
    let masked = secrets.mask(&format!("Authorization: Basic {basic}"));
    assert!(masked.contains(MASK) && masked.len() < 40, "{masked}");
}

#[test]
fn a_password_in_a_url_is_masked_though_nobody_said_so() {
    let none = secrets(&[]);
    assert_eq!(none.mask("get https://u:pw@host/x?a=b://c"), "get https://u:***@host/x?a=b://c");
    assert_eq!(none.mask("a://b:c@d e://f:g@h"), "a://b:***@d e://f:***@h");
    assert_eq!(none.mask("http://host:80/a@b"), "http://host:80/a@b");
    assert_eq!(none.mask("git@host:a/b"), "git@host:a/b");
}

#[test]
fn a_secret_broken_over_lines_is_masked_in_each() {
    let secrets = secrets(&["0123456789abcdef"]);
    let lines = run(&secrets, &[(b"x 01234567", true), (b"89abc", true), (b"def y", true)]);
    assert_eq!(lines, ["x ***", "***", "*** y"]);
}

#[test]
fn overlapping_and_nested_secrets_leave_nothing() {
    let secrets = secrets(&["abcdef", "cdefgh", "bcde"]);
    assert_eq!(secrets.mask("xabcdefghy abcde"), "x***y a***");
}

#[test]
fn a_line_is_not_held_longer_than_a_pause() {
    let secrets = secrets(&["secret-word"]);
    let mut masker = LineMasker::new(secrets, 1000);
    let mut out = Vec::new();
    masker.push(b"plain", true, 1, &mut out);
    let line = |out: &Vec<MaskedLine<u32>>, n: usize| (out[n].about, out[n].text.clone());
    assert_eq!(line(&out, 0), (1, "plain".to_owned()));
    masker.push(b"it is se", true, 2, &mut out);
    assert!(masker.waits() && out.len() == 1);
    masker.pause(&mut out);
    assert_eq!(line(&out, 1), (2, "it is se".to_owned()), "two letters are no secret yet");
    masker.push(b"cret-word!", true, 3, &mut out);
    assert_eq!(line(&out, 2), (3, "***!".to_owned()), "its rest is masked all the same");
    masker.push(b"secret-w", true, 4, &mut out);
    masker.pause(&mut out);
    assert_eq!(line(&out, 3), (4, "***".to_owned()));
}

#[test]
fn a_key_is_masked_line_by_line_but_not_its_frame() {
    let key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nDDDDEEEEFFFF\n-----END KEY-----\n";
    assert_eq!(secrets(&[key]).mask(key.trim_end()), "-----BEGIN KEY-----\n***\n***\n-----END KEY-----");
}

#[test]
fn long_lines_are_cut_and_a_secret_over_the_cut_is_masked() {
    let mut masker = LineMasker::new(secrets(&["secret"]), 8);
    let mut out = Vec::new();
    masker.push(b"aaaaasecretbbbb", true, (), &mut out);
    let lines: Vec<_> = out.into_iter().map(|line| line.text).collect();
    assert_eq!(lines, ["aaaaa***", "***bbbb"]);
}

#[test]
fn the_shortest_secret_is_masked_in_base64_at_every_offset() {
    let secrets = secrets(&["Zq7!"]);
    for before in ["", "-", "--"] {
        let text = STANDARD.encode(format!("{before}Zq7!{before}"));
        assert!(secrets.mask(&text).contains(MASK), "{text}");
    }
}

#[test]
fn what_encoders_of_urls_json_and_shells_write_is_masked() {
    let secrets = secrets(&["a/b c'd\"e<f>é+~(1)"]);
    for text in [
        // encodeURIComponent, encodeURI, quote, quote_plus, a form, a password in a URL.
        "a%2Fb%20c'd%22e%3Cf%3E%C3%A9%2B~(1)",
        "a/b%20c'd%22e%3Cf%3E%C3%A9+~(1)",
        "a/b%20c%27d%22e%3Cf%3E%C3%A9%2B~%281%29",
        "a%2Fb+c%27d%22e%3Cf%3E%C3%A9%2B~%281%29",
        "a%2fb+c%27d%22e%3cf%3e%c3%a9%2b%7e%281%29",
        "a%2Fb%20c'd%22e%3Cf%3E%C3%A9+~(1)",
        // JSON of Rust and JavaScript, Python, PHP, Go.
        "a/b c'd\\\"e<f>é+~(1)",
        "a/b c'd\\\"e<f>\\u00e9+~(1)",
        "a\\/b c'd\\\"e<f>\\u00e9+~(1)",
        "a/b c'd\\\"e\\u003cf\\u003eé+~(1)",
        // A word of a shell.
        "a/b c'\\''d\"e<f>é+~(1)",
    ] {
        assert_eq!(secrets.mask(&format!("x={text}; y")), "x=***; y");
    }
}

#[test]
fn the_base64_of_a_whole_key_is_masked_also_where_it_is_wrapped() {
    let key = format!("-----BEGIN KEY-----\n{}\nshort\n-----END KEY-----\n", "q8Zr+/".repeat(200));
    let secrets = secrets(&[&key]);
    let text = STANDARD.encode(&key);
    let wrapped: Vec<_> = text.as_bytes().chunks(76).map(|line| (line, true)).collect();
    let left = run(&secrets, &wrapped).concat().replace(MASK, "");
    // The last characters hold bits of the padding, and two at each end of a part are shared with the next one.
    assert!(left.len() <= 8, "{left}");
}

#[test]
fn secrets_that_cannot_be_hidden_are_refused_and_not_passed_over() {
    let text = |n: u32| (0..20_000).map(|at| format!("{:x}\"é", at * 7919 + n)).collect::<String>();
    let many: Vec<_> = (0..10).map(|n| Secret::new(text(n))).collect();
    assert_eq!(Secrets::new(&many).map(drop), Err(TooLarge));
}

/// How a program may write a secret, and what of it must not be seen: all of it, but for the characters of base64 that it
/// shares with its neighbours.
fn shapes(secret: &str, line: &str, pad: usize) -> Vec<(String, String)> {
    let padded = format!("{}{secret}", "|".repeat(pad));
    let of_line = secret.find(line).map_or(0, |at| at + pad);
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let inner = encoded(line.as_bytes(), of_line % 3);
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let form_line: String = url::form_urlencoded::byte_serialize(line.as_bytes()).collect();
    let json = |text: &str| serde_json::to_string(text).unwrap_or_default();
    vec![
        (secret.to_owned(), line.to_owned()),
        (STANDARD.encode(&padded), inner.first().map(text).unwrap_or_default()),
        (URL_SAFE.encode(&padded), inner.last().map(text).unwrap_or_default()),
        (form, form_line),
        (json(secret), json(line).trim_matches('"').to_owned()),
    ]
}

proptest! {
    /// A secret of one or several lines, in any shape, cut into writes, lines and pauses anywhere: no part of it of six
    /// characters is in the output.
    #[test]
    fn no_window_of_the_output_holds_a_secret(
        lines in prop::collection::vec("[A-Za-z0-9!+/=_\"\\\\<-]{8,40}", 1..4),
        shape in 0_usize..5,
        pad in 0_usize..4,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<bool>()), 0..8),
    ) {
        let secret = lines.join("\n");
        let masks = secrets(&[&secret]);
        for line in hidden_lines(&secret) {
            let (written, hidden) = shapes(&secret, line, pad).swap_remove(shape);
            let text = format!("||{written}||");
            let mut at: Vec<_> = cuts.iter().map(|(index, ends, waits)| (index.index(text.len()), *ends, *waits)).collect();
            at.sort_unstable();
            let mut masker = LineMasker::new(masks.clone(), 100_000);
            let mut out = Vec::new();
            let mut from = 0;
            for (to, ends, waits) in at {
                let (part, _) = text.as_bytes().split_at(to);
                masker.push(&part[from..], ends, (), &mut out);
                if waits {
                    masker.pause(&mut out);
                }
                from = to;
            }
            masker.push(&text.as_bytes()[from..], true, (), &mut out);
            masker.finish(&mut out);
            let joined: String = out.into_iter().map(|line| line.text).collect();
            for window in hidden.as_bytes().windows(6) {
                let window = String::from_utf8_lossy(window);
                prop_assert!(!joined.contains(&*window), "{window} of {hidden} in {joined}");
            }
        }
    }
}

proptest! {
    /// However the stream is cut into writes and lines, and whatever stands around it, neither the secret nor its
    /// base64 is in the output; and what is not secret is all there.
    #[test]
    fn no_cut_lets_a_secret_through(
        secret in "[A-Za-z0-9!+/=_-]{8,40}",
        before in "[a-z ]{0,20}",
        after in "[a-z ]{0,20}",
        encode in any::<bool>(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..6),
    ) {
        prop_assume!(!before.contains(&secret) && !after.contains(&secret));
        let secrets = secrets(&[&secret]);
        let middle = if encode {
            STANDARD.encode(format!("{before}{secret}{after}"))
        } else {
            secret.clone()
        };
        let text = if encode { middle.clone() } else { format!("{before}{middle}{after}") };
        let mut at: Vec<_> = cuts.iter().map(|(index, ends)| (index.index(text.len() + 1), *ends)).collect();
        at.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for (to, ends) in at {
            parts.push((&text.as_bytes()[from..to], ends));
            from = to;
        }
        parts.push((&text.as_bytes()[from..], true));
        let joined = run(&secrets, &parts).concat();
        prop_assert!(!joined.contains(&secret), "{joined}");
        if encode {
            // At most the two characters at each end that are shared with the neighbours are left.
            let inner = encoded(secret.as_bytes(), before.len() % 3);
            for form in inner {
                prop_assert!(!joined.contains(&String::from_utf8_lossy(&form).into_owned()), "{joined}");
            }
        } else {
            let plain = joined.replace(MASK, "");
            let expected = format!("{before}{after}");
            // The neighbours may by chance continue the secret's own letters; then less is left.
            prop_assert!(plain == expected || expected.len() > plain.len(), "{plain:?} {expected:?}");
        }
    }

    #[test]
    fn text_without_secrets_is_unchanged(lines in prop::collection::vec("[a-z0-9 .-]{0,30}", 1..20)) {
        let secrets = secrets(&["ZZZZ-not-here"]);
        let parts: Vec<_> = lines.iter().map(|line| (line.as_bytes(), true)).collect();
        prop_assert_eq!(run(&secrets, &parts), lines);
    }
}

#[test]
fn fuzz_masking() {
    let hidden = ["hunter2-hunter2", "päss word", "two\nlines"];
    let encoded = STANDARD_NO_PAD.encode("hunter2-hunter2");
    let samples: [&[u8]; 4] =
        [b"token hunter2-hunter2 end", "p\u{e4}ss%20word".as_bytes(), b"two\nlines", encoded.as_bytes()];
    let words = [hidden[0], hidden[1], hidden[2], encoded.as_str(), "hunter2", "-hunter2", "p%C3%A4ss%20word", "***"];
    fuzz::feed("masking", &samples, &words, |bytes| {
        let secrets = secrets(&hidden);
        let mut masker = LineMasker::new(secrets, 4_000);
        let mut out = Vec::new();
        // In parts whose length the input itself decides.
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            let (part, more) = rest.split_at((usize::from(*first) % 17 + 1).min(rest.len()));
            for piece in part.split_inclusive(|byte| *byte == b'\n') {
                let ends = piece.ends_with(b"\n");
                masker.push(piece.strip_suffix(b"\n").unwrap_or(piece), ends, (), &mut out);
            }
            rest = more;
        }
        masker.finish(&mut out);
        let said = out.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n");
        if said.contains(hidden[0]) || said.contains(hidden[1]) || said.contains(&encoded) {
            return Err(format!("a secret is shown: {said}"));
        }
        if said.len() > 4 * bytes.len() + 64 {
            return Err(format!("{} bytes became {}", bytes.len(), said.len()));
        }
        Ok(format!("{} masks, {} lines", said.matches(MASK).count().min(4), out.len().min(4)))
    });
}
