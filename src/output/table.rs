//! Columns of text.

use std::borrow::Cow;

use super::Paint;

/// The least that is left of the last column on a narrow terminal.
const LEAST_LAST: usize = 10;

/// A heading and rows. All columns are as wide as they must be; on a terminal the last one is cut to the room that is left.
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// Text with a colour.
pub(crate) struct Cell {
    text: String,
    paint: fn(Paint, &str) -> String,
}

impl Cell {
    pub(crate) fn painted(text: impl Into<String>, paint: fn(Paint, &str) -> String) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(text, |_, text| text.to_owned())
    }
}

impl Table {
    pub(crate) fn new(heading: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            heading: heading.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as the heading has.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines of the table in a terminal of `width` columns.
    pub(super) fn lines(&self, width: Option<usize>, paint: Paint) -> impl Iterator<Item = String> {
        let last = self.heading.len().saturating_sub(1);
        let mut widths: Vec<usize> = self.heading.iter().map(|name| width_of(name)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width_of(&cell.text));
            }
        }
        let before: usize = widths[..last].iter().map(|column| column + 2).sum();
        let room = width.map(|width| width.saturating_sub(before).max(LEAST_LAST));

        let heading = self
            .heading
            .iter()
            .map(|name| (Cow::Borrowed(*name), Paint::dim as _));
        let heading = line(heading.collect(), &widths, room, paint);
        let rows = self.rows.iter().map(move |row| {
            let cells = row
                .iter()
                .map(|cell| (Cow::Borrowed(&*cell.text), cell.paint));
            line(cells.collect(), &widths, room, paint)
        });
        std::iter::once(heading).chain(rows)
    }
}

type Painted<'a> = (Cow<'a, str>, fn(Paint, &str) -> String);

fn line(
    mut cells: Vec<Painted<'_>>,
    widths: &[usize],
    room: Option<usize>,
    paint: Paint,
) -> String {
    if let (Some(room), Some((last, _))) = (room, cells.last_mut()) {
        *last = Cow::Owned(cut(last, room));
    }
    let mut line = String::new();
    let count = cells.len();
    for (index, ((text, colour), width)) in cells.into_iter().zip(widths).enumerate() {
        line.push_str(&colour(paint, &text));
        if index + 1 < count {
            line.push_str(&" ".repeat(width - width_of(&text) + 2));
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// The columns that text takes, close enough for names and messages.
pub(crate) fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// At most `width` columns of the text; an ellipsis says that there is more.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// The text on one line, with nothing in it that a terminal would obey: what tools say is not to be trusted.
pub(crate) fn one_line(text: &str) -> String {
    let text = text.chars().filter(|c| !turns_text(*c));
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.map(visible).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a terminal does something else with it than show it in its place.
pub(crate) fn drives_terminal(c: char) -> bool {
    c.is_control() || turns_text(c)
}

/// Whether it changes the direction of the text behind it, which then reads as what it is not.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(width: Option<usize>) -> Vec<String> {
        let mut table = Table::new(["NAME", "WORKERS", "DESCRIPTION"]);
        table.row(["add".into(), "2".into(), "Adds two numbers.".into()]);
        table.row(["look_up_product".into(), "12".into(), "".into()]);
        table.lines(width, Paint::new(false)).collect()
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        assert_eq!(
            lines(None),
            [
                "NAME             WORKERS  DESCRIPTION",
                "add              2        Adds two numbers.",
                "look_up_product  12",
            ]
        );
    }

    #[test]
    fn on_a_terminal_the_last_column_is_cut() {
        assert_eq!(lines(Some(38))[1], "add              2        Adds two nu…");
        let narrow = lines(Some(3));
        assert_eq!(
            narrow[1], "add              2        Adds two…",
            "and is never gone"
        );
    }

    #[test]
    fn colours_take_no_room() {
        let mut table = Table::new(["A", "B"]);
        table.row([Cell::painted("x", Paint::red), "y".into()]);
        let lines: Vec<_> = table.lines(None, Paint::new(true)).collect();
        assert_eq!(lines[1], "\x1b[31mx\x1b[0m  y");
    }

    #[test]
    fn what_a_tool_says_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\n\n b\x1b[2J\tc\r"), "a b [2J c");
        assert_eq!(one_line("a\u{202e}b\u{2066} c\u{2069}"), "ab c");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("übergröße", 9), "übergröße");
        assert_eq!(cut("übergröße", 5), "über…");
    }
}
