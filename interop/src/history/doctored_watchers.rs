//! What a watcher noted, tampered with, each time as a broken server could have made it. A checker that never objects proves nothing: it
//! must object to every one of these. The same for calls is in [`super::doctored`].

use super::committed::Committed;
use super::watched::{Note, Seen, check};

type Doctor = fn(&mut Vec<Note>) -> Option<()>;

const DOCTORED: [(&str, Doctor); 9] = [
    ("a watcher saw nothing", see_nothing),
    ("a watcher saw nothing of the end", miss_the_end),
    ("a watcher missed an answer", miss_an_answer),
    ("a watcher missed a change of several", |notes| {
        miss_a_change(notes)
    }),
    ("a watcher got a revision in two answers", tear),
    ("a watcher got an answer twice", see_twice),
    ("a watcher saw another value", |notes| see_another(notes)),
    (
        "a watch was cancelled for a compaction that never was",
        cancel_compacted,
    ),
    ("a watch was refused", refuse),
];

/// Tampers with sound notes in every way, and returns what was objected to and what went unnoticed or could not be tried.
pub fn check_all(notes: &[Note], committed: &Committed, last: i64) -> (Vec<String>, Vec<String>) {
    let (mut caught, mut missed) = (Vec::new(), Vec::new());
    for (what, doctor) in DOCTORED {
        let mut notes = notes.to_vec();
        if doctor(&mut notes).is_none() {
            missed.push(format!("{what}: there is nothing on which this could be tried"));
            continue;
        }
        match check(&notes, committed, last) {
            Err(objection) => caught.push(format!("{what}: {objection}")),
            Ok(_) => missed.push(format!("{what}: no objection")),
        }
    }
    (caught, missed)
}

/// Where the first answer stands that `fits`.
fn answer(notes: &[Note], fits: impl Fn(&[Seen]) -> bool) -> Option<usize> {
    notes
        .iter()
        .position(|note| matches!(note, Note::Answer(seen) if fits(seen)))
}

/// Whether the first changes of an answer are one revision's.
fn begins_with_several(seen: &[Seen]) -> bool {
    matches!(seen, [first, second, ..] if first.revision == second.revision)
}

fn see_nothing(notes: &mut Vec<Note>) -> Option<()> {
    notes.retain(|note| !matches!(note, Note::Answer(_)));
    notes.truncate(1);
    Some(())
}

/// All answers but the first half.
fn miss_the_end(notes: &mut Vec<Note>) -> Option<()> {
    notes.truncate(notes.len() / 2);
    Some(())
}

fn miss_an_answer(notes: &mut Vec<Note>) -> Option<()> {
    let at = answer(notes, |_| true)?;
    notes.remove(at);
    Some(())
}

fn miss_a_change(notes: &mut [Note]) -> Option<()> {
    let at = answer(notes, begins_with_several)?;
    let Note::Answer(seen) = &mut notes[at] else {
        return None;
    };
    seen.remove(1);
    Some(())
}

fn tear(notes: &mut Vec<Note>) -> Option<()> {
    let at = answer(notes, begins_with_several)?;
    let Note::Answer(seen) = &mut notes[at] else {
        return None;
    };
    let rest = seen.split_off(1);
    notes.insert(at + 1, Note::Answer(rest));
    Some(())
}

fn see_twice(notes: &mut Vec<Note>) -> Option<()> {
    let at = answer(notes, |_| true)?;
    notes.insert(at, notes[at].clone());
    Some(())
}

fn see_another(notes: &mut [Note]) -> Option<()> {
    let at = answer(notes, |_| true)?;
    let Note::Answer(seen) = &mut notes[at] else {
        return None;
    };
    seen.first_mut()?.value = Some("another".into());
    Some(())
}

/// The stream goes on as if nothing were wrong, so that nothing is missing but a reason.
fn end(notes: &mut Vec<Note>, end: Note) -> Option<()> {
    let at = answer(notes, |_| true)?;
    let first = notes[..at].iter().rfind(|note| matches!(note, Note::From { .. }));
    let begun = first?.clone();
    notes.splice(at..at, [end, begun]);
    Some(())
}

fn cancel_compacted(notes: &mut Vec<Note>) -> Option<()> {
    end(
        notes,
        Note::Cancelled {
            compacted: 2,
            why: "etcdserver: mvcc: required revision has been compacted".into(),
        },
    )
}

fn refuse(notes: &mut Vec<Note>) -> Option<()> {
    end(
        notes,
        Note::Broken {
            code: "OutOfRange".into(),
            why: "etcdserver: mvcc: required revision is a future revision".into(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::committed;
    use super::*;

    #[test]
    fn every_tampering_is_objected_to() {
        let lines = [
            "from 1 0",
            "broken Unavailable no",
            "from 1 1",
            "answer 2 a 1",
            "answer 3 b 2 3 a 3",
            "answer 4 a -",
        ];
        let notes: Vec<Note> = lines.iter().map(|line| line.parse().unwrap()).collect();
        let committed = committed(&["2 a 1", "3 b 2", "3 a 3", "4 a -"]);
        assert!(check(&notes, &committed, 4).is_ok());
        let (caught, missed) = check_all(&notes, &committed, 4);
        assert_eq!((caught.len(), missed), (DOCTORED.len(), Vec::new()));
    }
}
