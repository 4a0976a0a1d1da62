//! What the commands print: aligned columns for people, and bytes made readable.

use std::io::{self, IsTerminal, Write};

/// Whether escape codes may be sent to standard output: it is a terminal, and the user has not set `NO_COLOR`
/// (<https://no-color.org>) nor runs a terminal that has none.
pub fn styled() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    io::stdout().is_terminal()
        && unset("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints to standard output. A closed pipe is the reader's way of saying "enough" and ends the program quietly, as
/// with any filter.
pub fn print(text: &[u8]) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text).and_then(|()| out.flush()) {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        if !quiet {
            eprintln!("quorate: standard output: {error}");
        }
        std::process::exit(if quiet { 0 } else { 1 });
    }
}

/// Columns two spaces apart under a line of headings.
pub fn table(headings: &[&str], rows: &[Vec<String>], styled: bool) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = headings.iter().map(|heading| width(heading)).collect();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            widths[at] = widths[at].max(width(cell));
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (at, cell) in cells.enumerate() {
            if at > 0 {
                out += "  ";
            }
            out += cell;
            // Nothing is padded behind the last column.
            if at + 1 < widths.len() {
                out += &" ".repeat(widths[at].saturating_sub(width(cell)));
            }
        }
        out
    };
    let head = line(&mut headings.iter().copied());
    let mut out = if styled {
        format!("\x1b[1m{head}\x1b[0m\n")
    } else {
        format!("{head}\n")
    };
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
        out.push('\n');
    }
    out
}

/// Bytes as text if they are text without control characters, else escaped.
pub fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(text) => text
            .chars()
            .flat_map(|c| {
                if c.is_control() {
                    c.escape_default().collect()
                } else {
                    vec![c]
                }
            })
            .collect(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Bytes as a number of KB, MB and so on.
pub fn size(bytes: i64) -> String {
    let mut value = bytes.max(0) as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{value} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_have_no_trailing_blanks() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["Größe".to_owned(), "22".to_owned()],
        ];
        assert_eq!(
            table(&["KEY", "N"], &rows, false),
            "KEY    N\na      1\nGröße  22\n"
        );
        assert!(table(&["KEY"], &[], true).starts_with("\x1b[1mKEY\x1b[0m"));
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(readable("Größe".as_bytes()), "Größe");
        assert_eq!(readable(b"a\nb"), "a\\nb");
        assert_eq!(readable(&[0xff, b'a']), "\\xffa");
        assert_eq!(
            (size(17), size(24_576)),
            ("17 B".to_owned(), "24.6 kB".to_owned())
        );
    }
}
