//! The instructions that operations took when they were recorded, and what is to be
//! said of those that they take now. Pure.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use toml::{Table, Value};

/// How much more an operation may take, in percent.
const MORE: u64 = 10;

const HEAD: &str = "\
# Instructions per task, counted by callgrind. `cargo xtask ci` fails when an
# operation takes a tenth more. Written by `cargo xtask instructions --record`;
# whoever records says in the commit why.
";

/// Counts, and what they depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Baseline {
    /// The architecture.
    pub(super) arch: String,
    /// The compiler's version.
    pub(super) rustc: String,
    /// The instructions per task, by operation.
    pub(super) per_task: BTreeMap<String, u64>,
}

/// The result of a comparison.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Nothing takes too much.
    pub(super) good: bool,
    /// A table, and what is wrong.
    pub(super) text: String,
}

impl Baseline {
    /// Reads what [`Baseline::text`] wrote.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse().context("the baseline is not TOML")?;
        let text = |key: &str| {
            let text = table.get(key).and_then(Value::as_str).map(str::to_owned);
            text.with_context(|| format!("the baseline has no '{key}'"))
        };
        let counts = table.get("per_task").and_then(Value::as_table);
        let counts = counts.context("the baseline has no '[per_task]'")?.iter();
        let count = |(name, count): (&String, &Value)| {
            let count = count.as_integer().and_then(|count| u64::try_from(count).ok());
            Some((name.clone(), count.filter(|count| *count > 0)?))
        };
        let per_task = counts.map(count).collect::<Option<_>>();
        let per_task = per_task.context("a count of the baseline is none")?;
        Ok(Self { arch: text("arch")?, rustc: text("rustc")?, per_task })
    }

    /// As it is kept.
    pub(super) fn text(&self) -> String {
        let Self { arch, rustc, per_task } = self;
        let mut text = format!("{HEAD}arch = \"{arch}\"\nrustc = \"{rustc}\"\n\n[per_task]\n");
        for (name, count) in per_task {
            text.push_str(&format!("{name} = {count}\n"));
        }
        text
    }

    /// Of several counts of the same the middle ones.
    pub(super) fn middle(all: &[Self; 3]) -> Self {
        let [first, ..] = all;
        let middle = |name: &String| {
            let mut counts: Vec<_> = all.iter().filter_map(|one| one.per_task.get(name)).collect();
            counts.sort();
            counts.get(counts.len() / 2).copied().copied()
        };
        let counts = first.per_task.keys().filter_map(|name| Some((name.clone(), middle(name)?)));
        Self { per_task: counts.collect(), ..first.clone() }
    }

    /// The operations that take too much, compared with this.
    pub(super) fn dearer(&self, measured: &Self) -> Vec<String> {
        let dearer = |(name, now): &(&String, &u64)| {
            self.per_task.get(*name).is_some_and(|kept| exceeds(*kept, **now))
        };
        measured.per_task.iter().filter(dearer).map(|(name, _)| name.clone()).collect()
    }

    /// Compares what was measured with this.
    pub(super) fn compare(&self, measured: &Self) -> Result<Verdict> {
        if self.arch != measured.arch {
            bail!(
                "the baseline is of {}, this is {}: nothing can be compared",
                self.arch,
                measured.arch
            );
        }
        let width = measured.per_task.keys().map(String::len).max().unwrap_or(0);
        let mut text = format!("{:width$}  {:>12}  {:>12}  change\n", "per task", "kept", "now");
        let (mut more, mut less) = (Vec::new(), Vec::new());
        for (name, &now) in &measured.per_task {
            let Some(&kept) = self.per_task.get(name) else {
                writeln!(text, "{name:width$}  {:>12}  {now:>12}  new", "-")?;
                more.push(format!("{name} is not in the baseline"));
                continue;
            };
            let change = (now as f64 / kept as f64 - 1.0) * 100.0;
            writeln!(text, "{name:width$}  {kept:>12}  {now:>12}  {change:+.1} %")?;
            if exceeds(kept, now) {
                more.push(format!("{name} takes {change:.1} % more instructions per task"));
            } else if now * 100 < kept * (100 - MORE) {
                less.push(name.as_str());
            }
        }
        if !less.is_empty() {
            let less = less.join(", ");
            writeln!(text, "{less}: cheaper. `cargo xtask instructions --record` keeps that.")?;
        }
        if !more.is_empty() {
            text.push_str(&self.advice(&more, measured)?);
        }
        Ok(Verdict { good: more.is_empty(), text })
    }

    /// Complaints, each with what to do.
    fn advice(&self, more: &[String], measured: &Self) -> Result<String> {
        let mut text = String::new();
        for complaint in more {
            writeln!(text, "error: {complaint}")?;
        }
        writeln!(
            text,
            "More than {MORE} % needs a reason. Where they go: callgrind_annotate \
             target/instructions/OPERATION. Mend it, or keep it by `cargo xtask instructions \
             --record` and say in the commit what it is worth."
        )?;
        if self.rustc != measured.rustc {
            writeln!(
                text,
                "The baseline is of rustc {}, this is {}: that alone may be it. Look at the \
                 code before the change with the same compiler; if it is, record.",
                self.rustc, measured.rustc
            )?;
        }
        Ok(text)
    }
}

fn exceeds(kept: u64, now: u64) -> bool {
    now * 100 > kept * (100 + MORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(counts: &[(&str, u64)]) -> Baseline {
        let per_task = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Baseline { arch: "x86_64".to_owned(), rustc: "1.95.0".to_owned(), per_task }
    }

    #[test]
    fn a_tenth_more_is_too_much_and_named_and_anything_less_is_not() {
        let kept = baseline(&[("a", 1000), ("b", 1000)]);
        for (now, good) in [(500, true), (1000, true), (1100, true), (1101, false)] {
            let verdict = kept.compare(&baseline(&[("a", now), ("b", 1000)])).unwrap();
            assert_eq!(verdict.good, good, "{}", verdict.text);
            assert_eq!(kept.dearer(&baseline(&[("a", now), ("b", 1)])).is_empty(), good);
            assert_eq!(verdict.text.contains("error: a takes 10.1 % more"), !good);
            assert_eq!(verdict.text.contains("cheaper"), now == 500);
        }
        assert!(!kept.compare(&baseline(&[("new", 1)])).unwrap().good);
    }

    #[test]
    fn another_compiler_is_told_and_another_architecture_not_compared() {
        let kept = baseline(&[("a", 1000)]);
        let now = Baseline { rustc: "1.96.0".to_owned(), ..baseline(&[("a", 2000)]) };
        assert!(kept.compare(&now).unwrap().text.contains("1.96.0"));
        assert!(kept.compare(&Baseline { arch: "aarch64".to_owned(), ..now }).is_err());
    }

    #[test]
    fn one_count_that_is_off_is_not_recorded() {
        let all = [40, 75, 74].map(|count| baseline(&[("a", count), ("b", 1)]));
        assert_eq!(Baseline::middle(&all), baseline(&[("a", 74), ("b", 1)]));
    }

    #[test]
    fn what_is_kept_is_read_again_and_a_broken_file_is_told() {
        let kept = baseline(&[("a-b", 1000), ("c", 1)]);
        assert_eq!(Baseline::parse(&kept.text()).unwrap(), kept);
        for broken in ["", "[per_task]", "arch = 'a'\nrustc = 'b'\n[per_task]\na = 0"] {
            assert!(Baseline::parse(broken).is_err(), "{broken}");
        }
    }
}
