//! Children: the parents of tasks, what they tell of relations, and what becomes of them.

use super::{begin, chunk, done, record, spec, specs};
use crate::model::TaskState;
use crate::store::{Chunk, Error, Forgettable, RecordedTask, Store};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::kinship::Kin;
use clutch_common::task::result::Outcome;
use std::collections::BTreeSet;

/// Records two tasks of a submission.
async fn parents(store: &Store, lab: EndpointId) -> Vec<RecordedTask> {
    begin(store, chunk(lab, "parents", &specs(2))).await.unwrap()
}

/// Has a task submit others.
async fn bear(
    store: &Store,
    lab: EndpointId,
    parent: TaskId,
    key: &str,
    count: usize,
) -> crate::store::Result<Vec<RecordedTask>> {
    let children = Chunk { parent: Some(parent), ..chunk(lab, key, &specs(count)) };
    begin(store, children).await
}

pub(super) async fn a_child_knows_its_parent_and_the_facts_tell_who_is_related(store: Store) {
    let lab = EndpointId::new();
    let two = parents(&store, lab).await;
    assert!(two[0].task.group != 0 && two[0].task.group == two[1].task.group);
    let parent = two[0].task.id;
    let child = bear(&store, lab, parent, "child", 1).await.unwrap().remove(0);
    assert_eq!((child.task.parent, child.task.group), (Some(parent), 0), "it is alone");
    let again = bear(&store, lab, parent, "child", 1).await.unwrap().remove(0);
    assert_eq!((again.task, again.new), (child.task.clone(), false));
    let of_another = bear(&store, lab, two[1].task.id, "child", 1).await;
    assert!(matches!(of_another, Err(Error::Conflict(_))), "{of_another:?}");
    let ids = BTreeSet::from([parent, two[1].task.id, child.task.id, TaskId::new()]);
    let facts = store.task_facts(ids).await.unwrap();
    assert_eq!(facts.len(), 3);
    let kin = |task: TaskId| facts[&task].kin;
    assert!(kin(parent).is_related(&kin(two[1].task.id)));
    assert!(kin(parent).is_related(&kin(child.task.id)));
    assert!(!kin(two[1].task.id).is_related(&kin(child.task.id)));
    for task in [&two[0].task, &two[1].task, &child.task] {
        let (stored, carried) = (kin(task.id), Kin::from(task));
        assert_eq!(stored.parent, carried.parent);
        assert_eq!((facts[&task.id].endpoint, facts[&task.id].attempt), (lab, 1));
    }
}

pub(super) async fn a_family_is_shown_and_outlives_the_record_of_its_parent(store: Store) {
    let lab = EndpointId::new();
    let parent = parents(&store, lab).await.remove(0);
    let children = bear(&store, lab, parent.task.id, "children", 2).await.unwrap();
    let grandchild = bear(&store, lab, children[0].task.id, "grand", 1).await.unwrap().remove(0);
    let family = store.task(parent.task.id).await.unwrap().unwrap().family;
    let shown: Vec<TaskId> = family.descendants.iter().map(|one| one.id).collect();
    assert_eq!(shown, [children[0].task.id, grandchild.task.id, children[1].task.id]);
    let family = store.task(children[0].task.id).await.unwrap().unwrap().family;
    assert_eq!(family.parent.map(|one| one.id), Some(parent.task.id));
    record(&store, &[done(&parent, 1, Outcome::Succeeded)], &[], 10).await.unwrap();
    let old = Forgettable::EndedBefore(u64::MAX);
    store.forget(old, 0, false).await.unwrap();
    assert!(store.task(parent.task.id).await.unwrap().is_none());
    let family = store.task(children[0].task.id).await.unwrap().unwrap().family;
    assert_eq!((family.parent_id, family.parent), (Some(parent.task.id), None));
}

pub(super) async fn a_task_that_has_ended_or_is_to_be_cancelled_gets_no_children(store: Store) {
    let lab = EndpointId::new();
    let two = parents(&store, lab).await;
    store.mark_submitted(two.iter().map(|one| (one.seq, 1)).collect(), 5).await.unwrap();
    let early = bear(&store, lab, two[0].task.id, "early", 1).await.unwrap().remove(0);
    let grand = bear(&store, lab, early.task.id, "grand", 1).await.unwrap().remove(0);
    let ids = || vec![two[0].task.id];
    assert_eq!(store.open_descendants(ids()).await.unwrap(), [early.seq, grand.seq]);
    store.cancel(vec![two[0].seq], 20).await.unwrap();
    let late = bear(&store, lab, two[0].task.id, "late", 1).await;
    assert!(matches!(late, Err(Error::Conflict(ref why)) if why.contains("cancelled")), "{late:?}");
    let again = bear(&store, lab, two[0].task.id, "early", 1).await.unwrap().remove(0);
    assert!(!again.new, "a further copy is answered with what is recorded");
    record(&store, &[done(&early, 1, Outcome::Failed)], &[], 30).await.unwrap();
    assert_eq!(store.open_descendants(ids()).await.unwrap(), [grand.seq]);
    let orphan = bear(&store, lab, early.task.id, "orphan", 1).await;
    assert!(matches!(orphan, Err(Error::Conflict(ref why)) if why.contains("ended")), "{orphan:?}");
    let nobody = bear(&store, lab, TaskId::new(), "nobody", 1).await;
    assert!(matches!(nobody, Err(Error::Conflict(_))), "{nobody:?}");
    let alone = begin(&store, chunk(lab, "alone", &[spec(&["true"])])).await.unwrap().remove(0);
    let state = store.task(alone.task.id).await.unwrap().unwrap().summary.state;
    assert!(state != TaskState::Done(Outcome::Cancelled));
}
