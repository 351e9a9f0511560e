#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../docs/README.md")]

// Links between pages are paths in the files. In rustdoc they are the items of `guide/links.md`, whose definitions come
// first and therefore count.

/// A page of `docs/` as a module, so that its examples are tested.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = include_str!("guide/links.md")]
        #[doc = include_str!(concat!("../docs/", $file))]
        pub mod $name {}
    };
}

/// From nothing to a first worker.
pub mod start {
    page!(installation, "start/installation.md");
    page!(first_job, "start/first-job.md");
    page!(first_worker, "start/first-worker.md");
    page!(axum, "start/axum.md");
    page!(first_test, "start/first-test.md");
}

/// What happens to a job.
pub mod jobs {
    page!(life, "jobs/life.md");
    page!(enqueuing, "jobs/enqueuing.md");
    page!(errors, "jobs/errors.md");
    page!(timeouts, "jobs/timeouts.md");
    page!(dead_jobs, "jobs/dead-jobs.md");
    page!(idempotence, "jobs/idempotence.md");
    page!(payloads, "jobs/payloads.md");
    page!(reports, "jobs/reports.md");
}

/// A page for each client.
pub mod clients {
    page!(tokio_postgres, "clients/tokio-postgres.md");
    page!(sqlx, "clients/sqlx.md");
    page!(sea_orm, "clients/sea-orm.md");
    page!(diesel, "clients/diesel.md");
    page!(python, "clients/python.md");
    page!(others, "clients/others.md");
}

/// A page for each feature.
pub mod features {
    page!(unique, "features/unique.md");
    page!(limits, "features/limits.md");
    page!(order, "features/order.md");
    page!(schedules, "features/schedules.md");
    page!(steps, "features/steps.md");
    page!(events, "features/events.md");
    page!(batches, "features/batches.md");
    page!(dependencies, "features/dependencies.md");
    page!(workflows, "features/workflows.md");
    page!(starting_workflows, "features/starting-workflows.md");
    page!(results, "features/results.md");
    page!(programs, "features/programs.md");
    page!(pipe, "features/pipe.md");
    page!(control, "features/control.md");
    page!(many_jobs, "features/many-jobs.md");
    page!(dashboard, "features/dashboard.md");
    page!(middleware, "features/middleware.md");
    page!(encryption, "features/encryption.md");
    page!(tracing, "features/tracing.md");
    page!(testing, "features/testing.md");
    page!(testing_workflows, "features/testing-workflows.md");
    page!(prepared, "features/prepared.md");
}

/// For those who run it.
pub mod running {
    page!(deploying, "running/deploying.md");
    page!(sizing, "running/sizing.md");
    page!(postgres, "running/postgres.md");
    page!(poolers, "running/poolers.md");
    page!(fail_over, "running/fail-over.md");
    page!(backup, "running/backup.md");
    page!(upgrading, "running/upgrading.md");
    page!(roles, "running/roles.md");
    page!(actions, "running/actions.md");
    page!(dashboard, "running/dashboard.md");
    page!(monitoring, "running/monitoring.md");
    page!(metrics, "running/metrics.md");
    page!(troubleshooting, "running/troubleshooting.md");
    page!(doctor, "running/doctor.md");
}

/// For looking up.
pub mod reference {
    page!(command, "reference/command.md");
    page!(command_running, "reference/command-running.md");
    page!(command_output, "reference/command-output.md");
    page!(pipe, "reference/pipe.md");
    page!(encryption, "reference/encryption.md");
    page!(functions, "reference/functions.md");
    page!(views, "reference/views.md");
    page!(tables, "reference/tables.md");
    page!(configuration, "reference/configuration.md");
    page!(environment, "reference/environment.md");
    page!(events, "reference/events.md");
    page!(glossary, "reference/glossary.md");
}

/// For readers who know another queue.
pub mod coming_from {
    page!(comparison, "coming-from/comparison.md");
    page!(river, "coming-from/river.md");
    page!(oban, "coming-from/oban.md");
    page!(sidekiq, "coming-from/sidekiq.md");
    page!(workflows, "coming-from/workflows.md");
    page!(graphile_worker, "coming-from/graphile-worker.md");
    page!(apalis, "coming-from/apalis.md");
    page!(own_query, "coming-from/own-query.md");
}

/// When one server is not enough.
pub mod beyond {
    page!(one_server, "beyond/one-server.md");
    page!(several_databases, "beyond/several-databases.md");
    page!(one_entry, "beyond/one-entry.md");
    page!(other_engines, "beyond/other-engines.md");
}
