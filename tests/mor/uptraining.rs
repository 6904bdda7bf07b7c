//! Recursions that start from a trained Llama.

use super::small::{decoder, upload, weights_of};
use super::{mor, token};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use wgformer::io::{Config, ModelFolder};
use wgformer::models::{self, Decoder, LayerInit, TokenInputs};
use wgformer::{DType, Gpu, Graph, Program, Result, Weights};

/// One recursion of all tokens is the Llama it starts from, bit for bit; several are layers of it, or means of them.
pub(crate) fn from_trained(gpu: &Gpu) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let save = |name: &str, config: Value| -> Result<(Box<dyn Decoder>, Weights, ModelFolder)> {
        let model = decoder(&mor(config))?;
        let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
        let path = folder.path().join(name);
        models::save(model.as_ref(), &weights, None, &path)?;
        Ok((model, weights, ModelFolder::open(&path)?))
    };
    let (llama, weights, trained) = save("llama", json!({"model_type": "llama", "num_hidden_layers": 6}))?;
    let config = |more: Value| {
        let mut config = mor(json!({"num_hidden_layers": 6, "num_recursions": 2}));
        more.as_object().into_iter().flatten().for_each(|(key, value)| config[key] = value.clone());
        Config::new("config.json", config)
    };
    let logits = |model: &dyn Decoder, weights: &Weights| -> Result<Vec<u8>> {
        let mut g = Graph::new();
        let ids = g.input("ids", [2, 17], DType::U32)?;
        let inputs = TokenInputs::new(&mut g, ids)?;
        let hidden = model.decode(&mut g, &inputs)?;
        let logits = model.logits(&mut g, hidden.states)?;
        g.output("logits", logits)?;
        let program = Program::new(gpu, &g, weights)?;
        program.write("ids", bytemuck::cast_slice(&(0..34).map(|i| token(i / 17, i % 17)).collect::<Vec<u32>>()))?;
        program.run()?;
        program.read("logits")
    };
    let expected = logits(llama.as_ref(), &weights)?;
    let ways = [LayerInit::Stepwise, LayerInit::Average, LayerInit::Lower];
    for (from, sharing) in ways.into_iter().zip(["cycle", "middle_cycle", "middle_sequence"]) {
        let once = config(json!({"num_recursions": 1, "routing": "none", "sharing": sharing}))?;
        let (model, weights) = models::uptrain_from_llama(gpu, &once, &trained, from, DType::F32, 3)?;
        if logits(&model, &weights)? != expected {
            return Err(format!("{from:?}: one recursion is not the Llama").into());
        }
    }
    let values = |weights: &Weights, layer: usize, part: &str| -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&weights.download(&format!("model.layers.{layer}.{part}"))?))
    };
    let layers: [(LayerInit, [&[usize]; 4]); 3] = [
        (LayerInit::Stepwise, [&[0], &[1], &[4], &[5]]),
        (LayerInit::Average, [&[0], &[1, 3], &[2, 4], &[5]]),
        (LayerInit::Lower, [&[0], &[1], &[2], &[5]]),
    ];
    for (from, layers) in layers {
        let (model, started) = models::uptrain_from_llama(gpu, &config(json!({}))?, &trained, from, DType::F32, 3)?;
        for (stored, of) in layers.into_iter().enumerate() {
            for part in ["self_attn.k_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"] {
                let found = values(&started, stored, part)?;
                let mut expected = vec![0.0; found.len()];
                for layer in of {
                    let share = |x: f32| f64::from(x) / of.len() as f64;
                    let values = values(&weights, *layer, part)?;
                    expected.iter_mut().zip(values).for_each(|(sum, x)| *sum += share(x));
                }
                if found.iter().zip(&expected).any(|(a, b)| !((f64::from(*a) - b).abs() <= 1e-7 * b.abs().max(1.0))) {
                    return Err(format!("{from:?}: {part} of layer {stored} is not that of {of:?}").into());
                }
            }
        }
        let router: Vec<f32> = bytemuck::pod_collect_to_vec(&started.download("model.routers.1.weight")?);
        if !router.iter().all(|x| x.is_finite()) || router.iter().all(|x| *x == 0.0) {
            return Err("a router is not fresh".into());
        }
        logits(&model, &started)?;
    }
    let refused = |config: &Config, trained: &ModelFolder| match models::uptrain_from_llama(
        gpu,
        config,
        trained,
        LayerInit::Average,
        DType::F32,
        3,
    ) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(error) => error.to_string(),
    };
    let (.., recursive) = save("mor", json!({}))?;
    let wrong = [
        (
            config(json!({"num_hidden_layers": 4}))?,
            &trained,
            "\"num_hidden_layers\" is 4; the trained model has 6 layers",
        ),
        (config(json!({"num_recursions": 3}))?, &trained, "multiple of num_recursions, 3 (it is one of 1, 2, 4)"),
        (config(json!({"hidden_size": 36}))?, &trained, "the new model needs [97, 36]"),
        (config(json!({"num_local_experts": 4}))?, &trained, "\"num_local_experts\" is set"),
        (config(json!({}))?, &recursive, "\"model_type\" is \"mor\"; recursions start from a llama"),
    ];
    for (config, trained, expected) in wrong {
        let said = refused(&config, trained);
        if !said.contains(expected) {
            return Err(format!("\"{said}\" lacks \"{expected}\"").into());
        }
    }
    Ok(())
}
