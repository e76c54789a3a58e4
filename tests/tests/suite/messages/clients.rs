//! Clients that were written from `docs/messages.md` alone, in shell with curl, Python without a
//! module, and JavaScript: they pass a message around.

use super::place;
use clutch_tests::skip;
use std::process::Command;

/// Receives on `in`, adds its name, and passes it on to its first argument; without one to the
/// task that the message names, on `back`.
const SHELL: &str = r#"
set -eu
clutch() {
    path=$1; shift
    curl -sS --unix-socket "$CLUTCH_SOCKET" -H "Authorization: Bearer $CLUTCH_TOKEN" \
        "$@" "http://endpoint/v1/$path"
}
clutch "messages?addressee=in&timeout=100s" -D headers -o body
delivery=$(tr -d '\r' < headers | sed -n 's/^clutch-delivery: *//Ip')
clutch "messages/$delivery/ack" -X POST
printf ':shell' >> body
clutch "messages?to=$1&addressee=in" --data-binary @body
"#;

const NODE: &str = r#"
const http = require("http");

function clutch(method, path, body) {
    const options = {
        socketPath: process.env.CLUTCH_SOCKET, method, path: "/v1/" + path,
        headers: { Authorization: "Bearer " + process.env.CLUTCH_TOKEN },
    };
    return new Promise((resolve, reject) => {
        const request = http.request(options, (response) => {
            const parts = [];
            response.on("data", (part) => parts.push(part));
            response.on("end", () => resolve([response, Buffer.concat(parts)]));
        });
        request.on("error", reject);
        request.end(body);
    });
}

(async () => {
    const [received, body] = await clutch("GET", "messages?addressee=in&timeout=100s");
    await clutch("POST", `messages/${received.headers["clutch-delivery"]}/ack`);
    const told = Buffer.concat([body, Buffer.from(":node")]);
    const back = told.toString().split(":")[0];
    const [sent, answer] = await clutch("POST", `messages?to=${back}&addressee=back`, told);
    console.log(sent.statusCode, answer.toString());
})();
"#;

#[test]
fn clients_in_three_languages_pass_a_message_around() {
    for program in ["curl", "node"] {
        if Command::new(program).arg("--version").output().is_err() {
            let why = format!("there is no {program}");
            return skip::because("clients_in_three_languages_pass_a_message_around", &why);
        }
    }
    let place = place();
    let node = place.submit("node", &["node", "-e", NODE]);
    let shell = place.submit("shell", &["sh", "-c", SHELL, "sh", &node]);
    let plain = r#"
import http.client, os, socket, sys

class Clutch(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["CLUTCH_SOCKET"])

def clutch(method, path, body=b""):
    connection = Clutch("endpoint")
    token = {"Authorization": "Bearer " + os.environ["CLUTCH_TOKEN"]}
    connection.request(method, "/v1/" + path, body, token)
    response = connection.getresponse()
    return response.headers, response.read()

_, me = clutch("GET", "whoami")
me = __import__("json").loads(me)["task"]
clutch("POST", "messages?addressee=in&to=" + sys.argv[1], me.encode() + b":python")
headers, body = clutch("GET", "messages?addressee=back&timeout=100s")
clutch("POST", "messages/" + headers["Clutch-Delivery"] + "/ack")
print(headers["Clutch-Source"], body.decode())
"#;
    let python = place.submit("python", &["python3", "-c", plain, &shell]);
    assert_eq!(place.told("python"), format!("{node} {python}:python:shell:node"));
    assert!(place.told("shell").contains("delivered"));
    assert!(place.told("node").starts_with("200 "));
}

#[test]
fn threads_and_coroutines_receive_side_by_side() {
    let place = place();
    let script = r#"
import asyncio, threading
me = task.whoami()["task"]
seen, lock = [], threading.Lock()

def receive(name):
    told = task.receive(name).body.decode()
    with lock:
        seen.append(told)

threads = [threading.Thread(target=receive, args=[f"t{n}"]) for n in range(8)]
for thread in threads:
    thread.start()
for number in range(8):
    task.send(me, f"t{number}", f"thread {number}")
for thread in threads:
    thread.join()
print(len(set(seen)))

async def work():
    waits = [asyncio.ensure_future(task.areceive(f"a{n}")) for n in range(8)]
    given_up = asyncio.ensure_future(task.areceive("late"))
    await asyncio.gather(*(task.asend(me, f"a{n}", str(n)) for n in range(8)))
    print(sum(int(told.body) for told in await asyncio.gather(*waits)))
    given_up.cancel()
    try:
        await given_up
    except asyncio.CancelledError:
        print("cancelled")
    sent = asyncio.ensure_future(task.asend(me, "late", b"whole"))
    print((await task.areceive("late")).body.decode())
    await sent

asyncio.run(work())
"#;
    place.python("k", script, &[]);
    assert_eq!(place.told("k"), "8\n28\ncancelled\nwhole");
}
