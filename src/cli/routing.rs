//! `wgformer inspect --routing`: the expert or recursion depth of each token of a text, as a table and an HTML page.

use super::args::InspectArgs;
use super::device::Device;
use super::page::escape;
use super::{outln, print_json, table};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::{ModelFolder, Tokenizer, read_text, write_atomic};
use crate::models::{self, TokenRoutes};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Tokens in the table; the page and JSON have all of them.
const ROWS: usize = 64;

pub(super) fn run(options: &InspectArgs, text: &str) -> Result<ExitCode> {
    let Some(path) = &options.step.folder else {
        return Err(Error::input("routing", "a trained model is needed: give its folder"));
    };
    let device = Device::open(&options.common)?;
    let folder = ModelFolder::open(path)?;
    let (model, weights) = models::load(&device.gpu, &folder, DType::F32)?;
    let tokenizer = folder.expect_tokenizer()?;
    let text = if Path::new(text).is_file() { read_text(text)? } else { text.to_owned() };
    let mut ids = tokenizer.encode(&text)?;
    let positions = model.dimensions().max_position;
    if ids.len() > positions {
        log::warn!("the text has {} tokens; only the first {positions} (the model's maximum) are routed", ids.len());
        ids.truncate(positions);
    }
    let routes = models::token_routes(&device.gpu, model.as_ref(), &weights, &ids)?;
    let tokens: Vec<String> = ids.iter().map(|&id| shown(tokenizer, id)).collect::<Result<_>>()?;
    if let Some(page) = &options.html {
        write_atomic(page, html(&path.display().to_string(), &tokens, &routes).as_bytes())?;
    }
    if options.common.json {
        print_json(&serde_json::json!({ "tokens": tokens, "routers": routes }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&tokens, &routes)?;
    if let Some(page) = &options.html {
        outln!("page  {}", page.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A token as people read it.
pub(super) fn shown(tokenizer: &Tokenizer, id: u32) -> Result<String> {
    let text = tokenizer.decode_with(&[id], false)?;
    Ok(if text.is_empty() { tokenizer.token(id).unwrap_or_default() } else { text })
}

fn print(tokens: &[String], routes: &[TokenRoutes]) -> Result<()> {
    let head: Vec<&str> = ["#", "token"].into_iter().chain(routes.iter().map(|route| route.router.as_str())).collect();
    let mut rows = table(&head);
    for (index, token) in tokens.iter().enumerate().take(ROWS) {
        let choice = |route: &TokenRoutes| {
            let numbers: Vec<String> = route.choices[index].iter().map(u32::to_string).collect();
            numbers.join(" ")
        };
        let cells = [index.to_string(), format!("{token:?}")];
        rows.add_row(cells.into_iter().chain(routes.iter().map(choice)));
    }
    outln!("{rows}")?;
    if tokens.len() > ROWS {
        outln!("and {} more tokens; --html and --json show all of them", tokens.len() - ROWS)?;
    }
    for route in routes {
        let loads: Vec<String> = route.loads().iter().map(usize::to_string).collect();
        outln!("{}: tokens by {}: {}", route.router, kind(route), loads.join(" "))?;
    }
    Ok(())
}

fn kind(route: &TokenRoutes) -> &'static str {
    if route.is_depth() { "recursions" } else { "expert" }
}

const STYLE: &str = "
body { margin: 0; background: #f3f4f6; color: #262b33; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 0 0 8px; }
section { background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 20px 24px; margin-top: 20px; }
.text { white-space: pre-wrap; line-height: 1.9; } .text span { border-radius: 3px; padding: 2px 0; }
.key span { display: inline-block; border-radius: 3px; padding: 1px 8px; margin: 0 6px 6px 0; font-size: 14px; }
";

/// A self-contained page: the text once for each router, with tokens coloured by expert or depth.
fn html(model: &str, tokens: &[String], routes: &[TokenRoutes]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Routing of {name}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Routing of {name}</h1>\n<p>{count} tokens. A token has the colour of \
         its expert with the largest weight, or of its number of recursions; hover over a token to see all its experts.</p>\n",
        name = escape(model),
        count = tokens.len(),
    );
    for route in routes {
        let _ = write!(page, "<section><h2>{}</h2>\n<p class=\"key\">", escape(&route.router));
        for (choice, load) in route.loads().iter().enumerate() {
            let share = 100.0 * *load as f64 / route.loads().iter().sum::<usize>().max(1) as f64;
            let colour = colour(route, choice as u32);
            let what = if route.is_depth() { format!("{choice} recursions") } else { format!("expert {choice}") };
            let _ = write!(page, "<span style=\"background:{colour}\">{what}: {load} ({share:.0} %)</span>");
        }
        page.push_str("</p>\n<div class=\"text\">");
        for (token, choices) in tokens.iter().zip(&route.choices) {
            let title: Vec<String> = choices.iter().map(u32::to_string).collect();
            let first = choices.first().copied().unwrap_or(u32::MAX);
            let (colour, text) = (colour(route, first), escape(token));
            let _ = write!(page, "<span style=\"background:{colour}\" title=\"{}\">{text}</span>", title.join(", "));
        }
        page.push_str("</div></section>\n");
    }
    page + "</main>\n</body>\n</html>\n"
}

/// Depths are shades of one colour, experts are different hues; dropped slots are grey.
fn colour(route: &TokenRoutes, choice: u32) -> String {
    let share = f64::from(choice) / route.of.max(1) as f64;
    match route.is_depth() {
        true => format!("hsl(210, 75%, {:.0}%)", 96.0 - 40.0 * share),
        false if choice as usize >= route.of => "#e5e7eb".into(),
        false => format!("hsl({:.0}, 70%, 82%)", 360.0 * share),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_token_and_escapes_it() {
        let routes = [TokenRoutes { router: "depth".into(), choices: vec![vec![1], vec![2]], of: 2 }];
        let page = html("a <model>", &["<b>".into(), " & c".into()], &routes);
        assert!(
            page.contains("a &lt;model&gt;") && page.contains(">&lt;b&gt;</span>") && page.contains("> &amp; c</span>")
        );
        assert!(page.contains("2 recursions: 1 (50 %)"));
    }
}
