//! Messages that a broker takes, or sends on, and others do not: larger than a limit, or
//! full of what no client reads. None stops those behind it, none makes a task run twice.

use super::stage::{Setup, Site, Stage};
use super::{Play, Row, Seen};
use crate::broker::{Private, Properties, Raw};
use crate::poll;
use crate::proxy::Carry;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "large-headers",
        "messages with headers of 33,000 to 200,000 bytes, nested 90 deep, or with bytes that \
         are no text come to the tasks, the results and the dead letters",
        Play::Beside(large_headers),
    )
    .since("the messages"),
    Row::new(
        "oversize-result",
        "the broker takes messages of 131,072 bytes, and ten tasks print 200,000 each",
        Play::Alone(oversize_result),
    )
    .since("the submission of what is small"),
    Row::new(
        "slow-link-large-results",
        "the link carries 20 KB/s while two tasks send results of 1 MB and thirty send small ones",
        Play::Beside(slow_link_large_results),
    )
    .within(240)
    .since("the link being slow to all being recorded"),
];

fn large_headers(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(2000, "sleep 0.02")?;
    stage.until_recorded(100)?;
    let odd = send_odd(&stage)?;
    let recovery = stage.recovery(Instant::now())?;
    let vhost = stage.world.vhost();
    poll::until("the odd messages to be set aside", SOON, || {
        Ok((vhost.depth("dead-letters")? == Some(odd)).then_some(()))
    })?;
    let listed = stage.world.service(&["dead-letters", "list"])?.ok()?;
    let (said, listed) = (listed.stderr.clone(), listed.text());
    // The API of 4.0 cannot show them: some bytes are no text. A purge leaves what the
    // command looked at until the broker has put it back.
    poll::until("the odd messages to be purged", SOON, || {
        vhost.purge("dead-letters")?;
        Ok((vhost.depth("dead-letters")? == Some(0)).then_some(()))
    })?;
    let lost = stage.said("disengaged")? + stage.service.log()?.matches("\"disengaged\"").count();
    Ok(stage
        .seen()?
        .recovered_in(recovery)
        .must(lost == 0, || format!("the link was lost {lost} times"))
        .must(said.is_empty(), || format!("a command that works says: {said}"))
        .must(listed.lines().count() as u64 >= odd, || format!("not all are listed: {listed}")))
}

/// Sends what no client would to both queues, and says how many messages that were.
fn send_odd(stage: &Stage) -> Result<u64> {
    let (vhost, tasks) = (stage.world.vhost(), stage.tasks_queue());
    let key = format!("{}.results", stage.endpoint.id);
    let mut raw = Raw::connect(&stage.world.broker())?;
    let large = |bytes| Properties::default().header(b"x", &vec![b'y'; bytes]);
    let latin = Properties {
        message_id: b"\xe9\xff".to_vec(),
        kind: b"t\xfc".to_vec(),
        ..Properties::default().header(b"\xe4", b"\xe4")
    };
    let mut sent = 0;
    for properties in [large(33_000), large(120_000), latin] {
        for (exchange, key) in [("", tasks.as_bytes()), ("results", key.as_bytes())] {
            raw.publish(exchange, key, &properties, b"nonsense")?;
            sent += 1;
        }
    }
    raw.publish("results", b"\xff.results", &Properties::default(), b"nonsense")?;
    let nested = (0..90).fold(json!(1), |inner, _| json!({ "n": inner }));
    for headers in [json!({ "x": "y".repeat(200_000) }), json!({ "n": nested })] {
        let properties = json!({ "headers": headers });
        vhost.publish("", &tasks, properties.clone(), b"nonsense")?;
        vhost.publish("results", &key, properties, b"nonsense")?;
        sent += 2;
    }
    Ok(sent + 1)
}

fn oversize_result(site: &Site, broker: &mut Private) -> Result<Seen> {
    const LIMIT: u32 = 131_072;
    // RabbitMQ 3.10 reads the one, 4.0 the other.
    let limit = |bytes: u32| {
        let set = format!(
            "application:set_env(rabbit, max_message_size, {bytes}), \
             persistent_term:put(max_message_size, {bytes})."
        );
        broker.control(&["eval", &set])
    };
    limit(LIMIT)?;
    let mut stage = site.stage()?;
    stage.submit(10, "head -c 200000 /dev/zero | tr '\\0' x")?;
    stage.submit(200, "")?;
    let begun = Instant::now();
    let small = poll::until("the small results to be recorded", SOON, || {
        let progress = stage.progress_of(1)?;
        Ok((progress.done == progress.total).then(|| begun.elapsed()))
    })?;
    let seen = stage.seen()?.recovered_in(small);
    let cut = stage.world.results(&stage.key(0))?;
    let lost = stage.said("disengaged")?;
    limit(16_777_216)?;
    let is_cut = |task: &serde_json::Value| {
        let result = &task["result"];
        result["stdout_omitted"].as_u64() > Some(0) && !result["reason"].is_null()
    };
    let whole = cut.iter().filter(|task| !is_cut(task)).count();
    Ok(seen
        .must(whole == 0, || format!("{whole} results were not cut, or do not say so"))
        .must(lost == 0, || format!("the link was given up {lost} times")))
}

fn slow_link_large_results(site: &Site) -> Result<Seen> {
    const RATE: u32 = 20_000;
    let setup = Setup { settings: "[engine]\ncapture_limit = 2000000", ..Setup::default() };
    let mut stage = site.stage_with(&setup)?;
    let gate = crate::gate::Gate::new(stage.world.folder(), "slow");
    stage.submit(2, &format!("{}; head -c 1000000 /dev/zero | tr '\\0' x", gate.line()))?;
    stage.submit(30, &gate.line())?;
    stage.until_started(2)?;
    let (begun, before) = (Instant::now(), stage.proxy.bytes());
    stage.proxy.carry(Carry::Slow(RATE))?;
    gate.open()?;
    poll::until("all to be recorded", 8 * SOON, || {
        let progress = stage.progress()?;
        Ok((progress.done == progress.total).then_some(()))
    })
    .context("large results do not get through a slow link")?;
    let took = begun.elapsed();
    let rate = (stage.proxy.bytes() - before) as f64 / took.as_secs_f64();
    ensure!(took > Duration::from_secs(60), "the link was not slow: {rate:.0} bytes a second");
    let lost = stage.said("disengaged")?;
    Ok(stage
        .seen()?
        .recovered_in(took)
        .must(lost == 0, || format!("the link was given up {lost} times"))
        .note(format!("{rate:.0} bytes a second")))
}
