//! Words: names that were given up, names that would mean two things in one crate, and
//! pronouns that stand where a noun belongs.

use super::modules::{self, Module};
use super::{File, code, must_accept, must_be_clean, must_complain};
use std::collections::BTreeMap;

/// Names of types and functions that another word took the place of.
const RETIRED: &[&str] = &[
    "Ahead",
    "AmqpShelf",
    "Begun",
    "Bell",
    "Cord",
    "Corpse",
    "Crew",
    "Desk",
    "Doubts",
    "Ear",
    "EmptyStage",
    "Farewell",
    "Fate",
    "FolderShelf",
    "Halt",
    "Harm",
    "Hunt",
    "Lap",
    "Lately",
    "Mark",
    "MemoryShelf",
    "Near",
    "News",
    "Oddities",
    "Pace",
    "Patience",
    "Recipe",
    "Remains",
    "Remembered",
    "Shelf",
    "Sieve",
    "Sifted",
    "Sifting",
    "Teller",
    "Telling",
    "TheirEnds",
    "Trouble",
    "Undone",
    "Unplaced",
    "Unready",
    "Unstarted",
    "Untold",
    "Untouched",
    "Upkeep",
    "Weather",
    "Witness",
    "is_deaf",
    "lay_down",
    "take_up",
    "until_engaged_and",
];
/// Names of modules, with the crate they were in.
const RETIRED_MODULES: &[(&str, &[&str])] = &[
    ("common", &["pace", "shelf", "sieve"]),
    (
        "endpoint",
        &[
            "ahead",
            "crew",
            "family",
            "fit",
            "gathering",
            "halt",
            "host",
            "lying",
            "mark",
            "patience",
            "quiet",
            "recipe",
            "refusal",
            "room",
            "teller",
            "tree",
            "weather",
        ],
    ),
    (
        "service",
        &["doubts", "ear", "fake", "marks", "moves", "near", "pace", "placing", "stage", "told"],
    ),
];

/// Pronouns that stand for the service, an instance, a caller or a record.
const PRONOUNS: [&str; 6] = ["whoever", "nobody", "somebody", "anybody", "who", "whose"];
/// No line of a doc comment begins with these.
const BEGINNINGS: [&str; 3] = ["What", "That", "Who"];

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

fn retired(file: &File) -> Vec<String> {
    let words = code(file).flat_map(|(line, text)| words(text).map(move |word| (line, word)));
    let words = words.filter(|(_, word)| RETIRED.contains(word));
    let words = words.map(|(line, word)| format!("{}:{line}: {word} has another name", file.path));
    let is_module = |package: &str, name: &str| {
        file.path.starts_with(&format!("{package}/src/"))
            && file.path.ends_with(&format!("/{name}.rs"))
    };
    let modules = RETIRED_MODULES
        .iter()
        .flat_map(|(package, names)| names.iter().map(move |name| (package, name)))
        .filter(|(package, name)| is_module(package, name))
        .map(|_| format!("{}: the module has another name", file.path));
    // The list itself.
    let tidy = file.path.starts_with("tests/tests/tidy/");
    words.chain(modules).filter(|_| !tidy).collect()
}

fn pronouns(file: &File) -> Vec<String> {
    let stands_for_a_noun = |line: &str| {
        let Some(comment) = line.trim_start().strip_prefix("//") else { return false };
        let document = comment.strip_prefix(['/', '!']).and_then(|text| text.strip_prefix(' '));
        document.is_some_and(|text| {
            words(text)
                .next()
                .is_some_and(|word| BEGINNINGS.contains(&word) && text.starts_with(word))
        }) || words(comment).any(|word| PRONOUNS.contains(&word.to_ascii_lowercase().as_str()))
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| stands_for_a_noun(line));
    let told = lines.map(|(index, line)| {
        format!("{}:{}: a pronoun for a noun: {}", file.path, index + 1, line.trim_start())
    });
    told.collect()
}

/// Type names that stand for two things in one crate.
fn twice(package: &str, modules: &[Module]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in modules {
        for name in &module.types {
            places.entry(name).or_default().push(&module.file);
        }
    }
    places.retain(|_, files| files.len() > 1);
    let twice = places.into_iter();
    twice
        .map(|(name, files)| format!("{package}: {name} is defined in {}", files.join(", ")))
        .collect()
}

#[test]
fn retired_names_stay_away() {
    must_be_clean(".rs", retired);
    must_complain(retired, "common/src/a.rs", concat!("use super::Fare", "well;"));
    must_complain(retired, "endpoint/src/execution/crew.rs", "//! Gives tasks out.");
    must_accept(retired, "common/src/a.rs", "use super::Laps; // Fate\nuse crate::halted::Halted;");
    must_accept(retired, "service/src/crew.rs", "//! Another crate's.");
}

#[test]
fn comments_name_what_they_speak_of() {
    must_be_clean(".rs", pronouns);
    for bad in [
        "/// Tells whoever waits.",
        "    // Nobody is there.",
        "//! An instance whose link is lost.",
        "/// What a broker says.",
    ] {
        must_complain(pronouns, "common/src/a.rs", bad);
    }
    for good in ["/// Tells what came of it.", "let who = 1; // the caller", "    /// The whole."] {
        must_accept(pronouns, "common/src/a.rs", good);
    }
}

#[test]
fn a_type_name_stands_for_one_thing_in_a_crate() {
    let mut complaints = Vec::new();
    for (package, modules) in modules::product() {
        complaints.extend(twice(package, modules));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));

    let module = |path: &str, text: &str| {
        Module::read(&File { path: path.to_owned(), text: text.to_owned() }).unwrap()
    };
    let one = module("common/src/a.rs", "struct Run; #[cfg(test)] mod tests { struct Other; }");
    let two = module("common/src/b.rs", "enum Run {} struct Other;");
    let told = ["common: Run is defined in common/src/a.rs, common/src/b.rs"];
    assert_eq!(twice("common", &[one, two]), told);
}
