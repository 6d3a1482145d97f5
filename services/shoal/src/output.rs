//! Standard output: what was asked for, and nothing else. Logs and progress go to standard error.
use crate::exit::{Failure, Result};
use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    ops::ControlFlow,
    sync::OnceLock,
};

/// The first line that was lost, if one was. Standard output is the process's; so is this.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// One line on standard output. A reader that has gone away (`| head`) is no error; [`lost`] tells of any other.
pub(crate) fn line(text: impl AsRef<str>) {
    if let Err(error) = write(io::stdout().lock(), &[text]) {
        LOST.get_or_init(|| error);
    }
}

/// Some of many lines on standard output: a break once nobody reads them any more (`| head`).
///
/// # Errors
/// When they cannot be written.
pub(crate) fn lines(some: &[impl AsRef<str>]) -> Result<ControlFlow<()>> {
    write(io::stdout().lock(), some).map_err(|error| Failure::output(&error))
}

/// Whether all lines of [`line`] were written.
///
/// # Errors
/// When one was not.
pub(crate) fn lost() -> Result<()> {
    LOST.get().map_or(Ok(()), |error| Err(Failure::output(error)))
}

fn write(out: impl Write, lines: &[impl AsRef<str>]) -> io::Result<ControlFlow<()>> {
    let mut out = BufWriter::new(out);
    let mut all = lines.iter().try_for_each(|line| writeln!(out, "{}", line.as_ref()));
    all = all.and_then(|()| out.flush());
    // What is left is not tried again when it is dropped.
    drop(out.into_parts());
    match all {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error),
    }
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
    use super::*;

    /// Takes nothing, for one reason.
    struct Refuses(io::ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_lines_and_a_full_disk_is_an_error() {
        let mut out = Vec::new();
        let written = write(&mut out, &["a", "b"]).expect("written");
        assert_eq!((written, out.as_slice()), (ControlFlow::Continue(()), &b"a\nb\n"[..]));
        let gone = write(Refuses(io::ErrorKind::BrokenPipe), &["a"]).expect("no error");
        assert_eq!(gone, ControlFlow::Break(()));
        let full = write(Refuses(io::ErrorKind::StorageFull), &["a"]).expect_err("an error");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = table(
            &["name", "pid"],
            &[vec!["gateway".into(), "7".into()], vec!["x".into(), "4711".into()]],
        );
        assert_eq!(rows, ["name     pid", "gateway  7", "x        4711"]);
    }
}
