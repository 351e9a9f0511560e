//! The jobs of a workflow and what they wait for, drawn as SVG. A table says the same as text, so screen readers and
//! the keyboard pass over the drawing.

use std::collections::HashMap;
use std::fmt::Write;

use maud::{Markup, html};
use reveille::admin::{WorkflowJobRow, WorkflowJobState};
use reveille::job::FiresOn;

use super::text;

/// The largest number of dependencies, and of jobs and lanes together, that are drawn.
const MOST_EDGES: usize = 500;
const MOST_ITEMS: usize = 800;
/// The size of a job, and the free space beside and below it.
const WIDTH: f64 = 156.0;
const HEIGHT: f64 = 42.0;
const BESIDE: f64 = 60.0;
const BELOW: f64 = 14.0;
/// The number of bytes of the page that a job's name may take in its box and in its title.
const MOST_NAME: usize = 32;
const MOST_TITLE: usize = 64;

/// A job, or a lane that leads an edge past the jobs of a layer.
struct Item {
    layer: usize,
    /// The place of the job among the jobs; `None` for a lane.
    job: Option<usize>,
    /// The items from which edges come.
    from: Vec<(usize, FiresOn)>,
    /// The middle.
    y: f64,
}

impl Item {
    fn height(&self) -> f64 {
        if self.job.is_some() { HEIGHT } else { 0.0 }
    }

    fn x(&self) -> f64 {
        self.layer as f64 * (WIDTH + BESIDE)
    }
}

/// Draws the jobs in layers from left to right: a job comes after all jobs that it waits for. Returns `None` if the
/// edges are too many to be told apart. `link` returns the address of a job's page.
pub fn graph(label: &str, jobs: &[WorkflowJobRow], link: impl Fn(i64) -> String) -> Option<Markup> {
    let mut items = items(jobs)?;
    arrange(&mut items);
    let right = items.iter().map(Item::x).fold(0.0, f64::max) + WIDTH;
    let bottom = items.iter().map(|item| item.y + item.height() / 2.0).fold(0.0, f64::max);
    let edges = edges(&items);
    Some(html! {
        figure.graph {
            (legend(label, jobs, &edges))
            div.scroll tabindex="0" role="region" aria-label="Drawing of the jobs; the table below says the same" {
                svg aria-hidden="true" width=(right + 4.0) height=(bottom + 4.0)
                    viewBox=(format!("-2 -2 {} {}", right + 4.0, bottom + 4.0)) {
                    @for edges in &edges { (edges.drawn()) }
                    @for item in &items {
                        @if let Some(job) = item.job.map(|place| &jobs[place]) {
                            (drawn(job, item, &link(job.job)))
                        }
                    }
                }
            }
        }
    })
}

/// Returns the jobs in their order, followed by the lanes.
fn items(jobs: &[WorkflowJobRow]) -> Option<Vec<Item>> {
    let layers = WorkflowJobRow::layers(jobs);
    let places: HashMap<&str, usize> = jobs.iter().enumerate().map(|(place, job)| (job.name.as_str(), place)).collect();
    let item = |(place, layer): (usize, &usize)| Item { layer: *layer, job: Some(place), from: Vec::new(), y: 0.0 };
    let mut items: Vec<Item> = layers.iter().enumerate().map(item).collect();
    let mut lanes: HashMap<(usize, &str, usize), usize> = HashMap::new();
    let mut edges = 0;
    for (place, job) in jobs.iter().enumerate() {
        for other in &job.prerequisites {
            let Some(source) = places.get(other.name.as_str()) else { continue };
            let mut last = *source;
            edges += 1;
            // Edges of one job that fire on the same outcome share their lanes.
            for layer in layers[*source] + 1..layers[place] {
                last = *lanes.entry((*source, other.fires_on.name(), layer)).or_insert_with(|| {
                    items.push(Item { layer, job: None, from: vec![(last, other.fires_on)], y: 0.0 });
                    items.len() - 1
                });
                if items.len() > MOST_ITEMS {
                    return None;
                }
            }
            items[place].from.push((last, other.fires_on));
        }
    }
    (edges <= MOST_EDGES).then_some(items)
}

/// Sets the height at which each item stands: as near as possible to the middle of the items from which its edges come.
fn arrange(items: &mut [Item]) {
    let mut layers = vec![Vec::new(); items.iter().map(|item| item.layer + 1).max().unwrap_or(0)];
    for (place, item) in items.iter().enumerate() {
        layers[item.layer].push(place);
    }
    for places in layers {
        let mean = |place: usize| {
            let from = &items[place].from;
            from.iter().map(|(source, _)| items[*source].y).sum::<f64>() / from.len().max(1) as f64
        };
        let mut wanted: Vec<(f64, usize)> = places.into_iter().map(|place| (mean(place), place)).collect();
        wanted.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let (mut free, mut too_low) = (f64::NEG_INFINITY, 0.0);
        let of = wanted.len() as f64;
        for (wanted, place) in &wanted {
            let half = items[*place].height() / 2.0;
            items[*place].y = wanted.max(free + half);
            free = items[*place].y + half + BELOW;
            too_low += (items[*place].y - wanted) / of;
        }
        wanted.iter().for_each(|(_, place)| items[*place].y -= too_low);
    }
    let top = items.iter().map(|item| item.y - item.height() / 2.0).fold(f64::INFINITY, f64::min);
    items.iter_mut().for_each(|item| item.y = (item.y - top).round());
}

/// All edges that fire on the same outcome, as one path for their lines and one for their tips.
struct Edges {
    fires_on: FiresOn,
    lines: String,
    tips: String,
}

impl Edges {
    fn drawn(&self) -> Markup {
        let class = match self.fires_on {
            FiresOn::Completed => "on-completed",
            FiresOn::Dead => "on-dead",
            FiresOn::Cancelled => "on-cancelled",
            FiresOn::Any => "on-any",
        };
        html! {
            path.edge.(class) d=(self.lines) {}
            path.edge.tip.(class) d=(self.tips) {}
        }
    }
}

/// Returns the edges. At a job, an edge ends with a tip.
fn edges(items: &[Item]) -> Vec<Edges> {
    let mut all = FiresOn::ALL.map(|fires_on| Edges { fires_on, lines: String::new(), tips: String::new() });
    for item in items {
        for (source, fires_on) in &item.from {
            let Some(edges) = all.iter_mut().find(|edges| edges.fires_on == *fires_on) else { continue };
            let (from, to) = (items[*source].x() + WIDTH, item.x());
            let (y, bend) = (item.y, BESIDE / 2.0);
            // Writing to a string cannot fail.
            let _ = write!(edges.lines, "M{from} {}C{} {0} {} {y} {to} {y}", items[*source].y, from + bend, to - bend);
            let _ = match item.job {
                Some(_) => write!(edges.tips, "M{} {}l7 4-7 4", to - 7.0, y - 4.0),
                None => write!(edges.lines, "h{WIDTH}"),
            };
        }
    }
    all.into_iter().filter(|edges| !edges.lines.is_empty()).collect()
}

fn drawn(job: &WorkflowJobRow, item: &Item, link: &str) -> Markup {
    let top = item.y - HEIGHT / 2.0;
    html! {
        a href=(link) tabindex="-1" class=(job.state.name()) transform=(format!("translate({} {top})", item.x())) {
            title { (text::brief(&job.name, MOST_TITLE)) ": " (job.state.name()) }
            rect width=(WIDTH) height=(HEIGHT) rx="6" {}
            path.mark transform="translate(17 21)" d=(mark(job.state)) {}
            // What does not fit into this inner drawing is cut off.
            svg x="32" width=(WIDTH - 36.0) height=(HEIGHT) {
                text y="18" { (text::brief(&job.name, MOST_NAME)) }
                text.soft y="34" { (job.state.name()) }
            }
        }
    }
}

/// Returns the shape that tells a state, around the point 0, 0.
fn mark(state: WorkflowJobState) -> &'static str {
    match state {
        WorkflowJobState::Completed => "M-6 0l4 5 8-10",
        WorkflowJobState::Dead => "M-5-5L5 5M5-5L-5 5",
        WorkflowJobState::Running => "M-4-6L6 0L-4 6z",
        WorkflowJobState::Ready => "M6 0A6 6 0 1 1-6 0A6 6 0 1 1 6 0z",
        WorkflowJobState::Delayed => "M6 0A6 6 0 1 1-6 0A6 6 0 1 1 6 0zM0-4V0H3",
        WorkflowJobState::Blocked => "M-5-5H5V5H-5z",
        WorkflowJobState::Cancelled => "M-6 0H6",
        WorkflowJobState::Skipped => "M-6-5L-1 0L-6 5M0-5L5 0L0 5",
        _ => "M-5 0H-4M-.5 0H.5M4 0H5",
    }
}

/// Draws what the shapes and the lines mean, as far as the drawing has them.
fn legend(label: &str, jobs: &[WorkflowJobRow], edges: &[Edges]) -> Markup {
    let states = WorkflowJobState::ALL.into_iter().filter(|state| jobs.iter().any(|job| job.state == *state));
    html! {
        figcaption {
            (label)
            @for state in states {
                span.legend {
                    svg aria-hidden="true" width="16" height="16" viewBox="-8 -8 16 16" class=(state.name()) {
                        path.mark d=(mark(state)) {}
                    }
                    (state.name())
                }
            }
            @for edges in edges {
                @let sample =
                    Edges { fires_on: edges.fires_on, lines: "M1 0H34".into(), tips: "M27-4l7 4-7 4".into() };
                span.legend {
                    svg aria-hidden="true" width="36" height="16" viewBox="0 -8 36 16" { (sample.drawn()) }
                    (after(edges.fires_on))
                }
            }
        }
    }
}

/// Says in words when an edge lets the waiting job start.
pub fn after(fires_on: FiresOn) -> &'static str {
    match fires_on {
        FiresOn::Completed => "once completed",
        FiresOn::Dead => "once dead",
        FiresOn::Cancelled => "once cancelled",
        FiresOn::Any => "after any end",
    }
}
