//! The routes.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use reveille::{Database, enqueue};
use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

use crate::jobs::SendWelcome;

#[derive(Deserialize)]
struct Signup {
    email: String,
}

#[derive(Serialize)]
struct SignedUp {
    user_id: i64,
}

/// Inserts the user and enqueues the welcome mail in one transaction: both are stored, or neither.
async fn sign_up(
    State(database): State<Database>,
    Json(signup): Json<Signup>,
) -> Result<(StatusCode, Json<SignedUp>), Refusal> {
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    let insert = "insert into example_users (email) values ($1) returning id";
    let user_id = tx.query_one(insert, &[&signup.email]).await?.get("id");
    enqueue(&tx, &SendWelcome { user_id }).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(SignedUp { user_id })))
}

/// Answers whether the database can be reached and has the tables that this program needs.
async fn health(State(database): State<Database>) -> StatusCode {
    match tokio::time::timeout(Duration::from_secs(2), database.check()).await {
        Ok(Ok(())) => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub fn router(database: Database) -> Router {
    Router::new().route("/signup", post(sign_up)).route("/health", get(health)).with_state(database)
}

/// The answer to a request that failed. The reason is logged.
struct Refusal(StatusCode);

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Refusal {
        if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
            return Refusal(StatusCode::CONFLICT);
        }
        tracing::error!(%error, "a request failed");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<reveille::Error> for Refusal {
    fn from(error: reveille::Error) -> Refusal {
        tracing::error!(%error, "a request failed");
        let is_away = error.is_unavailable();
        Refusal(if is_away { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}
