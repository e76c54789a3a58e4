//! Claims out of folders that are really there.

use super::*;
use tempfile::TempDir;

/// A producer's folder by a short name.
fn member(producer: &str) -> String {
    format!("00000000-0000-0000-0000-00000000000{producer}.1")
}

fn members(producers: &[&str]) -> BTreeSet<String> {
    producers.iter().map(|producer| member(producer)).collect()
}

struct Queue {
    temp: TempDir,
}

impl Queue {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for folder in ["ready", "mine", "theirs"] {
            fs::create_dir(temp.path().join(folder)).unwrap();
        }
        Self { temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn put(&self, producer: &str, entry: FileName) {
        let folder = self.path("ready").join(member(producer));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(entry.name()), b"").unwrap();
    }

    fn sources(&self, claims: &str, shared: bool) -> Sources {
        Sources::new(self.path("ready"), self.path(claims), shared)
    }
}

fn drain(sources: &mut Sources) -> Vec<(String, u64)> {
    let mut claims = Vec::new();
    while let Some(claim) = sources.claim().unwrap() {
        claims.push((claim.producer[35..36].to_owned(), claim.entry.number));
    }
    claims
}

fn numbers(claims: &[(String, u64)], producer: &str) -> Vec<u64> {
    claims.iter().filter(|(of, _)| of == producer).map(|(_, number)| *number).collect()
}

#[test]
fn each_producers_order_is_kept_and_all_have_their_turn() {
    let queue = Queue::new();
    for number in 1..=3000 {
        queue.put("a", FileName::fresh(number));
    }
    for number in 1..=10 {
        queue.put("b", FileName::fresh(number));
    }
    let mut sources = queue.sources("mine", false);
    sources.look().unwrap();
    let claims = drain(&mut sources);
    assert_eq!(numbers(&claims, "a"), (1..=3000).collect::<Vec<_>>());
    assert_eq!(numbers(&claims, "b"), (1..=10).collect::<Vec<_>>());
    assert!(claims[..20].iter().filter(|(of, _)| of == "b").count() == 10, "b had to wait");
}

#[test]
fn what_comes_later_is_found_by_name_once_it_is_told() {
    let queue = Queue::new();
    let mut sources = queue.sources("mine", false);
    queue.put("a", FileName::fresh(1));
    sources.look().unwrap();
    assert_eq!(drain(&mut sources).len(), 1);
    queue.put("a", FileName::fresh(2));
    queue.put("b", FileName::fresh(1));
    assert_eq!(drain(&mut sources), [], "nobody told");
    sources.stir(members(&["a", "b"]));
    assert_eq!(drain(&mut sources).len(), 2);
}

#[test]
fn what_was_given_back_comes_first_and_counts_its_deliveries() {
    let queue = Queue::new();
    queue.put("a", FileName { number: 4, from: 7, to: None, deliveries: 2 });
    queue.put("a", FileName::fresh(5));
    let mut sources = queue.sources("mine", false);
    sources.look().unwrap();
    let claim = sources.claim().unwrap().unwrap();
    assert_eq!(claim.entry, FileName { number: 4, from: 7, to: None, deliveries: 3 });
    assert!(claim.path(&queue.path("mine")).exists());
    assert_eq!(drain(&mut sources), [("a".to_owned(), 5)]);
}

#[test]
fn two_consumers_share_and_none_gets_what_the_other_has() {
    let queue = Queue::new();
    for number in 1..=2500 {
        queue.put("a", FileName::fresh(number));
    }
    let mut mine = queue.sources("mine", true);
    let mut theirs = queue.sources("theirs", true);
    mine.look().unwrap();
    theirs.look().unwrap();
    let mut all = Vec::new();
    loop {
        let claims = [mine.claim().unwrap(), theirs.claim().unwrap()];
        if claims.iter().all(Option::is_none) {
            break;
        }
        all.extend(claims.into_iter().flatten().map(|claim| claim.entry.number));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=2500).collect::<Vec<_>>());
}

#[test]
fn a_gap_holds_nothing_up_for_longer_than_a_look() {
    let queue = Queue::new();
    let mut sources = queue.sources("mine", false);
    queue.put("a", FileName::fresh(1));
    sources.look().unwrap();
    assert_eq!(drain(&mut sources).len(), 1);
    queue.put("a", FileName::fresh(3));
    sources.look().unwrap();
    assert_eq!(drain(&mut sources), [("a".to_owned(), 3)]);
}

#[test]
fn a_folder_for_claims_that_is_gone_is_an_error_and_nothing_is_skipped() {
    let queue = Queue::new();
    queue.put("a", FileName::fresh(1));
    let mut sources = queue.sources("mine", false);
    sources.look().unwrap();
    fs::remove_dir(queue.path("mine")).unwrap();
    assert_eq!(sources.claim().unwrap_err().kind(), ErrorKind::NotFound);
    fs::create_dir(queue.path("mine")).unwrap();
    assert_eq!(drain(&mut sources), [("a".to_owned(), 1)]);
}

#[test]
fn the_rest_of_a_claim_that_is_too_large_is_anybodys_and_comes_first() {
    let queue = Queue::new();
    queue.put("a", FileName::fresh(1));
    queue.put("a", FileName::fresh(2));
    let mut mine = queue.sources("mine", true);
    mine.look().unwrap();
    let mut claim = mine.claim().unwrap().unwrap();
    mine.split(&mut claim, 3).unwrap();
    assert_eq!(claim.entry, FileName { number: 1, from: 0, to: Some(3), deliveries: 1 });
    assert!(claim.path(&queue.path("mine")).exists());
    let mut theirs = queue.sources("theirs", true);
    theirs.look().unwrap();
    let rest = theirs.claim().unwrap().unwrap();
    assert_eq!(rest.entry, FileName { number: 1, from: 3, to: None, deliveries: 1 });
    assert_eq!(drain(&mut mine), [("a".to_owned(), 2)]);
}

#[test]
fn a_producer_whose_folder_was_seen_before_its_first_group_is_not_forgotten() {
    let queue = Queue::new();
    fs::create_dir(queue.path("ready").join(member("a"))).unwrap();
    let mut sources = queue.sources("mine", false);
    sources.look().unwrap();
    assert_eq!(drain(&mut sources), []);
    queue.put("a", FileName::fresh(1));
    sources.stir(members(&["a"]));
    assert_eq!(drain(&mut sources), [("a".to_owned(), 1)]);
}

#[test]
fn what_a_dead_consumer_had_comes_before_what_is_new_once_it_is_back() {
    let queue = Queue::new();
    let mut sources = queue.sources("mine", false);
    queue.put("a", FileName::fresh(4));
    sources.look().unwrap();
    assert_eq!(drain(&mut sources).len(), 1);
    queue.put("a", FileName::fresh(5));
    queue.put("a", FileName { number: 3, from: 0, to: None, deliveries: 1 });
    sources.forget();
    assert_eq!(drain(&mut sources), [("a".to_owned(), 3), ("a".to_owned(), 5)]);
}

#[test]
fn what_is_nobodys_of_ours_is_passed_by() {
    let queue = Queue::new();
    for name in [".DS_Store", ".new-thing", "notes", "notes.1"] {
        fs::write(queue.path("ready").join(name), b"").unwrap();
    }
    queue.put("a", FileName::fresh(1));
    let mut sources = queue.sources("mine", false);
    sources.look().unwrap();
    sources.stir([".DS_Store".to_owned()].into());
    assert_eq!(drain(&mut sources), [("a".to_owned(), 1)]);
}

#[test]
fn only_between_what_no_consumer_has_had_are_gaps_that_count_at_first() {
    let entry = |number, deliveries| FileName { deliveries, ..FileName::fresh(number) };
    for (entries, missing) in [
        (vec![entry(2, 0), entry(3, 0)], 0),
        (vec![entry(2, 0), entry(5, 0), entry(7, 0)], 3),
        (vec![entry(2, 1), entry(5, 1), entry(7, 0)], 0),
        (Vec::new(), 0),
    ] {
        assert_eq!(gaps_unclaimed(entries.iter()), missing, "{entries:?}");
    }
    let queue = Queue::new();
    for number in [3, 4, 7] {
        queue.put("a", FileName::fresh(number));
    }
    let mut sources = queue.sources("mine", false);
    sources.look().unwrap();
    assert_eq!(drain(&mut sources).len(), 3);
    assert_eq!((sources.missing(), sources.missing()), (2, 0));
}
