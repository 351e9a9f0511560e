//! What links a job with others, on the job's page: its workflow, its prerequisites, and the jobs that wait for it.

use maud::{Markup, html};
use reveille::admin::{DependencyState, JobLink, JobLinks, WorkflowOfJob};

use super::workflow;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{graph, text, time};
use crate::readings::Reading;
use crate::visit::Visit;

/// The largest number of jobs in each direction.
const MOST: u32 = 20;
/// The number of bytes of the page that a name may take.
const MOST_NAME: usize = 128;

pub async fn read(visit: &Visit, id: i64) -> Reading<JobLinks> {
    visit.read(format!("links of job {id}"), move |admin| async move { admin.job_links(id, MOST).await }).await
}

/// Returns the workflow of the job, if it belongs to one that the visitor may see.
pub fn workflow_of<'a>(visit: &Visit, links: &'a Reading<JobLinks>) -> Option<&'a WorkflowOfJob> {
    let sees = visit.sees_section(Section::Workflows);
    links.value().ok()?.workflow.as_ref().filter(|_| sees)
}

/// Draws the job's name in its workflow, with a link to the workflow.
pub fn place_in(visit: &Visit, of: &WorkflowOfJob) -> Markup {
    html! {
        (text::brief(&of.job_name, MOST_NAME)) " of "
        a href=(visit.to(&format!("workflows/{}", of.id))) { (text::brief(&of.name, MOST_NAME)) " " (of.id) }
    }
}

/// Draws the jobs at both sides. A visitor of some queues sees the jobs of these queues.
pub fn tables(visit: &Visit, links: &Reading<JobLinks>) -> Markup {
    parts::reading(links, |links| {
        html! {
            (table(visit, "Waits for", "Needs", &links.prerequisites))
            (table(visit, "Jobs that wait for it", "Need it", &links.waiters))
        }
    })
}

fn table(visit: &Visit, title: &str, needs: &str, links: &[JobLink]) -> Markup {
    let columns = [
        Column::Text("Job"),
        Column::Second("Kind"),
        Column::Second("Queue"),
        Column::Text(needs),
        Column::Text("Dependency"),
    ];
    let sees =
        |link: &&JobLink| link.queue.as_ref().map_or(visit.viewer.queues.is_none(), |queue| visit.viewer.sees(queue));
    let seen: Vec<&JobLink> = links.iter().filter(sees).collect();
    html! {
        @if !seen.is_empty() {
            h2 { (title) }
            (parts::table(title, &columns, html! { @for link in seen { (row(visit, link)) } }))
            @if links.len() as u32 == MOST { p.hint { "There may be more. These are of the first " (MOST) "." } }
        }
    }
}

fn row(visit: &Visit, link: &JobLink) -> Markup {
    let address = visit.to(&format!("jobs/{}", link.job));
    let (state, class) = match link.state {
        DependencyState::Open => ("open", ""),
        DependencyState::Met => ("met", "good"),
        DependencyState::Held => ("held", "bad"),
        _ => ("skipped", "warn"),
    };
    html! {
        tr data-href=(address) data-key=(link.job) {
            th scope="row" {
                a.id href=(address) { (link.job) }
                @if let Some(state) = link.job_state { (workflow::state(state)) }
                @if let Some(name) = &link.name { div.sub { (text::brief(name, MOST_NAME)) } }
            }
            td.second { @match &link.kind { Some(kind) => (text::brief(kind, MOST_NAME)), None => (time::none()) } }
            td.second { @if let Some(queue) = &link.queue { (text::brief(queue, MOST_NAME)) } }
            td { (graph::after(link.fires_on)) }
            td { (parts::badge(state, class)) }
        }
    }
}

/// Draws what a workflow still knows of a job whose history is gone.
pub fn of_gone_job(visit: &Visit, id: i64, of: &WorkflowOfJob, links: &Reading<JobLinks>) -> Markup {
    html! {
        div.bar { h1 { (text::brief(&of.job_name, MOST_NAME)) " " span.soft { (id) } (workflow::state(of.job_state)) } }
        p.hint { "The job's history is gone: a finished job is kept for its queue's retention. Its workflow is known." }
        dl.facts {
            dt { "Workflow" } dd { (place_in(visit, of)) }
            @if of.ended_at.is_some() { dt { "Ended" } dd { (time::ago(of.ended_at)) } }
        }
        (tables(visit, links))
    }
}
