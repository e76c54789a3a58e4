//! Which folder of a crate may name which, and that files do not name each other in
//! circles.
//!
//! A room is a folder or a file at the top of a crate's `src/`. A folder's first file
//! (`store.rs` of `store/`) is the folder's face: that it names its files, and they it,
//! is no circle.

use super::modules::{self, Module, Path};
use super::{File, workspace_text};
use std::collections::{BTreeMap, BTreeSet};

/// A room and the rooms that it may name. A room names only rooms that stand before it, so
/// rooms have no circle.
type Rooms = &'static [(&'static str, &'static [&'static str])];

const COMMON: Rooms = &[
    ("id", &[]),
    ("system", &[]),
    ("text", &[]),
    ("log", &["text"]),
    ("task", &["id"]),
    ("topology", &["id"]),
    ("wire", &["id", "task"]),
    ("failover", &["id", "task", "wire"]),
    ("link", &["id", "system", "text", "topology", "wire"]),
    ("lib", &[]),
];

const ENDPOINT: Rooms = &[
    ("exit", &[]),
    ("cli", &[]),
    ("failpoint", &["exit"]),
    ("system", &[]),
    ("storage", &["system"]),
    ("pending", &["storage"]),
    ("messages", &["pending"]),
    ("execution", &["failpoint", "messages", "pending", "storage", "system"]),
    ("link", &["execution", "exit", "failpoint", "messages", "pending", "storage", "system"]),
    ("config", &["execution", "exit", "pending"]),
    ("local", &["cli", "config", "execution", "exit", "link", "messages", "pending", "system"]),
    (
        "daemon",
        &[
            "config",
            "execution",
            "exit",
            "link",
            "local",
            "messages",
            "pending",
            "storage",
            "system",
        ],
    ),
    ("check", &["cli", "config", "daemon", "execution", "exit", "link", "storage"]),
    ("bench_api", &["pending", "storage"]),
    ("lib", &["check", "cli", "config", "daemon", "exit", "failpoint", "local"]),
];

const SERVICE: Rooms = &[
    ("failure", &[]),
    ("state_folder", &["failure"]),
    ("schedule", &[]),
    ("cli", &["schedule"]),
    ("config", &["cli", "failure", "state_folder"]),
    ("model", &["schedule"]),
    ("feed", &["model"]),
    ("topics", &["model"]),
    ("store", &["feed", "model", "schedule", "state_folder", "topics"]),
    ("overlay", &["model"]),
    ("publishing", &["model", "store"]),
    ("failover", &["model", "publishing", "store"]),
    ("messages", &["model", "publishing", "store"]),
    (
        "broker",
        &[
            "failover",
            "failure",
            "messages",
            "model",
            "overlay",
            "state_folder",
            "publishing",
            "store",
            "topics",
        ],
    ),
    (
        "api",
        &[
            "broker",
            "failover",
            "feed",
            "model",
            "overlay",
            "publishing",
            "schedule",
            "store",
            "topics",
        ],
    ),
    ("client", &["api", "cli", "failure", "model", "schedule", "state_folder"]),
    (
        "admin",
        &[
            "api",
            "broker",
            "cli",
            "client",
            "config",
            "failover",
            "failure",
            "model",
            "state_folder",
            "publishing",
            "schedule",
            "store",
        ],
    ),
    (
        "serve",
        &[
            "api",
            "broker",
            "cli",
            "config",
            "failover",
            "failure",
            "messages",
            "publishing",
            "schedule",
            "state_folder",
            "store",
        ],
    ),
    ("demo", &["admin", "api", "cli", "client", "config", "failure", "model", "state_folder"]),
    ("bench_api", &["model", "state_folder", "store"]),
    ("lib", &["admin", "cli", "client", "config", "demo", "failure", "serve"]),
];

const CRATES: [(&str, Rooms); 3] =
    [("common", COMMON), ("endpoint", ENDPOINT), ("service", SERVICE)];

/// Complaints about rooms that may name one that does not stand before them.
fn order(rooms: Rooms) -> Vec<String> {
    let before = |index: usize, name: &str| rooms[..index].iter().any(|(room, _)| *room == name);
    let arrows = rooms.iter().enumerate().flat_map(|(index, (room, names))| {
        names.iter().filter(move |name| !before(index, name)).map(move |name| (*room, *name))
    });
    arrows
        .map(|(room, name)| format!("{room} may name {name}, which does not stand before it"))
        .collect()
}

/// Complaints about modules that name what their rooms may not.
fn arrows(rooms: Rooms, modules: &[Module]) -> Vec<String> {
    let exist: BTreeSet<&str> = modules.iter().map(Module::room).collect();
    let mut complaints = Vec::new();
    for module in modules {
        let room = module.room();
        let Some((_, may)) = rooms.iter().find(|(name, _)| *name == room) else {
            complaints.push(format!("{}: the room {room} is not in the table", module.file));
            continue;
        };
        for name in &module.names {
            // What is no room is an item of the crate's root.
            let named = name.first().map(String::as_str);
            let named = named.filter(|named| exist.contains(named)).unwrap_or("lib");
            if named != room && !may.contains(&named) {
                let file = &module.file;
                complaints.push(format!("{file}: {room} may not name {}", name.join("::")));
            }
        }
    }
    complaints
}

/// The files of each circle of a crate.
fn circles(modules: &[Module]) -> Vec<Vec<&Module>> {
    let places: BTreeMap<&Path, usize> =
        modules.iter().enumerate().map(|(index, module)| (&module.path, index)).collect();
    let home = |name: &Path| {
        (1..=name.len()).rev().find_map(|length| places.get(&name[..length].to_vec()).copied())
    };
    let beside = |module: &Module| {
        let there = module.names.iter().filter_map(home);
        let apart = |a: &Path, b: &Path| !a.starts_with(b) && !b.starts_with(a);
        there.filter(|at| apart(&modules[*at].path, &module.path)).collect()
    };
    let named: Vec<BTreeSet<usize>> = modules.iter().map(beside).collect();
    let reached = |from: usize| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(here) = open.pop() {
            open.extend(named[here].iter().filter(|at| reached.insert(**at)));
        }
        reached
    };
    let reach: Vec<BTreeSet<usize>> = (0..modules.len()).map(reached).collect();
    let mut found = Vec::new();
    for index in (0..modules.len()).filter(|index| reach[*index].contains(index)) {
        let circle: Vec<usize> = (0..modules.len())
            .filter(|other| reach[index].contains(other) && reach[*other].contains(&index))
            .collect();
        if circle[0] == index {
            found.push(circle.into_iter().map(|at| &modules[at]).collect());
        }
    }
    found
}

/// The folder that all files of a circle are in.
fn folder(circle: &[&Module]) -> String {
    let mut common = circle[0].path.clone();
    for module in circle {
        let same = common.iter().zip(&module.path).take_while(|(a, b)| a == b).count();
        common.truncate(same);
    }
    [&[circle[0].package.clone(), "src".to_owned()], &common[..]].concat().join("/")
}

/// Circles of files in folders that ARCHITECTURE does not name in its section on circles.
fn unnamed_circles(modules: &[Module], architecture: &str) -> Vec<String> {
    let section = architecture.split("## Circles").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let named = |folder: &str| section.contains(&format!("`{folder}/`"));
    let circles = circles(modules);
    let unnamed = circles.iter().filter(|circle| !named(&folder(circle)));
    unnamed
        .map(|circle| {
            let files: Vec<&str> = circle.iter().map(|module| module.file.as_str()).collect();
            format!("{}: a circle of files: {}", folder(circle), files.join(", "))
        })
        .collect()
}

#[test]
fn rooms_name_only_rooms_below_them() {
    let packages = modules::product();
    let complaints = CRATES.iter().flat_map(|(package, rooms)| {
        order(rooms).into_iter().chain(arrows(rooms, &packages[*package]))
    });
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn module(path: &str, text: &str) -> Module {
    Module::read(&File { path: path.to_owned(), text: text.to_owned() }).unwrap()
}

#[test]
fn an_arrow_that_points_up_is_complained_of() {
    let rooms: Rooms = &[("store", &[]), ("api", &["store"])];
    let both = |store: &str| {
        let store = module("service/src/store/rows.rs", store);
        arrows(rooms, &[store, module("service/src/api.rs", "use crate::store::Row;")])
    };
    assert_eq!(both("use super::Store; use std::fs;"), Vec::<String>::new());
    let up = both("fn f() { crate::api::answer(); }");
    assert_eq!(up, ["service/src/store/rows.rs: store may not name api::answer"]);
    let new = arrows(rooms, &[module("service/src/flow.rs", "")]);
    assert_eq!(new, ["service/src/flow.rs: the room flow is not in the table"]);
    assert_eq!(order(&[("store", &["api"]), ("api", &["store"])]).len(), 1);
}

#[test]
fn files_name_each_other_in_no_circle_that_is_not_told() {
    let architecture = workspace_text("ARCHITECTURE.md");
    let packages = modules::product();
    let complaints: Vec<String> =
        packages.values().flat_map(|modules| unnamed_circles(modules, &architecture)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_circle_is_complained_of_unless_it_is_told() {
    let face = module("endpoint/src/a.rs", "mod b; mod c; pub use b::B; pub use c::C;");
    let b = |text| module("endpoint/src/a/b.rs", text);
    let c = || module("endpoint/src/a/c.rs", "use super::b::B; pub struct C;");
    let sound = [b("pub struct B;"), c()];
    assert_eq!(unnamed_circles(&sound, ""), Vec::<String>::new());
    let circle = [face, b("use super::c::C; use super::A;"), c()];
    let complaints =
        unnamed_circles(&circle, "## Circles\n\n`endpoint/src/b/`\n\n## Next\n`endpoint/src/a/`");
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].starts_with("endpoint/src/a: a circle"), "{complaints:?}");
    let told = "## Circles\n\n- `endpoint/src/a/`: as nature has it.\n";
    assert_eq!(unnamed_circles(&circle, told), Vec::<String>::new());
}
