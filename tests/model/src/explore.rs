//! Breadth-first exploration of all states, with the shortest way to what breaks a property.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

use crate::property::Property;

/// Actions, each with the state that it leads to or the property that it breaks.
pub type Found<A, S> = Vec<(A, Result<S, Property>)>;

/// What can be explored.
pub trait Model {
    /// A state.
    type State: Clone + PartialEq + Hash;
    /// What leads from a state to the next.
    type Action: Debug;

    /// The first state.
    fn initial(&self) -> Self::State;
    /// All actions in a state and what they lead to, always in the same order.
    fn next(&mut self, state: &Self::State, found: &mut Found<Self::Action, Self::State>);
    /// What must hold in a state.
    fn check(&self, state: &Self::State) -> Result<(), Property>;
    /// Whether this is a state that an exploration must come by, to have explored anything.
    fn is_goal(&self, state: &Self::State) -> bool;
    /// Whether a goal must be in reach from every state.
    const GOAL_STAYS_IN_REACH: bool;
}

/// What an exploration found.
#[derive(Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps from a state to another or itself.
    pub steps: usize,
    /// Goals among the states.
    pub goals: usize,
    /// Actions on the shortest way to the farthest state.
    pub depth: usize,
    /// The exploration came to its end: there is no other state.
    pub complete: bool,
    /// The property that does not hold, and the shortest way there.
    pub broken: Option<(Property, Vec<String>)>,
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// A state that was seen: the number of the one before it and of the action that led here.
struct Seen {
    before: u32,
    action: u32,
}

/// Explores `model` until all states are known, a property is broken, or `most` states were seen.
///
/// States are told apart by 64 bits of SipHash: among a million of them two are taken for one with a
/// probability of 3 in 100 million.
pub fn explore<M: Model>(model: &mut M, most: usize) -> Report {
    let first = model.initial();
    if let Err(property) = model.check(&first) {
        let broken = Some((property, Vec::new()));
        return Report { states: 1, steps: 0, goals: 0, depth: 0, complete: false, broken };
    }
    let mut numbers = HashMap::from([(fingerprint(&first), 0u32)]);
    let mut seen = vec![Seen { before: 0, action: 0 }];
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut goals: Vec<u32> = Vec::new();
    let (mut level, mut depth, mut steps) = (vec![(0u32, first)], 0, 0);
    let mut found = Vec::new();
    while !level.is_empty() && seen.len() < most {
        let mut next_level = Vec::new();
        for (number, state) in level {
            if model.is_goal(&state) {
                goals.push(number);
            }
            model.next(&state, &mut found);
            for (action, (name, outcome)) in found.drain(..).enumerate() {
                steps += 1;
                let checked = outcome.and_then(|next| model.check(&next).map(|()| next));
                let next = match checked {
                    Ok(next) => next,
                    Err(property) => {
                        let mut way = way(model, &seen, number);
                        way.push(format!("{name:?}"));
                        let broken = Some((property, way));
                        return Report {
                            states: seen.len(),
                            steps,
                            goals: goals.len(),
                            depth,
                            complete: false,
                            broken,
                        };
                    }
                };
                if next == state {
                    continue;
                }
                let to = match numbers.entry(fingerprint(&next)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(place) => {
                        let to = seen.len() as u32;
                        place.insert(to);
                        seen.push(Seen { before: number, action: action as u32 });
                        next_level.push((to, next));
                        to
                    }
                };
                if M::GOAL_STAYS_IN_REACH {
                    edges.push((number, to));
                }
            }
        }
        depth += usize::from(!next_level.is_empty());
        level = next_level;
    }
    let complete = level.is_empty();
    let stuck =
        if M::GOAL_STAYS_IN_REACH && complete { stuck(seen.len(), &edges, &goals) } else { None };
    let broken = stuck.map(|number| (Property::Honest, way(model, &seen, number)));
    Report { states: seen.len(), steps, goals: goals.len(), depth, complete, broken }
}

/// The first state from which no goal is in reach.
fn stuck(states: usize, edges: &[(u32, u32)], goals: &[u32]) -> Option<u32> {
    let mut before: Vec<Vec<u32>> = vec![Vec::new(); states];
    edges.iter().for_each(|&(from, to)| before[to as usize].push(from));
    let mut reaches = vec![false; states];
    let mut left = goals.to_vec();
    while let Some(number) = left.pop() {
        if !std::mem::replace(&mut reaches[number as usize], true) {
            left.extend(&before[number as usize]);
        }
    }
    reaches.iter().position(|reaches| !reaches).map(|number| number as u32)
}

/// The actions that lead to a state, performed once more.
fn way<M: Model>(model: &mut M, seen: &[Seen], number: u32) -> Vec<String> {
    let mut numbers = Vec::new();
    let mut at = number;
    while at != 0 {
        numbers.push(seen[at as usize].action);
        at = seen[at as usize].before;
    }
    let mut state = model.initial();
    let mut names = Vec::new();
    for action in numbers.into_iter().rev() {
        let mut found = Vec::new();
        model.next(&state, &mut found);
        if let Some((name, Ok(next))) = found.into_iter().nth(action as usize) {
            names.push(format!("{name:?}"));
            state = next;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up to `last`, in steps of one and two, and perhaps into a dead end.
    struct Count {
        last: u32,
        trap: Option<u32>,
        forbidden: Option<u32>,
    }

    impl Model for Count {
        type State = u32;
        type Action = u32;
        const GOAL_STAYS_IN_REACH: bool = true;

        fn initial(&self) -> u32 {
            0
        }

        fn next(&mut self, state: &u32, found: &mut Found<u32, u32>) {
            if self.trap != Some(*state) {
                found.extend([1, 2].map(|by| (by, Ok((state + by).min(self.last)))));
            }
        }

        fn check(&self, state: &u32) -> Result<(), Property> {
            if self.forbidden == Some(*state) { Err(Property::Hidden) } else { Ok(()) }
        }

        fn is_goal(&self, state: &u32) -> bool {
            *state == self.last
        }
    }

    #[test]
    fn all_states_are_found_once() {
        let report = explore(&mut Count { last: 9, trap: None, forbidden: None }, 100);
        assert_eq!((report.states, report.steps, report.depth, report.goals), (10, 20, 5, 1));
        assert!(report.complete && report.broken.is_none());
        let report = explore(&mut Count { last: 9, trap: None, forbidden: None }, 5);
        assert!(!report.complete);
    }

    #[test]
    fn the_way_to_what_is_broken_is_the_shortest() {
        let report = explore(&mut Count { last: 9, trap: None, forbidden: Some(5) }, 100);
        assert_eq!(
            report.broken,
            Some((Property::Hidden, vec!["1".into(), "2".into(), "2".into()]))
        );
        let report = explore(&mut Count { last: 9, trap: None, forbidden: Some(0) }, 100);
        assert_eq!(report.broken, Some((Property::Hidden, vec![])));
    }

    #[test]
    fn a_state_without_a_way_to_a_goal_is_found() {
        let report = explore(&mut Count { last: 9, trap: Some(4), forbidden: None }, 100);
        assert_eq!(report.broken, Some((Property::Honest, vec!["2".into(), "2".into()])));
    }
}
