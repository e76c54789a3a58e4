//! Turns one command line, or one call, and a list of items (lines, numbers) into
//! the command lines, or the calls, of the tasks. Pure.

use clutch_common::task::Call;
use clutch_common::task::byte_string::ByteString;
use clutch_common::task::json::Json;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The place in an argument that an item is put at.
const PLACE: &[u8] = b"{}";
/// The item in a script.
const ARGUMENT: &[u8] = b"\"$1\"";
/// The mark that some editors put at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How to make a command line for an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    argv: Vec<ByteString>,
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
    Argv(Vec<ByteString>),
    /// A call.
    Call(Call),
}

/// The part of a task that differs from the others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    /// A line.
    Line(&'a [u8]),
    /// A number.
    Number(u64),
}

/// The items of the tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    /// One task, with the command line as it stands.
    One,
    /// A task for each line.
    Lines(Vec<u8>),
    /// A task for each number.
    Numbers(RangeInclusive<u64>),
}

impl Template {
    /// `argv` as it was given. With `shell`, its words joined are a script for
    /// `sh -c`, and an item is the script's first argument: never part of it.
    #[must_use]
    pub(crate) fn new(argv: Vec<ByteString>, shell: bool) -> Self {
        Self { argv, shell }
    }

    /// The command line without an item.
    #[must_use]
    pub(crate) fn plain(&self) -> Vec<ByteString> {
        if self.shell { sh(self.script()) } else { self.argv.clone() }
    }

    fn script(&self) -> Vec<u8> {
        self.argv.iter().map(ByteString::as_bytes).collect::<Vec<_>>().join(&b' ')
    }

    /// The command line for an item: put wherever `{}` stands, or appended; in a
    /// script, `{}` becomes `"$1"`, and nothing is appended.
    #[must_use]
    pub(crate) fn with(&self, item: &[u8]) -> Vec<ByteString> {
        if self.shell {
            let mut argv = sh(replaced(&self.script(), ARGUMENT).0);
            argv.extend(["sh".into(), item.to_vec().into()]);
            return argv;
        }
        let mut argv = Vec::with_capacity(self.argv.len() + 1);
        let mut placed = false;
        for argument in &self.argv {
            let (replaced, found) = replaced(argument.as_bytes(), item);
            argv.push(replaced.into());
            placed |= found;
        }
        if !placed {
            argv.push(item.to_vec().into());
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
            Item::Line(line) => Json::of(&String::from_utf8_lossy(line)).ok(),
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
                Made::Argv(template.with(number.to_string().as_bytes()))
            }
        }
    }
}

impl Items {
    /// Reads a file with one item per line, which may be any bytes. Every line is an
    /// item, an empty one too; the end of the last line may lack its newline. A byte
    /// order mark, and a carriage return at the end of a line, are no part of an item.
    ///
    /// # Errors
    /// When it is UTF-16, which has no lines to a program.
    pub(crate) fn lines(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err("the file is UTF-16: save it as UTF-8".to_owned());
        }
        Ok(Self::Lines(bytes))
    }

    /// Checks that every item can be an argument of a function, which JSON carries.
    ///
    /// # Errors
    /// The first line that is not UTF-8, counted from 1.
    pub(crate) fn check_text(&self) -> Result<(), String> {
        let Self::Lines(bytes) = self else { return Ok(()) };
        std::str::from_utf8(bytes).map(drop).map_err(|error| {
            let before = bytes.iter().take(error.valid_up_to());
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line} is not UTF-8, and only text can be an argument of a function")
        })
    }

    /// Reads a range such as `1-100`, or a single number.
    ///
    /// # Errors
    /// Why it is not a range.
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
            Self::Lines(bytes) => {
                Box::new(lines(bytes).map(|line| pattern.made(Some(Item::Line(line)))))
            }
            Self::Numbers(range) => {
                Box::new(range.clone().map(|number| pattern.made(Some(Item::Number(number)))))
            }
        }
    }

    /// How many there are, where that is known without looking at each; as many as can be
    /// counted if there are more.
    #[must_use]
    pub(crate) fn count(&self) -> Option<u64> {
        match self {
            Self::One => Some(1),
            Self::Lines(_) => None,
            Self::Numbers(range) => Some((range.end() - range.start()).saturating_add(1)),
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

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let none = text.is_empty();
    whole
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(move |_| !none)
}

/// The bytes with an item wherever its place is, and whether there was one.
fn replaced(bytes: &[u8], item: &[u8]) -> (Vec<u8>, bool) {
    let mut made = Vec::with_capacity(bytes.len() + item.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE) {
        made.extend_from_slice(&rest[..at]);
        made.extend_from_slice(item);
        rest = &rest[at + PLACE.len()..];
    }
    made.extend_from_slice(rest);
    (made, rest.len() < bytes.len())
}

fn sh(script: Vec<u8>) -> Vec<ByteString> {
    vec!["sh".into(), "-c".into(), script.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(items: &Items, argv: &[&str], shell: bool) -> Vec<String> {
        let argv = argv.iter().map(|&word| word.into()).collect();
        let pattern = Pattern::Program(Template::new(argv, shell));
        let joined = |made| match made {
            Made::Argv(argv) => argv.iter().map(ByteString::shown).collect::<Vec<_>>().join("|"),
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
        assert_eq!(all(&of("a\r\n\r\nb\r"), &["p"], false), ["p|a", "p|", "p|b"]);
        assert_eq!(all(&of("\u{feff}a\rb\n\u{feff}"), &["p"], false), ["p|a\rb", "p|\u{feff}"]);
        assert_eq!(all(&of("\u{feff}"), &["p"], false).len(), 0);
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
            let argv = Template::new(vec![script.into()], true).with(b"'$(echo run)`echo run`\"");
            let (program, arguments) = argv.split_first().unwrap();
            let output = std::process::Command::new(program).args(arguments).output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let ran = printed.replace("echo run", "");
            assert!(!ran.contains("run"), "{script}: {printed}");
        }
    }

    #[test]
    fn bad_items_are_told_in_words() {
        let bytes = Items::lines(b"ok\n\xff\n".to_vec()).unwrap();
        assert!(bytes.check_text().unwrap_err().starts_with("line 2 "));
        assert_eq!(all(&bytes, &["p", "x{}"], false)[1], "p|x\\xff");
        assert!(Items::lines(b"\xff\xfea\0".to_vec()).unwrap_err().contains("UTF-16"));
        for bad in ["", "a", "1-", "-5", "1-2-3", "1.5"] {
            assert!(Items::range(bad).unwrap_err().contains("such as 1-100"), "{bad}");
        }
        assert!(Items::range("5-1").unwrap_err().contains("1-5"));
        let counts = ["7", "5-9", "0-18446744073709551615"];
        let counts = counts.map(|text| Items::range(text).unwrap().count());
        assert_eq!(counts, [Some(1), Some(5), Some(u64::MAX)]);
    }

    #[test]
    fn labels_count_as_people_do() {
        assert_eq!(of("a").label(0), "line 1");
        assert_eq!(Items::range("5-9").unwrap().label(2), "the task for number 7");
    }
}
