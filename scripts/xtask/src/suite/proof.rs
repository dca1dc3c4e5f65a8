//! `scripts/test --proof`: the policy's model, the faults that it must find, and the mutation score.

use std::path::Path;

use harness::Result;

use super::{Context, Test};
use crate::mutation::{self, Score};
use crate::process::{caller_path, root};
use crate::proof;

/// What was measured in this run; what was not is left out.
#[derive(Debug, Default)]
pub struct Proved {
    model_states: Option<u64>,
    /// Each fault that was put back, and whether it broke what it must.
    faults: Vec<(String, bool)>,
    score: Option<Score>,
}

/// All of them.
pub fn tests() -> Result<Vec<Test>> {
    let mut tests = vec![Test::new("proof/model", |context| {
        let states = proof::explore(&[])?;
        context.prove(|proved| proved.model_states = Some(states));
        Ok(())
    })];
    tests.extend(proof::mutants(&root())?.into_iter().map(|mutant| {
        Test::new(format!("proof/fault-{}", mutant.name), move |context| {
            let judged = mutant.judge(context.sources()?)?;
            context.prove(|proved| proved.faults.push((mutant.name.clone(), judged.is_ok())));
            let steps = judged?;
            println!("{}: breaks {} in {steps} steps", mutant.name, mutant.expected);
            Ok(())
        })
    }));
    tests.push(Test::new("proof/mutation-score", mutation_score));
    Ok(tests)
}

fn mutation_score(context: &Context) -> Result<()> {
    let score = mutation::score()?;
    let (percent, missed) = (score.percent(), score.missed.clone());
    let (caught, same) = (score.caught, score.equivalent.len());
    println!(
        "mutation score {percent} %: {caught} caught, {} not, {same} equivalent",
        missed.len()
    );
    missed.iter().for_each(|fault| println!("not caught: {fault}"));
    context.prove(|proved| proved.score = Some(score));
    if percent < mutation::ENOUGH {
        return Err(format!("{percent} % are caught, {} % must be", mutation::ENOUGH).into());
    }
    Ok(())
}

/// Writes what was proved, as JSON.
pub fn write(proved: &Proved, file: &Path) -> Result<()> {
    let path = caller_path(file);
    std::fs::write(&path, proved.json())
        .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

impl Proved {
    fn json(&self) -> String {
        let mut fields = Vec::new();
        let mut field = |name: &str, value: String| fields.push(format!("  \"{name}\": {value}"));
        let list = |items: &mut dyn Iterator<Item = &String>| {
            // Debug's escapes of such texts are those of JSON.
            let items: Vec<_> = items.map(|it| format!("    {it:?}")).collect();
            if items.is_empty() { "[]".into() } else { format!("[\n{}\n  ]", items.join(",\n")) }
        };
        if let Some(states) = self.model_states {
            field("model_states", states.to_string());
        }
        if !self.faults.is_empty() {
            let missed: Vec<_> = self.faults.iter().filter(|(_, caught)| !caught).collect();
            field("mutants", self.faults.len().to_string());
            field("mutants_caught", (self.faults.len() - missed.len()).to_string());
            field("mutants_missed", list(&mut missed.into_iter().map(|(name, _)| name)));
        }
        if let Some(score) = &self.score {
            field("mutation_score", format!("{:.1}", score.percent()));
            field("mutation_caught", score.caught.to_string());
            field("mutation_unviable", score.unviable.to_string());
            field("mutation_missed", list(&mut score.missed.iter()));
            field("mutation_equivalent", list(&mut score.equivalent.iter()));
        }
        format!("{{\n{}\n}}\n", fields.join(",\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_written() {
        let score =
            Score { caught: 39, missed: vec!["a \"b\"".into()], unviable: 2, equivalent: vec![] };
        let faults = vec![("one".into(), true), ("two".into(), false)];
        let all = Proved { model_states: Some(7), faults, score: Some(score) };
        let expected = "{\n  \"model_states\": 7,\n  \"mutants\": 2,\n  \"mutants_caught\": 1,\n  \
            \"mutants_missed\": [\n    \"two\"\n  ],\n  \"mutation_score\": 97.5,\n  \
            \"mutation_caught\": 39,\n  \"mutation_unviable\": 2,\n  \
            \"mutation_missed\": [\n    \"a \\\"b\\\"\"\n  ],\n  \"mutation_equivalent\": []\n}\n";
        assert_eq!(all.json(), expected);
        let states = Proved { model_states: Some(7), ..Proved::default() };
        assert_eq!(states.json(), "{\n  \"model_states\": 7\n}\n");
    }
}
