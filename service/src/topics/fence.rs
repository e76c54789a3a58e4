//! What becomes of an attempt that its member will not finish: it was not claimed in time, or its
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
pub(crate) enum Fate {
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
    pub(crate) fn fate(self, claimed: bool, rerun: bool, cancelled: bool) -> Fate {
        match (self, claimed) {
            (Self::Fenced, false) if cancelled => Fate::Cancel,
            (Self::Fenced, false) => Fate::PlaceAgain,
            // The claim came first; the other one is fenced at its own moment.
            (Self::Fenced, true) | (Self::MemberLost, false) => Fate::Stay,
            (Self::MemberLost, true) if rerun && !cancelled => Fate::PlaceAgain,
            (Self::MemberLost, true) => Fate::Interrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_started_runs_again_only_if_it_may_and_what_did_not_always() {
        for (after, claimed, rerun, cancelled, expected) in [
            (After::Fenced, false, true, false, Fate::PlaceAgain),
            (After::Fenced, false, false, false, Fate::PlaceAgain),
            (After::Fenced, false, true, true, Fate::Cancel),
            (After::Fenced, true, true, false, Fate::Stay),
            (After::Fenced, true, true, true, Fate::Stay),
            (After::MemberLost, false, true, false, Fate::Stay),
            (After::MemberLost, true, true, false, Fate::PlaceAgain),
            (After::MemberLost, true, false, false, Fate::Interrupt),
            (After::MemberLost, true, true, true, Fate::Interrupt),
        ] {
            let fate = after.fate(claimed, rerun, cancelled);
            assert_eq!(fate, expected, "{after:?} {claimed} {rerun} {cancelled}");
        }
    }
}
