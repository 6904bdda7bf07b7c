use super::tests::record;
use super::*;
use serde_json::json;

#[test]
fn texts_and_labels_are_found_by_the_names_of_data_sets() {
    let known = |fields: Value| ClassExample::from_record(&record(fields), &Columns::default());
    let example = |text: &str, second: Option<&str>, labels: &[&str]| ClassExample {
        text: text.into(),
        second: second.map(str::to_owned),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    for (fields, wanted) in [
        (json!({"text": "a", "label": 1}), example("a", None, &["1"])),
        (json!({"Sentence": "a", "Class": "spam"}), example("a", None, &["spam"])),
        (json!({"premise": "a", "hypothesis": "b", "label": "no"}), example("a", Some("b"), &["no"])),
        (json!({"question": "a", "sentence": "b", "label": null}), example("a", Some("b"), &[])),
        (json!({"sentence1": "a", "sentence2": "", "score": 2.5}), example("a", None, &["2.5"])),
        (json!({"text": "a", "labels": ["x", 2, true]}), example("a", None, &["x", "2", "true"])),
        (json!({"text": "a", "labels": []}), example("a", None, &[])),
        (json!({"text": "a", "label": ""}), example("a", None, &[])),
        (json!({"text": "__label__x __label__y-z  a b "}), example("a b ", None, &["x", "y-z"])),
        (json!({"text": "__label__x"}), example("", None, &["x"])),
        (json!({"text": "__label__x", "label": "y"}), example("__label__x", None, &["y"])),
    ] {
        assert_eq!(known(fields).unwrap(), wanted);
    }
    let columns = Columns { text: Some("A".into()), label: Some("B".into()), ..Default::default() };
    let given = |fields: Value| ClassExample::from_record(&record(fields), &columns);
    assert_eq!(given(json!({"A": "a", "B": "b", "text": "x", "text_pair": "y"})).unwrap(), example("a", None, &["b"]));
    let message = given(json!({"A": "a", "C": 1})).unwrap_err().to_string();
    assert_eq!(message, "a.json: line 3: no field \"B\"; the fields are \"A\", \"C\": name the one to take");
    let message = known(json!({"x": "a"})).unwrap_err().to_string();
    assert!(message.contains("line 3: no field \"text\" or \"sentence\"") && message.contains("\"x\""), "{message}");
    let message = known(json!({"text": ["a"]})).unwrap_err().to_string();
    assert!(message.contains("field \"text\" is a list, a text was expected"), "{message}");
    assert!(known(json!({"text": "a", "label": [null]})).unwrap_err().to_string().contains("a list of texts"));
}

#[test]
fn tags_become_spans_and_spans_become_tags() {
    let tags = |fields: Value| TagExample::from_record(&record(fields), &Columns::default());
    let spans = |fields: Value| SpanExample::from_record(&record(fields), &Columns::default());
    let text = "Zoë Müller saw N.Y.-based 日本 Inc.";
    let fields = json!({"text": text, "entities": [
        {"start": 0, "end": 10, "label": "PER"}, {"start": 15, "end": 19, "type": "LOC"}, [26, 27, "A"], [27, 33, "B"]]});
    let found = spans(fields.clone()).unwrap();
    let parts: Vec<(&str, &str)> = found.spans.iter().map(|s| (&text[s.start..s.end], s.label.as_str())).collect();
    assert_eq!(parts, [("Zoë Müller", "PER"), ("N.Y.", "LOC"), ("日", "A"), ("本 Inc.", "B")]);
    let tagged = tags(fields).unwrap();
    assert_eq!(tagged.words.join(" "), "Zoë Müller saw N . Y . - based 日 本 Inc .");
    assert_eq!(tagged.tags.join(" "), "B-PER I-PER O B-LOC I-LOC I-LOC I-LOC O O B-A B-B I-B I-B");
    let back = tagged.to_spans();
    let parts: Vec<(&str, &str)> = back.spans.iter().map(|s| (&back.text[s.start..s.end], s.label.as_str())).collect();
    assert_eq!(parts, [("Zoë Müller", "PER"), ("N . Y .", "LOC"), ("日", "A"), ("本 Inc .", "B")]);
    assert_eq!(back.to_tags().unwrap(), tagged);
    let words = tags(json!({"tokens": ["a", "b"], "ner_tags": [0, 3]})).unwrap();
    assert_eq!(words.tags, ["0", "3"]);
    assert_eq!(tags(json!({"words": "a b", "tags": "O B-X"})).unwrap().tags, ["O", "B-X"]);
    assert_eq!(tags(json!({"text": "a b"})).unwrap(), TagExample { words: vec!["a".into(), "b".into()], tags: vec![] });
    assert_eq!(tags(json!({"text": "a b", "entities": []})).unwrap().tags, ["O", "O"]);
    assert_eq!(spans(json!({"tokens": ["a", "b"], "tags": ["O", "I-X"]})).unwrap().spans.len(), 1);
    let both = json!({"text": "x", "tokens": ["a", "b"], "labels": ["O", "B-X"]});
    assert_eq!(spans(both).unwrap().text, "a b");
    let both = json!({"text": "हिन्दी x", "spans": [[0, 6, "L"]], "tokens": ["x"], "tags": ["O"]});
    assert_eq!(spans(both).unwrap().to_tags().unwrap().tags, ["B-L", "O"]);
    assert!(
        spans(json!({"tokens": ["a"], "ner_tags": [0]})).unwrap_err().to_string().contains("the tag 0 is a number")
    );
    for (fields, message) in [
        (json!({"tokens": ["a"], "tags": []}), "1 words, but 0 tags"),
        (json!({"tokens": 1}), "field \"tokens\" is a number"),
        (json!({"x": 1}), "no field \"tokens\" or \"words\" or \"text\"; the fields are \"x\""),
        (
            json!({"text": "abc", "spans": [[0, 4, "X"]]}),
            "\"X\" from 0 to 4 is no part of the text, which has 3 characters",
        ),
        (json!({"text": "abc", "spans": [[2, 2, "X"]]}), "is no part"),
        (json!({"text": "abc", "spans": [[-1, 2, "X"]]}), "should have \"start\""),
        (json!({"text": "abc", "spans": [{"start": 0, "end": 1}]}), "should have \"start\""),
        (json!({"text": "abc", "spans": "x"}), "field \"spans\" is a text"),
        (json!({"text": "a b", "spans": [[0, 3, "X"], [2, 3, "Y"]]}), "overlaps"),
        (json!({"text": "a  b", "spans": [[1, 3, "X"]]}), "holds no word"),
    ] {
        let found = tags(fields).unwrap_err().to_string();
        assert!(found.contains("line 3") && found.contains(message), "{found}");
    }
}

#[test]
fn answers_stand_where_they_say_or_nearby() {
    let question = |fields: Value| QuestionExample::from_record(&record(fields), &Columns::default());
    let of = |answers: Value| {
        let fields = json!({"question": "Who?", "context": "Zoë and Ann, or Ann", "answers": answers});
        question(fields).unwrap()
    };
    let starts =
        |example: &QuestionExample| -> Vec<Option<usize>> { example.answers.iter().map(|a| a.start).collect() };
    // In bytes, one more than in characters behind the ë.
    assert_eq!(starts(&of(json!({"text": ["Ann", "Zoë"], "answer_start": [8, 0]}))), [Some(9), Some(0)]);
    assert_eq!(
        starts(&of(json!([{"text": "Ann", "answer_start": 14}, "Ann", {"text": "no"}]))),
        [Some(17), Some(9), None]
    );
    assert_eq!(starts(&of(json!({"text": ["Ann"], "answer_start": [900]}))), [Some(17)]);
    assert_eq!(starts(&of(json!({"text": "Ann"}))), [Some(9)]);
    assert!(of(json!([])).impossible && of(json!({"text": [], "answer_start": []})).impossible);
    assert!(!of(Value::Null).impossible);
    assert_eq!(of(json!([])).id, "a.json, line 3");
    let table =
        question(json!({"question": "q", "context": "aa a", "answer": "a", "answer_start": "3", "id": 7})).unwrap();
    assert_eq!((starts(&table), table.id.as_str()), (vec![Some(3)], "7"));
    let none = question(json!({"question": "q", "context": "a", "is_impossible": "True", "answer": "a"})).unwrap();
    assert!(none.impossible && none.answers.is_empty());
    for (fields, message) in [
        (json!({"question": "q"}), "no field \"context\""),
        (
            json!({"question": "q", "context": "a", "answers": {"text": ["a", "b"], "answer_start": [0]}}),
            "2 answers, but 1",
        ),
        (json!({"question": "q", "context": "a", "answers": {"texts": []}}), "answers with \"text\""),
        (json!({"question": "q", "context": "a", "answers": [[]]}), "answers with \"text\""),
    ] {
        let found = question(fields).unwrap_err().to_string();
        assert!(found.contains("line 3") && found.contains(message), "{found}");
    }
}

#[test]
fn sources_and_targets_are_found_by_names_that_belong_together() {
    let columns = Columns { source: Some("fr".into()), target: Some("en".into()), ..Default::default() };
    let pair = |fields: Value, columns: &Columns| {
        let found = PairExample::from_record(&record(fields), columns)?;
        Ok::<_, Error>((found.source, found.target))
    };
    let known = |fields: Value| pair(fields, &Columns::default()).unwrap();
    let both = |source: &str, target: &str| (source.to_owned(), Some(target.to_owned()));
    assert_eq!(known(json!({"src": "a", "tgt": "b"})), both("a", "b"));
    assert_eq!(known(json!({"prompt": "a", "response": "b"})), both("a", "b"));
    assert_eq!(known(json!({"source": "a"})), ("a".into(), None));
    assert_eq!(known(json!({"text": "a", "target": null})), ("a".into(), None));
    assert_eq!(known(json!({"instruction": "a", "input": "", "output": "b"})), both("a", "b"));
    assert_eq!(known(json!({"instruction": "a", "input": "x", "response": "b"})), both("a\n\nx", "b"));
    assert_eq!(pair(json!({"translation": {"en": "a", "fr": "b"}}), &columns).unwrap(), both("b", "a"));
    assert_eq!(pair(json!({"en": "a", "fr": "b", "source": "x"}), &columns).unwrap(), both("b", "a"));
    let source = Columns { target: None, ..columns.clone() };
    assert_eq!(pair(json!({"fr": "b", "target": "x"}), &source).unwrap(), ("b".into(), None));
    let message = pair(json!({"translation": {"en": "a", "fr": "b"}}), &Columns::default()).unwrap_err().to_string();
    assert!(message.contains("no field \"source\"") && message.contains("name the one"), "{message}");
    assert!(pair(json!({"fr": "b"}), &columns).unwrap_err().to_string().contains("no field \"en\""));
}
