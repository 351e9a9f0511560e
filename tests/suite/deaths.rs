//! The death of a job is logged, however it came.

use serde_json::json;

use crate::harness::{Note, database, eventually, start, worker};
use crate::tracing::EventLog;

#[tokio::test]
async fn each_death_is_logged_once_with_the_jobs_id() {
    async fn fails(_: Note) -> Result<(), &'static str> {
        Err("on purpose")
    }
    let (events, _guard) = EventLog::start();
    let database = database().await;
    // A job that fails, a job with a wrong payload, a job that no claim can take, a job of a dead worker, and a job
    // that the store does not let wait for its retry.
    let rows = "set session_replication_role = replica;
        insert into reveille.jobs (id, kind, payload, attempts, max_attempts, reserved_at, reserved_by)
        overriding system value
        select id, 'note', payload::jsonb, attempts, max_attempts, case when reserved_by is not null then now() end,
            reserved_by
        from (values
            (1, '{\"text\": \"\"}', 0, 1, null), (2, '{}', 0, 1, null), (3, '{\"text\": \"\"}', 2147483647, 1, null),
            (4, '{\"text\": \"\"}', 1, 1, 7), (5, '{\"text\": \"\"}', 0, 2, null)
        ) as jobs (id, payload, attempts, max_attempts, reserved_by);
        set session_replication_role = default;
        create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
        create trigger refuse before update on reveille.jobs
            for each row when (old.id = 5 and new.reserved_at is null) execute function refuse()";
    database.run(rows).await;
    let worker = start(worker(&database).handle(fails));
    database.until("select count(*) = 5 from reveille.dead_jobs").await;
    let deaths = |id: i32| events.count("job.dead", "id", &id.to_string());
    eventually("the deaths are logged", async || (1..=5).all(|id| deaths(id) > 0)).await;
    worker.stop().await;
    assert_eq!((1..=5).map(deaths).collect::<Vec<_>>(), [1; 5]);
    let reasons = "select jsonb_agg(reason order by id) from reveille.dead_jobs";
    let expected = json!(["failed", "undecodable", "undecodable", "lost", "failed"]);
    assert_eq!(database.value(reasons).await, expected);
}
