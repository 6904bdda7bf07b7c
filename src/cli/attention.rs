//! `wgformer inspect --attention`: what each head of a model looks at in a text, as a table and an HTML page.

use super::args::InspectArgs;
use super::device::Device;
use super::page::escape;
use super::routing::shown;
use super::{outln, print_json, table};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::{ModelFolder, Tokenizer, read_text, write_atomic};
use crate::models::{self, AttentionMap, AttentionText, Decoder, Model};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Tokens of a text that are looked at: a page has their pairs for each head.
const TOKENS: usize = 128;
/// A probability of 1 on the page.
const SCALE: f32 = 10_000.0;

pub(super) fn run(options: &InspectArgs, text: &str) -> Result<ExitCode> {
    let Some(path) = &options.step.folder else {
        return Err(Error::input("attention", "a trained model is needed: give its folder"));
    };
    let device = Device::open(&options.common)?;
    let folder = ModelFolder::open(path)?;
    let (model, weights) = models::load_model(&device.gpu, &folder, Some(DType::F32))?;
    let tokenizer = folder.expect_tokenizer()?;
    let text = if Path::new(text).is_file() { read_text(text)? } else { text.to_owned() };
    let mut ids = match model.encoder() {
        Some(_) => tokenizer.encode_for_model(&text, None)?.ids,
        None => tokenizer.encode_prompt(&text)?,
    };
    let mut decoder_ids = match &options.answer {
        Some(answer) => answer_of(model.as_ref(), tokenizer, answer)?,
        None => Vec::new(),
    };
    let most = model.dimensions().max_position.min(TOKENS);
    let all = ids.len().max(decoder_ids.len());
    if all > most {
        super::output::note(format_args!("note: the text has {all} tokens; the first {most} are read"));
    }
    ids.truncate(most);
    decoder_ids.truncate(most);
    let read = AttentionText { ids: &ids, decoder_ids: &decoder_ids };
    let maps = models::attention_maps(&device.gpu, model.as_ref(), &weights, read)?;
    device.save_caches();
    let words = |ids: &[u32]| ids.iter().map(|&id| shown(tokenizer, id)).collect::<Result<Vec<String>>>();
    // A plain decoder has its text in `ids`.
    let tokens = [words(&ids)?, words(if decoder_ids.is_empty() { &ids } else { &decoder_ids })?];
    if let Some(page) = &options.html {
        write_atomic(page, html(&path.display().to_string(), &tokens, &maps).as_bytes())?;
    }
    if options.common.json {
        let weights = |map: &AttentionMap| {
            let rows = |head: usize| map.head(head).chunks(map.keys.max(1)).map(|row| json!(row)).collect::<Value>();
            json!({
                "layer": map.layer, "decoder_queries": map.decoder_queries, "decoder_keys": map.decoder_keys,
                "weights": (0..map.heads).map(rows).collect::<Vec<_>>(),
            })
        };
        let maps: Vec<Value> = maps.iter().map(weights).collect();
        print_json(&json!({"tokens": tokens[0], "decoder_tokens": tokens[1], "attention": maps}))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&maps)?;
    if let Some(page) = &options.html {
        outln!("page  {}", page.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The tokens that the decoder of a model of two sides reads for an answer.
fn answer_of(model: &dyn Model, tokenizer: &Tokenizer, answer: &str) -> Result<Vec<u32>> {
    let decoder = model.decoder().filter(|_| model.encoder().is_some());
    let decoder = decoder.ok_or_else(|| Error::input("answer", "only of models with an encoder and a decoder"))?;
    let mut ids: Vec<u32> = Decoder::start_token(decoder).into_iter().collect();
    ids.extend(tokenizer.encode(answer)?);
    Ok(ids)
}

/// A table of heads: how far they look, how many tokens they look at, and how much they look at the first.
fn print(maps: &[AttentionMap]) -> Result<()> {
    let mut rows = table(&["layer", "head", "mean distance", "tokens looked at", "on the first"]);
    for map in maps {
        for head in 0..map.heads {
            let (mut distance, mut tokens, mut first) = (0.0, 0.0, 0.0);
            for (query, row) in map.head(head).chunks(map.keys.max(1)).enumerate() {
                let pairs = || row.iter().enumerate().map(|(key, weight)| (key, f64::from(*weight)));
                distance += pairs().map(|(key, weight)| weight * key.abs_diff(query) as f64).sum::<f64>();
                // e to the entropy.
                let entropy: f64 = pairs().filter(|(_, w)| *w > 0.0).map(|(_, weight)| -weight * weight.ln()).sum();
                tokens += entropy.exp();
                first += row.first().copied().map_or(0.0, f64::from);
            }
            let mean = |sum: f64| format!("{:.2}", sum / map.queries.max(1) as f64);
            rows.add_row([map.layer.clone(), head.to_string(), mean(distance), mean(tokens), mean(first)]);
        }
    }
    outln!("{rows}")
}

const STYLE: &str = "
body { margin: 0; background: #f3f4f6; color: #262b33; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 0 0 8px; }
section { background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 20px 24px; margin-top: 20px; }
#says { position: sticky; top: 0; background: #f3f4f6; padding: 8px 0; margin: 0; min-height: 24px; font-size: 14px; }
#heads { overflow-x: auto; } .layer { display: flex; align-items: center; gap: 6px; margin-bottom: 6px; }
.layer span { flex: 0 0 180px; font-size: 12px; color: #6b7280; overflow-wrap: anywhere; }
.head { width: 72px; height: 72px; border: 1px solid #e5e7eb; image-rendering: pixelated; cursor: pointer; flex: none; }
#large { border: 1px solid #e5e7eb; image-rendering: pixelated; max-width: 100%; }
.tokens { white-space: pre-wrap; line-height: 1.9; } .tokens span { border-radius: 3px; padding: 2px 0; }
#queries span { cursor: pointer; } .looks { outline: 2px solid #d95f02; }
";

/// A self-contained page: the heads of all layers as small pictures, and the chosen one with its tokens.
fn html(model: &str, tokens: &[Vec<String>; 2], maps: &[AttentionMap]) -> String {
    let head = |map: &AttentionMap, head: usize| {
        map.head(head).iter().map(|weight| (weight * SCALE).round() as u32).collect::<Vec<u32>>()
    };
    let map = |map: &AttentionMap| {
        json!({
            "layer": map.layer, "heads": map.heads, "queries": map.queries, "keys": map.keys,
            "query_tokens": u8::from(map.decoder_queries), "key_tokens": u8::from(map.decoder_keys),
            "weights": (0..map.heads).map(|number| head(map, number)).collect::<Vec<_>>(),
        })
    };
    let maps: Vec<Value> = maps.iter().map(map).collect();
    // Within a script nothing may look like its end.
    let data = |value: &Value| value.to_string().replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Attention of {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Attention of {name}</h1>\n\
         <p>Each square is a head: rows are tokens that look, columns those that are looked at, darker where the probability is larger. Point at \
         a square for its tokens and its probability; click on a head to see it large.</p>\n<p id=\"says\"></p>\n\
         <section><h2>Heads by layer</h2><div id=\"heads\"></div></section>\n\
         <section><h2 id=\"chosen\"></h2>\n<p>Point at a token below to see what it looks at.</p>\n<div class=\"tokens\" id=\"queries\"></div>\n\
         <p>looks at</p>\n<div class=\"tokens\" id=\"keys\"></div>\n<p><canvas id=\"large\"></canvas></p></section>\n\
         <script>\nconst SCALE = {SCALE};\nconst TOKENS = {tokens};\nconst MAPS = {maps};\n{script}</script>\n</main>\n</body>\n</html>\n",
        name = escape(model),
        tokens = data(&json!(tokens)),
        maps = data(&maps.into()),
        script = include_str!("attention.js"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_token_and_head_and_nothing_that_ends_its_script() {
        let map = AttentionMap {
            layer: "decoder.blocks.0.attention".into(),
            heads: 1,
            queries: 2,
            keys: 2,
            decoder_queries: true,
            decoder_keys: true,
            weights: vec![1.0, 0.0, 0.25, 0.75],
        };
        let tokens = || vec!["</script><b>".to_owned(), " & c".to_owned()];
        let page = html("a <model>", &[tokens(), tokens()], &[map]);
        assert!(page.contains("Attention of a &lt;model&gt;") && page.contains("[[10000,0,2500,7500]]"));
        assert!(page.contains("\\u003c/script>\\u003cb>") && page.matches("</script>").count() == 1);
    }
}
