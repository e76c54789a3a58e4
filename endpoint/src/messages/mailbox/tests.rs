//! Mailboxes against a model: whatever is offered, given, acknowledged and given back in any
//! order, each message is given in its place, to one receiver at a time, and never after its
//! verdict.

use super::*;
use crate::messages::letter::LetterOrigin;
use clutch_common::id::Attempt;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

const ROOM: usize = usize::MAX;
const NAMES: [&str; 2] = ["in", "out"];

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn task(number: u128) -> TaskId {
    TaskId(Uuid::from_u128(number))
}

fn target() -> TaskId {
    task(1000)
}

fn letter(id: u128, origin: LetterOrigin) -> Letter {
    Letter {
        id: Uuid::from_u128(id),
        source: Attempt { task_id: task(id % 2), attempt: 1 },
        to: target(),
        attempt: None,
        addressee: NAMES[(id / 2 % 2) as usize].to_owned(),
        body: vec![7; (id % 5) as usize].into(),
        origin,
    }
}

fn local(id: u128) -> Letter {
    letter(id, LetterOrigin::Here)
}

fn copy(id: u128, copy: u32) -> Letter {
    letter(id, LetterOrigin::Service { copy, since: copy, answer_to: None })
}

fn any_of(names: &[&str]) -> Wanted {
    Wanted { addressees: names.iter().map(|name| (*name).to_owned()).collect(), from: None }
}

impl Mailboxes {
    fn held(letters: impl IntoIterator<Item = Letter>) -> Self {
        let mut boxes = Self::default();
        for letter in letters {
            assert_eq!(boxes.offer(letter, 1, at(90), ROOM, at(0)), Judgement::Held);
        }
        boxes
    }

    fn next(&mut self, now: Moment) -> Option<Given> {
        self.give(target(), 1, &any_of(&NAMES), Hold::Connection, now)
    }
}

#[test]
fn a_message_that_was_taken_is_given_to_no_other_process() {
    let mut boxes = Mailboxes::held([copy(1, 1)]);
    let given = boxes.next(at(1)).unwrap();
    assert_eq!(boxes.next(at(1)), None, "one receiver at a time");
    assert!(boxes.acknowledge(target(), 1, given.delivery, at(2)));
    assert!(!boxes.acknowledge(target(), 1, given.delivery, at(2)), "once");
    assert_eq!(boxes.offer(copy(1, 9), 1, at(90), ROOM, at(3)), Judgement::Taken(1));
    assert_eq!(boxes.offer(local(1), 2, at(90), ROOM, at(3)), Judgement::Taken(1));
    assert_eq!(boxes.next(at(4)), None);
    assert_eq!(boxes.take_told(), [(copy(1, 1), Judgement::Taken(1))]);
}

#[test]
fn a_message_that_is_given_back_is_in_its_place_again() {
    let mut boxes = Mailboxes::held([local(0), local(4), local(8)]);
    let first = boxes.next(at(1)).unwrap();
    assert_eq!(boxes.next(at(1)).unwrap().letter, local(4));
    assert!(boxes.give_back(target(), first.delivery, at(1)));
    assert!(!boxes.acknowledge(target(), 1, first.delivery, at(1)), "it has it no more");
    let again = boxes.next(at(1)).unwrap();
    assert_eq!(again.letter, local(0));
    assert_ne!(again.delivery, first.delivery);
    assert_eq!(boxes.next(at(1)).unwrap().letter, local(8));
}

#[test]
fn a_hold_that_is_over_gives_the_message_to_the_next_receiver() {
    let mut boxes = Mailboxes::held([local(0)]);
    let hold = Hold::Until(at(30));
    let first = boxes.give(target(), 1, &any_of(&["in"]), hold, at(0)).unwrap();
    assert_eq!((boxes.due(), boxes.next(at(29))), (Some(at(30)), None));
    assert_eq!(boxes.next(at(30)).unwrap().letter, local(0));
    assert!(!boxes.acknowledge(target(), 1, first.delivery, at(30)));
}

#[test]
fn that_none_listens_is_told_only_of_a_message_that_no_receiver_has() {
    let mut boxes = Mailboxes::held([copy(0, 3), copy(4, 3)]);
    let given = boxes.next(at(89)).unwrap();
    boxes.pass(at(90));
    assert_eq!(boxes.take_told(), [(copy(4, 3), Judgement::NotListening)]);
    assert_eq!(boxes.offer(copy(4, 2), 1, at(99), ROOM, at(90)), Judgement::NotListening);
    assert_eq!(boxes.next(at(91)), None, "its sender was told that it was not taken");
    boxes.give_back(target(), given.delivery, at(95));
    assert_eq!(boxes.take_told(), [(copy(0, 3), Judgement::NotListening)]);
    assert_eq!(boxes.offer(copy(4, 4), 1, at(99), ROOM, at(95)), Judgement::Held, "another try");
}

#[test]
fn the_end_of_a_run_ends_its_messages_and_a_run_without_an_outcome_leaves_them() {
    let mut boxes = Mailboxes::held([local(0), local(4)]);
    boxes.next(at(1)).unwrap();
    boxes.ended(target(), 1, None, at(2));
    let again = boxes.next(at(3)).unwrap();
    assert_eq!(again.letter, local(0));
    boxes.acknowledge(target(), 1, again.delivery, at(3));
    boxes.take_told();
    boxes.ended(target(), 1, Some(Outcome::Failed), at(4));
    assert_eq!(boxes.take_told(), [(local(4), Judgement::Ended(Outcome::Failed))]);
    assert_eq!(boxes.about(&local(0)), Some(Judgement::Taken(1)));
    boxes.pass(at(4) + KEPT);
    assert_eq!(boxes.about(&local(0)), None, "not for ever");
    assert_eq!((boxes.bytes(), boxes.due(), boxes.boxes.len()), (0, None, 0));
}

#[test]
fn an_attempt_that_is_named_alone_takes_the_message() {
    let mut boxes = Mailboxes::default();
    let pinned = |attempt| Letter { attempt: Some(attempt), ..local(u128::from(attempt)) };
    assert_eq!(boxes.offer(pinned(2), 2, at(9), ROOM, at(0)), Judgement::Held);
    assert_eq!(boxes.give(target(), 1, &any_of(&NAMES), Hold::Connection, at(0)), None);
    assert_eq!(boxes.offer(pinned(1), 2, at(9), ROOM, at(0)), Judgement::Superseded(2));
    assert!(boxes.give(target(), 2, &any_of(&NAMES), Hold::Connection, at(0)).is_some());
}

#[test]
fn a_receiver_gets_what_it_wants_alone() {
    let mut boxes = Mailboxes::held([local(0), local(1), local(2)]);
    let from = |source| Wanted { from: Some(task(source)), ..any_of(&["in"]) };
    let mut give = |wanted: &Wanted| boxes.give(target(), 1, wanted, Hold::Connection, at(0));
    assert_eq!(give(&from(1)).unwrap().letter, local(1));
    assert_eq!(give(&from(1)), None);
    assert_eq!(give(&any_of(&["out"])).unwrap().letter, local(2));
    assert_eq!(give(&any_of(&["other"])), None);
}

#[test]
fn there_is_room_for_so_many_messages_and_bytes() {
    let sized = |id: u128, size: usize| Letter { body: vec![0; size].into(), ..local(id) };
    let mut boxes = Mailboxes::held((0..MESSAGES_MAX as u128).map(|id| sized(id, 0)));
    assert_eq!(boxes.offer(local(5000), 1, at(90), ROOM, at(0)), Judgement::NoRoom);
    let mut boxes = Mailboxes::held([sized(0, BYTES_MAX - 1)]);
    assert_eq!(boxes.offer(sized(1, 2), 1, at(90), ROOM, at(0)), Judgement::NoRoom);
    assert_eq!(boxes.offer(sized(2, 1), 1, at(90), 0, at(0)), Judgement::NoRoom);
    assert_eq!(boxes.offer(sized(2, 1), 1, at(90), 1, at(0)), Judgement::Held);
    assert_eq!(boxes.bytes(), BYTES_MAX);
}

#[test]
fn the_oldest_verdicts_are_forgotten_first() {
    let mut boxes = Mailboxes::default();
    for id in 0..VERDICTS_MAX as u128 + 10 {
        boxes.offer(local(id), 1, at(90), ROOM, at(0));
        let given = boxes.next(at(0)).unwrap();
        boxes.acknowledge(target(), 1, given.delivery, at(0));
        boxes.take_told();
    }
    assert_eq!(boxes.about(&local(9)), None);
    assert_eq!(boxes.about(&local(10)), Some(Judgement::Taken(1)));
}

#[derive(Clone, Debug)]
enum Action {
    Offer { id: u128, copy: u32, wait: u64 },
    Give { names: usize, hold: Option<u64> },
    Acknowledge(Index),
    GiveBack(Index),
    Pass(u64),
    End,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (0..24u128, 1..4u32, 1..20u64)
            .prop_map(|(id, copy, wait)| Action::Offer { id, copy, wait }),
        5 => (0..3usize, prop::option::of(1..9u64))
            .prop_map(|(names, hold)| Action::Give { names, hold }),
        3 => any::<Index>().prop_map(Action::Acknowledge),
        2 => any::<Index>().prop_map(Action::GiveBack),
        3 => (1..5u64).prop_map(Action::Pass),
        1 => Just(Action::End),
    ]
}

/// A message of the model.
#[derive(Debug)]
struct Row {
    id: u128,
    until: u64,
    copy: u32,
    given: Option<(u64, Option<u64>)>,
}

/// The mailbox of one task as a plain list.
#[derive(Default)]
struct Model {
    now: u64,
    rows: Vec<Row>,
    verdicts: BTreeMap<u128, (Judgement, u32)>,
    taken: Vec<u128>,
}

impl Model {
    fn pass(&mut self) {
        for row in &mut self.rows {
            row.given = row.given.filter(|(_, hold)| hold.is_none_or(|hold| hold > self.now));
        }
        let over = self.rows.extract_if(.., |row| row.given.is_none() && row.until <= self.now);
        for row in over {
            self.verdicts.insert(row.id, (Judgement::NotListening, row.copy));
        }
    }

    fn offer(&mut self, id: u128, copy: u32, wait: u64) -> Judgement {
        self.pass();
        match self.verdicts.get(&id) {
            Some((verdict @ Judgement::Taken(_), _)) => return *verdict,
            Some((verdict, covered)) if copy <= *covered => return *verdict,
            _ => {}
        }
        let until = self.now + wait;
        match self.rows.iter_mut().find(|row| row.id == id) {
            Some(row) => (row.until, row.copy) = (row.until.max(until), row.copy.max(copy)),
            None => self.rows.push(Row { id, until, copy, given: None }),
        }
        Judgement::Held
    }

    fn first(&mut self, names: &[&str]) -> Option<&mut Row> {
        self.pass();
        let free = |row: &&mut Row| row.given.is_none();
        let wanted = |row: &&mut Row| names.contains(&NAMES[(row.id / 2 % 2) as usize]);
        self.rows.iter_mut().find(|row| free(row) && wanted(row))
    }

    fn end(&mut self, index: usize, verdict: Judgement) {
        let row = self.rows.remove(index);
        self.verdicts.insert(row.id, (verdict, row.copy));
        if let Judgement::Taken(_) = verdict {
            assert!(!self.taken.contains(&row.id), "taken twice");
            self.taken.push(row.id);
        }
    }

    fn given(&self, delivery: u64) -> Option<usize> {
        self.rows.iter().position(|row| row.given.is_some_and(|(number, _)| number == delivery))
    }
}

fn play(actions: Vec<Action>) {
    let (mut boxes, mut model) = (Mailboxes::default(), Model::default());
    let mut deliveries: Vec<u64> = vec![u64::MAX];
    for action in actions {
        let now = at(model.now);
        match action {
            Action::Offer { id, copy: number, wait } => {
                let offered = boxes.offer(copy(id, number), 1, now + at(wait), ROOM, now);
                assert_eq!(offered, model.offer(id, number, wait));
            }
            Action::Give { names, hold } => {
                let names = [&NAMES[..1], &NAMES[1..], &NAMES[..]][names];
                let until = hold.map(|hold| model.now + hold);
                let hold = until.map_or(Hold::Connection, |until| Hold::Until(at(until)));
                let given = boxes.give(target(), 1, &any_of(names), hold, now);
                let expected = model.first(names);
                assert_eq!(
                    given.as_ref().map(|given| given.letter.id.as_u128()),
                    expected.as_ref().map(|row| row.id)
                );
                if let (Some(given), Some(row)) = (given, expected) {
                    row.given = Some((given.delivery, until));
                    deliveries.push(given.delivery);
                }
            }
            Action::Acknowledge(index) => {
                let delivery = *index.get(&deliveries);
                let known = boxes.acknowledge(target(), 1, delivery, now);
                model.pass();
                let place = model.given(delivery);
                assert_eq!(known, place.is_some());
                place.into_iter().for_each(|place| model.end(place, Judgement::Taken(1)));
            }
            Action::GiveBack(index) => {
                let delivery = *index.get(&deliveries);
                let known = boxes.give_back(target(), delivery, now);
                model.pass();
                let place = model.given(delivery);
                assert_eq!(known, place.is_some());
                place.into_iter().for_each(|place| model.rows[place].given = None);
                model.pass();
            }
            Action::Pass(seconds) => model.now += seconds,
            Action::End => {
                boxes.ended(target(), 1, Some(Outcome::Succeeded), now);
                while !model.rows.is_empty() {
                    model.end(0, Judgement::Ended(Outcome::Succeeded));
                }
            }
        }
        boxes.pass(at(model.now));
        model.pass();
        let bytes: usize = model.rows.iter().map(|row| (row.id % 5) as usize).sum();
        assert_eq!(boxes.bytes(), bytes);
        let due = model.rows.iter().filter_map(|row| match row.given {
            None => Some(row.until),
            Some((_, hold)) => hold,
        });
        assert_eq!(boxes.due(), due.min().map(at));
    }
}

proptest! {
    #[test]
    fn mailboxes_behave_as_a_plain_list(actions in prop::collection::vec(action(), 1..80)) {
        play(actions);
    }
}
