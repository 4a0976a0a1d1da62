//! Tables, for terminals and for Markdown, from the same cells.

/// Rows of text under a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(header: &[&str]) -> Table {
        Table {
            header: header.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, of as many cells as the header has.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(
            cells.len(),
            self.header.len(),
            "a row of another width than the header"
        );
        self.rows.push(cells);
    }

    /// In columns, for a terminal.
    pub fn text(&self) -> String {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in all() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += cell;
                line += &" ".repeat(width - cell.chars().count() + 2);
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = "| --- ".repeat(self.header.len()) + "|\n";
        let rows: String = self.rows.iter().map(line).collect();
        line(&self.header) + &rule + &rows
    }
}

/// A number with about three digits that count: `0.0123`, `1.23`, `12.3`, `123`, `12345`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size == 0.0 || size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["what", "µs"]);
        table.row(vec!["a|b".to_owned(), "1".to_owned()]);
        table.row(vec!["longer".to_owned(), "10".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(table().text(), "what    µs\na|b     1\nlonger  10\n");
    }

    #[test]
    fn markdown_is_escaped() {
        assert_eq!(
            table().markdown(),
            "| what | µs |\n| --- | --- |\n| a\\|b | 1 |\n| longer | 10 |\n"
        );
    }

    #[test]
    fn numbers_are_short() {
        let shown: Vec<String> = [0.0, 0.0123, 0.456, 1.0, 12.34, 123.4, 12345.6]
            .map(number)
            .into();
        assert_eq!(shown, ["0", "0.012", "0.46", "1.00", "12.3", "123", "12346"]);
    }
}
