//! Topics: their members, how much work each member may have, and which task goes to
//! which member.
//!
//! A *topic task* is submitted to a topic instead of an endpoint; a *member* is an endpoint of
//! which the file names the topic; a task is *placed* when it is given to a member. Tasks of a
//! topic that ask for the same function and version are of one *kind*. A member's *credit* is how
//! much it may hold at once.
//!
//! `credit`, `member`, `catalogue`, `matching` and `fence` are pure. `board` is the catalogue of
//! this run behind a lock: the store tells it what is recorded, the broker's side what is heard.

mod board;
mod catalogue;
mod credit;
mod deadlines;
mod fence;
mod matching;
mod member;
mod view;
mod why_unplaced;

pub(crate) use board::{Change, TopicBoard, TopicChanges};
pub(crate) use catalogue::{TaskKind, TaskPlacement};
pub(crate) use fence::{After, PlacementEnd};
pub(crate) use matching::{Assignment, Fronts, Matched, Waiting};
pub(crate) use member::{MemberFacts, QueueReader};
pub(crate) use view::MemberView;
