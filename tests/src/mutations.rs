//! Deliberate mistakes in the endpoint, as data: `tests/mutations/NAME.toml`. What
//! checks the endpoint has to notice each of them.
//!
//! A mutation says in `mistake` what is wrong with it, names one `file`, and lists
//! edits, each a text to `find`, which occurs exactly once, and what to `replace`
//! it with. Applied to a scratch copy, never to the checkout.

use crate::workspace;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use toml::{Table, Value};

/// A deliberate mistake.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The file's name, without its ending.
    pub name: String,
    /// What is wrong, in words.
    pub mistake: String,
    /// The file it is in, relative to the workspace.
    pub file: String,
    edits: Vec<(String, String)>,
}

impl Mutation {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let table: Table = text.parse()?;
        let text = |table: &Table, key: &str| {
            let text = table.get(key).and_then(Value::as_str).map(str::to_owned);
            text.with_context(|| format!("'{key}' is missing, or is no text"))
        };
        let edits = table.get("edit").and_then(Value::as_array).context("there is no [[edit]]")?;
        let edit = |edit: &Value| {
            let edit = edit.as_table().context("an edit is a table")?;
            Ok((text(edit, "find")?, text(edit, "replace")?))
        };
        Ok(Self {
            name: name.to_owned(),
            mistake: text(&table, "mistake")?,
            file: text(&table, "file")?,
            edits: edits.iter().map(edit).collect::<Result<_>>()?,
        })
    }

    /// The text of [`Mutation::file`] with the mistake in it.
    ///
    /// # Errors
    /// When a text that is to be found is not there, or more than once.
    pub fn apply(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for (find, replace) in &self.edits {
            let found = text.matches(find).count();
            let Self { name, file, .. } = self;
            ensure!(
                found == 1,
                "the mutation {name} looks for this once in {file}, where it is {found} times; \
                 change tests/mutations/{name}.toml as {file} was changed:\n{find}"
            );
            text = text.replacen(find, replace, 1);
        }
        Ok(text)
    }

    /// Reads [`Mutation::file`] below `root` and applies the mistake to it.
    ///
    /// # Errors
    /// When the file cannot be read, or as for [`Mutation::apply`].
    pub fn apply_below(&self, root: &Path) -> Result<String> {
        let text = std::fs::read_to_string(root.join(&self.file))
            .with_context(|| format!("reading {}", self.file))?;
        self.apply(&text)
    }
}

/// All of them, by name.
///
/// # Errors
/// When one cannot be read.
pub fn all() -> Result<Vec<Mutation>> {
    let mut mutations = Vec::new();
    for entry in std::fs::read_dir(workspace().join("tests/mutations"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let read = || Mutation::parse(&name, &std::fs::read_to_string(&path)?);
        mutations.push(read().with_context(|| format!("reading the mutation {name}"))?);
    }
    mutations.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(mutations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_applies_to_the_code_as_it_is() {
        let mutations = all().unwrap();
        assert!(!mutations.is_empty());
        for mutation in mutations {
            mutation.apply_below(&workspace()).unwrap();
        }
    }

    #[test]
    fn a_text_that_is_missing_or_ambiguous_is_an_error() {
        let text = "mistake = 'm'\nfile = 'f'\n[[edit]]\nfind = 'ab'\nreplace = 'c'\n";
        let mutation = Mutation::parse("n", text).unwrap();
        assert_eq!(mutation.apply("xaby").unwrap(), "xcy");
        assert!(mutation.apply("x").is_err());
        assert!(mutation.apply("ab ab").is_err());
        assert!(Mutation::parse("n", "mistake = 'm'\nfile = 'f'\n").is_err());
    }
}
