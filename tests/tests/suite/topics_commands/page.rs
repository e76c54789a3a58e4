//! The page on topics: each of its commands is run as it stands there, in its order.

use clutch_tests::process::run;
use clutch_tests::world::{Endpoint, SOON, World};
use clutch_tests::{binaries, workspace};
use std::process::Command;

/// The commands of the page, in order.
fn commands() -> Vec<String> {
    let page = std::fs::read_to_string(workspace().join("docs/topics.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let all: Vec<String> = blocks.flat_map(str::lines).map(str::to_owned).collect();
    assert!(all.len() >= 8, "{all:#?}");
    assert!(all.iter().all(|line| line.starts_with("clutch-service ")), "{all:#?}");
    all
}

#[test]
fn the_commands_of_the_page_on_topics_work_in_their_order() {
    let world = World::in_folder().unwrap();
    let programs = binaries::folder().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let (mut service, mut daemons) = (None, Vec::new());
    for command in commands() {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).envs(world.environment()).current_dir(world.folder());
        shell.env("PATH", format!("{programs}:{path}"));
        run(shell, b"", SOON).unwrap().ok().unwrap();
        let provisioned = command.strip_prefix("clutch-service provision ");
        if let Some(name) = provisioned.and_then(|rest| rest.split(' ').next()) {
            if service.is_none() {
                service = Some(world.serve().unwrap());
            }
            let config = world.folder().join(format!("{name}.toml"));
            let (name, id) = (name.to_owned(), String::new());
            daemons.push(world.run(&Endpoint { name, id, config }).unwrap());
        }
    }
    assert_eq!(daemons.len(), 2);
}
