//! The decisions of routers for each token of a text.

use super::{Decoder, TokenInputs};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, Tensor};
use crate::program::{Program, Weights, unpack};

/// The decisions of a router for each token of a text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TokenRoutes {
    /// `experts.0` of the first block with experts, …, or `depth`.
    pub router: String,
    /// For each token the experts that took it, the best first (none if it did not come so far), or the number of
    /// recursions it went through.
    pub choices: Vec<Vec<u32>>,
    /// The number of experts or recursions.
    pub of: usize,
}

impl TokenRoutes {
    /// The number of tokens of each expert or depth; depths count from 0.
    #[must_use]
    pub fn loads(&self) -> Vec<usize> {
        let mut loads = vec![0; self.of + usize::from(self.is_depth())];
        for choice in self.choices.iter().flatten() {
            if let Some(load) = loads.get_mut(*choice as usize) {
                *load += 1;
            }
        }
        loads
    }

    /// Whether choices are numbers of recursions.
    #[must_use]
    pub fn is_depth(&self) -> bool {
        self.router == "depth"
    }
}

/// Runs a text through a model and tells where its routers sent each token.
///
/// # Errors
/// [`Error::Input`] if the text is empty or too long, or the model has no routers; those of the run.
pub fn token_routes(gpu: &Gpu, model: &dyn Decoder, weights: &Weights, ids: &[u32]) -> Result<Vec<TokenRoutes>> {
    if ids.is_empty() {
        return Err(Error::input("text", "it has no tokens: there is nothing to route"));
    }
    let mut g = Graph::with_storage(weights.storage());
    let input = g.input("ids", [1, ids.len()], DType::U32)?;
    let inputs = TokenInputs::new(&mut g, input)?;
    let hidden = model.decode(&mut g, &inputs)?;
    let decides = |name: &str| !name.starts_with("taken.") && !name.starts_with("positions.");
    let decisions: Vec<&(String, Tensor)> =
        hidden.routing.iter().filter(|(name, t)| g.dtype(*t) == DType::U32 && decides(name)).collect();
    if decisions.is_empty() {
        return Err(Error::input("model", "it has no routers: every token takes the same way"));
    }
    for (name, tensor) in &decisions {
        g.output(name, *tensor)?;
    }
    // Where the rows of a gate stand in the text.
    let positions = |name: &str| {
        let number = name.strip_prefix("experts.")?;
        hidden.routing.iter().find(|(other, _)| other.strip_prefix("positions.") == Some(number))
    };
    for (name, tensor) in decisions.iter().filter_map(|(name, _)| positions(name)) {
        g.output(name, *tensor)?;
    }
    let program = Program::new(gpu, &g, weights)?;
    program.write("ids", bytemuck::cast_slice(ids))?;
    program.run()?;
    let mut routes = Vec::new();
    let mut recursions: Vec<Vec<u32>> = Vec::new();
    for (name, tensor) in decisions {
        let read = |name: &str, tensor: Tensor| -> Result<Vec<u32>> {
            let numbers = unpack(&program.read(name)?, DType::U32, g.shape(tensor).numel());
            Ok(numbers.into_iter().map(|value| value as u32).collect())
        };
        let (count, values) = (g.shape(*tensor).numel(), read(name, *tensor)?);
        if name.starts_with("selected.") {
            recursions.push(values);
            continue;
        }
        let per_token = count / ids.len();
        let choices: Vec<Vec<u32>> = values.chunks(per_token.max(1)).map(<[u32]>::to_vec).collect();
        // A token of depth d goes through d + 1 recursions.
        let choices = match name.as_str() {
            "depth" => choices.into_iter().map(|c| c.into_iter().map(|depth| depth + 1).collect()).collect(),
            _ => choices,
        };
        let of = model.num_choices(name);
        let choices = match positions(name) {
            Some((positions, tensor)) => in_text(&choices_of(&values, &read(positions, *tensor)?), ids.len(), of),
            None => choices,
        };
        routes.push(TokenRoutes { router: name.clone(), choices, of });
    }
    if !recursions.is_empty() {
        let depth = |token: usize| recursions.iter().filter(|taken| taken.contains(&(token as u32))).count() as u32;
        let choices = (0..ids.len()).map(|token| vec![depth(token)]).collect();
        routes.push(TokenRoutes { router: "depth".into(), choices, of: recursions.len() });
    }
    Ok(routes)
}

/// The choices of each row with the position of its token.
fn choices_of(values: &[u32], positions: &[u32]) -> Vec<(u32, Vec<u32>)> {
    let per_token = values.len() / positions.len().max(1);
    positions.iter().copied().zip(values.chunks(per_token.max(1)).map(<[u32]>::to_vec)).collect()
}

/// The choices in the order of the text; rows without a token have none.
fn in_text(rows: &[(u32, Vec<u32>)], tokens: usize, of: usize) -> Vec<Vec<u32>> {
    let mut choices = vec![Vec::new(); tokens];
    for (position, chosen) in rows.iter().filter(|(_, chosen)| chosen.iter().any(|choice| (*choice as usize) < of)) {
        if let Some(slot) = choices.get_mut(*position as usize) {
            slot.clone_from(chosen);
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_gate_are_put_where_their_tokens_stand() {
        let rows = choices_of(&[1, 0, 2, 1, 3, 3], &[0, 2, 0]);
        assert_eq!(in_text(&rows, 3, 3), [vec![1, 0], vec![], vec![2, 1]]);
    }

    #[test]
    fn loads_count_every_choice_once_and_no_dropped_one() {
        let routes = |router: &str| TokenRoutes {
            router: router.into(),
            choices: vec![vec![0, 2], vec![2, 3], vec![2, 1]],
            of: 3,
        };
        assert_eq!(routes("experts.0").loads(), [1, 1, 3]);
        assert_eq!(routes("depth").loads(), [1, 1, 3, 1]);
    }
}
