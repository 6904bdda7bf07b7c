//! Many clients, slow ones, and those that go away.

use super::client::{NAME, PATIENCE, TestServer, Tiny, gathered, gpu};
use super::common::wgformer;
use super::{CHAT, COMPLETIONS, chat, completion};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use wgformer::serve::ServeLimits;

/// An answer that takes long, and does not end by itself.
fn long() -> serde_json::Value {
    json!({"max_tokens": 8000, "logit_bias": {"256": -100}})
}

#[test]
fn clients_that_go_away_cancel_their_answers() {
    let server = TestServer::of_tiny(ServeLimits::default(), 2);
    let mut events = server.stream(COMPLETIONS, &completion("It is", long()));
    assert!(events.next().is_some());
    server.wait_for("wgformer_prompts_running", |running| running == 1.0);
    drop(events);
    server.wait_until_idle();
    assert_eq!(server.metric("wgformer_cancelled_total"), 1.0);
    // One that waits for a whole answer, of two prompts.
    let body = completion(json!(["It is", "That"]), long()).to_string();
    let socket = server.send("POST", COMPLETIONS, &[("Content-Type", "application/json")], &body);
    server.wait_for("wgformer_prompts_running", |running| running == 2.0);
    drop(socket);
    server.wait_until_idle();
    assert_eq!(server.metric("wgformer_cancelled_total"), 3.0);
    let before = server.metric("wgformer_new_tokens_total");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.metric("wgformer_new_tokens_total"), before, "nothing runs on");
    assert!(before < 3.0 * 8000.0, "they were cancelled, not answered");
}

#[test]
fn a_full_queue_is_told_and_empties() {
    let server = TestServer::of_tiny(ServeLimits::default().with_requests(3), 1);
    let begin = || {
        let mut events = server.stream(CHAT, &chat("It is", long()));
        assert!(events.next().unwrap().contains("assistant"));
        events
    };
    let running = [begin(), begin()];
    // Two more are one too many; one is not.
    let refused = server.post(COMPLETIONS, &completion(json!(["a", "b"]), json!({})));
    assert_eq!((refused.head.status, refused.head.header("retry-after")), (429, Some("1")), "{}", refused.body);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    let third = begin();
    assert_eq!(server.post(CHAT, &chat("Hi", json!({}))).head.status, 429);
    server.wait_for("wgformer_prompts_queued", |queued| queued == 2.0);
    assert_eq!(server.metric("wgformer_prompts_running"), 1.0);
    drop((running, third));
    server.wait_until_idle();
    server.post(CHAT, &chat("Hi", json!({}))).good();
}

#[test]
fn clients_at_once_get_the_answers_that_they_get_alone() {
    let server = TestServer::of_tiny(ServeLimits::default(), 4);
    let tiny = Tiny::on(&gpu());
    let prompts: Vec<String> = (0..8).map(|i| format!("It is a truth {}", "universally ".repeat(i))).collect();
    std::thread::scope(|scope| {
        for (number, prompt) in prompts.iter().enumerate() {
            let (server, tiny) = (&server, &tiny);
            let wanted = tiny.greedy(prompt, 40);
            scope.spawn(move || {
                for _ in 0..3 {
                    let body = completion(prompt.as_str(), json!({"max_tokens": 40}));
                    let text = match number % 2 {
                        0 => server.post(COMPLETIONS, &body).good()["choices"][0]["text"].as_str().unwrap().to_owned(),
                        _ => gathered(server.stream(COMPLETIONS, &body), "text", 1).0.remove(0),
                    };
                    assert_eq!(text, wanted, "{prompt}");
                }
            });
        }
    });
    assert!(server.metric("wgformer_answer_seconds_count") >= 24.0);
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_up_others() {
    let server = TestServer::of_tiny(ServeLimits::default(), 8);
    let mut body = completion("It is", long());
    (body["n"], body["stream"]) = (6.into(), true.into());
    let slow = server.send("POST", COMPLETIONS, &[("Content-Type", "application/json")], &body.to_string());
    server.wait_for("wgformer_prompts_running", |running| running == 6.0);
    let wanted = Tiny::on(&gpu()).greedy("That", 20);
    for _ in 0..5 {
        let answer = server.post(COMPLETIONS, &completion("That", json!({"max_tokens": 20}))).good();
        assert_eq!(answer["choices"][0]["text"], *wanted);
    }
    assert_eq!(server.metric("wgformer_prompts_running"), 6.0, "the slow one is answered all the while");
    drop(slow);
    server.wait_until_idle();
}

#[test]
fn connections_that_stand_still_are_ended() {
    let times = ServeLimits::default().with_read(Duration::from_millis(300)).with_write(Duration::from_millis(300));
    let server = TestServer::of_tiny(times, 1);
    let ends = |sent: &str| {
        let mut socket = server.connect();
        socket.write_all(sent.as_bytes()).unwrap();
        let (begun, mut read) = (Instant::now(), String::new());
        socket.read_to_string(&mut read).unwrap();
        assert!(begun.elapsed() < PATIENCE, "{sent:?}");
        read
    };
    for head in ["", "POST /v1/completions HTTP/1.1\r\nHost: local"] {
        ends(head);
    }
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let said = ends(head);
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    // One that asks and asks, and reads nothing: its answers fill what the system keeps of them.
    let mut socket = server.connect();
    let begun = Instant::now();
    while socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it may go on for ever");
    }
    server.get("/health").good();
}

#[test]
fn connections_beyond_the_limit_wait() {
    let limits = ServeLimits::default().with_connections(2).with_read(Duration::from_secs(1));
    let server = TestServer::of_tiny(limits, 1);
    let idle = [server.connect(), server.connect()];
    let begun = Instant::now();
    // Its turn comes when the idle ones are ended.
    server.get("/health").good();
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    drop(idle);
}

#[test]
fn a_shutdown_lets_answers_end_and_ends_those_that_take_too_long() {
    let mut server = TestServer::of_tiny(ServeLimits::default(), 2);
    let address = server.address;
    let mut events =
        server.stream(COMPLETIONS, &completion("It is", json!({"max_tokens": 300, "logit_bias": {"256": -100}})));
    assert!(events.next().is_some());
    server.begin_to_stop();
    let (_, finishes, _) = gathered(events, "text", 1);
    assert_eq!(finishes, ["length"]);
    server.ended().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());

    let mut server = TestServer::of_tiny(ServeLimits::default().with_grace(Duration::from_millis(100)), 2);
    let mut events = server.stream(COMPLETIONS, &completion("It is", long()));
    assert!(events.next().is_some());
    server.begin_to_stop();
    assert_ne!(events.last().as_deref(), Some("[DONE]"));
    server.ended().unwrap();
}

/// A server as a process of its own.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(more: &[&str]) -> Self {
        let mut command = wgformer();
        command.arg("serve").arg(super::client::case()).args(["--port", "0", "--name", NAME, "--json"]).args(more);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            said += &line;
            if line == "}" {
                break;
            }
        }
        let told: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(told["models"], json!([NAME]));
        let address = told["url"].as_str().unwrap().strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
        Self { address: address.to_owned(), child }
    }

    /// A request over a connection of its own; the status and the answer.
    fn ask(&self) -> String {
        let mut socket = std::net::TcpStream::connect(&self.address).unwrap();
        let body = completion("It is", json!({"max_tokens": 2})).to_string();
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
        socket.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Its memory in KiB, as the system counts it.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn interrupt(&mut self) -> std::process::ExitStatus {
        let kill = std::process::Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_as_it_is_over_a_thousand_requests() {
    let mut server = Process::start(&["--context", "64"]);
    let asked = |count: usize| {
        for _ in 0..count {
            let answer = server.ask();
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"completion_tokens\":2"), "{answer}");
        }
        server.memory()
    };
    let (before, after) = (asked(200), asked(800));
    eprintln!("memory after 200 and 1,000 requests: {before} and {after} KiB");
    assert!(after < before + before / 20 + 4096, "{before} KiB became {after} KiB");
    assert!(server.interrupt().success());
}

#[test]
fn the_command_says_what_is_wrong() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port().to_string();
    let refused = |more: &[&str]| {
        let mut command = wgformer();
        super::common::refusal(command.arg("serve").arg(super::client::case()).args(more))
    };
    assert!(refused(&["--port", &number]).contains("in use"));
    assert!(refused(&["--context", "300"]).contains("1 to 256"));
    assert!(refused(&["--host", "here"]).contains("--host"));
    assert!(refused(&["--timeout", "0"]).contains("greater than 0"));
}
