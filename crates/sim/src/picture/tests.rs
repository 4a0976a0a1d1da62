//! A picture keeps the last events, what was before them, and the ends of messages; its page holds nothing but itself.

use quorate_base::LogId;

use super::*;

const PAIR: Pair = (NodeId(1), NodeId(2));

fn append(commit: u64) -> PeerMessage {
    PeerMessage::Append {
        term: Term(1),
        prev: LogId::ZERO,
        entries: Vec::new(),
        commit: Index(commit),
    }
}

fn leads(term: u64) -> State {
    State {
        look: Look::Runs(RoleKind::Leader),
        term: Term(term),
        stalled: false,
    }
}

#[test]
fn the_last_events_are_kept_with_what_was_before_them() {
    let mut picture = Picture::new(10);
    picture.state(1, NodeId(1), leads(4));
    picture.cut(1, [PAIR].into_iter());
    let early = picture.sent(2, PAIR, &append(0));
    for commit in 1..=10 {
        picture.sent(2 + commit, PAIR, &append(commit));
    }
    assert_eq!((picture.len(), picture.begun, picture.ended), (10, 2, 12));
    assert_eq!(picture.states.0[&NodeId(1)], leads(4));
    assert_eq!(picture.cuts.0, BTreeSet::from([PAIR]));
    picture.ended(13, early, true); // Nobody sees it any longer.
    assert!(
        picture
            .items
            .iter()
            .all(|item| matches!(item, Item::Message { ends, .. } if ends.is_empty()))
    );
}

#[test]
fn a_message_has_all_its_ends() {
    let mut picture = Picture::new(10);
    picture.mark(1, None, Topic::Note, "something");
    let number = picture.sent(2, PAIR, &append(7));
    picture.ended(3, number, true);
    picture.ended(9, number, false);
    let Item::Message { ends, .. } = &picture.items[1] else {
        panic!("{:?}", picture.items)
    };
    assert_eq!(ends, &[(3, true), (9, false)]);
}

#[test]
fn states_cuts_and_commits_are_kept_when_they_change() {
    let mut picture = Picture::new(10);
    for now in 1..5 {
        picture.state(now, NodeId(1), leads(4));
        picture.cut(now, [PAIR].into_iter());
        picture.commit(now, NodeId(1), Some(Index(5)));
    }
    assert_eq!(picture.len(), 2, "the first commit index of a run is nothing new");
    picture.commit(6, NodeId(1), Some(Index(6)));
    picture.state(7, NodeId(1), leads(5));
    picture.cut(8, [].into_iter());
    assert_eq!(picture.len(), 5);
    picture.commit(9, NodeId(1), None);
    picture.commit(10, NodeId(1), Some(Index(9)));
    assert_eq!(picture.len(), 5, "a restart is no commit");
}

#[test]
fn the_page_is_one_file_and_words_cannot_break_out_of_it() {
    let mut picture = Picture::new(10);
    picture.mark(
        1_500,
        Some(NodeId(1)),
        Topic::Client,
        "</script> \"quoted\" \\ \n",
    );
    let mut page = Vec::new();
    picture.write("seed <1>", "a & b", &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(
        page.contains("['k',1.500,1,'Client',\"\\u003c/script> \\\"quoted\\\" \\\\ \\u000a\"]"),
        "{page}"
    );
    assert!(page.contains("seed &lt;1>") && page.contains("a &amp; b"));
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("%DATA%") && !page.contains("src=") && !page.contains("@import"));
}
