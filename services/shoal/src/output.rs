//! Standard output: what was asked for, and nothing else. Logs and progress go to standard error.
use std::io::{self, IsTerminal as _, Write as _};

/// One line on standard output. A reader that has gone away (`| head`) is no error.
pub(crate) fn line(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
}

/// Whether a person reads standard output as it is written.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Rows as columns: each as wide as its widest cell, two spaces between, nothing after the last.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    let width = |i: usize| {
        std::iter::once(&header)
            .chain(rows)
            .map(|r| r.get(i).map_or(0, |c| c.chars().count()))
            .max()
    };
    let widths: Vec<usize> = (0..header.len()).map(|i| width(i).unwrap_or(0)).collect();
    let render = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    std::iter::once(&header).chain(rows).map(render).collect()
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = table(
            &["name", "pid"],
            &[vec!["gateway".into(), "7".into()], vec!["x".into(), "4711".into()]],
        );
        assert_eq!(rows, ["name     pid", "gateway  7", "x        4711"]);
    }
}
