//! Reads a file that declares schedules, and finds all its faults with their places.
//!
//! A key of a schedule is an option of `schedule add`, and is read by the parser of the command
//! line: a file can say what the command can, and is refused in the same words. Touches the files
//! that `stdin` names.

use super::options::named;
use crate::cli::schedule::GivenSchedule;
use crate::model::NamedSchedule;
use clap::error::ErrorKind;
use clap::{ArgAction, Args as _, Command as OptionParser, FromArgMatches as _};
use clutch_common::text::secret::located;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// The schedules that a file declares.
#[derive(Debug)]
pub(super) struct DeclaredSet {
    /// The owner that the file names.
    pub(super) owner: Option<String>,
    /// The schedules, by name.
    pub(super) schedules: Vec<NamedSchedule>,
    /// Where each begins.
    places: BTreeMap<String, Range<usize>>,
}

/// A fault, and its place in the file.
type PlacedFault = (Range<usize>, String);

/// An entry of a schedule's table as words of a command line.
type EntryWords = (Range<usize>, Vec<String>);

/// The schedules that a file in `folder` declares, or all its faults.
pub(super) fn read(text: &str, folder: &Path) -> Result<DeclaredSet, Vec<String>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<PlacedFault> = errors
        .iter()
        .map(|error| (error.span().unwrap_or_default(), error.message().to_owned()))
        .collect();
    let mut set = DeclaredSet { owner: None, schedules: Vec::new(), places: BTreeMap::new() };
    let mut parser = TableParser::new(folder, errors.is_empty());
    for (key, value) in document.get_ref().iter() {
        match (&**key.get_ref(), value.get_ref()) {
            ("owner", DeValue::String(owner)) => set.owner = Some(owner.to_string()),
            ("owner", _) => faults.push((value.span(), "owner: write a string".to_owned())),
            ("schedules", DeValue::Table(schedules)) => {
                for (name, table) in schedules.iter() {
                    match parser.schedule(name.get_ref(), name.span(), table.get_ref()) {
                        Ok(schedule) => {
                            set.places.insert(schedule.name.clone(), name.span());
                            set.schedules.push(schedule);
                        }
                        Err(wrong) => faults.extend(wrong),
                    }
                }
            }
            ("schedules", _) => {
                faults.push((value.span(), "write a table [schedules.NAME]".to_owned()));
            }
            (other, _) => {
                let words = format!(
                    "'{other}' means nothing here: a file has `owner` and tables \
                                     [schedules.NAME]"
                );
                faults.push((key.span(), words));
            }
        }
    }
    if faults.is_empty() {
        return Ok(set);
    }
    faults.sort_by_key(|(place, _)| place.start);
    Err(faults.into_iter().map(|(place, words)| located(text, Some(place), &words)).collect())
}

impl DeclaredSet {
    /// Words of the service about a schedule of the file, with its place.
    pub(super) fn located(&self, text: &str, words: &str) -> String {
        let name = words.split_once(": ").map(|(name, _)| name);
        match name.and_then(|name| self.places.get(name)) {
            Some(place) => located(text, Some(place.clone()), words),
            None => words.to_owned(),
        }
    }
}

/// Reads tables of schedules.
struct TableParser<'a> {
    command: OptionParser,
    folder: &'a Path,
    /// Whether the file is TOML from its beginning to its end.
    whole: bool,
}

impl<'a> TableParser<'a> {
    fn new(folder: &'a Path, whole: bool) -> Self {
        let command = OptionParser::new("schedule").no_binary_name(true).disable_help_flag(true);
        let mut command = GivenSchedule::augment_args(command);
        command.build();
        Self { command, folder, whole }
    }

    /// The schedule of a table, or the faults of it.
    fn schedule(
        &mut self,
        name: &str,
        place: Range<usize>,
        table: &DeValue<'_>,
    ) -> Result<NamedSchedule, Vec<PlacedFault>> {
        let DeValue::Table(table) = table else {
            return Err(vec![(place, format!("write a table [schedules.{name}]"))]);
        };
        let (mut entries, mut faults) = (Vec::<EntryWords>::new(), Vec::new());
        let mut program = None;
        for (key, value) in table.iter() {
            let words = match &**key.get_ref() {
                "argv" => strings(value.get_ref()).map(|argv| program = Some(argv)),
                key => self.words(key, value.get_ref()).map(|words| {
                    entries.push((value.span(), words));
                }),
            };
            if let Err(reason) = words {
                faults.push((key.span(), format!("{}: {reason}", key.get_ref())));
            }
        }
        let mut line: Vec<&str> =
            entries.iter().flat_map(|(_, words)| words.iter().map(String::as_str)).collect();
        if let Some(program) = &program {
            line.push("--");
            line.extend(program.iter().map(String::as_str));
        }
        match self.parse(&line) {
            Ok(given) if faults.is_empty() => {
                complete(name, &given).map_err(|words| self.at(place, words))
            }
            Ok(_) => Err(faults),
            Err(error) => {
                faults.extend(self.found(&entries));
                Err(if faults.is_empty() { self.at(place, said(&error)) } else { faults })
            }
        }
    }

    /// A fault of a whole schedule; of a file with errors none, as these may be its cause.
    fn at(&self, place: Range<usize>, words: String) -> Vec<PlacedFault> {
        if self.whole { vec![(place, words)] } else { Vec::new() }
    }

    /// The faults of single entries.
    fn found(&mut self, entries: &[EntryWords]) -> Vec<PlacedFault> {
        let mut faults = Vec::new();
        for (place, words) in entries {
            let line: Vec<&str> = words.iter().map(String::as_str).collect();
            // An entry alone may lack another one that it needs.
            if let Err(error) = self.parse(&line)
                && error.kind() != ErrorKind::MissingRequiredArgument
            {
                faults.push((place.clone(), said(&error)));
            }
        }
        faults
    }

    fn parse(&mut self, line: &[&str]) -> Result<GivenSchedule, clap::Error> {
        let matches = self.command.try_get_matches_from_mut(line)?;
        GivenSchedule::from_arg_matches(&matches)
    }

    /// The words of a command line that say what an entry says.
    fn words(&self, key: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let option = key.replace('_', "-");
        let known = |name: &str| {
            let long = |arg: &&clap::Arg| arg.get_long() == Some(name);
            self.command.get_arguments().find(long)
        };
        let Some(arg) = known(&option).filter(|_| !key.contains('-')) else {
            return Err(match known(key) {
                Some(_) => format!("write {}", key.replace('-', "_")),
                None => "there is no such option of `schedule add`".to_owned(),
            });
        };
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            let given = value.as_bool().ok_or("write true or false")?;
            return Ok(given.then(|| format!("--{option}")).into_iter().collect());
        }
        let values = match (key, value) {
            ("env", DeValue::Table(table)) => {
                pairs(table, |value| scalar(value).ok_or("write strings".to_owned()))?
            }
            ("json_kwarg", DeValue::Table(table)) => {
                pairs(table, |value| Ok(json(value)?.to_string()))?
            }
            ("json_arg", DeValue::Array(all)) => all
                .iter()
                .map(|one| Ok(json(one.get_ref())?.to_string()))
                .collect::<Result<_, String>>()?,
            ("env" | "json_kwarg", _) => return Err("write a table: { NAME = VALUE }".to_owned()),
            ("json_arg", _) => return Err("write a list".to_owned()),
            ("stdin", value) => vec![self.path(value)?],
            (_, DeValue::Array(_)) => strings(value)?,
            (_, value) => {
                vec![scalar(value).ok_or("write a string or a number".to_owned())?]
            }
        };
        Ok(values.into_iter().map(|value| format!("--{option}={value}")).collect())
    }

    /// The path of a file beside the one that names it.
    fn path(&self, value: &DeValue<'_>) -> Result<String, String> {
        match value.as_str() {
            Some(path) if path != "-" => {
                let path = self.folder.join(path);
                path.to_str().map(str::to_owned).ok_or("its folder's name is no text".to_owned())
            }
            _ => Err("write the path of a file".to_owned()),
        }
    }
}

/// The schedule that is given, if it has all that one needs.
fn complete(name: &str, given: &GivenSchedule) -> Result<NamedSchedule, String> {
    let options = &given.options;
    let missing: Vec<&str> = [
        (given.endpoint.is_some(), "an endpoint"),
        (options.rule.recurs(), "one of every, cron and calendar"),
        (options.task.call.is_some() || !options.task.argv.is_empty(), "argv or call"),
    ]
    .into_iter()
    .filter_map(|(there, what)| (!there).then_some(what))
    .collect();
    if !missing.is_empty() {
        return Err(format!("'{name}' needs {}", missing.join(", and ")));
    }
    let endpoint = given.endpoint.as_deref().unwrap_or_default();
    named(name, endpoint, options).map_err(|error| format!("'{name}': {error:#}"))
}

/// The words of an error of a command line, without what is only for one.
fn said(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let first = rendered.lines().take_while(|line| !line.trim().is_empty());
    let words = first.map(str::trim).collect::<Vec<_>>().join(" ");
    words.strip_prefix("error: ").unwrap_or(&words).to_owned()
}

/// A value that is text, as an option takes it.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Datetime(moment) => Some(moment.to_string()),
        DeValue::Boolean(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn strings(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let words = || "write a list of strings".to_owned();
    let all = value.as_array().ok_or_else(words)?;
    all.iter().map(|one| scalar(one.get_ref()).ok_or_else(words)).collect()
}

/// The entries of a table as `NAME=VALUE`.
fn pairs(
    table: &DeTable<'_>,
    shown: impl Fn(&DeValue<'_>) -> Result<String, String>,
) -> Result<Vec<String>, String> {
    let pair = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
        Ok(format!("{}={}", name.get_ref(), shown(value.get_ref())?))
    };
    table.iter().map(pair).collect()
}

/// A value as JSON.
fn json(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    Ok(match value {
        DeValue::String(text) => text.to_string().into(),
        DeValue::Integer(number) => {
            let wide = i64::from_str_radix(number.as_str(), number.radix());
            wide.map_err(|_| format!("{number} is too large"))?.into()
        }
        DeValue::Float(number) => {
            let wide = number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            wide.ok_or(format!("{number} is no number of JSON"))?.into()
        }
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(moment) => moment.to_string().into(),
        DeValue::Array(all) => {
            all.iter().map(|one| json(one.get_ref())).collect::<Result<Vec<_>, _>>()?.into()
        }
        DeValue::Table(table) => {
            let entry = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                Ok((name.get_ref().to_string(), json(value.get_ref())?))
            };
            let entries =
                table.iter().map(entry).collect::<Result<serde_json::Map<_, _>, String>>();
            serde_json::Value::Object(entries?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DeclaredSet, Vec<String>> {
        super::read(text, Path::new("/no"))
    }

    #[test]
    fn a_file_says_what_the_command_does() {
        let set = read(
            r#"
            owner = "site"

            [schedules.nightly]
            endpoint = "lab"
            cron = "0 3 * * 1-5"
            tz = "Europe/Berlin"
            from = 2026-12-01
            argv = ["/opt/backup", "--all", "-v"]
            walltime = "1h"
            retries = 3
            retry_on = ["failed", "expired"]
            no_rerun = true
            env = { LEVEL = 9, "A B" = "-c" }

            [schedules.poll]
            endpoint = "lab"
            every = "90s"
            after_end = true
            call = "poll"
            json_arg = [1, "a", { b = [true, 1.5] }]
            json_kwarg = { c = "x" }
            "#,
        );
        let set = set.unwrap();
        assert_eq!(set.owner.as_deref(), Some("site"));
        let [nightly, poll] = &set.schedules[..] else { panic!("{:?}", set.schedules) };
        assert_eq!(nightly.spec.rule.from_ms, Some(1_796_079_600_000));
        assert_eq!((nightly.spec.task.argv.len(), nightly.spec.task.rerun), (3, false));
        assert_eq!(nightly.spec.task.env["A B"].shown(), "-c");
        assert_eq!(nightly.spec.retry.as_ref().unwrap().on.len(), 2);
        assert_eq!(poll.spec.rule.words(), "1m 30s after the end of each task");
        let call = poll.spec.task.call.as_ref().unwrap().to_string();
        assert_eq!(call, r#"poll(1,"a",{"b":[true,1.5]},**{"c":"x"})"#);
        let told = set.located("\n\n\n[schedules.nightly]", "other: no");
        assert_eq!(told, "other: no");
        assert_eq!(set.located("", "poll"), "poll");
    }

    #[test]
    fn all_faults_of_a_file_are_told_with_their_places() {
        let faults = read(
            "owner = 7\n\
             colour = 'red'\n\
             [schedules.a]\n\
             endpoint = 'lab'\n\
             cron = '61 * * * *'\n\
             tz = 'berlin'\n\
             pause-after = 3\n\
             wall = '1h'\n\
             argv = 'true'\n\
             [schedules.b]\n\
             every = '1m'\n\
             [schedules.c]\n\
             endpoint = 'lab'\n\
             every = '1m'\n\
             cron = '@daily'\n\
             argv = ['true']\n\
             [schedules.d]\n\
             endpoint = 'lab'\n\
             every = '1m'\n\
             array = '1-9'\n\
             argv = ['true']\n\
             [schedules.'e f']\n\
             endpoint = 'lab'\n\
             every = '1m'\n\
             argv = ['true']\n",
        );
        let faults = faults.unwrap_err();
        let expected = [
            ("line 1, column 9: ", "owner: write a string"),
            ("line 2, column 1: ", "'colour' means nothing here"),
            ("line 5, column 8: ", "'61' is not in 0 to 59"),
            ("line 6, column 6: ", "such as Europe/Berlin"),
            ("line 7, column 1: ", "pause-after: write pause_after"),
            ("line 8, column 1: ", "wall: there is no such option"),
            ("line 9, column 1: ", "argv: write a list of strings"),
            ("line 10, column 12: ", "'b' needs an endpoint, and argv or call"),
            ("line 12, column 12: ", "cannot be used with"),
            ("line 17, column 12: ", "each instant of a schedule is one task"),
            ("line 22, column 12: ", "is no name of a schedule"),
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, (place, words)) in faults.iter().zip(expected) {
            assert!(fault.starts_with(place) && fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_so_beside_its_other_faults() {
        let faults = read(
            "[schedules.a]\n\
             endpoint = 'lab'\n\
             cron = '61 * * * *'\n\
             tz = 'berlin'\n\
             catch_up = 'some'\n\
             argv = ['true']\n\
             [schedules.b\n",
        );
        let faults = faults.unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:#?}");
        assert!(
            faults[0].starts_with("line 3, column 8: ") && faults[0].contains("'61' is not in")
        );
        assert!(faults[1].starts_with("line 4, column 6: ") && faults[1].contains("Europe/Berlin"));
        assert!(faults[2].contains("last, all, none"), "{}", faults[2]);
        assert!(faults[3].starts_with("line 7, "), "{}", faults[3]);
    }
}
