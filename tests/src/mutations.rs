//! Deliberate mistakes, as data: `tests/mutations/NAME.toml`. The simulation of the code that
//! they are in has to notice each of them.
//!
//! A mutation says in `mistake` what is wrong with the code after it, in `code` which folder that
//! is in (`service/src`; without it `endpoint/src`), names a `function` as `Type::method` or `module::function`, in whichever file that is, and lists edits:
//! tokens to `find` in the function's body, which occur there exactly once, and tokens to
//! put in their place (`replace`). Line breaks, spaces and comments do not count, and
//! `$name` stands for any one word, the same one wherever it occurs in the edit. Applied
//! to a scratch copy, never to the checkout.

mod tokens;

use crate::workspace;
use anyhow::{Context as _, Result, bail, ensure};
use std::ops::Range;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned as _;
use toml::{Table, Value};

/// The code that mistakes are made in, unless they say another.
const CODE: &str = "endpoint/src";

/// A deliberate mistake.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The file's name, without its ending.
    pub name: String,
    /// The mistake, in words.
    pub mistake: String,
    /// The folder of the code, relative to the workspace.
    pub code: String,
    /// The function that it is in.
    function: String,
    edits: Vec<(String, String)>,
}

/// A file with a mistake in it.
#[derive(Clone, Debug)]
pub struct Mistaken {
    /// The file, relative to the workspace.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
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
            code: match table.contains_key("code") {
                true => text(&table, "code")?,
                false => CODE.to_owned(),
            },
            function: text(&table, "function")?,
            edits: edits.iter().map(edit).collect::<Result<_>>()?,
        })
    }

    /// Finds the function below `root`, and makes the mistake in it.
    pub fn apply_below(&self, root: &Path) -> Result<Mistaken> {
        let Self { name, function, code, .. } = self;
        let mut found = Vec::new();
        self.look_in(&root.join(code), &mut found)?;
        let [(file, text, body)] = &found[..] else {
            bail!(
                "the mutation {name} is of the function {function}, which is in {} places below \
                 {code}: change tests/mutations/{name}.toml as the function was changed",
                found.len()
            );
        };
        let mutated = self.apply(&text[body.clone()]).with_context(|| {
            format!(
                "the mutation {name} does not fit {function} in {}: change \
                 tests/mutations/{name}.toml as the function was changed",
                file.display()
            )
        })?;
        let text = [&text[..body.start], &mutated, &text[body.end..]].concat();
        Ok(Mistaken { file: file.strip_prefix(root)?.to_owned(), text })
    }

    /// The body of the function with the mistake in it.
    fn apply(&self, body: &str) -> Result<String> {
        let mut body = body.to_owned();
        for (find, replace) in &self.edits {
            body = tokens::replace_once(&body, find, replace)?;
        }
        Ok(body)
    }

    /// Finds the function in the files of a folder: the file, its text, where the body is.
    fn look_in(
        &self,
        folder: &Path,
        found: &mut Vec<(PathBuf, String, Range<usize>)>,
    ) -> Result<()> {
        let (owner, function) =
            self.function.rsplit_once("::").context("a function is named with its owner")?;
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.look_in(&path, found)?;
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            if !text.contains(&format!("fn {function}")) {
                continue;
            }
            let parsed =
                syn::parse_file(&text).with_context(|| format!("reading {}", path.display()))?;
            let module = path.file_stem().unwrap_or_default().to_string_lossy();
            for body in bodies(&parsed.items, &module, owner, function) {
                found.push((path.clone(), text.clone(), body));
            }
        }
        Ok(())
    }
}

/// The places of the bodies of an owner's functions of that name.
fn bodies(items: &[syn::Item], module: &str, owner: &str, function: &str) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    for item in items {
        if let syn::Item::Fn(item) = item
            && module == owner
            && item.sig.ident == function
        {
            blocks.push(&*item.block);
        }
        if let syn::Item::Impl(item) = item
            && let syn::Type::Path(path) = &*item.self_ty
            && path.path.segments.last().is_some_and(|last| last.ident == owner)
        {
            blocks.extend(item.items.iter().filter_map(|item| method(item, function)));
        }
    }
    blocks.into_iter().map(|block| block.span().byte_range()).collect()
}

fn method<'i>(item: &'i syn::ImplItem, function: &str) -> Option<&'i syn::Block> {
    let syn::ImplItem::Fn(item) = item else { return None };
    (item.sig.ident == function).then_some(&item.block)
}

/// All of them, by name.
pub fn all() -> Result<Vec<Mutation>> {
    let mut mutations = Vec::new();
    for entry in std::fs::read_dir(workspace().join("tests/mutations"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let read = || Mutation::parse(&name, &std::fs::read_to_string(&path)?);
        mutations.push(read().with_context(|| format!("reading the mutation {name}"))?);
    }
    ensure!(!mutations.is_empty(), "there are no mutations");
    mutations.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(mutations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_applies_to_the_code_as_it_is() {
        let root = workspace();
        let misfits: Vec<String> = all()
            .unwrap()
            .iter()
            .filter_map(|mutation| mutation.apply_below(&root).err())
            .map(|error| format!("{error:#}"))
            .collect();
        assert!(misfits.is_empty(), "\n{}", misfits.join("\n"));
    }

    #[test]
    fn a_function_is_found_by_its_owner_in_whichever_file_and_only_there() {
        let folder = tempfile::tempdir().unwrap();
        let code = folder.path().join(CODE).join("deep");
        std::fs::create_dir_all(&code).unwrap();
        let text = "//! Ö\nfn go() { a(); }\nimpl<'a> B<'a> { fn go(&self) {\n  a( ); // A.\n} }\n";
        std::fs::write(code.join("file.rs"), text).unwrap();
        let mutation = |function: &str| {
            let edit = "[[edit]]\nfind = 'a();'\nreplace = 'b();'\n";
            let text = format!("mistake = 'm'\nfunction = '{function}'\n{edit}");
            Mutation::parse("n", &text).unwrap()
        };
        let method = mutation("B::go").apply_below(folder.path()).unwrap();
        assert_eq!(method.file, Path::new("endpoint/src/deep/file.rs"));
        assert_eq!(method.text, text.replace("a( );", "b();"));
        let function = mutation("file::go").apply_below(folder.path()).unwrap();
        assert_eq!(function.text, text.replace("a();", "b();"));
        let missing = mutation("C::go").apply_below(folder.path()).unwrap_err().to_string();
        assert!(missing.contains("in 0 places"), "{missing}");
    }
}
