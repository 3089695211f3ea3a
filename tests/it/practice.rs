//! The practice Gogs does what the real one was seen to do.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use beespace::forge::Forge;
use beespace_core::ids::RepositoryName;
use beespace_core::verify::verify;
use beespace_tests::gogs::delivery::Task;
use beespace_tests::gogs::{PracticeGogs, Repo};
use serde_json::Value;

use crate::gogs::recorded;

type Seen = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

struct World {
    gogs: PracticeGogs,
    repo: Repo,
    seen: Seen,
}

async fn world() -> World {
    let gogs = PracticeGogs::start().await;
    let repo = gogs.create_repo("acme", "app").await;
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let receive = move |headers: HeaderMap, body: axum::body::Bytes| async move {
        kept.lock().unwrap().push((headers, body.to_vec()));
        StatusCode::ACCEPTED
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(receive)).await });
    let forge = Forge::new(gogs.url().parse().unwrap(), gogs.token().into(), None).unwrap();
    let name = RepositoryName::new("acme", "app").unwrap();
    forge.create_hook(&name, &url, &"s3cret".to_owned().into()).await.unwrap();
    World { gogs, repo, seen }
}

fn told(tasks: &[Task]) -> Vec<String> {
    tasks
        .iter()
        .map(|task| {
            let payload: Value = serde_json::from_str(&task.json).unwrap();
            let kind = payload["ref_type"].as_str().unwrap_or_default();
            format!("{} {} {kind}", task.event, payload["ref"].as_str().unwrap_or_default()).trim_end().to_owned()
        })
        .collect()
}

/// Keys in their order, with the types of what they hold; lists by their first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(items) => items.first().map_or(Value::Array(vec![]), |first| Value::Array(vec![shape(first)])),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => Value::Null,
    }
}

fn shape_of(json: &str) -> Value {
    let mut value: Value = serde_json::from_str(json).unwrap();
    // Which files a commit touched is another matter than what a payload looks like.
    if let Some(commits) = value["commits"].as_array_mut() {
        for commit in commits {
            for list in ["added", "removed", "modified"] {
                commit[list] = Value::Null;
            }
        }
    }
    shape(&value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_told_with_the_headers_the_shape_and_the_signature_that_were_recorded() {
    let world = world().await;
    world.gogs.push(&world.repo, "master", &[("a <b> & c", "1")], "one <&>").await;
    let tasks = world.gogs.settled().await;
    assert_eq!(told(&tasks), ["create master branch", "push refs/heads/master"]);
    let seen = world.seen.lock().unwrap();
    let (headers, body) = &seen[1];
    let signature = headers.get("x-gogs-signature").unwrap().to_str().unwrap();
    assert!(verify(body.clone(), b"s3cret", Some(signature)).is_some());
    assert!(String::from_utf8_lossy(body).contains("one \\u003c\\u0026\\u003e"), "Go escapes for HTML");
    let recorded = recorded();
    for (task, (headers, _)) in tasks.iter().zip(seen.iter()) {
        let like = recorded.iter().rev().find(|one| {
            one.header("x-gogs-event") == Some(&task.event)
                && !one.is_form()
                && !one.raw_json.contains("\"commits\": []")
                && one.raw_json.contains("\"mirror\": false")
        });
        let like = like.unwrap();
        let names = |headers: &mut dyn Iterator<Item = String>| {
            let mut names: Vec<String> = headers.map(|name| name.to_lowercase()).collect();
            names.sort();
            names
        };
        let ours = names(&mut headers.keys().map(ToString::to_string));
        assert_eq!(ours, names(&mut like.headers.iter().map(|(name, _)| name.clone())));
        if task.event == "push" {
            assert_eq!(shape_of(&task.json), shape_of(&like.raw_json));
            let keys = |json: &str| {
                serde_json::from_str::<Value>(json).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(&task.json), keys(&like.raw_json));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ref_is_told_as_gogs_tells_it() {
    let world = world().await;
    let copy = world.gogs.working_copy(&world.repo);
    copy.open("master").await;
    for number in 0..7 {
        copy.commit(&format!("commit {number}")).await;
    }
    copy.git(&["tag", "--annotate", "--message", "m", "v1"]).await;
    copy.push(&["HEAD:refs/heads/master", "HEAD:refs/heads/feature/x", "refs/tags/v1", "HEAD:refs/foo/bar"]).await;
    copy.push(&[":refs/heads/feature/x", ":refs/tags/v1"]).await;
    let tasks = world.gogs.settled().await;
    assert_eq!(
        told(&tasks),
        [
            "create refs/foo/bar branch",
            "push refs/foo/bar",
            "create feature/x branch",
            "push refs/heads/feature/x",
            "create master branch",
            "push refs/heads/master",
            "create v1 tag",
            "delete feature/x branch",
            "delete v1 tag",
        ]
    );
    let push: Value = serde_json::from_str(&tasks[5].json).unwrap();
    assert_eq!(push["commits"].as_array().unwrap().len(), 5, "cut to five, without a word");
    assert_eq!(push["commits"][0]["id"], push["after"], "newest first");
    assert_eq!(push["before"], "0".repeat(40));
    let tag: Value = serde_json::from_str(&tasks[6].json).unwrap();
    assert_eq!(tag["sha"], copy.git(&["rev-parse", "v1"]).await, "the tag object's, not the commit's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_lists_the_commits_that_were_removed() {
    let world = world().await;
    let copy = world.gogs.working_copy(&world.repo);
    copy.open("master").await;
    let base = copy.commit("base").await;
    let removed = copy.commit("removed").await;
    copy.push(&["HEAD:refs/heads/master"]).await;
    copy.git(&["reset", "--quiet", "--hard", &base]).await;
    copy.push(&["+HEAD:refs/heads/master"]).await;
    let tasks = world.gogs.settled().await;
    let push: Value = serde_json::from_str(&tasks.last().unwrap().json).unwrap();
    assert_eq!((push["after"].as_str().unwrap(), push["commits"][0]["id"].as_str().unwrap()), (base.as_str(), removed.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_is_the_same_to_the_byte() {
    let world = world().await;
    world.gogs.push(&world.repo, "master", &[("a", "1")], "one").await;
    let uuid = world.gogs.settled().await[1].uuid.clone();
    world.gogs.redeliver(&uuid);
    let tasks = world.gogs.settled().await;
    assert_eq!((tasks.len(), tasks[1].sent), (2, 2));
    let seen = world.seen.lock().unwrap();
    assert_eq!(seen[1].1, seen[2].1);
    assert_eq!(seen[1].0.get("x-gogs-delivery"), seen[2].0.get("x-gogs-delivery"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_button_sends_a_push_from_where_it_stands_to_where_it_stands() {
    let world = world().await;
    world.gogs.test_delivery(&world.repo).await;
    let sha = world.gogs.push(&world.repo, "master", &[("a", "1")], "one").await;
    world.gogs.test_delivery(&world.repo).await;
    let tasks = world.gogs.settled().await;
    for (task, expected) in [(&tasks[0], "0".repeat(40)), (tasks.last().unwrap(), sha)] {
        let push: Value = serde_json::from_str(&task.json).unwrap();
        assert_eq!((push["before"].as_str(), push["after"].as_str()), (Some(&*expected), Some(&*expected)));
        assert_eq!(push["commits"][0]["timestamp"], "0001-01-01T00:00:00Z");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gogs_keeps_its_quirks_about_hooks() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = world().await;
    let client = reqwest::Client::new();
    let hooks = format!("{}/api/v1/repos/acme/app/hooks", world.gogs.url());
    let token = format!("token {}", world.gogs.token());
    let post = async |body: Value| {
        let answer = client.post(&hooks).header("Authorization", &token).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let config = serde_json::json!({ "url": "http://127.0.0.1:1/", "content_type": "json", "secret": "s" });
    let (status, least) = post(serde_json::json!({ "type": "gogs", "config": config })).await;
    assert_eq!((status, &least["active"], &least["events"]), (201, &Value::Bool(false), &serde_json::json!(["push"])));
    assert!(!least.to_string().contains("secret"));
    assert_eq!(post(serde_json::json!({ "type": "other", "config": config })).await.0, 422);
    let unknown = format!("{hooks}/999");
    let status = |answer: reqwest::Response| answer.status().as_u16();
    assert_eq!(status(client.delete(&unknown).header("Authorization", &token).send().await.unwrap()), 204);
    for scheme in ["Token", "Bearer", "Basic"] {
        let other = token.replace("token", scheme);
        let answer = client.get(&hooks).header("Authorization", other).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401);
        assert_eq!(answer.text().await.unwrap(), "");
    }
}
