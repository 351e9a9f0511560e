//! The store behaves as every store of Reveille's does.

use std::sync::Arc;
use std::time::SystemTime;

use reveille::driver::Driver;
use reveille::handler::BoxFuture;
use reveille::job::JobState;
use reveille::testing::conformance::{Conformance, Standing, StoreUnderTest};
use reveille_driver_example::MapStore;

struct Tested(Arc<MapStore>);

impl StoreUnderTest for Tested {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::clone(&self.0) as _
    }

    fn standing(&self, id: i64) -> BoxFuture<'_, Option<Standing>> {
        let standing = self.0.row(id).map(|row| {
            let is_delayed = row.state == JobState::Ready && row.available_at > SystemTime::now();
            let state = if is_delayed { JobState::Delayed } else { row.state };
            let reason = row.failure.filter(|_| state == JobState::Dead).map(|failure| failure.reason);
            Standing::new(state, row.attempts, row.failures).reason(reason)
        });
        Box::pin(std::future::ready(standing))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms() {
    let suite = Conformance::new(async || Tested(Arc::default()));
    let suite = suite.without_controls().without_limits().without_unique_keys();
    suite.without_notifications().without_schedules().without_steps().without_workflows().run().await;
}
