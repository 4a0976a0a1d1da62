//! The page that shows a picture: one HTML file that needs nothing else, with the events as data and a script that draws those
//! in sight. Times on the page are microseconds.

use std::fmt::Write;
use std::io;

use quorate_raft::RoleKind;

use super::{Item, Look, Picture, State};
use crate::net::Pair;
use crate::trace::Nanos;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

impl Picture {
    /// Writes the page. `title` says which run it is, and `about` what it was.
    pub fn write(&self, title: &str, about: &str, out: &mut impl io::Write) -> io::Result<()> {
        let filled = [
            ("%TITLE%", escape(title)),
            ("%STYLE%", STYLE.to_owned()),
            ("%ABOUT%", escape(about)),
            ("%DATA%", self.data()),
            ("%SCRIPT%", SCRIPT.to_owned()),
        ];
        let mut rest = PAGE;
        for (place, text) in filled {
            let (before, after) = rest.split_once(place).expect("the page has this place");
            out.write_all(before.as_bytes())?;
            out.write_all(text.as_bytes())?;
            rest = after;
        }
        out.write_all(rest.as_bytes())
    }

    /// The events as a value of JavaScript.
    fn data(&self) -> String {
        let mut data = format!(
            "{{begun:{},ended:{},states:[",
            micros(self.begun),
            micros(self.ended)
        );
        for (node, state) in &self.states.0 {
            let _ = write!(data, "[0,{node},{}],", shape(state));
        }
        let _ = write!(data, "],cuts:{},items:[", pairs(self.cuts.0.iter()));
        for item in &self.items {
            write_item(&mut data, item);
            data.push_str(",\n");
        }
        data.push_str("]}");
        data
    }
}

fn write_item(data: &mut String, item: &Item) {
    let _ = match item {
        Item::Message {
            at,
            pair,
            class,
            words,
            ends,
        } => {
            let ends: Vec<String> = ends
                .iter()
                .map(|(end, whole)| format!("{},{}", micros(*end), u8::from(*whole)))
                .collect();
            write!(
                data,
                "['m',{},{},{},'{class:?}',{},[{}]]",
                micros(*at),
                pair.0,
                pair.1,
                quoted(words),
                ends.join(",")
            )
        }
        Item::Mark {
            at,
            node,
            topic,
            words,
        } => {
            let node = node.map_or(0, |id| id.0);
            write!(data, "['k',{},{node},'{topic:?}',{}]", micros(*at), quoted(words))
        }
        Item::State { at, node, state } => {
            write!(data, "['s',{},{node},{}]", micros(*at), shape(state))
        }
        Item::Cuts { at, cuts } => write!(data, "['c',{},{}]", micros(*at), pairs(cuts.iter())),
    };
}

fn micros(at: Nanos) -> String {
    let nanos = at % 1_000;
    if nanos == 0 {
        return (at / 1_000).to_string();
    }
    format!("{}.{nanos:03}", at / 1_000)
}

fn shape(state: &State) -> String {
    let look = match state.look {
        Look::Dark => "dark",
        Look::Down => "down",
        Look::Paused => "paused",
        Look::Runs(RoleKind::Follower) => "follower",
        Look::Runs(RoleKind::PreCandidate) => "precandidate",
        Look::Runs(RoleKind::Candidate) => "candidate",
        Look::Runs(RoleKind::Leader) => "leader",
    };
    format!("'{look}',{},{}", state.term, u8::from(state.stalled))
}

fn pairs<'a>(pairs: impl Iterator<Item = &'a Pair>) -> String {
    let pairs: Vec<String> = pairs.map(|(from, to)| format!("[{from},{to}]")).collect();
    format!("[{}]", pairs.join(","))
}

/// A string literal that can stand inside a script.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '<' => quoted.push_str("\\u003c"),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Text that can stand in the page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
