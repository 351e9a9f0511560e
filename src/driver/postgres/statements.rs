//! The statements of `sql/`, with the name of this database's schema.

use std::borrow::Cow;

use crate::database::schema::Schema;

macro_rules! statements {
    ($($(#[$when:meta])? $name:ident),+ $(,)?) => {
        /// The text of each file in `sql/`, under the name of the file.
        pub(crate) struct Statements { $($(#[$when])? pub(crate) $name: Cow<'static, str>,)+ }

        impl Statements {
            pub(crate) fn new(schema: &Schema) -> Statements {
                Statements {$(
                    $(#[$when])?
                    $name: schema.apply(include_str!(concat!("../../../sql/", stringify!($name), ".sql"))),
                )+}
            }
        }
    };
}

statements! {
    apply_linked_ends, arm, beat, before_arming, claim, claim_by_key, claim_limited, claim_paused, claim_shared,
    claims_under_way, complete, completed_in_sql, confirm, count_blocked, count_kinds, count_running, disarm, heads,
    inputs, is_recorded, isolate, isolate_known, leave, limit_lock, lock_holders, lock_reserved, next_due,
    note_nobody_sleeps, orphans, park, pass_given_ids, pass_over, progress, record_step, record_wait, register,
    release_strays, rescue, run_child, serve_waits, settle_alike, settle_dead, settle_finished, settle_recorded,
    settle_waiting, signals_wait, silent_transactions, steps, strays, unpark, upkeep_actions, upkeep_counters,
    upkeep_dead_jobs, upkeep_ends, upkeep_events, upkeep_history, upkeep_kinds, upkeep_lost_ends, upkeep_old_counters,
    upkeep_old_days, upkeep_parked, upkeep_rates, upkeep_statistics, upkeep_steps, upkeep_unique_keys, upkeep_vacuum,
    upkeep_vacuumed, upkeep_workflows, vouch, workflow_of,
    #[cfg(feature = "schedules")] declare_schedules,
    #[cfg(feature = "schedules")] due_schedules,
    #[cfg(feature = "schedules")] fire_schedules,
    #[cfg(feature = "schedules")] knows_zone,
    #[cfg(feature = "schedules")] mark_schedules,
    #[cfg(feature = "schedules")] mark_scheduled_jobs,
}
