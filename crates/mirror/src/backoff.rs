use std::time::Duration;

/// Waits that double, each cut by up to half at random, so that those who failed together do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, next: first }
    }

    /// All is well: the next failure waits the shortest time.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.longest);
        wait.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_bound() {
        let mut backoff = Backoff::new((Duration::from_secs(1), Duration::from_secs(5)));
        for most in [1, 2, 4, 5, 5] {
            let (wait, most) = (backoff.wait(), Duration::from_secs(most));
            assert!(wait <= most && wait >= most / 2, "{wait:?} {most:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_secs(1));
    }
}
