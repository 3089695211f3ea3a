//! Settings of a pipeline file that only a real container shows: working directory, workspace and secrets.

use beespace_core::status::Status;
use reqwest::Method;
use serde_json::json;

use crate::flow_settings::reason;
use crate::needs_docker::flow_docker::World;

const REPO: &str = "ada/hive";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_uses_its_working_directory_and_an_empty_workspace_without_clone() {
    let world = World::new("").await;
    let look = json!({ "name": "look", "run": "pwd; ls -A /workspace | wc -l", "workdir": "/tmp" });
    let below = json!({ "name": "below", "run": "pwd", "workdir": "./web/app/" });
    let build = world.build(json!({ "clone": false, "steps": [look, below] })).await;
    let lines = world.log(&build, "look").await.into_iter().chain(world.log(&build, "below").await).collect::<Vec<_>>();
    assert_eq!((build.status, lines), (Status::Success, ["/tmp", "0", "/workspace/web/app"].map(String::from).to_vec()));
    assert!(world.log(&build, "clone").await.iter().any(|line| line.contains("disables the clone")));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_secret_is_private_and_overrides_the_instance_secret() {
    let world = World::new("").await;
    world.gogs.create_repository("ada/comb").await.unwrap();
    world.beespace.enable("ada/comb").await.unwrap();
    world.beespace.set_secret("token", "of-all").await.unwrap();
    let admin = world.beespace.admin().unwrap();
    for (name, value) in [("token", "of-the-hive-alone"), ("own", "of-the-hive-alone")] {
        let path = format!("/api/v1/repositories/{REPO}/secrets/{name}");
        let answer = admin.call(Method::PUT, &path, &json!({ "value": value })).await.unwrap();
        assert!(answer.status.is_success(), "{answer:?}");
    }
    let step = |secret: &str| {
        let env = json!({ "T": { "from_secret": secret } });
        json!({ "name": "count", "image": world.image, "run": "echo ${#T} characters", "env": env })
    };
    let push = async |repository: &str, secret: &str| {
        let file = json!({ "name": secret, "steps": [step(secret)] }).to_string();
        world.gogs.push(repository, "main", &[(".beespace.yml", &file)], secret).await.unwrap();
    };
    for (repository, number, secret, expected) in
        [(REPO, 1, "token", "17 characters"), ("ada/comb", 1, "token", "6 characters"), (REPO, 2, "own", "17 characters")]
    {
        push(repository, secret).await;
        let build = world.beespace.wait_until_finished(repository, number).await.unwrap();
        assert_eq!(
            (build.status, world.log(&build, "count").await),
            (Status::Success, vec![expected.to_owned()]),
            "{repository}"
        );
    }
    push("ada/comb", "own").await;
    let build = world.beespace.wait_until_finished("ada/comb", 2).await.unwrap();
    assert_eq!(build.status, Status::Error, "{build:#?}");
    assert!(reason(&build).contains("secret \"own\" is not set for this repository"), "{}", reason(&build));
    world.assert_clean().await;
}
