//! The measurements of a row, for people and for programs. Pure.

use crate::stats::Spread;
use serde::Serialize;
use std::fmt;

/// One row of the benchmarks.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Its name on the command line.
    pub(crate) name: String,
    /// A line on what was measured and where.
    pub(crate) about: String,
    /// The measurements.
    pub(crate) figures: Vec<Figure>,
    /// The limits that it has to reach.
    pub(crate) bars: Vec<Bar>,
}

/// Something measured several times.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// Its name.
    pub(crate) what: String,
    /// In what unit.
    pub(crate) unit: &'static str,
    /// The values.
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

/// Which side of a bar is the good one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// More is better.
    AtLeast,
    /// Less is better.
    AtMost,
}

/// A limit that a median is held against.
#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    what: String,
    unit: &'static str,
    side: Side,
    limit: f64,
    median: f64,
    met: bool,
}

impl Bar {
    /// Whether it is the bar of a figure.
    pub(crate) fn is_of(&self, figure: &Figure) -> bool {
        self.what == figure.what && self.unit == figure.unit
    }

    /// The limit, and whether it was reached.
    pub(crate) fn words(&self) -> String {
        let verdict = if self.met { "met" } else { "missed" };
        format!("{} {} {verdict}", self.side.sign(), short(self.limit))
    }
}

impl Side {
    fn sign(self) -> &'static str {
        match self {
            Self::AtLeast => "≥",
            Self::AtMost => "≤",
        }
    }
}

impl Row {
    /// A row without figures.
    pub(crate) fn new(name: &str, about: String) -> Self {
        Self { name: name.to_owned(), about, figures: Vec::new(), bars: Vec::new() }
    }

    /// Adds a figure.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, measurements: &[f64]) {
        let spread = Spread::of(measurements);
        self.figures.push(Figure { what: what.to_owned(), unit, spread });
    }

    /// Adds a figure with a median that has to be on one side of a limit.
    pub(crate) fn hold(
        &mut self,
        what: &str,
        unit: &'static str,
        measurements: &[f64],
        (side, limit): (Side, f64),
    ) {
        self.add(what, unit, measurements);
        let median = Spread::of(measurements).median;
        let met = match side {
            Side::AtLeast => median >= limit,
            Side::AtMost => median <= limit,
        };
        self.bars.push(Bar { what: what.to_owned(), unit, side, limit, median, met });
    }

    /// Whether every bar is met.
    pub(crate) fn good(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.about)?;
        writeln!(f, "  {:<46}{:>10}{:>10}{:>10}", "", "min", "median", "max")?;
        for Figure { what, unit, spread } in &self.figures {
            let [min, median, max] = [spread.min, spread.median, spread.max].map(short);
            let what = format!("{what} [{unit}]");
            writeln!(f, "  {what:<46}{min:>10}{median:>10}{max:>10}  of {}", spread.of)?;
        }
        for bar in &self.bars {
            let sign = bar.side.sign();
            let (verdict, limit) = (if bar.met { "met" } else { "MISSED" }, short(bar.limit));
            writeln!(f, "  bar {verdict}: {} {sign} {limit} {}", bar.what, bar.unit)?;
        }
        Ok(())
    }
}

/// A number with three digits that count, or all before the point.
pub(crate) fn short(number: f64) -> String {
    let places = match number.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{number:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_held_against_the_median_from_its_side() {
        for (side, limit, good) in [
            (Side::AtLeast, 2.0, true),
            (Side::AtLeast, 2.1, false),
            (Side::AtMost, 2.0, true),
            (Side::AtMost, 1.9, false),
        ] {
            let mut row = Row::new("r", String::new());
            row.hold("speed", "1/s", &[1.0, 2.0, 9.0], (side, limit));
            assert_eq!(row.good(), good, "{side:?} {limit}");
            assert_eq!(row.to_string().contains("MISSED"), !good);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in
            [(0.0, "0.000"), (0.1234, "0.123"), (1.234, "1.23"), (56.78, "56.8"), (2345.6, "2346")]
        {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn programs_read_the_same_figures() {
        let mut row = Row::new("r", "here".to_owned());
        row.hold("speed", "1/s", &[3.0], (Side::AtLeast, 2.0));
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["figures"][0]["median"], 3.0);
        assert_eq!(
            (&json["bars"][0]["side"], &json["bars"][0]["met"]),
            (&"at_least".into(), &true.into())
        );
    }
}
