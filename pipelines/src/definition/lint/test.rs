//! The rules of `test`: who tests, how many must approve, until when, who stands in.

use super::{no_duplicates, time_span};
use crate::definition::diagnostic::{Code, Diagnostic, Place};
use crate::definition::model::Test;
use crate::definition::names::MailAddress;
use crate::definition::reader::{Fields, Lint, Shape};
use crate::definition::tree::{Content, Entry};
use crate::definition::units::TimeSpan;
use crate::definition::value::quote;

const TESTERS_MAX: usize = 50;

pub(in crate::definition) const TEST: Shape =
    Shape { what: "`test`", keys: &["testers", "approvals", "expires", "deputies"], later: &[] };

pub(super) fn test(lint: &mut Lint, entry: Option<&Entry>, file: &Fields<'_>) -> Test {
    let mut test = Test::default();
    let fields = entry.and_then(|entry| lint.fields(&entry.value, entry.place, &TEST));
    let Some(fields) = fields else {
        if entry.is_none() {
            warn_no_testers(lint, file.place);
        }
        return test;
    };
    match fields.get("testers") {
        Some(entry) => {
            test.testers = addresses(lint, entry, "testers").into_iter().map(|(tester, _)| tester).collect();
            if matches!(&entry.value.content, Content::List(items) if items.is_empty()) {
                warn_no_testers(lint, entry.place);
            }
        }
        None => warn_no_testers(lint, fields.place),
    }
    if let Some(entry) = fields.get("deputies") {
        for (deputy, place) in addresses(lint, entry, "deputies") {
            refuse_tester(lint, &test.testers, &deputy, place);
            test.deputies.push(deputy);
        }
    }
    if let Some(entry) = fields.get("approvals") {
        approvals(lint, entry, &mut test);
    }
    let bounds = TimeSpan::from_secs(1)..=TimeSpan::from_secs(90 * 24 * 3600);
    if let Some(expires) = time_span(lint, &fields, "expires", bounds) {
        test.expires = expires;
    }
    test
}

fn addresses(lint: &mut Lint, entry: &Entry, key: &str) -> Vec<(MailAddress, Place)> {
    let addresses = lint.texts::<MailAddress>(&entry.value, key, TESTERS_MAX);
    no_duplicates(lint, &addresses, key);
    addresses
}

fn refuse_tester(lint: &mut Lint, testers: &[MailAddress], deputy: &MailAddress, place: Place) {
    if testers.iter().any(|tester| tester.to_string().eq_ignore_ascii_case(&deputy.to_string())) {
        let message = format!("{} is a tester and a deputy", quote(&deputy.to_string()));
        lint.report(
            Diagnostic::error(Code::Conflict, place, message)
                .why("a deputy stands in for testers who do not decide")
                .help("remove it from `deputies` or from `testers`"),
        );
    }
}

fn warn_no_testers(lint: &mut Lint, place: Place) {
    lint.report(
        Diagnostic::warning(Code::MissingKey, place, "nobody is asked to test")
            .why("no mail is sent; a release waits until somebody who may decide signs in")
            .help("write `test: {testers: [qa@example.com]}`"),
    );
}

fn approvals(lint: &mut Lint, entry: &Entry, test: &mut Test) {
    let Some(wanted) = lint.integer(&entry.value, "approvals", 0..=100) else { return };
    let place = entry.value.place;
    let (testers, deputies) = (test.testers.len(), test.deputies.len());
    let wanted_people = usize::try_from(wanted).unwrap_or(usize::MAX);
    if wanted == 0 {
        lint.report(
            Diagnostic::error(Code::BadValue, place, "a release without an approval is not possible")
                .help("write `approvals: 1`, or remove the key"),
        );
        return;
    }
    // Where nobody is named, those who sign in decide, however many are needed.
    if testers + deputies > 0 && wanted_people > testers + deputies {
        let named = testers + deputies;
        let message = format!("{wanted} people must approve, and {named} can");
        lint.report(
            Diagnostic::error(Code::Conflict, place, message)
                .why("each of the testers and deputies counts once")
                .help(format!("write `approvals: {named}` at most, or name more testers")),
        );
        return;
    }
    if testers > 0 && wanted_people > testers {
        lint.report(
            Diagnostic::warning(Code::Conflict, place, "no release is approved before the deputies are asked")
                .why(format!(
                    "{wanted} approvals need more people than the testers; deputies are asked at 75 % of the time"
                ))
                .help("name more testers, or need fewer approvals"),
        );
    }
    test.approvals = u32::try_from(wanted).unwrap_or(u32::MAX);
}
