//! The page of `web/` in a real browser (Chromium, WebGPU by SwiftShader): what it generates, embeds and learns is what the same code does natively, and
//! its kernels fit their f64 twins. `scripts/web.sh --test` builds the page and runs this.

mod browser;
#[path = "../../web/src/engine/mod.rs"]
#[allow(dead_code, reason = "the page uses more of it")]
mod engine;
mod native;

use browser::{Results, missing, run};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// The conformance limits of whole models and of losses.
const OUTPUTS: f64 = 1e-4;
const LOSSES: f64 = 1e-5;

type Check = fn(&Value, &native::Plan) -> Result<(), Failed>;

/// The parts of `web/test/test.js`, and what must be so of each.
const CHECKS: [(&str, Check); 9] = [
    ("decoder", decoder),
    ("visits", visits),
    ("files", files),
    ("encoder", encoder),
    ("training", training),
    ("errors", errors),
    ("page", page),
    ("check", check),
    ("gguf", gguf),
];

fn main() {
    let arguments = Arguments::from_args();
    let reason = missing();
    let required = std::env::var_os("REQUIRE_BROWSER").is_some_and(|value| value != "0");
    let ran: Arc<OnceLock<Result<(Results, native::Plan), String>>> = Arc::default();
    let trials = CHECKS.map(|(name, check)| {
        let (ran, missing) = (ran.clone(), reason.clone());
        let trial = Trial::test(name, move || {
            if let Some(reason) = missing {
                return Err(reason.into());
            }
            let ran = ran.get_or_init(|| run().map_err(words));
            let (results, plan) = ran.as_ref().map_err(String::clone)?;
            let missing = || format!("the page ended before it: {}", results.end());
            let value = results.part(name).ok_or_else(missing)?;
            match value.get("failed") {
                Some(error) => Err(error.to_string().into()),
                None => check(value, plan),
            }
        });
        trial.with_ignored_flag(reason.is_some() && !required)
    });
    if let Some(reason) = reason.filter(|_| !required) {
        eprintln!("NOT CHECKED: the browser: {reason}");
    }
    libtest_mimic::run(&arguments, trials.into()).exit();
}

/// What went wrong.
fn words(error: Failed) -> String {
    error.message().unwrap_or("failed").to_owned()
}

fn same(what: &str, got: &Value, wanted: &Value) -> Result<(), Failed> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: the browser has {got}, natively it is {wanted}").into()) }
}

fn near(what: &str, got: &Value, wanted: &[f64], limit: f64) -> Result<(), Failed> {
    let got: Vec<f64> = serde_json::from_value(got.clone())?;
    if got.len() != wanted.len() {
        return Err(
            format!("{what}: the browser has {} numbers, natively there are {}", got.len(), wanted.len()).into()
        );
    }
    let largest = wanted.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let error = (got - wanted).abs() / largest;
        if !(error <= limit) {
            return Err(
                format!("{what} {index}: the browser has {got}, natively it is {wanted}, off by {error:.1e}").into()
            );
        }
    }
    Ok(())
}

fn contains(what: &str, got: &Value, words: &str) -> Result<(), Failed> {
    match got.as_str().is_some_and(|text| text.contains(words)) {
        true => Ok(()),
        false => Err(format!("{what}: {got} says nothing of {words:?}").into()),
    }
}

fn decoder(got: &Value, plan: &native::Plan) -> Result<(), Failed> {
    same("tokens", &got["tokens"], &plan.answer.tokens.clone().into())?;
    same("text", &got["text"], &plan.answer.text.clone().into())?;
    same("pieces", &got["pieces"], &plan.answer.text.clone().into())?;
    same("finish", &got["finish"], &plan.answer.finish.into())?;
    same("tokens until it was stopped", &got["stopped"], &1.into())?;
    same("family", &got["info"]["family"], &"llama".into())
}

fn visits(got: &Value, plan: &native::Plan) -> Result<(), Failed> {
    same("tokens", &got["tokens"], &plan.answer.tokens.clone().into())?;
    same("requests for the weights", &got["requests"], &1.into())?;
    let (last, total) = (got["last"]["loaded"].as_f64().unwrap_or(0.0), got["total"].as_f64().unwrap_or(f64::NAN));
    // All but the header.
    if last > 0.9 * total && last <= total {
        Ok(())
    } else {
        Err(format!("progress ends with {last} of {total}").into())
    }
}

fn files(got: &Value, _: &native::Plan) -> Result<(), Failed> {
    same("tokens of a model in files", got, &2.into())
}

fn encoder(got: &Value, plan: &native::Plan) -> Result<(), Failed> {
    for (index, wanted) in plan.vectors.iter().enumerate() {
        near(&format!("vector {index}"), &got[index], wanted, OUTPUTS)?;
    }
    Ok(())
}

fn training(got: &Value, plan: &native::Plan) -> Result<(), Failed> {
    near("loss", &got["losses"], &plan.losses, LOSSES)?;
    same("tokens of the trained model", &got["tokens"], &plan.trained.clone().into())
}

fn errors(got: &Value, _: &native::Plan) -> Result<(), Failed> {
    contains("an address with nothing", &got["missing"], "nothing.gguf cannot be read: 404")?;
    contains("a damaged file", &got["damaged"], "truncated")?;
    contains("an option that does not exist", &got["option"], "unknown field `maxtokens`")?;
    contains("a prompt that is too long", &got["long"], "max_tokens")?;
    contains("a decoder that is to embed", &got["side"], "use generate")?;
    contains("an empty text", &got["empty"], "is empty")?;
    contains("a call during another", &got["during"], "await it first")
}

fn page(got: &Value, _: &native::Plan) -> Result<(), Failed> {
    contains("the model", &got["model"], "parameters")?;
    contains("what was generated", &got["generated"], "[4 tokens in")?;
    contains("what was trained", &got["trained"], "step 2 of 2: loss")?;
    same("the page's error", &got["error"], &"".into())
}

fn check(got: &Value, _: &native::Plan) -> Result<(), Failed> {
    let missed: Vec<&Value> = got["rows"].as_array().into_iter().flatten().map(|row| &row["missed"]).collect();
    same("missed", &got["missed"], &0.into()).map_err(|_| Failed::from(format!("missed: {missed:?}")))?;
    match got["compared"].as_u64() {
        Some(50..) => Ok(()),
        other => Err(format!("{other:?} cases were compared, more are in a quick check").into()),
    }
}

fn gguf(got: &Value, plan: &native::Plan) -> Result<(), Failed> {
    let Some(answer) = &plan.gguf_answer else { return same("a GGUF file that is not there", got, &Value::Null) };
    eprintln!(
        "a GGUF file in the browser: loaded in {:.1} s, first token after {:.1} s, then {:.1} s",
        got["loadSeconds"].as_f64().unwrap_or(f64::NAN),
        got["firstSeconds"].as_f64().unwrap_or(f64::NAN),
        got["warmSeconds"].as_f64().unwrap_or(f64::NAN)
    );
    same("tokens", &got["tokens"], &answer.tokens.clone().into())?;
    same("text", &got["text"], &answer.text.clone().into())
}
