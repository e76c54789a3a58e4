//! The cases of messages between two tasks: each at one endpoint and across two, on a folder and
//! on a broker. The cases of one setting are played at once.

use super::across::Both;
use super::{ANY, Place, place_in};
use clutch_tests::world::World;
use serde_json::{Value, json};

/// The two endpoints of a setting, which may be one.
enum Pair {
    Here(Place),
    Across(Both),
}

impl Pair {
    fn place(&self) -> &Place {
        match self {
            Self::Here(place) => place,
            Self::Across(both) => &both.place,
        }
    }

    /// Submits a script to the endpoint of targets.
    fn target(&self, key: &str, script: &str, arguments: &[&str]) -> String {
        match self {
            Self::Here(place) => place.python(key, script, arguments),
            Self::Across(both) => both.far(key, script, arguments),
        }
    }

    /// Submits a script to the endpoint of senders.
    fn source(&self, key: &str, script: &str, arguments: &[&str]) -> String {
        self.place().python(key, script, arguments)
    }

    /// The lines that a task wrote.
    fn lines(&self, key: &str) -> Vec<String> {
        self.place().told(key).lines().map(str::to_owned).collect()
    }
}

/// A case plays under keys that begin with its name.
type Case = fn(&Pair, &str);

const CASES: &[(&str, Case)] = &[
    ("delivered", delivered_whichever_side_is_first),
    ("ended", told_that_the_target_ended_whenever_that_was),
    ("unknown", told_that_the_target_is_unknown),
    ("silent", told_after_the_wait_that_the_target_does_not_listen),
    ("dead-wait", a_wait_that_is_over_takes_no_message_from_a_later_one),
    ("order", many_messages_come_in_order_and_once),
    ("forged", a_source_that_a_client_claims_does_not_matter),
];

fn play(pair: &Pair) {
    std::thread::scope(|scope| {
        for (name, case) in CASES {
            let played = std::thread::Builder::new().name((*name).to_owned());
            played.spawn_scoped(scope, move || case(pair, name)).unwrap();
        }
    });
}

#[test]
fn each_case_holds_at_one_endpoint_on_a_folder() {
    play(&Pair::Here(place_in(World::in_folder().unwrap(), ANY)));
}

#[test]
fn each_case_holds_at_one_endpoint_on_a_broker() {
    let Some(world) = World::or_skip("each_case_holds_at_one_endpoint_on_a_broker") else { return };
    play(&Pair::Here(place_in(world, ANY)));
}

#[test]
fn each_case_holds_across_endpoints_on_a_folder() {
    play(&Pair::Across(Both::in_world(World::in_folder().unwrap())));
}

#[test]
fn each_case_holds_across_endpoints_on_a_broker() {
    let Some(world) = World::or_skip("each_case_holds_across_endpoints_on_a_broker") else {
        return;
    };
    play(&Pair::Across(Both::in_world(world)));
}

/// Seconds that either side waits before its part.
const DELAYS: [(&str, &str); 4] = [("0", "0"), ("1", "0"), ("5", "0"), ("0", "5")];

fn delivered_whichever_side_is_first(pair: &Pair, name: &str) {
    let receive = "time.sleep(float(sys.argv[1])); tell(lambda: message(task.receive('in')))";
    let send = "time.sleep(float(sys.argv[1])); \
                tell(lambda: task.send(sys.argv[2], 'in', 'grüß'))";
    let sources: Vec<String> = DELAYS
        .iter()
        .enumerate()
        .map(|(number, (receiver, sender))| {
            let target = pair.target(&format!("{name}-to-{number}"), receive, &[receiver]);
            pair.source(&format!("{name}-from-{number}"), send, &[sender, &target])
        })
        .collect();
    for (number, source) in sources.iter().enumerate() {
        let told = pair.place().values(&format!("{name}-from-{number}"));
        assert_eq!(told[0]["delivered"]["attempt"], 1, "{:?}", DELAYS[number]);
        let got = pair.place().values(&format!("{name}-to-{number}"));
        assert_eq!(got[0], json!([source, "in", "grüß"]), "{:?}", DELAYS[number]);
    }
}

/// Sends after so many seconds, and says whether there was an answer before the wait was over.
const SEND_LATER: &str = "
time.sleep(float(sys.argv[1]))
begun = time.monotonic()
tell(lambda: task.send(sys.argv[2], 'in', wait=100))
print(time.monotonic() - begun < 60)
";

/// The target ends so many seconds after its start, as the sender waits or before that.
fn told_that_the_target_ended_whenever_that_was(pair: &Pair, name: &str) {
    let end = "time.sleep(float(sys.argv[1])); sys.exit(int(sys.argv[2]))";
    for (number, (target, sender)) in DELAYS.iter().enumerate() {
        let code = (number % 2).to_string();
        let target = pair.target(&format!("{name}-to-{number}"), end, &[target, &code]);
        pair.source(&format!("{name}-from-{number}"), SEND_LATER, &[sender, &target]);
    }
    for (number, delays) in DELAYS.iter().enumerate() {
        let outcome = if number % 2 == 0 { "succeeded" } else { "failed" };
        let told = pair.lines(&format!("{name}-from-{number}"));
        assert_eq!(told, [format!("finished {outcome}"), "True".to_owned()], "{delays:?}");
    }
    // Its outcome is recorded by then.
    for (number, sender) in ["0", "1", "5"].iter().enumerate() {
        let over = pair.place().world.result(&format!("{name}-to-1")).unwrap();
        let over = over["id"].as_str().unwrap();
        pair.source(&format!("{name}-after-{number}"), SEND_LATER, &[sender, over]);
    }
    for number in 0..3 {
        assert_eq!(pair.lines(&format!("{name}-after-{number}")), ["finished failed", "True"]);
    }
}

fn told_that_the_target_is_unknown(pair: &Pair, name: &str) {
    for sender in ["0", "1", "5"] {
        let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
        pair.source(&format!("{name}-{sender}"), SEND_LATER, &[sender, unknown]);
    }
    for sender in ["0", "1", "5"] {
        assert_eq!(pair.lines(&format!("{name}-{sender}")), ["unknown", "True"], "{sender}");
    }
}

fn told_after_the_wait_that_the_target_does_not_listen(pair: &Pair, name: &str) {
    let [to, from] = ["to", "from"].map(|side| format!("{name}-{side}"));
    let target = pair.target(&to, "tell(lambda: message(task.receive('other')))", &[]);
    let send = "
begun = time.monotonic()
tell(lambda: task.send(sys.argv[1], 'in', b'', wait=1))
print(1 <= time.monotonic() - begun < 60)
tell(lambda: task.send(sys.argv[1], 'other', b'end'))
";
    pair.source(&from, send, &[&target]);
    assert_eq!(pair.lines(&from)[..2], ["not_listening", "True"]);
    assert_eq!(pair.place().values(&to)[0][2], "end", "and nothing before it");
}

fn a_wait_that_is_over_takes_no_message_from_a_later_one(pair: &Pair, name: &str) {
    let [to, from] = ["to", "from"].map(|side| format!("{name}-{side}"));
    let receive = "
tell(lambda: message(task.receive('in', timeout=1)))
tell(lambda: message(task.receive('in')))
";
    let target = pair.target(&to, receive, &[]);
    // The target's first wait has begun before this task does, and is over long before it sends.
    pair.source(
        &from,
        "time.sleep(5); tell(lambda: task.send(sys.argv[1], 'in', b'late'))",
        &[&target],
    );
    assert_eq!(pair.place().values(&from)[0]["delivered"]["attempt"], 1);
    let told = pair.lines(&to);
    assert!(told[0] == "no message" && told[1].contains("late"), "{told:?}");
}

fn many_messages_come_in_order_and_once(pair: &Pair, name: &str) {
    let [to, from] = ["to", "from"].map(|side| format!("{name}-{side}"));
    let receive = "
seen = {}
for number in range(51):
    time.sleep(0.05 if number > 25 else 0)
    told = task.receive('a', 'b', 'c')
    seen.setdefault(told.addressee, []).append(int(told.body))
print(json.dumps(seen))
tell(lambda: message(task.receive('a', 'b', 'c', timeout=0.5)))
";
    let target = pair.target(&to, receive, &[]);
    let send = "
for number in range(51):
    time.sleep(0.05 if number < 25 else 0)
    task.send(sys.argv[1], 'abc'[number % 3], str(number))
";
    pair.source(&from, send, &[&target]);
    pair.place().told(&from);
    let told = pair.lines(&to);
    let seen: Value = serde_json::from_str(&told[0]).unwrap();
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        let expected: Vec<usize> = (index..51).step_by(3).collect();
        assert_eq!(seen[name], json!(expected));
    }
    assert_eq!(told[1], "no message");
}

fn a_source_that_a_client_claims_does_not_matter(pair: &Pair, name: &str) {
    let [to, from] = ["to", "from"].map(|side| format!("{name}-{side}"));
    let target = pair.target(&to, "tell(lambda: message(task.receive('in')))", &[]);
    let send = "
connection = task._connection()
forged = '01890a5d-ac96-774b-bcce-b302099a8057'
headers = {'Authorization': 'Bearer ' + os.environ['CLUTCH_TOKEN'], 'Clutch-Source': forged,
           'Clutch-Source-Attempt': '7'}
connection.request('POST', '/v1/messages?addressee=in&to=' + sys.argv[1], b'x', headers)
print(connection.getresponse().status)
headers['Clutch-Task'] = forged
connection.close()
connection.request('POST', '/v1/messages?addressee=in&to=' + sys.argv[1], b'x', headers)
print(connection.getresponse().status)
";
    let source = pair.source(&from, send, &[&target]);
    assert_eq!(pair.lines(&from), ["200", "401"]);
    assert_eq!(pair.place().values(&to)[0][0], source);
}
