//! The order in which a drawing shows the jobs of a workflow.

use std::collections::HashMap;

use super::WorkflowJobRow;

impl WorkflowJobRow {
    /// Returns the layer of each job: 0 if it waits for no job, else one more than the highest layer of a prerequisite.
    /// A prerequisite that is not among the jobs counts as one of layer 0.
    pub fn layers(jobs: &[WorkflowJobRow]) -> Vec<usize> {
        let prerequisites = jobs.iter().map(|job| {
            let names = job.prerequisites.iter().map(|other| other.name.as_str());
            (job.name.as_str(), names.collect())
        });
        layers(&prerequisites.collect::<Vec<_>>())
    }
}

/// Returns the layer of each job, given its name and the names of its prerequisites.
fn layers(jobs: &[(&str, Vec<&str>)]) -> Vec<usize> {
    let places: HashMap<&str, usize> = jobs.iter().enumerate().map(|(place, (name, _))| (*name, place)).collect();
    let mut waiters: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    let mut open = vec![0_usize; jobs.len()];
    for (place, (_, others)) in jobs.iter().enumerate() {
        for other in others.iter().filter_map(|other| places.get(other)) {
            waiters[*other].push(place);
            open[place] += 1;
        }
    }
    let mut layers: Vec<usize> = jobs.iter().map(|(_, others)| usize::from(!others.is_empty())).collect();
    let mut decided: Vec<usize> = (0..jobs.len()).filter(|place| open[*place] == 0).collect();
    while let Some(place) = decided.pop() {
        for waiter in std::mem::take(&mut waiters[place]) {
            layers[waiter] = layers[waiter].max(layers[place] + 1);
            open[waiter] -= 1;
            if open[waiter] == 0 {
                decided.push(waiter);
            }
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_stands_in_the_layer_after_all_that_it_waits_for() {
        let jobs = [
            ("report", vec!["extract", "load"]),
            ("load", vec!["extract"]),
            ("extract", vec![]),
            ("late", vec!["a job that was not read"]),
        ];
        assert_eq!(layers(&jobs), [2, 1, 0, 1]);
    }
}
