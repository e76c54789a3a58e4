//! The end of an attempt that its member will not finish: it was not claimed in time, or its
//! member is lost. Pure.

/// Why an attempt ends without a word of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// All that was sent until long after its moment is read, and no claim was in it: it never
    /// starts.
    Fenced,
    /// Its member claimed it and is lost: it may have run, or run still.
    MemberLost,
}

/// The fate of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlacementEnd {
    /// The next attempt is placed.
    PlaceAgain,
    /// It ends as interrupted.
    Interrupt,
    /// It ends as cancelled.
    Cancel,
    /// None: it goes on as it is.
    Stay,
}

impl After {
    /// The fate of a task, of which the attempt was claimed or not, that may run again or not,
    /// and that is to be cancelled or not.
    pub(crate) fn fate(self, claimed: bool, rerun: bool, cancelled: bool) -> PlacementEnd {
        match (self, claimed) {
            (Self::Fenced, false) if cancelled => PlacementEnd::Cancel,
            (Self::Fenced, false) => PlacementEnd::PlaceAgain,
            // The claim came first; the other one is fenced at its own moment.
            (Self::Fenced, true) | (Self::MemberLost, false) => PlacementEnd::Stay,
            (Self::MemberLost, true) if rerun && !cancelled => PlacementEnd::PlaceAgain,
            (Self::MemberLost, true) => PlacementEnd::Interrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_started_runs_again_only_if_it_may_and_what_did_not_always() {
        for (after, claimed, rerun, cancelled, expected) in [
            (After::Fenced, false, true, false, PlacementEnd::PlaceAgain),
            (After::Fenced, false, false, false, PlacementEnd::PlaceAgain),
            (After::Fenced, false, true, true, PlacementEnd::Cancel),
            (After::Fenced, true, true, false, PlacementEnd::Stay),
            (After::Fenced, true, true, true, PlacementEnd::Stay),
            (After::MemberLost, false, true, false, PlacementEnd::Stay),
            (After::MemberLost, true, true, false, PlacementEnd::PlaceAgain),
            (After::MemberLost, true, false, false, PlacementEnd::Interrupt),
            (After::MemberLost, true, true, true, PlacementEnd::Interrupt),
        ] {
            let fate = after.fate(claimed, rerun, cancelled);
            assert_eq!(fate, expected, "{after:?} {claimed} {rerun} {cancelled}");
        }
    }
}
