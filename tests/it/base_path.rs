//! A server whose `public_url` has a path: every URL that it gives out is below the path, whether the proxy passes the path on or
//! strips it.

use std::collections::BTreeSet;

use beespace_tests::beespace::Beespace;
use beespace_tests::client::Client;
use beespace_tests::gogs::FakeGogs;
use reqwest::{Method, StatusCode};
use serde_json::Value;

const REPO: &str = "ada/hive";
const SERVER: &str = "open = true\npublic_url = \"http://ci.example/tools/ci/\"\nhook_url = \"http://gogs-side.example/hooks\"";
const BASE: &str = "/tools/ci";

async fn world() -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start_with(&gogs, SERVER, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    gogs.push(REPO, "main", &[(".beespace.yml", "steps:\n  - name: build\n    image: busybox\n")], "Fill cells").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    (gogs, beespace)
}

/// The values of the attributes that make a browser send a request.
fn urls_on(page: &str) -> BTreeSet<String> {
    let attributes =
        [" href=\"", " src=\"", " action=\"", " data-live=\"", " data-stream=\"", " data-home=\"", " data-worker=\""];
    let values = attributes.iter().flat_map(|attribute| page.split(attribute).skip(1));
    values.map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&")).collect()
}

/// What arrives at the server behind a proxy that strips the path, or passes it on.
fn through_proxy(url: &str, strips: bool) -> &str {
    let below = url.strip_prefix(BASE).filter(|rest| rest.starts_with('/'));
    let below = below.unwrap_or_else(|| panic!("{url} is outside of {BASE}"));
    if strips { below } else { url }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_url_on_every_page_is_below_the_path_of_the_public_url() {
    let (_gogs, beespace) = world().await;
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let mut seen = BTreeSet::new();
    for strips in [false, true] {
        let mut todo = vec![format!("{BASE}/")];
        while let Some(url) = todo.pop() {
            if !seen.insert((url.clone(), strips)) {
                continue;
            }
            let path = through_proxy(&url, strips);
            let answer = session.send_for_headers(session.request(Method::GET, path)).await.unwrap();
            // An action's URL answers to POST only.
            let is_action = answer.status == StatusCode::METHOD_NOT_ALLOWED;
            assert!(answer.status == StatusCode::OK || is_action, "{url} as {path}: {answer:?}");
            if !answer.header("content-type").starts_with("text/html") || is_action {
                continue;
            }
            let page = session.get(path).await.unwrap().body;
            let absolute = urls_on(&page).into_iter().filter(|url| !url.starts_with(['#', '?']) && !url.starts_with("http"));
            todo.extend(absolute.map(|url| url.split('#').next().unwrap().to_owned()));
        }
    }
    let visited =
        |path: &str| seen.contains(&(format!("{BASE}{path}"), false)) && seen.contains(&(format!("{BASE}{path}"), true));
    for path in ["/", "/ada", "/ada/hive", "/ada/hive/1", "/ada/hive/1/1/1", "/-/deliveries", "/-/notices", "/-/logout"] {
        assert!(visited(path), "{path} was not reached: {seen:#?}");
    }
    assert!(seen.iter().any(|(url, _)| url.starts_with(&format!("{BASE}/api/v1/events"))), "{seen:#?}");
    assert_eq!(session.get(BASE).await.unwrap().status, StatusCode::OK, "without the slash at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_cookies_stay_below_the_path() {
    let (_gogs, beespace) = world().await;
    for client in [beespace.anonymous(), Client::new(&format!("{}{BASE}", beespace.url))] {
        let led = client.get("/-/deliveries?after=x").await.unwrap();
        assert_eq!(led.header("location"), format!("{BASE}/-/login?next=%2F-%2Fdeliveries%3Fafter%3Dx"));
        let token = beespace.admin_token().unwrap();
        let form = [("token", token.as_str()), ("next", "/-/deliveries?after=x")];
        let request = client.request(Method::POST, "/-/login").header("origin", &beespace.url).form(&form);
        let signed_in = client.send(request).await.unwrap();
        assert_eq!(signed_in.header("location"), format!("{BASE}/-/deliveries?after=x"));
        let cookie = signed_in.header("set-cookie");
        assert!(cookie.starts_with("beespace-") && cookie.contains(&format!("; Path={BASE};")), "{cookie}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_gives_out_paths_below_the_path() {
    let (_gogs, beespace) = world().await;
    for client in [beespace.anonymous(), Client::new(&format!("{}{BASE}", beespace.url))] {
        let builds = client.get("/api/v1/builds").await.unwrap().json().unwrap();
        assert_eq!(builds[0]["href"], format!("{BASE}/ada/hive/1"));
        let repositories = client.get("/api/v1/repositories").await.unwrap().json().unwrap();
        assert_eq!(repositories[0]["href"], format!("{BASE}/ada/hive"));
        let document = client.get("/api/openapi.json").await.unwrap().json().unwrap();
        assert_eq!(document["servers"], serde_json::json!([{ "url": format!("{BASE}/") }]));
    }
    let restart = "/api/v1/repositories/ada/hive/builds/1/restart";
    let again: Value = beespace.admin().unwrap().post(restart, &serde_json::json!({})).await.unwrap().json().unwrap();
    assert!(again["href"].as_str().unwrap().starts_with(&format!("{BASE}/ada/hive/")), "{again}");
    let first = beespace.anonymous().get("/api/v1/builds?limit=1").await.unwrap();
    assert!(first.header("link").starts_with(&format!("<{BASE}/api/v1/builds?limit=1&after=")), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_arrive_below_the_paths_of_both_urls() {
    let (_gogs, beespace) = world().await;
    for path in ["/-/hook/none", "/tools/ci/-/hook/none", "/hooks/-/hook/none"] {
        let answer = beespace.anonymous().post(path, &serde_json::json!({})).await.unwrap();
        // The key is unknown. The route is found, and the response is that of the webhook.
        assert_eq!(
            (answer.status, answer.json().unwrap()["code"].as_str()),
            (StatusCode::UNAUTHORIZED, Some("refused")),
            "{path}"
        );
    }
    let elsewhere = beespace.anonymous().post("/other/-/hook/none", &serde_json::json!({})).await.unwrap();
    assert_ne!(elsewhere.status, StatusCode::UNAUTHORIZED);
}
