//! Settling with certainty, although lapin pairs returns with the wrong
//! confirms.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

#[tokio::test(flavor = "multi_thread")]
async fn no_unroutable_message_is_ever_confirmed_and_each_is_returned_in_the_end() {
    for run in 0..3 {
        let vhost = broker::vhost();
        let connection = with_queue(&vhost, "here").await;
        let mut outlet = connection.outlet().await.unwrap();
        let mut doubted = 0;
        let mut pending: Vec<usize> = (0..10_000).collect();
        let (mut confirmed, mut returned) = (BTreeSet::new(), BTreeSet::new());
        while !pending.is_empty() {
            let mut tickets = BTreeMap::new();
            // Everything at once: the window that hurts most.
            for number in pending.drain(..) {
                let destination = if number % 3 == 0 { "nowhere" } else { "here" };
                let ticket = outlet.publish(&to(destination), message(number)).await.unwrap();
                tickets.insert(ticket, number);
            }
            for (ticket, settlement) in settle(outlet.as_mut()).await {
                let number = tickets.remove(&ticket).expect("settled once");
                match settlement {
                    Settlement::Confirmed => confirmed.insert(number),
                    Settlement::Returned(reason) => {
                        assert!(reason.contains("NO_ROUTE"), "{reason}");
                        returned.insert(number)
                    }
                    Settlement::Doubt => {
                        doubted += 1;
                        pending.push(number);
                        true
                    }
                    Settlement::Refused | Settlement::TooLarge(_) => panic!("nothing is refused"),
                };
            }
            assert!(tickets.is_empty(), "everything is settled");
        }
        println!("run {run}: {doubted} in doubt");
        assert!(confirmed.iter().all(|number| number % 3 != 0));
        let unroutable: BTreeSet<usize> = (0..10_000).step_by(3).collect();
        assert!(unroutable.is_subset(&returned));
        assert_eq!(confirmed.len() + returned.len(), 10_000);
        connection.close().await;
    }
}
