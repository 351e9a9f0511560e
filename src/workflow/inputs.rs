//! The results of the jobs that a job has waited for.

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::handler::{Context, Extract, Output};
use crate::job::{Input, Labels};

/// The number of inputs that are read at once.
const PAGE: usize = 100;

/// The outcomes and results of the jobs that a job has waited for. A handler takes it as an argument.
///
/// The results are read from the store when they are asked for. They pass the worker's middleware, so encrypted results
/// are decrypted.
///
/// ```
/// # use reveille::{Job, handler::Inputs};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Load;
/// # impl Job for Load { const KIND: &'static str = "load"; }
/// async fn load(_: Load, inputs: Inputs) -> reveille::Result<()> {
///     let rows: Vec<String> = inputs.get("extract").await?;
///     // …
/// #   drop(rows);
///     Ok(())
/// }
/// # drop(reveille::Worker::builder(reveille::driver::Memory::new()).handle(load));
/// ```
#[derive(Clone)]
pub struct Inputs {
    context: Context,
}

impl Extract for Inputs {
    fn extract(context: &Context) -> Inputs {
        Inputs { context: context.clone() }
    }
}

impl Inputs {
    /// Returns the result of the job with this label: its name in the workflow. The result of a job without a workflow
    /// has the job's id as its label, and is known as long as the history of its queue.
    ///
    /// # Errors
    /// Invalid if the job has not waited for a job of this label, or that job has no result, or the result does not
    /// decode to the type, or a middleware cannot read it, such as without its key. Unavailable if the database cannot
    /// be reached.
    pub async fn get<T: DeserializeOwned>(&self, label: &str) -> Result<T> {
        let missing = |what: String| self.unreadable(&what);
        let input = self.find(label).await?.ok_or_else(|| missing(format!("it has not waited for {label:?}")))?;
        let outcome = input.outcome.as_deref().unwrap_or("not ended, or its end is no longer known");
        let no_result = || missing(format!("job {} ({label:?}) has no result: it is {outcome}", input.job));
        let result = input.result.as_ref().ok_or_else(no_result)?;
        result.decode().map_err(|error| missing(format!("the result of {label:?} has another form: {error}")))
    }

    /// Returns the input with this label; `None` if the job has not waited for a job of this label.
    ///
    /// # Errors
    /// Invalid if a middleware cannot read a result. Unavailable if the database cannot be reached.
    pub async fn find(&self, label: &str) -> Result<Option<Input>> {
        Ok(self.read(Labels::One(label)).await?.pop())
    }

    /// Returns all inputs in the order of their labels. They are read in pages of 100.
    ///
    /// # Errors
    /// Invalid if a middleware cannot read a result. Unavailable if the database cannot be reached.
    pub async fn all(&self) -> Result<Vec<Input>> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map_or("", |input: &Input| input.label.as_str());
            let page = self.page(after).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Returns up to 100 inputs whose labels come after this one, in the order of the labels; the first ones after
    /// `""`. With a job that waits for a million others, the inputs need not be in memory together.
    ///
    /// # Errors
    /// Invalid if a middleware cannot read a result. Unavailable if the database cannot be reached.
    pub async fn page(&self, after: &str) -> Result<Vec<Input>> {
        self.read(Labels::After { label: after, most: PAGE }).await
    }

    async fn read(&self, labels: Labels<'_>) -> Result<Vec<Input>> {
        let inputs = self.context.driver().inputs(self.context.id(), labels).await?;
        let mut load = self.context.load_of_others();
        // The result as its handler returned it.
        let opened = |mut input: Input| {
            let (Some(kind), Some(result)) = (&input.kind, &input.result) else { return Ok(input) };
            let of =
                |what: &str| self.unreadable(&format!("the result of job {} ({:?}): {what}", input.job, input.label));
            let result = match load(input.job, kind, Output::Result(result.clone())) {
                Ok(Output::Result(result)) => result,
                Ok(_) => return Err(of("a middleware has replaced it")),
                Err(error) => return Err(of(&error.to_string())),
            };
            input.result = Some(result);
            Ok(input)
        };
        inputs.into_iter().map(opened).collect()
    }

    fn unreadable(&self, what: &str) -> Error {
        Error::invalid(format!("job {} cannot read its input: {what}", self.context.id()))
    }
}
