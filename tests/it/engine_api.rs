//! The Docker client against a fake engine: API versions, exhausted networks, and an engine that is not there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri};
use axum::response::IntoResponse as _;
use beespace::engine::docker::Docker;
use beespace::engine::{Engine, EngineError};
use beespace_core::ids::{BuildId, StageId, StageNumber};
use beespace_tests::docker;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A fake engine that supports only the requests of `check`. It reports API version `api` and refuses versions older than
/// `oldest`.
async fn engine_with_answer(api: &'static str, oldest: Option<&'static str>) -> (Docker, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let answer = move |uri: Uri| {
        log.lock().unwrap().push(uri.path().to_owned());
        async move {
            match oldest {
                _ if uri.path().ends_with("/version") => {
                    axum::Json(json!({ "ApiVersion": api, "Version": "99" })).into_response()
                }
                Some(oldest) => {
                    let message = format!("client version 1.53 is too old. Minimum supported API version is {oldest}");
                    (StatusCode::BAD_REQUEST, axum::Json(json!({ "message": message }))).into_response()
                }
                None => axum::Json(json!({})).into_response(),
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    (Docker::new(docker::options(&host, "a")).unwrap(), asked)
}

#[tokio::test]
async fn the_newest_common_api_version_is_used() {
    let ours = bollard::API_DEFAULT_VERSION.to_string();
    for (theirs, spoken) in [("1.41", "1.41"), ("1.44", "1.44"), ("9.9", &*ours)] {
        let (engine, asked) = engine_with_answer(theirs, None).await;
        assert_eq!(engine.check().await.unwrap().api, spoken);
        let asked = asked.lock().unwrap();
        assert_eq!(asked.last(), Some(&format!("/v{spoken}/info")), "{asked:?}");
    }
}

#[tokio::test]
async fn an_engine_with_an_incompatible_api_version_is_refused_with_a_remedy() {
    let (engine, _) = engine_with_answer("1.40", None).await;
    let error = engine.check().await.unwrap_err();
    assert!(matches!(&error, EngineError::TooOld { api, .. } if api == "1.40"), "{error:?}");
    assert!(!error.is_transient() && error.reason().to_string().contains("Docker 20.10"), "{}", error.reason());

    let (engine, _) = engine_with_answer("9.9", Some("1.60")).await;
    let error = engine.check().await.unwrap_err();
    assert!(matches!(error, EngineError::TooNew { .. }), "{error:?}");
    let reason = error.reason().to_string();
    assert!(!error.is_transient() && reason.contains("1.60") && reason.contains("newer Beespace"), "{reason}");
}

#[tokio::test]
async fn an_engine_that_refuses_the_pause_image_is_not_healthy_and_not_asked_again_and_again() {
    let answer = async move |uri: Uri| match uri.path() {
        path if path.ends_with("/version") => axum::Json(json!({ "ApiVersion": "1.41", "Version": "99" })).into_response(),
        path if path.ends_with("/images/create") => {
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(json!({ "message": "imports are forbidden" }))).into_response()
        }
        path if path.contains("/images/") => {
            (StatusCode::NOT_FOUND, axum::Json(json!({ "message": "no such image" }))).into_response()
        }
        _ => axum::Json(json!({})).into_response(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let engine = Docker::new(docker::options(&host, "a")).unwrap();
    assert_eq!(engine.check().await.unwrap().version, "99");
    for error in [engine.maintain().await.unwrap_err(), engine.check().await.unwrap_err()] {
        let reason = error.reason();
        assert_eq!(reason.code, "engine-pause-image-refused", "{reason}");
        assert!(!error.is_transient() && reason.message.contains("imports are forbidden"), "{reason}");
    }
}

#[tokio::test]
async fn another_program_at_the_address_of_the_engine_is_recognised() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new()).await });
    let error = Docker::new(docker::options(&host, "a")).unwrap().check().await.unwrap_err();
    assert!(matches!(&error, EngineError::NotAnEngine { host: named } if *named == host), "{error:?}");
    assert_eq!(error.reason().code, "engine-invalid-response");
}

#[tokio::test]
async fn a_network_that_cannot_be_removed_does_not_keep_the_others() {
    let (sender, mut removed) = mpsc::unbounded_channel();
    let network = |name: &str| json!({ "Name": name, "Labels": { "beespace.network": name } });
    let networks = json!([network("stuck"), network("free")]);
    let answer = async move |method: Method, uri: Uri| match uri.path() {
        path if path.ends_with("/version") => axum::Json(json!({ "ApiVersion": "1.41", "Version": "99" })).into_response(),
        path if path.ends_with("/networks") => axum::Json(networks).into_response(),
        path if path.ends_with("/volumes") => axum::Json(json!({ "Volumes": [] })).into_response(),
        path if path.ends_with("/json") => axum::Json(json!([])).into_response(),
        path if path.ends_with("/containers/stuck") => {
            (StatusCode::BAD_REQUEST, axum::Json(json!({ "message": "no" }))).into_response()
        }
        path if method == Method::DELETE => {
            // The other removal has failed long before.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            sender.send(path.rsplit_once("/v1.41").unwrap().1.to_owned()).unwrap();
            StatusCode::NO_CONTENT.into_response()
        }
        path => panic!("{method} {path}"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let error = Docker::new(docker::options(&host, "a")).unwrap().shutdown().await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { status: 400, .. }), "{error:?}");
    let removed: Vec<String> = std::iter::from_fn(|| removed.try_recv().ok()).collect();
    assert_eq!(removed, ["/containers/free", "/networks/free"]);
}

/// Opens a stage on a fake engine that has these networks and refuses every new one. Returns the error and the requested subnets.
async fn opened_among(networks: serde_json::Value) -> (EngineError, BTreeSet<String>) {
    let (sender, mut asked) = mpsc::unbounded_channel();
    let answer = async move |uri: Uri, body: Bytes| match uri.path() {
        path if path.ends_with("/version") => axum::Json(json!({ "ApiVersion": "1.41", "Version": "99" })).into_response(),
        path if path.ends_with("/volumes/create") => {
            let volume =
                json!({ "Name": "v", "Driver": "local", "Mountpoint": "/v", "Labels": {}, "Scope": "local", "Options": {} });
            (StatusCode::CREATED, axum::Json(volume)).into_response()
        }
        path if path.ends_with("/networks") => axum::Json(networks).into_response(),
        path if path.ends_with("/networks/create") => {
            let network: serde_json::Value = serde_json::from_slice(&body).unwrap();
            sender.send(network["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().to_owned()).unwrap();
            let message = "Pool overlaps with other one on this address space";
            (StatusCode::FORBIDDEN, axum::Json(json!({ "message": message }))).into_response()
        }
        path if path.ends_with("/containers/create") => axum::Json(json!({ "Id": "c", "Warnings": [] })).into_response(),
        path if ["/networks/", "/volumes/", "/containers/"].iter().any(|kind| path.contains(kind)) => {
            (StatusCode::NOT_FOUND, axum::Json(json!({ "message": "there is none" }))).into_response()
        }
        _ => axum::Json(json!({})).into_response(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let engine = Docker::new(docker::options(&host, "a")).unwrap();
    let stage = StageId { build: BuildId(uuid::Uuid::now_v7()), stage: StageNumber(1) };
    let error = engine.open(stage).await.unwrap_err();
    (error, std::iter::from_fn(|| asked.try_recv().ok()).collect())
}

fn asks_for_addresses(error: &EngineError, expected: &str) {
    assert!(error.is_transient(), "a stage that ends gives its network back: {error:?}");
    let reason = error.reason();
    assert_eq!(reason.code, "engine-networks-exhausted");
    assert!(reason.help.as_ref().is_some_and(|help| help.contains("[engine] network_pool")), "{reason}");
    assert!(reason.to_string().contains(expected), "{reason}");
}

#[tokio::test]
async fn an_exhausted_network_pool_is_reported_with_a_remedy() {
    let all = json!({ "Name": "x", "Driver": "bridge", "IPAM": { "Config": [{ "Subnet": "198.18.0.0/15" }] } });
    let (error, asked) = opened_among(json!([all])).await;
    asks_for_addresses(&error, "all are in use");
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test]
async fn a_refused_subnet_is_replaced_a_limited_number_of_times() {
    let (error, asked) = opened_among(json!([])).await;
    asks_for_addresses(&error, "Pool overlaps");
    // There are 2,048 subnets to choose from, so eight equal requests would mean that no choice is made.
    assert!((2..=8).contains(&asked.len()) && asked.iter().all(|range| range.starts_with("198.19.")), "{asked:?}");
}

#[tokio::test]
async fn an_unreachable_engine_is_reported_with_its_address_and_a_remedy() {
    let engine = Docker::new(docker::options("unix:///nowhere/docker.sock", "a")).unwrap();
    let error = engine.check().await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient());
    let reason = error.reason();
    assert!(reason.message.contains("unix:///nowhere/docker.sock") && reason.help.is_some(), "{reason}");
    assert!(matches!(Docker::new(docker::options("ssh://x", "a")), Err(EngineError::InvalidAddress { .. })));
}
