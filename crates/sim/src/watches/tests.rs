//! Every rule for watchers rejects a response forged to break it, and accepts the honest one beside it.

use quorate_base::LogId;
use quorate_kv::watch::Events;
use quorate_kv::{Command, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

use super::*;

/// Revision 2 creates `a`, 3 changes it, 4 deletes it and 5 writes `a` and `b` at once.
fn model() -> Model {
    let mut model = Model::default();
    let put = |key: &'static str, value: &'static str| PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    };
    let delete = DeleteRangeRequest {
        key: "a".into(),
        ..DeleteRangeRequest::default()
    };
    let pair = TxnRequest {
        success: vec![RequestOp::Put(put("a", "3")), RequestOp::Put(put("b", "4"))],
        ..TxnRequest::default()
    };
    for command in [
        Command::Put(put("a", "1")),
        Command::Put(put("a", "2")),
        Command::DeleteRange(delete),
        Command::Txn(pair),
    ] {
        model
            .apply(LogId::ZERO, &command)
            .expect("nothing is wrong with it");
    }
    model
}

fn client(change: impl FnOnce(&mut WatchRequest)) -> WatchClient {
    let mut request = WatchRequest {
        range_end: "\0".into(),
        prev_kv: true,
        ..WatchRequest::default()
    };
    change(&mut request);
    let mut client = WatchClient::new(Rng::new(1));
    client.watchers.push(Watcher::new(request, Some(2)));
    client.begin(0);
    client
}

fn response(revision: i64, events: Vec<Event>) -> WatchResponse {
    WatchResponse {
        revision,
        watch_id: 1,
        events: Events::new(events.into_iter().map(Arc::new).collect()),
        ..WatchResponse::default()
    }
}

fn created(revision: i64) -> WatchResponse {
    WatchResponse {
        created: true,
        ..response(revision, Vec::new())
    }
}

/// What a client that is confirmed at revision 5 says to these responses.
fn verdict(mut client: WatchClient, responses: &[WatchResponse]) -> Result<News, String> {
    let model = model();
    let mut last = News::Nothing;
    for response in [created(5)].iter().chain(responses) {
        let news = client.receive(response, &model);
        last = news.map_err(|violation| violation.what)?.0;
    }
    Ok(last)
}

fn all() -> Vec<Event> {
    model().events(2, 5).cloned().collect()
}

/// All events, changed.
fn forged(change: impl FnOnce(&mut Vec<Event>)) -> Result<News, String> {
    let mut events = all();
    change(&mut events);
    verdict(client(|_| ()), &[response(5, events)])
}

#[test]
fn an_honest_stream_is_accepted() {
    assert_eq!(forged(|_| ()), Ok(News::Nothing));
    let (early, late) = (all()[..2].to_vec(), all()[2..].to_vec());
    let parts = [response(3, early), response(5, late)];
    assert_eq!(verdict(client(|_| ()), &parts), Ok(News::Nothing));
    assert_eq!(verdict(client(|_| ()), &[]), Ok(News::Resumed));
}

#[test]
fn a_gap_a_repetition_and_a_wrong_order_are_rejected() {
    let gap = forged(|events| drop(events.remove(1))).expect_err("a gap");
    assert!(gap.starts_with("told Event"), "{gap}");
    forged(|events| drop(events.pop())).expect_err("a revision without its second half");
    forged(|events| events.insert(1, events[0].clone())).expect_err("twice");
    forged(|events| events.swap(0, 1)).expect_err("out of order");
    let again = [response(5, all()), response(5, all()[4..].to_vec())];
    verdict(client(|_| ()), &again).expect_err("told again later");
    let skipped = [response(3, all()[..2].to_vec()), response(5, all()[3..].to_vec())];
    verdict(client(|_| ()), &skipped).expect_err("a gap between responses");
}

#[test]
fn events_must_be_right_in_every_part() {
    forged(|events| events[1].prev_kv = None).expect_err("without the version before");
    forged(|events| events[3].prev_kv = events[2].prev_kv.clone()).expect_err("something was there before");
    forged(|events| events[1].kv.create_revision = 3).expect_err("no creation");
    forged(|events| events[0].kv.value = "x".into()).expect_err("another value");
    forged(|events| events[4].sub = 0).expect_err("another position");
    forged(|events| events[2].kind = EventKind::Put).expect_err("another kind");
}

#[test]
fn filters_and_ranges_leave_out_what_they_name_and_no_more() {
    let puts = |request: &mut WatchRequest| request.no_delete = true;
    verdict(client(puts), &[response(5, all())]).expect_err("a deletion");
    let mut events = all();
    events.remove(2);
    assert_eq!(verdict(client(puts), &[response(5, events)]), Ok(News::Nothing));
    let only_b = |request: &mut WatchRequest| (request.key, request.range_end) = ("b".into(), Bytes::new());
    verdict(client(only_b), &[response(5, all())]).expect_err("other keys");
    assert_eq!(
        verdict(client(only_b), &[response(5, all()[4..].to_vec())]),
        Ok(News::Nothing)
    );
}

#[test]
fn progress_is_not_told_ahead_of_events() {
    let progress = |watch_id, revision| WatchResponse {
        watch_id,
        ..response(revision, Vec::new())
    };
    let told = response(5, all());
    let asked = |request: &mut WatchRequest| request.progress_notify = true;
    for id in [-1, 1] {
        let honest = [told.clone(), progress(id, 5)];
        assert_eq!(verdict(client(asked), &honest), Ok(News::Progress));
        verdict(client(asked), &[progress(id, 5)]).expect_err("ahead of all events");
        verdict(client(asked), &[told.clone(), progress(id, 6)]).expect_err("ahead of the store");
    }
    verdict(client(|_| ()), &[told, progress(1, 5)]).expect_err("nobody asked");
}

#[test]
fn fragments_make_up_whole_revisions() {
    let fragment = |range: std::ops::Range<usize>, last: bool| WatchResponse {
        fragment: !last,
        ..response(5, all()[range].to_vec())
    };
    let torn = |request: &mut WatchRequest| request.fragment = true;
    let whole = [fragment(0..4, false), fragment(4..5, true)];
    assert_eq!(verdict(client(torn), &whole), Ok(News::Nothing));
    verdict(client(|_| ()), &whole).expect_err("nobody asked for fragments");
    verdict(client(torn), &[fragment(0..3, false), fragment(4..5, true)]).expect_err("one is missing");
    let progress = WatchResponse {
        watch_id: -1,
        ..response(5, Vec::new())
    };
    verdict(client(torn), &[fragment(0..4, false), progress]).expect_err("in the middle of a response");
}

#[test]
fn an_end_needs_a_reason() {
    let end = |compact_revision| WatchResponse {
        canceled: true,
        compact_revision,
        ..response(5, Vec::new())
    };
    verdict(client(|_| ()), &[end(0)]).expect_err("nobody asked");
    let mut cancelling = client(|_| ());
    cancelling.watchers[0].cancelling = true;
    assert_eq!(verdict(cancelling, &[end(0)]), Ok(News::Cancelled));
    verdict(client(|_| ()), &[end(4)]).expect_err("nothing is compacted");

    let mut compacted = model();
    let compact = Command::Compact {
        revision: 4,
        physical: false,
    };
    compacted
        .apply(LogId::ZERO, &compact)
        .expect("nothing is wrong with it");
    let end_at = |next| {
        let mut client = client(|_| ());
        client.watchers[0].next = Some(next);
        client.receive(&created(5), &compacted).expect("confirmed");
        client.receive(&end(4), &compacted).map(|(news, _)| news)
    };
    assert_eq!(end_at(3), Ok(News::Compacted));
    end_at(4).expect_err("what it wants is still there");
}

#[test]
fn nothing_comes_before_the_confirmation_nor_for_nobody() {
    let mut early = client(|_| ());
    early
        .receive(&response(5, all()), &model())
        .expect_err("not confirmed");
    let other = WatchResponse {
        watch_id: 2,
        ..response(5, all())
    };
    verdict(client(|_| ()), &[other]).expect_err("nobody has this id");
    verdict(client(|_| ()), &[created(5)]).expect_err("confirmed twice");
}
