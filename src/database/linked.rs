//! The statements that enqueue linked jobs on any client.

use tokio_postgres::types::Type;

use super::insert::{Insert, TypedValue, params};
use super::json::{Members, write_job, write_value};
use super::schema::Schema;
use crate::error::Result;
use crate::job::Payload;
use crate::job::linked::{Dependency, LinkedJob, LinkedJobs, LinkedTarget};

/// The largest number of jobs in one part of a statement's parameter. The server checks and stores the parts one after
/// another.
const PART: usize = 5000;

impl<'a> Insert<'a> {
    /// Returns the statement that stores these jobs.
    ///
    /// A wrong graph of a new workflow is refused here, so that the caller's transaction can go on. The server checks
    /// the jobs too, since only the server knows the jobs of a workflow that exists.
    pub(crate) fn of_linked(schema: &Schema, linked: &'a LinkedJobs) -> Result<Insert<'a>> {
        if !matches!(linked.target, LinkedTarget::Existing { .. }) {
            linked.check(|_| false)?;
        }
        let (sql, params) = match &linked.target {
            LinkedTarget::New { name, unique_key, input, parent, seal, takes_schedule } => {
                let mut params: Vec<TypedValue<'a>> = vec![
                    (Box::new(name), Type::TEXT),
                    (Box::new(parts(&linked.jobs)?), Type::JSONB_ARRAY),
                    (Box::new(unique_key), Type::TEXT),
                    (Box::new(input), Type::JSONB),
                    (Box::new(parent), Type::INT8),
                ];
                if *takes_schedule {
                    (include_str!("../../sql/start_workflow.sql"), params)
                } else {
                    params.push((Box::new(seal), Type::BOOL));
                    (include_str!("../../sql/enqueue_workflow.sql"), params)
                }
            }
            LinkedTarget::Existing { id, seal } => {
                let params: Vec<TypedValue<'a>> = vec![
                    (Box::new(id), Type::INT8),
                    (Box::new(parts(&linked.jobs)?), Type::JSONB_ARRAY),
                    (Box::new(seal), Type::BOOL),
                ];
                (include_str!("../../sql/add_to_workflow.sql"), params)
            }
            LinkedTarget::Jobs { ids, job, fires_on, cancel_if_dead, needs_one } => {
                let mut params = params(job, (Box::new(&job.payload), Type::JSONB));
                params.push((Box::new(ids), Type::INT8_ARRAY));
                params.push((Box::new(fires_on.name()), Type::TEXT));
                params.push((Box::new(if *cancel_if_dead { "cancel" } else { "hold" }), Type::TEXT));
                params.push((Box::new(if *needs_one { "first" } else { "all" }), Type::TEXT));
                (include_str!("../../sql/enqueue_after.sql"), params)
            }
        };
        Ok(Insert::new(schema.apply(sql), params))
    }
}

/// Returns the jobs as JSON arrays.
fn parts(jobs: &[LinkedJob]) -> Result<Vec<Payload>> {
    jobs.chunks(PART).map(part).collect()
}

fn part(jobs: &[LinkedJob]) -> Result<Payload> {
    let mut json = vec![b'['];
    for job in jobs {
        if json.len() > 1 {
            json.push(b',');
        }
        write(job, &mut json)?;
    }
    json.push(b']');
    Ok(Payload::from_written(json))
}

/// Writes a job of a workflow as `reveille.enqueue_workflow` takes it.
pub(crate) fn write(linked: &LinkedJob, json: &mut Vec<u8>) -> Result<()> {
    write_job(&linked.job, json)?;
    // The name and the dependencies follow behind the last member of the job.
    json.pop();
    let mut members = Members(json);
    members.add("name", Some(&linked.name))?;
    members.add("wait_for", linked.needs_one.then_some("first"))?;
    if let Some(after) = &linked.after {
        dependencies("after", after, json)?;
    }
    if !linked.before.is_empty() {
        dependencies("before", &linked.before, json)?;
    }
    json.push(b'}');
    Ok(())
}

fn dependencies(direction: &str, dependencies: &[Dependency], json: &mut Vec<u8>) -> Result<()> {
    json.extend_from_slice(b",\"");
    json.extend_from_slice(direction.as_bytes());
    json.extend_from_slice(b"\":[");
    for (place, dependency) in dependencies.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"name\":");
        write_value(&dependency.name, json)?;
        let mut members = Members(json);
        members.add("fires_on", Some(dependency.fires_on.name()))?;
        members.add("on_dead", dependency.cancel_if_dead.then_some("cancel"))?;
        json.push(b'}');
    }
    json.push(b']');
    Ok(())
}
