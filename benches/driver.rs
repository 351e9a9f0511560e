//! Measures the driver's three hot statements at several batch sizes: on an empty table, beside many finished jobs, and
//! beside many delayed jobs.
//!
//! `cargo bench` measures on a throw-away server with its default settings (fsync on). `cargo test --benches` runs each
//! bench once. `REVEILLE_BENCH_ROWS` sets the number of finished or delayed jobs: default 1,000,000.

use std::future::Future;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reveille::dev::Server;
use reveille::driver::{ClaimRequest, Ending, Settlement, WorkerInfo};
use reveille::job::{Payload, ReservedJob};
use reveille::{
    Database,
    driver::{Driver, Postgres},
    job::NewJob,
};
use tokio::runtime::Runtime;

const WORKER: i64 = 1;
const QUEUE: &str = "bench";
const SIZES: [usize; 4] = [1, 10, 100, 1000];

/// The other rows in the tables: a name, and the statement that inserts them.
const BESIDE: [(&str, &str); 3] = [
    ("empty", "select 1"),
    (
        "finished",
        "insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, outcome)
         select extract(epoch from now())::bigint / 86400 % 32, -n, 'bench', 'bench', 'null', 2, 1, 0, 20,
            now(), now(), 'completed'
         from generate_series(1, $ROWS) as n",
    ),
    (
        "delayed",
        "insert into reveille.jobs (queue, kind, payload, priority, available_at)
         select 'bench', 'bench', 'null', n % 4, now() + interval '1 day' + make_interval(secs => n)
         from generate_series(1, $ROWS) as n",
    ),
];

struct Bench {
    runtime: Runtime,
    driver: Postgres,
    _server: Server,
}

impl Bench {
    fn new(beside: &str) -> Bench {
        let runtime = Runtime::new().expect("a runtime");
        let server = Server::options().fsync(true).start().expect("a server");
        let driver = runtime.block_on(async {
            let database = Database::connect(server.url("postgres")).await.expect("the server answers");
            database.migrate().await.expect("the tables are made");
            let rows = std::env::var("REVEILLE_BENCH_ROWS").unwrap_or_else(|_| "1000000".into());
            let client = database.client().await.expect("a client");
            client.batch_execute(&beside.replace("$ROWS", &rows)).await.expect("the table is filled");
            client.batch_execute("vacuum analyze").await.expect("the table is vacuumed");
            let driver = Postgres::new(database).expect("a driver");
            let info = WorkerInfo::new(WORKER).host("bench").queues([QUEUE]);
            driver.register(&info).await.expect("the worker is registered");
            driver
        });
        Bench { runtime, driver, _server: server }
    }

    async fn enqueue(&self, size: usize) {
        let job = NewJob::new("bench", Payload::encode(&()).expect("JSON")).queue(QUEUE);
        Driver::enqueue(&self.driver, &vec![job; size]).await.expect("the jobs are enqueued");
    }

    async fn claim(&self, size: usize) -> Vec<ReservedJob> {
        let claimed = self.driver.claim(&ClaimRequest::new(WORKER, QUEUE, size)).await;
        let jobs = claimed.expect("the jobs are claimed").jobs;
        assert_eq!(jobs.len(), size);
        jobs
    }

    async fn settle(&self, jobs: &[ReservedJob]) {
        let ended = |job: &ReservedJob| Settlement::new(job.reservation, Ending::Completed(None));
        let settlements: Vec<Settlement> = jobs.iter().map(ended).collect();
        assert!(
            self.driver
                .settle(&settlements)
                .await
                .expect("the jobs are settled")
                .iter()
                .all(|settled| settled.is_counted())
        );
    }
}

/// The time of one step (enqueue, claim or settle) over `count` rounds of all three.
async fn rounds(bench: &Bench, size: usize, count: u64, timed: &str) -> Duration {
    async fn time<T>(total: &mut Duration, counts: bool, step: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = step.await;
        if counts {
            *total += began.elapsed();
        }
        answer
    }
    let mut total = Duration::ZERO;
    for _ in 0..count {
        time(&mut total, timed == "enqueue", bench.enqueue(size)).await;
        let jobs = time(&mut total, timed == "claim", bench.claim(size)).await;
        time(&mut total, timed == "settle", bench.settle(&jobs)).await;
    }
    total
}

fn driver(criterion: &mut Criterion) {
    for (beside, sql) in BESIDE {
        let bench = Bench::new(sql);
        for step in ["enqueue", "claim", "settle"] {
            let mut group = criterion.benchmark_group(format!("{step}/{beside}"));
            group.sample_size(20).measurement_time(Duration::from_secs(5));
            for size in SIZES {
                group.throughput(Throughput::Elements(size as u64));
                group.bench_with_input(BenchmarkId::from_parameter(size), &size, |bencher, &size| {
                    bencher.iter_custom(|count| bench.runtime.block_on(rounds(&bench, size, count, step)));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, driver);
criterion_main!(benches);
