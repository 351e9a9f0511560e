//! The statements of `sql/`, in the schema that is in use.

use std::borrow::Cow;

use crate::database::schema::Schema;

macro_rules! statements {
    ($($(#[$when:meta])? $name:ident),+ $(,)?) => {
        /// Each file of `sql/`, under its name.
        pub(crate) struct Statements { $($(#[$when])? pub(crate) $name: Cow<'static, str>,)+ }

        impl Statements {
            pub(crate) fn new(schema: &Schema) -> Statements {
                Statements { $($(#[$when])? $name: schema.apply(include_str!(concat!("../../../sql/", stringify!($name), ".sql"))),)+ }
            }
        }
    };
}

statements! {
    arm, beat, before_arming, claim, claim_by_key, claim_kind, claim_limited, claim_rung, claim_shared,
    claim_turn, claims_under_way, complete, count_running, disarm, heads, is_recorded, leave, limit_lock,
    next_due, note_nobody_sleeps, progress, prune, register, release_strays, rescue, settle_alike, settle_dead,
    settle_finished, settle_recorded, settle_unkept, settle_waiting, signals_wait, silent_transactions, vouch,
    #[cfg(feature = "schedules")] declare_schedules,
    #[cfg(feature = "schedules")] due_schedules,
    #[cfg(feature = "schedules")] fire_schedules,
}
