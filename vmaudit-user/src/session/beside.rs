//! What goes on beside a session, on its runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Of its time a session gives whoever asks from beside one part in so many.
const SHARE: u32 = 4;

/// Work that goes on beside a session, and how it asks for the state as of now.
pub(super) struct Beside {
    pub(super) work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    asks: Arc<Notify>,
    /// Before that, it is not told: whoever asks without a pause costs the machine [`SHARE`] of a processor, not all of it.
    rests_until: Instant,
}

impl Beside {
    pub(super) fn new(work: Pin<Box<dyn Future<Output = ()> + Send>>, asks: Arc<Notify>) -> Self {
        Self { work: Some(work), asks, rests_until: Instant::now() }
    }

    /// Telling it took so long.
    pub(super) fn rest(&mut self, took: Duration) {
        self.rests_until = Instant::now() + took * (SHARE - 1);
    }

    /// When it may be told; never where nothing is beside.
    pub(super) async fn asked(beside: Option<&Self>) {
        match beside {
            Some(it) => {
                // In this order: who has been heard must not be forgotten while something else comes first.
                tokio::time::sleep_until(it.rests_until.into()).await;
                it.asks.notified().await;
            }
            None => std::future::pending().await,
        }
    }
}
