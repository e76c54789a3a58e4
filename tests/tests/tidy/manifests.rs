//! Dependencies between packages, and where their versions are.

use super::{File, must_accept, must_be_clean, must_complain};
use toml::{Table, Value};

/// All sections of a package's manifest that name dependencies.
fn dependencies(manifest: &Table) -> Vec<(&str, &str, &Value)> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|section| Some((section, manifest.get(section)?.as_table()?)))
        .flat_map(|(section, table)| {
            table.iter().map(move |(name, value)| (section, name.as_str(), value))
        })
        .collect()
}

fn manifest(file: &File) -> Vec<String> {
    let manifest: Table = file.text.parse().unwrap();
    let mut complaints = Vec::new();
    for (section, name, value) in dependencies(&manifest) {
        let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
        if !inherited {
            complaints.push(format!("{}: {name} must be `workspace = true`", file.path));
        }
        let forbidden = match file.path.split('/').next().unwrap_or_default() {
            "common" => ["clutch-endpoint", "clutch-service"],
            "endpoint" => ["clutch-service", "clutch-service"],
            "service" => ["clutch-endpoint", "clutch-endpoint"],
            _ => continue,
        };
        let harness = name == "clutch-tests" && section != "dev-dependencies";
        if forbidden.contains(&name) || harness {
            complaints.push(format!("{}: must not depend on {name}", file.path));
        }
    }
    complaints
}

#[test]
fn dependencies_point_the_right_way_and_are_named_once() {
    must_be_clean("/Cargo.toml", manifest);
    let bad = |path: &str, text: &str| must_complain(manifest, path, text);
    bad("endpoint/Cargo.toml", "[dependencies]\nclutch-service.workspace = true");
    bad("service/Cargo.toml", "[dev-dependencies]\nclutch-endpoint.workspace = true");
    bad("common/Cargo.toml", "[dependencies]\nclutch-endpoint.workspace = true");
    bad("common/Cargo.toml", "[dependencies]\nclutch-tests.workspace = true");
    bad("common/Cargo.toml", "[dependencies]\nserde = \"1\"");
    let good = "[dependencies]\nclutch-common.workspace = true\nserde = { workspace = true }\n";
    must_accept(manifest, "endpoint/Cargo.toml", good);
}
