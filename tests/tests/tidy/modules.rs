//! The modules of the product's crates, one for each file, as `syn` reads them: what each
//! names of its own crate, and which types it defines. Code for tests only is left out.

use super::{File, PRODUCT, files, is_test};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use syn::visit::{self, Visit};

/// A module's path within its crate; empty for the crate's root.
pub(super) type Path = Vec<String>;

/// A file of code.
pub(super) struct Module {
    pub(super) package: String,
    pub(super) file: String,
    pub(super) path: Path,
    /// Paths of its own crate that it names, from the crate's root on.
    pub(super) names: BTreeSet<Path>,
    /// The types and traits that it defines.
    pub(super) types: Vec<String>,
    /// Modules that it declares for tests only.
    for_tests: BTreeSet<Path>,
}

impl Module {
    /// Reads a file; `None` for what is no Rust of a product's crate, or a test.
    pub(super) fn read(file: &File) -> Option<Self> {
        let (package, source) = file.path.split_once("/src/")?;
        if is_test(&file.path) || package.contains('/') {
            return None;
        }
        let path: Path = source.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
        let path = if path == ["lib"] || path == ["main"] { Path::new() } else { path };
        let parsed = syn::parse_file(&file.text).ok()?;
        let mut reader = Reader { here: path.clone(), ..Reader::default() };
        reader.declare(&parsed.items);
        reader.visit_file(&parsed);
        let Reader { names, types, for_tests, .. } = reader;
        let (package, file) = (package.to_owned(), file.path.clone());
        Some(Self { package, file, path, names, types, for_tests })
    }

    /// The first folder or file on the way to it, from the crate's root.
    pub(super) fn room(&self) -> &str {
        self.path.first().map_or("lib", String::as_str)
    }
}

/// The product's modules, by package.
pub(super) fn product() -> &'static BTreeMap<String, Vec<Module>> {
    static READ: OnceLock<BTreeMap<String, Vec<Module>>> = OnceLock::new();
    READ.get_or_init(|| {
        let sources = files(".rs");
        let product = |file: &&File| PRODUCT.iter().any(|at| file.path.starts_with(at));
        of(sources.iter().filter(product))
    })
}

/// Modules by package, without those that are declared for tests only.
pub(super) fn of<'a>(files: impl Iterator<Item = &'a File>) -> BTreeMap<String, Vec<Module>> {
    let mut packages: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for module in files.filter_map(Module::read) {
        packages.entry(module.package.clone()).or_default().push(module);
    }
    for modules in packages.values_mut() {
        let tests: BTreeSet<Path> =
            modules.iter().flat_map(|module| module.for_tests.iter().cloned()).collect();
        modules.retain(|module| !tests.iter().any(|test| module.path.starts_with(test)));
    }
    packages
}

#[derive(Default)]
struct Reader {
    here: Path,
    /// The modules declared where the reader is.
    children: BTreeSet<String>,
    names: BTreeSet<Path>,
    types: Vec<String>,
    for_tests: BTreeSet<Path>,
}

impl Reader {
    fn declare(&mut self, items: &[syn::Item]) {
        for item in items {
            if let syn::Item::Mod(module) = item {
                self.children.insert(module.ident.to_string());
            }
        }
    }

    /// Takes in a path as it is written.
    fn name(&mut self, written: &[String]) {
        // A `crate` alone is a visibility.
        let Some(first) = written.first().filter(|_| written.len() > 1) else { return };
        let mut path = match first.as_str() {
            "crate" => Path::new(),
            "self" | "super" => self.here.clone(),
            child if self.children.contains(child) => {
                self.names.insert([&self.here, written].concat());
                return;
            }
            _ => return,
        };
        for (index, segment) in written.iter().enumerate() {
            match segment.as_str() {
                "crate" | "self" if index == 0 => (),
                "super" => drop(path.pop()),
                other => path.push(other.to_owned()),
            }
        }
        self.names.insert(path);
    }

    fn use_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(syn::UseName { ident }) if ident == "self" => self.name(before),
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => self.name(&with(ident)),
            syn::UseTree::Glob(_) => self.name(&[before, &["*".to_owned()]].concat()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(before, tree));
            }
        }
    }

    /// Takes in the paths that are written in a macro's arguments.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut written: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            if let TokenTree::Punct(punct) = &token
                && punct.as_char() == ':'
            {
                colons += 1;
                continue;
            }
            if colons != 2 {
                self.name(&std::mem::take(&mut written));
            }
            colons = 0;
            match token {
                TokenTree::Ident(ident) => written.push(ident.to_string()),
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => (),
            }
        }
        self.name(&written);
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = attribute.meta.require_list().map(|list| list.tokens.to_string());
        attribute.path().is_ident("cfg") && tokens.is_ok_and(|tokens| tokens == "test")
            || attribute.path().is_ident("test")
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the rest holds no code")]
fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Reader {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the rest defines no type")]
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_for_tests(attributes(item)) {
            if let syn::Item::Mod(module) = item {
                let path = [&self.here[..], &[module.ident.to_string()]].concat();
                self.for_tests.insert(path);
            }
            return;
        }
        match item {
            syn::Item::Struct(item) => self.types.push(item.ident.to_string()),
            syn::Item::Enum(item) => self.types.push(item.ident.to_string()),
            syn::Item::Trait(item) => self.types.push(item.ident.to_string()),
            syn::Item::Type(item) => self.types.push(item.ident.to_string()),
            syn::Item::Use(item) => self.use_tree(&[], &item.tree),
            _ => (),
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let Some((_, items)) = &module.content else { return };
        self.here.push(module.ident.to_string());
        let outside = std::mem::take(&mut self.children);
        self.declare(items);
        visit::visit_item_mod(self, module);
        self.children = outside;
        self.here.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Path = path.segments.iter().map(|one| one.ident.to_string()).collect();
        self.name(&written);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        self.tokens(found.tokens.clone());
        visit::visit_macro(self, found);
    }
}

#[test]
fn a_module_is_read_with_what_it_names_and_without_its_tests() {
    let text = "use super::c::{self, D as E}; use crate::x::*; mod child; use child::F;\n\
                pub struct One; enum Two {} type Three = crate::y::Z; use std::fs;\n\
                fn f(z: self::child::G) { tracing::warn!(x = crate::w::V, \"crate::no\"); }\n\
                #[cfg(test)] mod tests { use crate::only::Tests; struct Four; }\n\
                #[cfg(test)] mod fake;";
    let file = File { path: "endpoint/src/a/b.rs".to_owned(), text: text.to_owned() };
    let module = Module::read(&file).unwrap();
    assert_eq!((module.room(), module.path.join("::")), ("a", "a::b".to_owned()));
    let names: Vec<String> = module.names.iter().map(|name| name.join("::")).collect();
    let expected = ["a::b::child::F", "a::b::child::G", "a::c", "a::c::D", "w::V", "x::*", "y::Z"];
    assert_eq!(names, expected);
    assert_eq!(module.types, ["One", "Two", "Three"]);

    let fake = File { path: "endpoint/src/a/b/fake.rs".to_owned(), text: "fn f() {}".to_owned() };
    let packages = of([&file, &fake].into_iter());
    assert_eq!(packages["endpoint"].len(), 1, "a module for tests is none of the product's");
}
