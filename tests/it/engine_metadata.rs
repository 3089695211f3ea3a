//! The metadata service of a cloud, where a machine finds what lets it in elsewhere: containers do not reach it.

use std::sync::Arc;

use beespace::engine::docker::{Docker, DockerOptions};
use beespace_tests::docker;
use beespace_tests::dockerd::Dockerd;

use crate::engine_bench::Bench;

/// What a container gets from the services, and from a resolver at the address of most of them.
const ASK: &str = "for to in '169.254.169.254 80' '169.254.170.2 80' '100.100.100.200 80' '169.254.169.254 53'; do \
                   nc -w 3 $to </dev/null || echo closed; done";
const OPEN: &str = "credentials\ncredentials\ncredentials\nnames\n";
const CLOSED: &str = "closed\nclosed\nclosed\nnames\n";

#[tokio::test(flavor = "multi_thread")]
async fn containers_reach_no_metadata_service_and_cannot_open_the_way() {
    let dockerd = Dockerd::start(false).await.unwrap();
    let image = docker::image_in(&dockerd.api().await.unwrap()).await.unwrap();
    let serve = "busybox ip link set lo up; \
                 for at in 169.254.169.254 169.254.170.2 100.100.100.200; do busybox ip addr add $at/32 dev lo; done; \
                 busybox nc -ll -p 53 -e echo names & exec busybox nc -ll -p 80 -e echo credentials";
    let _service = dockerd.beside(&["sh", "-c", serve]).await.unwrap();
    let bench = async |metadata_access| {
        let options = DockerOptions { metadata_access, ..docker::options(&dockerd.host(), &docker::instance()) };
        Bench::on(Arc::new(Docker::new(options).unwrap()), image.clone()).await
    };

    let open = bench(true).await;
    // The service may need a moment.
    let asked = format!("until nc -w 1 169.254.169.254 80 </dev/null >/dev/null; do sleep 0.1; done; {ASK}");
    assert_eq!(open.shell_says(1, &asked).await, OPEN, "without the guard it is there");
    open.destroy().await;

    let closed = bench(false).await;
    assert_eq!(closed.shell_says(1, ASK).await, CLOSED);
    let undo = format!("ip rule del pref 100 2>/dev/null && echo undone; ip rule flush 2>/dev/null && echo undone; {ASK}");
    assert_eq!(closed.shell_says(2, &undo).await, CLOSED);
    closed.destroy().await;
}
