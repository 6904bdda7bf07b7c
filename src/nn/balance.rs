//! Load balancing of experts, over all layers of a stack.

use super::experts::GateOutput;
use super::switch::balance_by_text;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops;
use std::collections::BTreeMap;

/// The losses of the gates of a stack, and how their biases move.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balance {
    /// The coefficient of the load-balancing loss.
    pub loss: f32,
    /// The coefficient of the router z-loss.
    pub z: f32,
    /// The step of the bias of the choice, where there is one.
    pub bias_rate: f32,
}

impl Balance {
    /// The auxiliary loss without and with its coefficients, from the gates of all layers.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn losses(&self, g: &mut Graph, gates: &[GateOutput]) -> Result<(Tensor, Option<Tensor>)> {
        let scores: Vec<Tensor> = gates.iter().map(|gate| gate.scores).collect();
        let counts: Vec<Tensor> = gates.iter().map(|gate| gate.counts).collect();
        // All gates of a model choose as many.
        let k = gates.first().map_or(1, |gate| g.shape(gate.chosen).last());
        let by_text: Vec<[Tensor; 2]> = gates.iter().filter_map(|gate| gate.by_text).collect();
        let balance = match balance_by_text(g, gates, &by_text)? {
            Some(balance) => balance,
            None => ops::load_balance_loss(g, &scores, &counts, k)?,
        };
        let mut parts = Vec::new();
        if self.loss > 0.0 {
            parts.push(ops::scale(g, balance, self.loss)?);
        }
        if self.z > 0.0 {
            for gate in gates {
                let mut z = ops::router_z_loss(g, gate.lse)?;
                if let Some(share) = gate.share {
                    z = ops::scale_by(g, z, share)?;
                }
                parts.push(ops::scale(g, z, self.z / gates.len() as f32)?);
            }
        }
        let mut parts = parts.into_iter();
        let Some(mut sum) = parts.next() else { return Ok((balance, None)) };
        for part in parts {
            sum = ops::add(g, sum, part)?;
        }
        Ok((balance, Some(sum)))
    }

    /// The router z-loss without its coefficient.
    ///
    /// # Errors
    /// Those of the ops.
    pub(super) fn z_loss(g: &mut Graph, gates: &[GateOutput]) -> Result<Option<Tensor>> {
        let mut sum = None;
        for gate in gates {
            let mut z = ops::router_z_loss(g, gate.lse)?;
            if let Some(share) = gate.share {
                z = ops::scale_by(g, z, share)?;
            }
            let z = ops::scale(g, z, 1.0 / gates.len() as f32)?;
            sum = Some(match sum {
                Some(sum) => ops::add(g, sum, z)?,
                None => z,
            });
        }
        Ok(sum)
    }

    /// Moves the biases of the choice towards an even load, after everything has read them. A layer that is used several times
    /// has one bias, which moves once, by the loads of all its uses.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn update_biases(&self, g: &mut Graph, gates: &[GateOutput]) -> Result<()> {
        let mut loads: BTreeMap<Tensor, Tensor> = BTreeMap::new();
        for gate in gates {
            let Some(bias) = gate.bias else { continue };
            let load = match loads.get(&bias) {
                Some(before) => ops::add(g, *before, gate.counts)?,
                None => gate.counts,
            };
            loads.insert(bias, load);
        }
        for (bias, load) in loads {
            ops::update_bias(g, bias, load, self.bias_rate)?;
        }
        Ok(())
    }
}
