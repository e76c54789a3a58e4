//! Messages between running tasks: what `docs/messages.md` promises, asked for by clients in
//! several languages.

mod across;
mod cases;
mod clients;
mod own_side;

use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::Value;

/// The beginning of each script: `tell` prints what a call returns, or the type of its error.
const PYTHON: &str = r#"
import json, os, sys, time
from clutch import task

def tell(do):
    try:
        print(json.dumps(do()), flush=True)
    except task.TaskError as error:
        print(*filter(None, [error.type, error.outcome]), flush=True)
    except task.NoMessage:
        print("no message", flush=True)

def message(told):
    return [told.source, told.addressee, told.body.decode()]
"#;

/// A world with an endpoint that lets its tasks send to each other.
struct Place {
    world: World,
    endpoint: Endpoint,
    _daemon: Daemon,
    _service: Daemon,
}

/// The setting by which the tasks of an endpoint may all send to each other.
const ANY: &str = "[messages]\nallow = \"any\"\n";

fn place() -> Place {
    place_in(World::in_folder().unwrap(), ANY)
}

fn place_in(world: World, settings: &str) -> Place {
    let endpoint = world.provision("lab").unwrap();
    let file = std::fs::read_to_string(&endpoint.config).unwrap();
    let settings = settings.replace("{}", &world.folder().display().to_string());
    std::fs::write(&endpoint.config, format!("{file}\n{settings}")).unwrap();
    // A message to a task that is not accepted yet goes by the service.
    let any = if settings.contains("any") { &["--messages", "any"][..] } else { &[] };
    let mut service = world.launch_service(any).unwrap();
    service.wait_for("serving", SOON).unwrap();
    let daemon = world.run_with(&endpoint, &["--slots", "24"]).unwrap();
    Place { world, endpoint, _daemon: daemon, _service: service }
}

impl Place {
    /// Submits a task, and returns its id.
    fn submit(&self, key: &str, argv: &[&str]) -> String {
        self.submit_to(&self.endpoint.name, key, argv)
    }

    /// Submits a task to an endpoint, and returns its id.
    fn submit_to(&self, endpoint: &str, key: &str, argv: &[&str]) -> String {
        let line = [&["submit", endpoint, "--key", key, "--"], argv].concat();
        self.world.service(&line).unwrap().ok().unwrap();
        let task = self.world.results(key).unwrap().remove(0);
        task["id"].as_str().unwrap().to_owned()
    }

    /// Submits a Python script with its arguments.
    fn python(&self, key: &str, script: &str, arguments: &[&str]) -> String {
        let script = format!("{PYTHON}\n{script}");
        self.submit(key, &[&["python3", "-c", &script], arguments].concat())
    }

    /// The output of a task, once it has succeeded.
    fn told(&self, key: &str) -> String {
        self.world.wait(key).unwrap();
        let task = self.world.result(key).unwrap();
        let result = &task["result"];
        assert_eq!(result["outcome"], "succeeded", "{key}: {}", result["stderr"]);
        result["stdout"].as_str().unwrap_or_default().trim_end().to_owned()
    }

    /// The lines of JSON that a task wrote.
    fn values(&self, key: &str) -> Vec<Value> {
        let told = self.told(key);
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_receiver_that_is_killed_gives_back_what_it_holds_and_each_message_has_one_receiver() {
    let place = place();
    let receive = "
import signal, subprocess
hold = 'from clutch import task; import time; m = task.receive(\"in\", hold=True); '\
       'print(m.body.decode(), flush=True); time.sleep(300)'
child = subprocess.Popen([sys.executable, '-c', hold], stdout=subprocess.PIPE)
print(child.stdout.readline().decode().strip(), flush=True)
tell(lambda: message(task.receive('in', timeout=0.5)))
child.send_signal(signal.SIGKILL)
tell(lambda: message(task.receive('in')))
";
    let target = place.python("to", receive, &[]);
    let source =
        place.python("from", "tell(lambda: task.send(sys.argv[1], 'in', b'x'))", &[&target]);
    assert_eq!(place.values("from")[0]["delivered"]["attempt"], 1);
    let again = serde_json::json!([source, "in", "x"]).to_string();
    let again = again.replace(',', ", ");
    assert_eq!(place.told("to"), format!("x\nno message\n{again}"));
}

#[test]
fn the_largest_message_comes_whole_and_a_larger_one_is_refused() {
    let place = place();
    let receive = "
import hashlib
told = task.receive('in').body
print(len(told), hashlib.sha256(told).hexdigest())
tell(lambda: message(task.receive('in', timeout=0.5)))
";
    let target = place.python("to", receive, &[]);
    let send = "
import hashlib, subprocess
body = os.urandom(8 << 20)
task.send(sys.argv[1], 'in', body)
print(len(body), hashlib.sha256(body).hexdigest())
tell(lambda: task.send(sys.argv[1], 'in', body + b'x'))
line = ['curl', '-sS', '-o', '-', '-w', '%{http_code}', '--unix-socket', os.environ['CLUTCH_SOCKET'],
        '-H', 'Authorization: Bearer ' + os.environ['CLUTCH_TOKEN'], '--data-binary', '@-',
        'http://e/v1/messages?addressee=in&to=' + sys.argv[1]]
told = subprocess.run(line, input=body + b'x', capture_output=True).stdout.decode()
print(told[-3:], 'too_large' in told)
";
    place.python("from", send, &[&target]);
    let (sent, received) = (place.told("from"), place.told("to"));
    let sent: Vec<&str> = sent.lines().collect();
    assert!(sent[0].starts_with("8388608 "), "{sent:?}");
    assert_eq!(sent[1..], ["too_large", "413 True"]);
    assert_eq!(received, format!("{}\nno message", sent[0]));
}

#[test]
fn tasks_of_one_endpoint_reach_each_other_while_the_link_is_down() {
    let place = place();
    let gate = clutch_tests::gate::Gate::new(place.world.folder(), "down");
    let wait = format!("import subprocess; subprocess.run(['sh', '-c', \"{}\"])", gate.line());
    let over = place.python("over", "sys.exit(3)", &[]);
    place.world.wait("over").unwrap();
    let target =
        place.python("to", &format!("{wait}\ntell(lambda: message(task.receive('in')))"), &[]);
    let send = format!(
        "{wait}
tell(lambda: task.send(sys.argv[1], 'in', b'local'))
tell(lambda: task.send(sys.argv[2], 'in', b''))
tell(lambda: task.send('01890a5d-ac96-774b-bcce-b302099a8057', 'in', b''))
"
    );
    place.python("from", &send, &[&target, &over]);
    let status = || {
        let config = place.endpoint.config.display().to_string();
        let words = ["status", "--json", "--config", &config];
        clutch_tests::process::run(place.world.endpoint_command(&words), b"", SOON)?.ok()?.json()
    };
    let is = |key: &'static str, value: Value| {
        let there =
            || Ok((status()?["link"][key] == value || status()?[key] == value).then_some(()));
        clutch_tests::poll::until(key, SOON, there).unwrap();
    };
    is("running", 2.into());
    let (spool, away) = (place.world.spool(), place.world.folder().join("away"));
    std::fs::rename(&spool, &away).unwrap();
    is("state", "disengaged".into());
    gate.open().unwrap();
    is("running", 0.into());
    std::fs::rename(&away, &spool).unwrap();
    let told = place.told("from");
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("delivered"), "{told}");
    assert_eq!(lines[1..], ["finished failed", "unreachable"]);
    assert_eq!(place.values("to")[0][2], "local");
}

#[test]
fn tasks_of_one_submission_reach_each_other_and_strangers_do_not() {
    let place = place_in(World::in_folder().unwrap(), "");
    let stranger =
        place.python("stranger", "tell(lambda: message(task.receive('in', timeout=600)))", &[]);
    // The first of the two tells the other its id through a file.
    let both = "
folder, number = sys.argv[1], sys.argv[2]
path = os.path.join(folder, 'first')
if number == '1':
    with open(path + '.new', 'w') as file:
        file.write(task.whoami()['task'])
    os.rename(path + '.new', path)
    tell(lambda: task.receive('in').body.decode())
    tell(lambda: task.send(sys.argv[3], 'in', b''))
else:
    while not os.path.exists(path):
        time.sleep(0.05)
    tell(lambda: task.send(open(path).read(), 'in', b'sibling'))
";
    let script = format!("{PYTHON}\n{both}");
    let folder = place.world.folder().display().to_string();
    let line = [
        "submit", "lab", "--key", "both", "--array", "1-2", "--", "python3", "-c", &script,
        &folder, "{}", &stranger,
    ];
    place.world.service(&line).unwrap().ok().unwrap();
    place.world.wait("both").unwrap();
    let results = place.world.results("both").unwrap();
    let told = |index: usize| results[index]["result"]["stdout"].as_str().unwrap_or_default();
    assert_eq!(told(0), "\"sibling\"\nforbidden\n");
    assert!(told(1).contains("delivered"), "{results:?}");
}
