//! A throw-away Postgres server, for demos, tests and benches.
