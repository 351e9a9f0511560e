//! What pages read from the database: each reading serves all pages that ask for it at about the same time.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use reveille::Result;
use tokio::sync::Semaphore;

/// The age up to which a reading serves a page that somebody opens.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// A reading serves the streams of open pages for this many times the time that it took, up to `LONGEST_LIFE`. So all
/// open pages together keep the server busy for at most a sixth of a percent of the time with each reading that takes
/// less than 150 ms, and the six readings of the overview cost the server at most 1 % of a core together.
const LIFE_FOR_TIME_TAKEN: u32 = 600;
const LONGEST_LIFE: Duration = Duration::from_secs(90);
/// A failed reading is made again earlier, so that a page comes back with the database.
const FAILURE_FOR_TIME_TAKEN: u32 = 10;
const LONGEST_FAILURE: Duration = Duration::from_secs(20);
/// The largest number of readings that are kept.
const MOST_KEPT: usize = 256;
/// The largest number of statements that run at once, so that the dashboard leaves most of an application's pool free.
const MOST_STATEMENTS: usize = 3;

/// A reading of any type. The code that makes and keeps readings works on this one type, so that it is compiled once.
struct Made {
    value: std::result::Result<Box<dyn Any + Send + Sync>, String>,
    at: Instant,
    took: Duration,
}

type Making = BoxFuture<'static, Result<Box<dyn Any + Send + Sync>>>;

/// One reading of a type: the value, or what to show instead of it.
pub struct Reading<T> {
    made: Arc<Made>,
    kind: PhantomData<fn() -> T>,
}

/// The latest readings, by their type and their name.
pub struct Readings {
    places: Mutex<HashMap<(TypeId, String), Arc<Place>>>,
    glances: Mutex<HashMap<(TypeId, &'static str), Glance>>,
    statements: Semaphore,
}

/// A reading that is made in the background.
#[derive(Default)]
struct Glance {
    latest: Option<Arc<Made>>,
    is_under_way: bool,
}

struct Place {
    /// Locked during a reading, so that the others wait for the same reading.
    latest: tokio::sync::Mutex<Option<Arc<Made>>>,
    /// A reading that serves nobody any more is forgotten: a payload may have 8 MiB.
    serves_until: Mutex<Instant>,
}

/// How old a reading may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// For a change: the reading is made now.
    New,
    /// For a page that somebody opens.
    Fresh,
    /// For a stream that keeps an open page up to date.
    Streamed,
}

impl Default for Readings {
    fn default() -> Readings {
        Readings { places: Mutex::default(), glances: Mutex::default(), statements: Semaphore::new(MOST_STATEMENTS) }
    }
}

impl Readings {
    /// Returns the latest reading of this name, or makes one. `name` must name everything that `read` depends on.
    pub async fn get<T: Send + Sync + 'static>(
        &self,
        name: impl Into<String>,
        age: Age,
        timeout: Duration,
        read: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Reading<T> {
        Reading::of(self.get_any((TypeId::of::<T>(), name.into()), age, timeout, of_any_type(read)).await)
    }

    async fn get_any(&self, name: (TypeId, String), age: Age, timeout: Duration, read: Making) -> Arc<Made> {
        let place = self.place(name);
        let mut latest = place.latest.lock().await;
        if let Some(made) = latest.as_ref().filter(|made| made.at.elapsed() < made.life(age)) {
            return Arc::clone(made);
        }
        let made = Arc::new(make(&self.statements, timeout, read).await);
        *place.serves_until.lock().unwrap_or_else(PoisonError::into_inner) = made.at + made.life(Age::Streamed);
        *latest = Some(Arc::clone(&made));
        made
    }

    /// Returns the latest reading of this name at once, and `None` if there is none yet. If it is older than `life`,
    /// makes another one in the background. For what takes longer than a page may, and changes seldom.
    pub fn glance<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        life: Duration,
        timeout: Duration,
        read: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Option<Reading<T>> {
        let name = (TypeId::of::<T>(), name);
        let mut glances = self.glances.lock().unwrap_or_else(PoisonError::into_inner);
        let glance = glances.entry(name).or_default();
        let known = glance.latest.clone();
        let life = |made: &Made| if made.value.is_ok() { life } else { life.min(LONGEST_FAILURE) };
        if !glance.is_under_way && known.as_ref().is_none_or(|made| made.at.elapsed() >= life(made)) {
            glance.is_under_way = true;
            let (readings, read) = (Arc::clone(self), of_any_type(read));
            tokio::spawn(async move {
                let made = Arc::new(make(&readings.statements, timeout, read).await);
                let mut glances = readings.glances.lock().unwrap_or_else(PoisonError::into_inner);
                glances.insert(name, Glance { latest: Some(made), is_under_way: false });
            });
        }
        known.map(Reading::of)
    }

    /// Forgets all readings but glances, since a change by a visitor has outdated them.
    pub fn forget(&self) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn place(&self, name: (TypeId, String)) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let serves_until = |place: &Place| *place.serves_until.lock().unwrap_or_else(PoisonError::into_inner);
        // A place that somebody else holds is about to be read.
        places.retain(|_, place| serves_until(place) > now || Arc::strong_count(place) > 1);
        if places.len() >= MOST_KEPT {
            let first = places.iter().filter(|(_, place)| Arc::strong_count(place) == 1);
            let first = first.min_by_key(|(_, place)| serves_until(place)).map(|(name, _)| name.clone());
            first.and_then(|first| places.remove(&first));
        }
        let place = places.entry(name).or_insert_with(|| {
            Arc::new(Place { latest: tokio::sync::Mutex::default(), serves_until: Mutex::new(now) })
        });
        Arc::clone(place)
    }
}

impl Made {
    fn life(&self, age: Age) -> Duration {
        match age {
            Age::New => Duration::ZERO,
            Age::Fresh => SHORTEST_LIFE,
            Age::Streamed if self.value.is_ok() => (self.took * LIFE_FOR_TIME_TAKEN).clamp(SHORTEST_LIFE, LONGEST_LIFE),
            Age::Streamed => (self.took * FAILURE_FOR_TIME_TAKEN).clamp(SHORTEST_LIFE, LONGEST_FAILURE),
        }
    }
}

impl<T: 'static> Reading<T> {
    fn of(made: Arc<Made>) -> Reading<T> {
        Reading { made, kind: PhantomData }
    }

    /// Returns the value, or what to show instead of it.
    pub fn value(&self) -> std::result::Result<&T, &str> {
        match &self.made.value {
            Ok(value) => value.downcast_ref().ok_or("The dashboard has mixed up two readings."),
            Err(reason) => Err(reason),
        }
    }
}

fn of_any_type<T: Send + Sync + 'static>(read: impl Future<Output = Result<T>> + Send + 'static) -> Making {
    read.map(|read| Ok(Box::new(read?) as Box<dyn Any + Send + Sync>)).boxed()
}

async fn make(statements: &Semaphore, timeout: Duration, read: Making) -> Made {
    let waited = tokio::time::timeout(timeout, statements.acquire()).await;
    let began = Instant::now();
    let value = match waited {
        // A statement that is given up is cancelled, and its session is closed.
        Ok(_turn) => match tokio::time::timeout(timeout, read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("The database has not answered within {timeout:?}.")),
        },
        Err(_) => Err(format!("The dashboard's other statements have left no room within {timeout:?}.")),
    };
    Made { value, at: Instant::now(), took: began.elapsed() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static MADE: AtomicUsize = AtomicUsize::new(0);

    async fn count() -> Result<usize> {
        tokio::task::yield_now().await;
        Ok(MADE.fetch_add(1, Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn one_reading_serves_all_pages_that_ask_at_once() {
        let readings = Readings::default();
        let get = |name: &'static str| readings.get(name, Age::Fresh, Duration::from_secs(1), count());
        let all = futures::future::join_all((0..100).map(|_| get("one"))).await;
        assert!(all.iter().all(|reading| reading.value() == Ok(&0)));
        assert_eq!(get("other").await.value(), Ok(&1));
        readings.forget();
        assert_eq!(get("one").await.value(), Ok(&2));
    }

    #[tokio::test]
    async fn a_reading_that_serves_nobody_is_forgotten() {
        let readings = Readings::default();
        let get = |name: &'static str| readings.get(name, Age::Fresh, Duration::from_secs(1), async { Ok(()) });
        futures::future::join(get("one"), get("two")).await;
        let names = || readings.places.lock().unwrap().len();
        assert_eq!(names(), 2);
        for place in readings.places.lock().unwrap().values() {
            *place.serves_until.lock().unwrap() = Instant::now();
        }
        get("three").await;
        assert_eq!(names(), 1);
        for number in 0..2 * MOST_KEPT {
            readings.get(number.to_string(), Age::Fresh, Duration::from_secs(1), async { Ok(()) }).await;
        }
        assert_eq!(names(), MOST_KEPT);
    }

    #[tokio::test]
    async fn a_change_looks_anew() {
        let readings = Readings::default();
        let get = |age| readings.get("one", age, Duration::from_secs(1), async { Ok(Instant::now()) });
        let (page, change) = (get(Age::Fresh).await, get(Age::New).await);
        assert!(page.value() != change.value() && get(Age::Fresh).await.value() == change.value());
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_takes_too_long_is_given_up() {
        let readings = Readings::default();
        let reading = readings.get("slow", Age::Fresh, Duration::from_secs(2), std::future::pending::<Result<()>>());
        assert_eq!(reading.await.value(), Err("The database has not answered within 2s."));
    }

    #[test]
    fn a_slow_reading_serves_streams_for_longer() {
        let made = |value, took| Made { value, at: Instant::now(), took: Duration::from_millis(took) };
        let reading = |took| made(Ok(Box::new(()) as Box<dyn Any + Send + Sync>), took);
        assert_eq!(reading(40).life(Age::Streamed), Duration::from_secs(24));
        assert_eq!(reading(400).life(Age::Streamed), Duration::from_secs(90));
        assert_eq!(reading(1).life(Age::Streamed), Duration::from_secs(1));
        assert_eq!(reading(50).life(Age::Fresh), Duration::from_secs(1));
        let failed = |took| made(Err(String::new()), took);
        assert_eq!(failed(1).life(Age::Streamed), Duration::from_secs(1));
        assert_eq!(failed(2_000).life(Age::Streamed), Duration::from_secs(20));
    }
}
