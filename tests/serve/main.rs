//! The server over TCP: answers, streams, errors, and clients that misbehave.
#![cfg(all(unix, feature = "cli", feature = "serve"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod client;
#[path = "../common/command.rs"]
mod common;
mod load;
#[path = "../common/models.rs"]
mod models;
mod openai;
mod vectors;

use client::{NAME, TEMPLATE, TestServer, Tiny, gathered, gpu};
use serde_json::{Value, json};
use std::time::Duration;
use wgformer::serve::ServeLimits;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn chat(content: &str, more: Value) -> Value {
    with(json!({"model": NAME, "messages": [{"role": "user", "content": content}], "temperature": 0}), more)
}

fn completion(prompt: impl Into<Value>, more: Value) -> Value {
    with(json!({"model": NAME, "prompt": prompt.into(), "temperature": 0}), more)
}

fn with(mut body: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn usage(answer: &Value) -> [u64; 3] {
    ["prompt_tokens", "completion_tokens", "total_tokens"].map(|name| answer["usage"][name].as_u64().unwrap())
}

#[test]
fn chats_are_answered_whole_and_as_streams() {
    let server = TestServer::of_tiny(ServeLimits::default(), 4);
    let prompt = "user: It is a truth<|endoftext|>assistant: ";
    let wanted = Tiny::on(&gpu()).greedy(prompt, 24);
    // Special tokens are a token, all others a byte.
    let tokens = (prompt.len() - "<|endoftext|>".len() + 1) as u64;
    let answer = server.post(CHAT, &chat("It is a truth", json!({}))).good();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!((answer["model"].as_str(), answer["choices"].as_array().unwrap().len()), (Some(NAME), 1));
    assert!(
        answer["id"].as_str().unwrap().starts_with("chatcmpl-") && answer["created"].as_u64().unwrap() > 1_700_000_000
    );
    let choice = &answer["choices"][0];
    assert_eq!(
        (choice["message"]["role"].as_str(), choice["message"]["content"].as_str()),
        (Some("assistant"), Some(&*wanted))
    );
    let [prompt_tokens, new, total] = usage(&answer);
    assert_eq!((prompt_tokens, total), (tokens, tokens + new));
    assert_eq!(choice["finish_reason"] == "length", new == 24);

    let parts = json!([{"type": "text", "text": "It is"}, {"type": "text", "text": " a truth"}]);
    let body =
        json!({"messages": [{"role": "user", "content": parts}], "temperature": 0, "unknown": {"a": 1}, "user": "me"});
    assert_eq!(server.post(CHAT, &body).good()["choices"], answer["choices"], "parts of text, and no model");

    let streamed = gathered(server.stream(CHAT, &chat("It is a truth", json!({}))), "chat", 1);
    assert_eq!(streamed, (vec![wanted.clone()], vec![choice["finish_reason"].as_str().unwrap().to_owned()], None));
    let include = json!({"stream_options": {"include_usage": true}});
    let (texts, _, said) = gathered(server.stream(CHAT, &chat("It is a truth", include)), "chat", 1);
    assert_eq!((texts, said), (vec![wanted], Some(answer["usage"].clone())));

    // A system message, an earlier answer; and what looks like a special token is text.
    let talk = json!({"messages": [
        {"role": "developer", "content": "Be short."}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "<|endoftext|>"},
    ]});
    let [prompt_tokens, ..] = usage(&server.post(CHAT, &chat("", talk)).good());
    let text = "system: Be short.user: aassistant: buser: <|endoftext|>assistant: ";
    assert_eq!(prompt_tokens, text.len() as u64 + 4);
    assert!(TEMPLATE.contains("<|endoftext|>"));
}

#[test]
fn completions_take_texts_and_tokens_several_and_often() {
    let server = TestServer::of_tiny(ServeLimits::default(), 4);
    let tiny = Tiny::on(&gpu());
    let wanted = tiny.greedy("It is", 16);
    let answer = server.post(COMPLETIONS, &completion("It is", json!({}))).good();
    assert_eq!(
        (answer["object"].as_str(), answer["choices"][0]["text"].as_str()),
        (Some("text_completion"), Some(&*wanted))
    );
    assert_eq!(usage(&answer)[0], 5);
    let ids: Vec<u32> =
        b"It is".iter().map(|byte| tiny.tokenizer.encode(&char::from(*byte).to_string()).unwrap()[0]).collect();
    assert_eq!(server.post(COMPLETIONS, &completion(ids.clone(), json!({}))).good()["choices"], answer["choices"]);
    // Two prompts, each twice, in order.
    let answer =
        server.post(COMPLETIONS, &completion(json!(["It is", "That"]), json!({"n": 2, "max_tokens": 5}))).good();
    let texts: Vec<&str> = answer["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    let that = tiny.greedy("That", 5);
    assert_eq!((texts[0], texts[2]), (&*tiny.greedy("It is", 5), &*that));
    assert_eq!((texts.len(), texts[0], texts[2]), (4, texts[1], texts[3]));
    assert_eq!(usage(&answer)[0], 9, "each prompt counts once");
    assert_eq!(
        server.post(COMPLETIONS, &completion(json!([ids, ids]), json!({}))).good()["choices"][1]["text"],
        *wanted
    );
    let (texts, finishes, _) = gathered(
        server.stream(COMPLETIONS, &completion(json!(["It is", "That"]), json!({"max_tokens": 5}))),
        "text",
        2,
    );
    assert_eq!((texts[1].as_str(), finishes.len()), (&*that, 2));

    // Drawn tokens: the same by the same seed, and others for each choice.
    let drawn =
        json!({"temperature": 1.5, "seed": 7, "n": 3, "max_tokens": 12, "top_p": 0.95, "min_p": 0.0, "top_k": 0});
    let choices = |more: &Value| server.post(COMPLETIONS, &completion("It is", more.clone())).good()["choices"].clone();
    let first = choices(&drawn);
    assert_eq!(choices(&drawn), first);
    assert!(first[0]["text"] != first[1]["text"] && first[1]["text"] != first[2]["text"], "{first}");
    assert_ne!(choices(&with(drawn.clone(), json!({"seed": -8}))), first);

    // A bias that decides.
    let answer =
        server.post(COMPLETIONS, &completion("It is", json!({"logit_bias": {"66": 100}, "max_tokens": 3}))).good();
    let token = tiny.tokenizer.decode(&[66, 66, 66]).unwrap();
    assert_eq!(answer["choices"][0]["text"], *token);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[test]
fn stop_texts_end_answers() {
    let server = TestServer::of_tiny(ServeLimits::default(), 2);
    let wanted = Tiny::on(&gpu()).greedy("It is", 16);
    // A stop text of two characters within the answer, and the first place where it stands.
    let middle: String = wanted.chars().skip(4).take(2).collect();
    let cut = wanted.split(&middle).next().unwrap();
    assert!(!wanted.is_empty() && cut.len() < wanted.len(), "{wanted:?}");
    for stop in [json!(middle), json!(["never there", middle])] {
        let answer = server.post(COMPLETIONS, &completion("It is", json!({"stop": stop}))).good();
        assert_eq!(
            (answer["choices"][0]["text"].as_str(), answer["choices"][0]["finish_reason"].as_str()),
            (Some(cut), Some("stop"))
        );
        let (texts, finishes, _) =
            gathered(server.stream(COMPLETIONS, &completion("It is", json!({"stop": stop}))), "text", 1);
        assert_eq!((texts[0].as_str(), finishes[0].as_str()), (cut, "stop"));
    }
    // A special token, which is no text.
    let body = completion("It is", json!({"stop": "<|endoftext|>", "logit_bias": {"256": 100}}));
    let answer = server.post(COMPLETIONS, &body).good();
    assert_eq!((answer["choices"][0]["text"].as_str(), usage(&answer)[1]), (Some(""), 1));
}

#[test]
fn what_is_wrong_is_told_in_the_form_of_the_api() {
    let limits = ServeLimits::default().with_answer(100).with_prompt(50).with_choices(4).with_body(10_000);
    let server = TestServer::of_tiny(limits, 2);
    let long = "x".repeat(51);
    let hi = |more| chat("Hi", more);
    let it = |more| completion("It is", more);
    for (path, body, status, param, words) in [
        (CHAT, json!([]), 400, None, "not an object"),
        (CHAT, json!({"model": NAME}), 400, Some("messages"), "it is missing"),
        (CHAT, hi(json!({"model": "gpt-4"})), 404, Some("model"), "no model \"gpt-4\""),
        (CHAT, hi(json!({"model": 7})), 400, Some("model"), "must be a text"),
        (CHAT, hi(json!({"messages": []})), 400, Some("messages"), "at least one"),
        (CHAT, hi(json!({"messages": "Hi"})), 400, Some("messages"), "a list"),
        (CHAT, hi(json!({"messages": [7]})), 400, Some("messages[0].role"), "null"),
        (CHAT, hi(json!({"messages": [{"role": "user"}]})), 400, Some("messages[0].content"), "null"),
        (CHAT, hi(json!({"messages": [{"role": "tool", "content": "x"}]})), 400, Some("messages[0].role"), "\"tool\""),
        (
            CHAT,
            hi(json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})),
            400,
            Some("messages[0].content"),
            "texts only",
        ),
        (CHAT, chat(&long, json!({})), 400, Some("messages"), "50 are the most"),
        (CHAT, hi(json!({"max_tokens": -1})), 400, Some("max_tokens"), "1 to 100"),
        (CHAT, hi(json!({"max_completion_tokens": 101})), 400, Some("max_completion_tokens"), "1 to 100"),
        (CHAT, hi(json!({"max_tokens": "many"})), 400, Some("max_tokens"), "whole number"),
        (CHAT, hi(json!({"temperature": -0.5})), 400, Some("temperature"), "0 (greedy) or more"),
        (CHAT, hi(json!({"temperature": "hot"})), 400, Some("temperature"), "a number"),
        (CHAT, hi(json!({"top_p": 0})), 400, Some("top_p"), "in (0, 1]"),
        (CHAT, hi(json!({"n": 5})), 400, Some("n"), "1 to 4"),
        (CHAT, hi(json!({"stream": "yes"})), 400, Some("stream"), "true or false"),
        (CHAT, hi(json!({"stream_options": {"include_usage": 1}})), 400, Some("stream_options.include_usage"), "true"),
        (CHAT, hi(json!({"stop": [1]})), 400, Some("stop"), "texts"),
        (CHAT, hi(json!({"stop": ""})), 400, Some("stop"), "empty"),
        (CHAT, hi(json!({"stop": "a<|endoftext|>"})), 400, Some("stop"), "give the token alone"),
        (CHAT, hi(json!({"frequency_penalty": 0.5})), 400, Some("frequency_penalty"), "not supported"),
        (CHAT, hi(json!({"logprobs": true})), 400, Some("logprobs"), "not supported"),
        (CHAT, hi(json!({"tools": [{"type": "function"}]})), 400, Some("tools"), "not supported"),
        (CHAT, hi(json!({"response_format": {"type": "json_object"}})), 400, Some("response_format"), "not supported"),
        (CHAT, hi(json!({"logit_bias": {"a": 1}})), 400, Some("logit_bias"), "numbers of tokens"),
        (CHAT, hi(json!({"logit_bias": {"1": 101}})), 400, Some("logit_bias"), "-100 to 100"),
        (CHAT, hi(json!({"seed": 0.5})), 400, Some("seed"), "64 bits"),
        (COMPLETIONS, it(json!({"prompt": null})), 400, Some("prompt"), "missing"),
        (COMPLETIONS, it(json!({"prompt": ""})), 400, Some("prompt"), "empty"),
        (COMPLETIONS, it(json!({"prompt": []})), 400, Some("prompt"), "empty"),
        (COMPLETIONS, it(json!({"prompt": [1, -2]})), 400, Some("prompt"), "token numbers"),
        (COMPLETIONS, it(json!({"prompt": [257]})), 400, Some("prompt"), "out of range"),
        (COMPLETIONS, it(json!({"prompt": ["a", "b", "c", "d", "e"]})), 400, Some("prompt"), "4 are the most"),
        (COMPLETIONS, it(json!({"prompt": ["a", "b", "c"], "n": 2})), 400, Some("prompt"), "more than 4"),
        (COMPLETIONS, it(json!({"echo": true})), 400, Some("echo"), "not supported"),
        (COMPLETIONS, it(json!({"best_of": 2})), 400, Some("best_of"), "not supported"),
        ("/v1/embeddings", json!({"input": "a"}), 404, None, "--embedding-model"),
        ("/v1/images", json!({}), 404, None, "there is no /v1/images"),
    ] {
        let response = server.post(path, &body);
        let error = &response.json()["error"];
        assert_eq!((response.head.status, error["param"].as_str()), (status, param), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    // What is allowed, and says nothing.
    let idle = json!({
        "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": false, "tools": [], "response_format": {"type": "text"}, "stop": null,
        "logit_bias": {}, "n": 1, "max_tokens": 2, "stream": false, "seed": null, "metadata": {"a": "b"}, "store": true,
    });
    server.post(CHAT, &hi(idle)).good();

    let json_body = [("Content-Type", "application/json")];
    let status = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let response = server.request(method, path, headers, body);
        assert!(response.json()["error"]["message"].is_string(), "{}", response.body);
        response.head.status
    };
    assert_eq!(status("POST", CHAT, &json_body, "{\"model\": "), 400);
    assert_eq!(status("POST", CHAT, &json_body, &"[".repeat(5000)), 400);
    assert_eq!(status("POST", CHAT, &json_body, &format!("{{\"a\": \"{}\"}}", "x".repeat(10_000))), 413);
    assert_eq!(status("POST", CHAT, &json_body, &"x".repeat(70_000)), 413);
    assert_eq!(status("POST", CHAT, &[("Content-Type", "text/plain")], "{}"), 415);
    assert_eq!(status("POST", CHAT, &[], "{}"), 415);
    assert_eq!(status("GET", CHAT, &[], ""), 405);
    assert_eq!(status("DELETE", "/v1/models", &[], ""), 405);
    assert_eq!(status("GET", "/v1/models/gpt-4", &[], ""), 404);
    assert_eq!(status("GET", "/", &[], ""), 404);
    assert_eq!(status("GET", "/v1/models", &[("Host", "attacker.example:80")], ""), 403);
    // After all that it answers.
    for host in ["localhost", "127.0.0.1:8080", "[::1]:8080", "[::1]"] {
        assert_eq!(server.request("GET", "/v1/models", &[("Host", host)], "").head.status, 200, "{host}");
    }
    assert_eq!(server.get("/v1/models").good()["data"][0]["id"], NAME);
    assert_eq!(server.get("/v1/models/tiny").good()["owned_by"], "wgformer");
    assert_eq!(server.get("/health").good(), json!({"status": "ok"}));
    assert_eq!(server.metric("wgformer_prompts_running"), 0.0);
    assert!(server.metric("wgformer_requests_total{path=\"/v1/chat/completions\",status=\"400\"}") >= 27.0);
}

#[test]
fn a_template_may_refuse_and_a_model_may_have_none() {
    let tiny = Tiny::on(&gpu());
    let serve = |template: Option<&str>| {
        let template = template.map(|text| {
            wgformer::io::ChatTemplate::new("/secret/template", text, std::sync::Arc::new(|_| Ok(String::new())))
                .unwrap()
        });
        let limits =
            wgformer::generate::SchedulerLimits::default().with_requests(1).with_tokens(512).with_max_tokens(256);
        let scheduler = wgformer::generate::Scheduler::new(&gpu(), tiny.model.clone(), &tiny.weights, limits).unwrap();
        let server = wgformer::serve::Server::new(ServeLimits::default());
        TestServer::of(server.with_decoder(NAME, scheduler, &tiny.tokenizer, template, Default::default()))
    };
    let refused = serve(Some("{{ raise_exception('roles must alternate') }}")).post(CHAT, &chat("Hi", json!({})));
    assert_eq!(refused.head.status, 400);
    assert!(refused.body.contains("roles must alternate") && !refused.body.contains("secret"), "{}", refused.body);
    let refused = serve(None).post(CHAT, &chat("Hi", json!({})));
    assert!(refused.head.status == 400 && refused.body.contains("use /v1/completions"), "{}", refused.body);
}

#[test]
fn a_key_is_asked_for() {
    let server = TestServer::of_tiny_on(&gpu(), ServeLimits::default(), 1, |server| server.with_key("a secret"));
    let status = |header: &[(&str, &str)]| server.request("GET", "/v1/models", header, "").head.status;
    for wrong in
        ["", "Bearer ", "Bearer a secreT", "Bearer a secret ", "Bearer a secretly", "a secret", "Basic a secret"]
    {
        // Blanks at the end of a header are no part of it.
        let expected = if wrong == "Bearer a secret " { 200 } else { 401 };
        assert_eq!(status(&[("Authorization", wrong)]), expected, "{wrong:?}");
    }
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("Authorization", "Bearer a secret"), ("Host", "model.example")]), 200);
    assert_eq!(server.get("/metrics").head.status, 401);
    assert_eq!(server.get("/health").head.status, 200);
    let refused = server.request("POST", CHAT, &[("Content-Type", "application/json")], "{}");
    assert_eq!((refused.head.status, refused.head.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
}

#[test]
fn a_request_that_takes_too_long_ends() {
    let server = TestServer::of_tiny(ServeLimits::default().with_time(Duration::from_secs(1)), 2);
    let long = json!({"max_tokens": 8000, "logit_bias": {"256": -100}});
    // Its programs are made first, whatever that takes.
    server.post(COMPLETIONS, &completion("It is", json!({"max_tokens": 20, "logit_bias": {"256": -100}})));
    server.wait_until_idle();
    let before = server.metric("wgformer_cancelled_total");
    let late = server.post(COMPLETIONS, &completion("It is", long.clone()));
    assert_eq!((late.head.status, late.json()["error"]["type"].as_str()), (504, Some("server_error")));
    let (texts, finishes, _) = gathered(server.stream(CHAT, &chat("It is", long)), "chat", 1);
    assert_eq!(finishes, ["timeout"]);
    assert!(!texts[0].is_empty());
    server.wait_until_idle();
    assert_eq!(server.metric("wgformer_cancelled_total"), before + 2.0);
}

#[test]
fn a_lost_device_is_told_to_all_and_ends_the_server() {
    let gpu = wgformer::Gpu::choose(None).unwrap();
    let server = TestServer::of_tiny_on(&gpu, ServeLimits::default(), 2, |server| server);
    let mut events =
        server.stream(COMPLETIONS, &completion("It is", json!({"max_tokens": 8000, "logit_bias": {"256": -100}})));
    assert!(events.next().unwrap().contains("text_completion"));
    gpu.device().destroy();
    let last = events.last().unwrap();
    let error: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(error["error"]["type"], "server_error", "{last}");
    let error = server.ended().unwrap_err();
    assert!(matches!(error, wgformer::Error::DeviceLost { .. }), "{error}");
}
