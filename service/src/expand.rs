//! Turns one command line, or one call, and a list of items (lines, numbers) into
//! the command lines, or the calls, of the tasks. Pure.

use clutch_common::json::Json;
use clutch_common::task::Call;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The place in an argument that an item is put at.
const PLACE: &str = "{}";
/// What stands for the item in a script.
const ARGUMENT: &str = "\"$1\"";

/// How to make a command line for an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    argv: Vec<String>,
    shell: bool,
}

/// How to make a call for an item.
#[derive(Clone, Debug)]
pub(crate) struct CallTemplate {
    function: String,
    args: Vec<Json>,
    kwargs: Option<Json>,
}

/// How to make the work of a task for an item.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// Run a program.
    Program(Template),
    /// Call a function.
    Function(CallTemplate),
}

/// The work of a task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Made {
    /// A command line.
    Argv(Vec<String>),
    /// A call.
    Call(Call),
}

/// What one task has of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    /// A line.
    Line(&'a str),
    /// A number.
    Number(u64),
}

/// What the tasks differ by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    /// One task, with the command line as it stands.
    One,
    /// A task for each line.
    Lines(String),
    /// A task for each number.
    Numbers(RangeInclusive<u64>),
}

impl Template {
    /// `argv` as it was given. With `shell`, its words joined are a script for
    /// `sh -c`, and an item is the script's first argument: never part of it.
    #[must_use]
    pub(crate) fn new(argv: Vec<String>, shell: bool) -> Self {
        Self { argv, shell }
    }

    /// The command line without an item.
    #[must_use]
    pub(crate) fn plain(&self) -> Vec<String> {
        if self.shell { sh(self.argv.join(" ")) } else { self.argv.clone() }
    }

    /// The command line for an item: put wherever `{}` stands, or appended; in a
    /// script, `{}` becomes `"$1"`, and nothing is appended.
    #[must_use]
    pub(crate) fn with(&self, item: &str) -> Vec<String> {
        if self.shell {
            let mut argv = sh(self.argv.join(" ").replace(PLACE, ARGUMENT));
            argv.extend(["sh".to_owned(), item.to_owned()]);
            return argv;
        }
        let mut argv: Vec<String> =
            self.argv.iter().map(|argument| argument.replace(PLACE, item)).collect();
        if !self.argv.iter().any(|argument| argument.contains(PLACE)) {
            argv.push(item.to_owned());
        }
        argv
    }
}

impl CallTemplate {
    /// A call of `function` with arguments by position and by name.
    ///
    /// # Errors
    /// A name that is given twice.
    pub(crate) fn new(
        function: String,
        args: Vec<Json>,
        by_name: &[(String, Json)],
    ) -> Result<Self, String> {
        let mut kwargs = BTreeMap::new();
        for (name, value) in by_name {
            if kwargs.insert(name, value).is_some() {
                return Err(format!("the argument '{name}' is given twice"));
            }
        }
        let kwargs = if kwargs.is_empty() { None } else { Some(Json::of(&kwargs)?) };
        Ok(Self { function, args, kwargs })
    }

    /// The call for an item, which is one more argument after the others.
    fn made(&self, item: Option<Item<'_>>) -> Call {
        let own = item.and_then(|item| match item {
            Item::Line(line) => Json::of(line).ok(),
            Item::Number(number) => Json::of(&number).ok(),
        });
        let args =
            Json::array(self.args.iter().chain(&own)).unwrap_or_else(|_| Json::empty_array());
        Call { kwargs: self.kwargs.clone(), ..Call::new(&self.function, args) }
    }
}

impl Pattern {
    fn made(&self, item: Option<Item<'_>>) -> Made {
        match (self, item) {
            (Self::Function(call), item) => Made::Call(call.made(item)),
            (Self::Program(template), None) => Made::Argv(template.plain()),
            (Self::Program(template), Some(Item::Line(line))) => Made::Argv(template.with(line)),
            (Self::Program(template), Some(Item::Number(number))) => {
                Made::Argv(template.with(&number.to_string()))
            }
        }
    }
}

impl Items {
    /// Reads a file with one item per line. Every line is an item, an empty one
    /// too; the end of the last line may lack its newline.
    ///
    /// # Errors
    /// The first line that is not UTF-8, counted from 1.
    pub(crate) fn lines(bytes: Vec<u8>) -> Result<Self, String> {
        String::from_utf8(bytes).map(Self::Lines).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = error.as_bytes().iter().take(valid);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line} is not UTF-8, and only UTF-8 can be an argument of a task")
        })
    }

    /// Reads a range such as `1-100`, or a single number.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn range(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.trim().parse::<u64>().map_err(|_| {
                format!("'{text}' is not a whole number; expected a range such as 1-100")
            })
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(format!("the range {first}-{last} is empty; did you mean {last}-{first}?"));
        }
        Ok(Self::Numbers(first..=last))
    }

    /// The command lines or calls, in order.
    pub(crate) fn expand<'a>(
        &'a self,
        pattern: &'a Pattern,
    ) -> Box<dyn Iterator<Item = Made> + 'a> {
        match self {
            Self::One => Box::new(std::iter::once_with(|| pattern.made(None))),
            Self::Lines(text) => {
                Box::new(lines(text).map(|line| pattern.made(Some(Item::Line(line)))))
            }
            Self::Numbers(range) => {
                Box::new(range.clone().map(|number| pattern.made(Some(Item::Number(number)))))
            }
        }
    }

    /// How people count the items: the word and the number for an index.
    #[must_use]
    pub(crate) fn label(&self, index: u64) -> String {
        match self {
            Self::One => "the task".to_owned(),
            Self::Lines(_) => format!("line {}", index + 1),
            Self::Numbers(range) => format!("the task for number {}", range.start() + index),
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let whole = text.strip_suffix('\n').unwrap_or(text);
    let none = text.is_empty();
    whole.split('\n').filter(move |_| !none)
}

fn sh(command: String) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), command]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(items: &Items, argv: &[&str], shell: bool) -> Vec<String> {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        let pattern = Pattern::Program(Template::new(argv, shell));
        let joined = |made| match made {
            Made::Argv(argv) => argv.join("|"),
            Made::Call(call) => panic!("a call: {call}"),
        };
        items.expand(&pattern).map(joined).collect()
    }

    #[test]
    fn an_item_is_one_more_argument_of_a_call() {
        let json = |text: &str| text.parse::<Json>().unwrap();
        let by_name = [("b".to_owned(), json("[2]")), ("a".to_owned(), json("1"))];
        let template =
            CallTemplate::new("f".into(), vec![json("{}"), json("1.0")], &by_name).unwrap();
        let pattern = Pattern::Function(template);
        let calls = |items: &Items| -> Vec<String> {
            let shown = |made| match made {
                Made::Call(call) => call.to_string(),
                Made::Argv(argv) => panic!("a command: {argv:?}"),
            };
            items.expand(&pattern).map(shown).collect()
        };
        let named = r#"**{"a":1,"b":[2]})"#;
        assert_eq!(calls(&Items::One), [format!("f({{}},1.0,{named}")]);
        assert_eq!(
            calls(&of("say \"hi\"\n{}\n")),
            [
                format!(r#"f({{}},1.0,"say \"hi\"",{named}"#),
                format!(r#"f({{}},1.0,"{{}}",{named}"#)
            ]
        );
        assert_eq!(calls(&Items::range("7").unwrap()), [format!("f({{}},1.0,7,{named}")]);
        let twice = [("a".to_owned(), json("1")), ("a".to_owned(), json("2"))];
        assert!(CallTemplate::new("f".into(), vec![], &twice).unwrap_err().contains("'a'"));
    }

    fn of(text: &str) -> Items {
        Items::lines(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn an_item_goes_wherever_its_place_is_or_to_the_end() {
        assert_eq!(
            all(&of("a\nb\n"), &["p", "--in={}", "{}"], false),
            ["p|--in=a|a", "p|--in=b|b"]
        );
        assert_eq!(all(&of("a b"), &["p", "-x"], false), ["p|-x|a b"]);
        assert_eq!(all(&Items::One, &["p", "{}"], false), ["p|{}"]);
        assert_eq!(all(&Items::range("9-11").unwrap(), &["p"], false), ["p|9", "p|10", "p|11"]);
        assert_eq!(all(&Items::range("3").unwrap(), &["p"], false), ["p|3"]);
    }

    #[test]
    fn every_line_is_a_task_and_the_last_newline_is_none() {
        assert_eq!(all(&of(""), &["p"], false).len(), 0);
        assert_eq!(all(&of("\n"), &["p"], false), ["p|"]);
        assert_eq!(all(&of("a\n\nb"), &["p"], false), ["p|a", "p|", "p|b"]);
        assert_eq!(all(&of("a\r\n"), &["p"], false), ["p|a\r"]);
    }

    #[test]
    fn an_item_is_an_argument_of_the_script_and_never_part_of_it() {
        assert_eq!(
            all(&of("it's $(id)"), &["wc -l <", "{}"], true),
            [r#"sh|-c|wc -l < "$1"|sh|it's $(id)"#]
        );
        assert_eq!(all(&of("x"), &["echo", "a;"], true), ["sh|-c|echo a;|sh|x"]);
        assert_eq!(all(&Items::One, &["a | b"], true), ["sh|-c|a | b"]);
    }

    #[test]
    fn quotes_around_the_place_run_nothing_of_the_item() {
        for script in ["echo {}", "echo '{}'", "echo \"{}\"", "echo \"in {} out\""] {
            let argv =
                Template::new(vec![script.to_owned()], true).with("'$(echo run)`echo run`\"");
            let (program, arguments) = argv.split_first().unwrap();
            let output = std::process::Command::new(program).args(arguments).output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let ran = printed.replace("echo run", "");
            assert!(!ran.contains("run"), "{script}: {printed}");
        }
    }

    #[test]
    fn bad_items_are_told_in_words() {
        assert!(Items::lines(b"ok\n\xff\n".to_vec()).unwrap_err().starts_with("line 2 "));
        for bad in ["", "a", "1-", "-5", "1-2-3", "1.5"] {
            assert!(Items::range(bad).unwrap_err().contains("such as 1-100"), "{bad}");
        }
        assert!(Items::range("5-1").unwrap_err().contains("1-5"));
    }

    #[test]
    fn labels_count_as_people_do() {
        assert_eq!(of("a").label(0), "line 1");
        assert_eq!(Items::range("5-9").unwrap().label(2), "the task for number 7");
    }
}
