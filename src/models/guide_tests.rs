//! The table of families in docs/guide/models.md. `UPDATE_GUIDE=1 cargo test --lib family::guide` makes it of the registry and of
//! the goldens: a row for each family, in the registry's order, with its sides and with what was compared with PyTorch. The family's
//! name and its notes are written by hand, in the page; a new family's row begins with its `class` and without notes.

use super::{Family, FamilySides};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const HEAD: &str = "| `model_type` | family | sides | notes | compared with PyTorch |\n|---|---|---|---|---|\n";

/// Where no golden is.
const TWIN_ONLY: &str = "only with its twin in f64";

/// A row of the table, by the families that share it.
#[derive(Clone)]
struct Row {
    names: Vec<String>,
    title: String,
    notes: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folders in a folder, by name.
fn folders(below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(below)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The numbers of goldens and of training runs of each `model_type`.
fn compared() -> BTreeMap<String, [usize; 2]> {
    let family = |golden: &Path| {
        let config = golden.join("config.json");
        config.is_file().then(|| json(&config)["model_type"].as_str().unwrap_or_default().to_owned())
    };
    let mut counts = BTreeMap::<String, [usize; 2]>::new();
    for golden in folders("tests/goldens") {
        family(&golden).into_iter().for_each(|family| counts.entry(family).or_default()[0] += 1);
    }
    for run in folders("tests/trajectories") {
        let model = json(&run.join("trajectory.json"))["model"].as_str().unwrap().to_owned();
        let golden = root().join("tests/goldens").join(model);
        family(&golden).into_iter().for_each(|family| counts.entry(family).or_default()[1] += 1);
    }
    counts
}

/// The cells of a line of a table; a `|` in a cell would be written `\|`.
fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\0");
    line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\0', "\\|")).collect()
}

/// The rows of a table as they are.
fn rows(table: &str) -> Vec<Row> {
    let named = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let lines = table.lines().skip(2).map(cells);
    lines.map(|row| Row { names: named(&row[0]), title: row[1].clone(), notes: row[3].clone() }).collect()
}

/// The table as it should be, with the names and notes of the one that is there.
fn table(before: &str) -> String {
    let (before, compared) = (rows(before), compared());
    let mut made: Vec<Row> = Vec::new();
    for family in Family::all() {
        if made.iter().any(|row| row.names.iter().any(|name| name == family.name)) {
            continue;
        }
        let known = before.iter().find(|row| row.names.iter().any(|name| name == family.name)).cloned();
        let fresh = || Row { names: vec![family.name.into()], title: family.class.into(), notes: String::new() };
        let mut row = known.unwrap_or_else(fresh);
        row.names.retain(|name| Family::all().iter().any(|family| family.name == name));
        made.push(row);
    }
    let mut table = HEAD.to_owned();
    for Row { names, title, notes } in made {
        let first = Family::all().iter().find(|family| family.name == names[0]).unwrap();
        let sides = match first.sides {
            FamilySides::Encoder => "encoder",
            FamilySides::Decoder => "decoder",
            FamilySides::Both => "both",
            FamilySides::Any => "encoder, decoder or both",
        };
        let counts = names.iter().filter_map(|name| compared.get(name));
        let [models, runs] = counts.fold([0, 0], |all, more| [all[0] + more[0], all[1] + more[1]]);
        let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let compared = match (models, runs) {
            (0, _) => TWIN_ONLY.to_owned(),
            (_, 0) => of(models, "model"),
            _ => format!("{}, {}", of(models, "model"), of(runs, "training run")),
        };
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        table += &format!("| {} | {title} | {sides} | {notes} | {compared} |\n", names.join(", "));
    }
    table
}

#[test]
fn the_guide_has_the_table_of_families() {
    let path = root().join("docs/guide/models.md");
    let page = fs::read_to_string(&path).unwrap();
    let start = page.find("| `model_type` |").unwrap();
    let end = start + page[start..].find("\n\n").unwrap() + 1;
    let wanted = [&page[..start], &table(&page[start..end]), &page[end..]].concat();
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(found == wanted, "docs/guide/models.md is out of date: UPDATE_GUIDE=1 cargo test --lib family::guide");
}
