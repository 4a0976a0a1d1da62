//! When each revision was first heard of, by anybody: it was committed by then. Nothing here judges.

use super::{Call, Moment, Outcome};

/// Answers by revision, each with the earliest that shows its revision or a later one.
pub struct Witnesses<'a>(Vec<(i64, Moment, &'a Call)>);

impl<'a> Witnesses<'a> {
    /// From all calls.
    pub fn new(calls: &'a [Call]) -> Witnesses<'a> {
        let mut told: Vec<(i64, Moment, &Call)> = calls
            .iter()
            .filter_map(|call| match call.outcome {
                Outcome::Ok { revision, .. } => Some((revision, call.returned, call)),
                _ => None,
            })
            .collect();
        told.sort_by_key(|(revision, returned, _)| (*revision, *returned));
        // From behind, so that each knows the earliest answer with its revision or a later one.
        for at in (1..told.len()).rev() {
            if told[at].1 < told[at - 1].1 {
                (told[at - 1].1, told[at - 1].2) = (told[at].1, told[at].2);
            }
        }
        Witnesses(told)
    }

    /// The first answer that shows this revision or a later one.
    pub fn first(&self, revision: i64) -> Option<(Moment, &'a Call)> {
        let at = self.0.partition_point(|(told, _, _)| *told < revision);
        self.0.get(at).map(|(_, returned, call)| (*returned, *call))
    }
}
