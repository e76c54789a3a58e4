//! A table for people. Pure.

/// The lines of a table, each column as wide as its widest cell.
pub(super) fn lines<const N: usize>(
    columns: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Vec<String> {
    let mut all = vec![columns.map(str::to_owned)];
    all.extend(rows);
    let mut widths = [0; N];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<String>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell() {
        let rows = [["nightly", "é"], ["a", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(lines(["NAME", "B"], rows), ["NAME     B", "nightly  é", "a"]);
    }
}
