//! Which jobs of a workflow can wait for each other. `reveille.refusal_of_linked_jobs` refuses the same by the same
//! texts, for callers in SQL.

use std::collections::{HashMap, HashSet};

use super::linked::{Dependency, LinkedJob, LinkedJobs, LinkedTarget, check_has_no_unique_key};
use crate::error::{Error, Result};

/// The most characters of an unknown name that an error quotes.
const MOST_QUOTED: usize = 60;
/// The largest input of a workflow, and the largest result of a linked job, in bytes.
pub(crate) const MOST_BYTES: usize = 1024 * 1024;

impl LinkedJobs {
    /// Refuses linked jobs that no store can keep. `is_member` returns true if the workflow has a job of this name
    /// already.
    ///
    /// # Errors
    /// Invalid if a name occurs twice or is unknown, if a job waits for another one twice, or if the jobs wait for each
    /// other in a circle. Invalid also if the name, the unique key or the input of the workflow is refused, or the list
    /// of ids.
    pub fn check(&self, is_member: impl Fn(&str) -> bool) -> Result<()> {
        self.jobs.iter().try_for_each(LinkedJob::check)?;
        let refusal = match &self.target {
            LinkedTarget::New { name, unique_key, input, seal, .. } => {
                let input = input.as_ref().map_or(0, |input| input.written_len());
                refusal_of_workflow(name, unique_key.as_deref(), input)
                    .or_else(|| refusal_of_jobs(&self.jobs, is_member))
                    .or_else(|| (*seal && self.jobs.is_empty()).then(|| "a workflow needs at least one job".into()))
            }
            LinkedTarget::Existing { .. } => refusal_of_jobs(&self.jobs, is_member),
            LinkedTarget::Jobs { ids, job, .. } => {
                check_has_no_unique_key(job)?;
                refusal_of_ids(ids)
            }
        };
        refusal.map_or(Ok(()), |refusal| Err(Error::invalid(format!("cannot enqueue: {refusal}"))))
    }
}

fn refusal_of_workflow(name: &str, unique_key: Option<&str>, input: usize) -> Option<String> {
    if name.is_empty() || name.chars().count() > 128 {
        return Some("a workflow's name must have 1 to 128 characters".into());
    }
    if unique_key.is_some_and(|key| key.is_empty() || key.len() > 512) {
        return Some("unique_key must have 1 to 512 bytes".into());
    }
    let advice = "Keep large data elsewhere and pass a reference.";
    (input > MOST_BYTES).then(|| format!("the input of a workflow is larger than 1 MiB ({advice})"))
}

fn refusal_of_ids(ids: &[i64]) -> Option<String> {
    if ids.is_empty() {
        return Some("after must be the ids of one or more jobs".into());
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() < ids.len()).then(|| "after names a job twice".into())
}

fn refusal_of_jobs(jobs: &[LinkedJob], is_member: impl Fn(&str) -> bool) -> Option<String> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, job) in jobs.iter().enumerate() {
        if places.insert(&job.name, place).is_some() || is_member(&job.name) {
            return Some(format!("the name {} occurs twice", quoted(&job.name)));
        }
    }
    let knows = |name: &str| places.contains_key(name) || is_member(name);
    let refused = jobs.iter().find_map(|job| {
        let directions = [job.after.as_deref().unwrap_or_default(), &job.before];
        directions.into_iter().find_map(|others| refusal_of_dependencies(&job.name, others, knows))
    });
    refused.or_else(|| circle(jobs, &places)).or_else(|| refusal_of_labels(jobs))
}

/// Refuses a job that waits for another one by its own `after` and by the `before` of the other one.
fn refusal_of_labels(jobs: &[LinkedJob]) -> Option<String> {
    let mut edges: HashSet<(&str, &str)> = HashSet::new();
    let is_second = jobs.iter().any(|job| {
        let after = job.after.iter().flatten().map(|other| (job.name.as_str(), other.name.as_str()));
        let before = job.before.iter().map(|other| (other.name.as_str(), job.name.as_str()));
        after.chain(before).any(|edge| !edges.insert(edge))
    });
    is_second.then(|| {
        "a job would read two results under one label (Give each prerequisite of a job a label of its own.)".into()
    })
}

fn refusal_of_dependencies(name: &str, others: &[Dependency], knows: impl Fn(&str) -> bool) -> Option<String> {
    let mut seen: HashSet<&str> = HashSet::new();
    others.iter().find_map(|other| {
        let is_second = !seen.insert(&other.name);
        match other.name.as_str() {
            own if own == name => Some(format!("job {} waits for itself", quoted(name))),
            other if is_second => Some(format!("job {} waits for {} twice", quoted(name), quoted(other))),
            other if !knows(other) => {
                let other: String = other.chars().take(MOST_QUOTED).collect();
                Some(format!("job {}: {} is not a job of the workflow", quoted(name), quoted(&other)))
            }
            _ => None,
        }
    })
}

/// Describes a circle of new jobs that wait for each other. `places` are the places of the jobs by their names.
fn circle(jobs: &[LinkedJob], places: &HashMap<&str, usize>) -> Option<String> {
    let mut prerequisites: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    for (place, job) in jobs.iter().enumerate() {
        let place_of = |other: &Dependency| places.get(other.name.as_str()).copied();
        prerequisites[place].extend(job.after.iter().flatten().filter_map(place_of));
        job.before.iter().filter_map(place_of).for_each(|waiter| prerequisites[waiter].push(place));
    }
    let circle = find_circle(&prerequisites)?;
    let names: Vec<String> = circle.iter().map(|&place| quoted(&jobs[place].name)).collect();
    let (first, others) = names.split_first()?;
    Some(format!("the jobs wait for each other in a circle: {first} waits for {}", others.join(", which waits for ")))
}

/// Returns the places along a circle, the first one also as the last; `None` if there is no circle. A job that waits
/// for others, which wait for others, is followed along a path on the heap, since a chain may be long.
fn find_circle(prerequisites: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut is_done = vec![false; prerequisites.len()];
    // The number of prerequisites of a job on the path that were followed; `None` for a job that is not on the path.
    let mut followed: Vec<Option<usize>> = vec![None; prerequisites.len()];
    for root in 0..prerequisites.len() {
        let mut path = if is_done[root] { Vec::new() } else { vec![root] };
        while let Some(&at) = path.last() {
            let count = followed[at].unwrap_or_default();
            followed[at] = Some(count + 1);
            match prerequisites[at].get(count) {
                Some(&next) if is_done[next] => {}
                Some(&next) if followed[next].is_some() => {
                    let begin = path.iter().position(|&place| place == next)?;
                    path.push(next);
                    return Some(path.split_off(begin));
                }
                Some(&next) => path.push(next),
                None => {
                    (is_done[at], followed[at]) = (true, None);
                    path.pop();
                }
            }
        }
    }
    None
}

fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_wherever_it_begins() {
        assert_eq!(find_circle(&[vec![], vec![0], vec![0, 1], vec![2, 1]]), None);
        assert_eq!(find_circle(&[vec![1], vec![2], vec![3, 1], vec![]]), Some(vec![1, 2, 1]));
        assert_eq!(find_circle(&[vec![], vec![3], vec![1], vec![2]]), Some(vec![1, 3, 2, 1]));
    }

    #[test]
    fn a_long_chain_is_no_circle() {
        let chain: Vec<Vec<usize>> = (0..200_000).map(|place| vec![place + 1]).chain([vec![]]).collect();
        assert_eq!(find_circle(&chain), None);
    }
}
