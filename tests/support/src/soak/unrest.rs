//! Pods that are replaced and connections that are cut, while the load goes on.

use super::{Amount, Churn, Followed, HEADLAMP, Load, Soak};

impl Soak<'_> {
    pub(super) async fn unrest(&self, name: &str, amount: Amount, load: &Load, churn: &Churn, followed: &[Followed]) {
        let Amount { replacements, cuts, .. } = amount;
        let (mut replaced, mut cut) = (0, 0);
        // Evenly mixed.
        for step in 0..replacements + cuts {
            let is_cut = cut * (replacements + cuts) < (step + 1) * cuts && cut < cuts;
            let went_on = if is_cut || replaced == replacements {
                cut += 1;
                self.cut(cut, load, churn, followed).await
            } else {
                replaced += 1;
                self.replace(load).await
            };
            if !went_on {
                break;
            }
        }
        let connections = self.cluster.connections();
        let seen = format!("{replaced} replacements, {cut} cuts; {connections} connections to the API server so far");
        self.row(&format!("{name}: unrest"), &seen, Ok(()));
    }

    /// Goes on when the new pod has been asked and every path of the load was answered since.
    async fn replace(&self, load: &Load) -> bool {
        self.cluster.forget_requests();
        let pod =
            self.cluster.replace_headlamp_pod(HEADLAMP, "headlamp", ([127, 0, 0, 1], self.headlamp.port()).into());
        let path = format!("/api/v1/namespaces/{HEADLAMP}/pods/{pod}/portforward");
        let before = load.files();
        self.until("the new pod is asked", || {
            load.files() >= before + ROUND && !self.cluster.requests_to(&path).is_empty()
        })
        .await
    }

    /// Goes on when the load was answered since and both lists have caught up. Every second time the
    /// cluster forgets its past meanwhile.
    async fn cut(&self, number: usize, load: &Load, churn: &Churn, followed: &[Followed]) -> bool {
        let (changes, before) = (churn.changes(), load.api());
        let events: Vec<usize> = followed.iter().map(Followed::events).collect();
        self.cluster.cut_all();
        if number.is_multiple_of(2) {
            self.cluster.compact();
        }
        let busy = events.first().copied().unwrap_or_default();
        self.until("the page goes on after a cut", || {
            load.api() >= before + ROUND
                && churn.changes() >= changes + ROUND
                && followed.first().is_some_and(|followed| followed.events() >= busy + ROUND)
        })
        .await
    }
}

/// Requests, changes and events: each path of the load a few times.
const ROUND: usize = 10;
