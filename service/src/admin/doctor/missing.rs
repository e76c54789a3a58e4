//! Tells which tasks have been without a result for long, or may be lost. Pure.

use crate::model::Missing;
use clutch_common::link::Check;
use std::time::Duration;

/// A warning where an endpoint does not say that it has what it is asked for.
pub(super) fn check(missing: &[Missing], now_ms: u64) -> Check {
    const WHAT: &str = "no task is missing";
    let told: Vec<String> = missing.iter().map(|one| words(one, now_ms)).collect();
    let told = told.join("; ");
    if missing.iter().any(|one| one.unanswered > 0) {
        Check::warning(WHAT, &told)
    } else if told.is_empty() {
        Check::passed(WHAT)
    } else {
        Check::passed(WHAT).with(&told)
    }
}

fn words(one: &Missing, now_ms: u64) -> String {
    let Missing { endpoint, tasks, unanswered, unasked, since_ms, asked_at_ms } = one;
    let ago = |at_ms: u64| {
        let ago = Duration::from_secs(now_ms.saturating_sub(at_ms) / 1000);
        humantime::format_duration(ago).to_string()
    };
    let asked = match asked_at_ms {
        Some(at) => format!("asked for them {} ago", ago(*at)),
        None => "not asked for them yet, as no instance is active or another one may still have \
                 them"
            .to_owned(),
    };
    let (has, silent) = (tasks.saturating_sub(*unanswered), unanswered.saturating_sub(*unasked));
    let answered = match (has, silent) {
        (0, 0) => String::new(),
        (has, 0) => format!(", it has {has} of them, which wait, run, or are on their way"),
        (0, silent) => format!(", it has not answered for {silent}"),
        (has, silent) => format!(", it has {has} of them, and has not answered for {silent}"),
    };
    let oldest = ago(*since_ms);
    format!("{endpoint}: {tasks} without a result, the oldest for {oldest}; {asked}{answered}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::link::Verdict;

    #[test]
    fn what_is_missing_is_named_and_a_warning_where_the_endpoint_does_not_say_that_it_has_it() {
        let one = |tasks, unanswered, unasked, asked_at_ms| Missing {
            endpoint: "lab".to_owned(),
            tasks,
            unanswered,
            unasked,
            since_ms: 1000,
            asked_at_ms,
        };
        assert_eq!(check(&[], 0).verdict, Verdict::Passed);
        let asked = Some(3_541_000);
        for (one, verdict, words) in [
            (one(3, 0, 0, asked), Verdict::Passed, "1h; asked for them 1m ago, it has 3 of them"),
            (one(3, 3, 0, asked), Verdict::Warning, "it has not answered for 3"),
            (one(3, 1, 0, asked), Verdict::Warning, "2 of them, and has not answered for 1"),
            (one(3, 3, 3, None), Verdict::Warning, "lab: 3 without a result, the oldest for 1h"),
        ] {
            let found = check(&[one], 3_601_000);
            assert_eq!(found.verdict, verdict);
            assert!(found.to_string().contains(words), "{found}");
        }
    }
}
