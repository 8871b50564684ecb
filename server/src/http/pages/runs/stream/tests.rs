//! Pages that follow a run: what they get, what they share, and what becomes of slow ones.

use std::time::Duration;

use axum::{
    body::BodyDataStream,
    http::{Request, StatusCode},
};
use futures_util::StreamExt;
use pipelines::{
    ids::RunnerName,
    protocol::{LogLine, LogStream, Report, RunnerRequest},
};

use super::*;
use crate::{
    app::Role,
    testing::{Stage, test_app, test_app_with},
};

/// A run that a runner has.
async fn running(stage: &Stage) -> RunId {
    let run = stage.pushed("shop").await;
    let runner = runner();
    stage.asked_for_work(&runner, Vec::new()).await;
    run
}

fn runner() -> RunnerName {
    "runner-1".parse().unwrap()
}

async fn print(stage: &Stage, run: &RunId, lines: std::ops::Range<u64>) {
    let line = |n: u64| LogLine { at: stage.app.now(), stream: LogStream::Stdout, text: format!("line {n}") };
    let request = RunnerRequest::Log {
        run: run.clone(),
        attempt: 1,
        step: "test".into(),
        first_line: lines.start,
        lines: lines.map(line).collect(),
    };
    stage.app.agent_request(&runner(), request).await.unwrap();
}

async fn open(stage: &Stage, run: &RunId, from: &str) -> BodyDataStream {
    let token = stage.token(Role::Developer).await;
    let request = Request::get(format!("/services/{}/runs/{}/events?from={from}", run.service, run.number))
        .header("authorization", format!("Bearer {token}"));
    let answer = stage.open(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().into_data_stream()
}

/// What comes until `wanted` is in it.
async fn until(stream: &mut BodyDataStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let piece = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        let piece = piece.unwrap_or_else(|_| panic!("{wanted} does not come, but {text}")).expect("it goes on");
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn a_page_gets_each_line_once_and_the_end() {
    let stage = test_app();
    let run = running(&stage).await;
    print(&stage, &run, 0..450).await;
    let mut page = open(&stage, &run, "").await;
    let mut text = until(&mut page, "line 449<").await;
    print(&stage, &run, 450..460).await;
    text += &until(&mut page, "line 459<").await;
    for n in 0..460 {
        assert_eq!(text.matches(&format!(">line {n}<")).count(), 1, "line {n}");
    }
    assert_eq!(text.matches("event: line").count(), 4, "pieces end where everybody's do: {text}");
    assert!(text.contains("id: 200\n") && text.contains("id: 460\n"));
    // A page that was away goes on where it was.
    let mut again = open(&stage, &run, "455").await;
    let rest = until(&mut again, "line 459<").await;
    assert!(rest.contains(">line 455<") && !rest.contains(">line 454<"), "{rest}");
    let failed = Report::Failed { blame: pipelines::protocol::Blame::Code, reason: "step test failed".into() };
    stage
        .app
        .agent_request(&runner(), RunnerRequest::Report { run: run.clone(), attempt: 1, report: failed })
        .await
        .unwrap();
    let end = until(&mut page, "event: end\nid: 460\ndata: run:shop:1\n\n").await;
    assert!(end.contains("event: changed"), "{end}");
    assert!(page.next().await.is_none(), "nothing comes after the end");
}

#[tokio::test]
async fn a_page_that_is_far_behind_is_told_how_much_it_is_not_sent() {
    let stage = test_app_with(|config| config.bounds.log_behind_lines_max = 2_000);
    let run = running(&stage).await;
    for first in (0..5_000).step_by(500) {
        print(&stage, &run, first..first + 500).await;
    }
    let mut page = open(&stage, &run, "10").await;
    let text = until(&mut page, "line 4999<").await;
    assert!(text.contains("3,990 lines are left out"), "{}", &text[..500]);
    assert!(text.contains("/services/shop/runs/1?step=test&amp;from=11") || text.contains("?step=test&#38;from=11"));
    assert!(!text.contains(">line 3999<") && text.contains(">line 4000<"));
    // Near enough, all lines come.
    let mut near = open(&stage, &run, "3000").await;
    assert!(until(&mut near, "line 4999<").await.contains(">line 3000<"));
}

#[tokio::test]
async fn a_thousand_pages_share_one_look_and_one_painting() {
    let stage = test_app_with(|config| config.bounds.streams_max = 1_000);
    let run = running(&stage).await;
    print(&stage, &run, 0..300).await;
    let follows = Arc::new(Follows::default());
    let key = |from, to| {
        let painter = Painter::new();
        PieceKey { run: run.clone(), step: "test".into(), index: 0, from, to, painter }
    };
    let all = (0..1_000).map(|_| follows.piece(&stage.app, key(0, 200)));
    let all = futures_util::future::try_join_all(all).await.unwrap();
    assert!(all.iter().all(|piece| Arc::ptr_eq(piece, &all[0])));
    let pages: Vec<_> = (0..1_000).map(|_| follows.run(&stage.app, &run)).collect();
    assert_eq!(follows.sizes().0, 1);
    let mut last = pages.into_iter().next_back().unwrap();
    while last.borrow_and_update().is_none() {
        last.changed().await.unwrap();
    }
    drop(last);
    // Nobody follows any more: nobody looks any more.
    while follows.sizes().0 > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_shared_is_bounded() {
    let stage = test_app_with(|config| config.bounds.log_shared_bytes_max = 20_000);
    let run = running(&stage).await;
    print(&stage, &run, 0..500).await;
    let follows = Arc::new(Follows::default());
    for from in 0..480 {
        let (run, step, painter) = (run.clone(), "test".to_owned(), Painter::new());
        let piece = follows.piece(&stage.app, PieceKey { run, step, index: 0, from, to: from + 20, painter }).await;
        assert_eq!(piece.unwrap().next, from + 20);
        assert!(follows.sizes().1 <= 20_000);
    }
}

#[tokio::test]
async fn colours_go_on_from_piece_to_piece() {
    let stage = test_app();
    let run = running(&stage).await;
    let line = |text: &str| LogLine { at: stage.app.now(), stream: LogStream::Stdout, text: text.into() };
    let mut lines = vec![line("plain"); 199];
    lines.extend([line("\u{1b}[31mred"), line("still red"), line("\u{1b}[0mno more")]);
    let request = RunnerRequest::Log { run: run.clone(), attempt: 1, step: "test".into(), first_line: 0, lines };
    stage.app.agent_request(&runner(), request).await.unwrap();
    let mut page = open(&stage, &run, "").await;
    let text = until(&mut page, "no more").await;
    let coloured = |word: &str| {
        let at = text.find(word).unwrap();
        text[..at].ends_with('>') && text[at.saturating_sub(20)..at].contains("<i class")
    };
    assert!(coloured("red") && coloured("still red") && !coloured("no more"), "{text}");
}

#[test]
fn positions_read_back_and_nonsense_begins_anew() {
    assert_eq!(read_positions(&positions([3, 29, 0].into_iter())), [3, 29, 0]);
    assert_eq!(read_positions("3,x,4"), [3]);
    assert_eq!(read_positions(""), Vec::<u64>::new());
}

#[test]
fn fuzz_last_event_id() {
    let words = ["18446744073709551616", ",", "-1", "+1", " 1"];
    fuzz::feed("last-event-id", &[b"3,29,8,120", b"0"], &words, |bytes| {
        let read = read_positions(&String::from_utf8_lossy(bytes));
        if read.len() > STEPS_MAX || read_positions(&positions(read.iter().copied())) != read {
            return Err("it reads back as something else".into());
        }
        Ok(format!("{}", read.len().min(9)))
    });
}
