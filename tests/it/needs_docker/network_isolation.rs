//! The network of a stage cannot reach the metadata service of a cloud, which hands out credentials, and the other networks of
//! the engine, even when the engine does not isolate them.

use std::sync::Arc;

use beespace::engine::docker::{Docker, DockerOptions};
use beespace_tests::docker;
use beespace_tests::dockerd::Dockerd;
use beespace_tests::engine_fixture::{EngineFixture, collect_output};
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, HostConfig, NetworkCreateRequest};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Requests to the metadata services, and to the DNS resolver at the address of most of them.
const METADATA_REQUESTS: &str = "for to in '169.254.169.254 80' '169.254.170.2 80' '100.100.100.200 80' '168.63.129.16 80' \
                   '168.63.129.16 32526' '169.254.169.254 53'; do nc -w 3 $to </dev/null || echo closed; done";
const OPEN: &str = "credentials\ncredentials\ncredentials\ncredentials\ncredentials\nnames\n";
const CLOSED: &str = "closed\nclosed\nclosed\nclosed\nclosed\nnames\n";

async fn fixture(dockerd: &Dockerd, metadata_access: bool) -> EngineFixture {
    let image = docker::test_image_in(&dockerd.api().await.unwrap()).await.unwrap();
    let options = DockerOptions { metadata_access, ..docker::options(&dockerd.host(), &docker::instance()) };
    EngineFixture::on(Arc::new(Docker::new(options).unwrap()), image).await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_cannot_reach_a_metadata_service_or_remove_the_rules() {
    let dockerd = Dockerd::start(false).await.unwrap();
    let serve = "busybox ip link set lo up; \
                 for at in 169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16; do \
                 busybox ip addr add $at/32 dev lo; done; busybox nc -ll -p 53 -e echo names & \
                 busybox nc -ll -p 32526 -e echo credentials & exec busybox nc -ll -p 80 -e echo credentials";
    let _service = dockerd.spawn_in_sandbox(&["sh", "-c", serve]).await.unwrap();

    let open = fixture(&dockerd, true).await;
    // The service may need a moment to start.
    let asked = format!("until nc -w 1 169.254.169.254 80 </dev/null >/dev/null; do sleep 0.1; done; {METADATA_REQUESTS}");
    assert_eq!(open.shell_output(1, &asked).await, OPEN, "without the guard it is there");
    open.destroy().await;

    let closed = fixture(&dockerd, false).await;
    assert_eq!(closed.shell_output(1, METADATA_REQUESTS).await, CLOSED);
    let undo =
        format!("ip rule del pref 100 2>/dev/null && echo undone; ip rule flush 2>/dev/null && echo undone; {METADATA_REQUESTS}");
    assert_eq!(closed.shell_output(2, &undo).await, CLOSED);
    closed.destroy().await;
}

/// Responds to every connection.
const SERVE: &str = "while :; do echo for us alone | nc -l -p 8000; done";

/// Whether any datagram arrived, although nothing listens.
const PACKET_RECEIVED: &str = "awk '/^Udp:/ { heard = $3 } END { print (heard > 0) }' /proc/net/snmp";

/// Tries to get a response for two seconds. Ends with a datagram, which can do harm without a response.
fn try_to_reach(at: &str) -> String {
    let ask = format!("i=0; until nc -w 2 {at} 8000 </dev/null || [ $((i+=1)) -gt 20 ]; do sleep 0.1; done");
    format!("{ask}; timeout 1 nslookup hello {at} >/dev/null 2>&1 || :")
}

/// A container that does not belong to Beespace, in its own network.
struct ForeignContainer {
    api: bollard::Docker,
    name: &'static str,
}

impl ForeignContainer {
    async fn start(dockerd: &Dockerd, name: &'static str) -> Self {
        let api = dockerd.api().await.unwrap();
        let image = docker::test_image_in(&api).await.unwrap();
        api.create_network(NetworkCreateRequest { name: name.to_owned(), ..Default::default() }).await.unwrap();
        let body = ContainerCreateBody {
            image: Some(image),
            cmd: Some(["sh", "-c", SERVE].map(str::to_owned).to_vec()),
            host_config: Some(HostConfig { network_mode: Some(name.to_owned()), ..Default::default() }),
            ..Default::default()
        };
        api.create_container(Some(CreateContainerOptionsBuilder::new().name(name).build()), body).await.unwrap();
        api.start_container(name, None::<StartContainerOptions>).await.unwrap();
        Self { api, name }
    }

    async fn output(&self, script: &str) -> String {
        let command = CreateExecOptions { cmd: Some(vec!["sh", "-c", script]), attach_stdout: Some(true), ..Default::default() };
        let command = self.api.create_exec(self.name, command).await.unwrap().id;
        let StartExecResults::Attached { output, .. } = self.api.start_exec(&command, None).await.unwrap() else {
            panic!("not attached")
        };
        output.map(|chunk| chunk.unwrap().to_string()).collect().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_stay_isolated_when_the_engine_does_not_isolate_them() {
    let dockerd = Dockerd::start(false).await.unwrap();
    let stranger = ForeignContainer::start(&dockerd, "stranger").await;
    let elder = fixture(&dockerd, true).await;
    let younger = fixture(&dockerd, true).await;
    // The state for a moment whenever a network is created.
    let open = "busybox ip link set lo up; iptables -w -t raw -I PREROUTING -j ACCEPT; iptables -w -I DOCKER-USER -j ACCEPT && \
                exec busybox nc -ll -p 7000 -e echo the machine";
    let _open = dockerd.spawn_in_sandbox(&["sh", "-c", open]).await.unwrap();

    let cancel = CancellationToken::new();
    let serve = |fixture: &EngineFixture| {
        let (engine, cancel) = (Arc::clone(&fixture.engine), cancel.clone());
        let launch = fixture.launch(1, fixture.shell_container(SERVE));
        tokio::spawn(async move {
            let (sender, receiver) = mpsc::channel(8);
            tokio::join!(engine.run(launch, sender, cancel), collect_output(receiver)).0
        })
    };
    let servers = [serve(&elder), serve(&younger)];
    let address = "until nc -w 1 127.0.0.1 8000 </dev/null >/dev/null; do sleep 0.1; done; \
                   ip -4 -o addr show eth0 | awk '{ sub(\"/.*\", \"\", $4); printf \"%s\", $4 }'";
    let (at_elder, at_younger, at_stranger) =
        tokio::join!(elder.shell_output(2, address), younger.shell_output(2, address), stranger.output(address));

    let machine = stranger.output("ip route | awk '$1 == \"default\" { printf \"%s\", $3 }'").await;
    let neighbour = ForeignContainer::start(&dockerd, "neighbour").await;
    assert_eq!(neighbour.output(&try_to_reach(&at_stranger)).await, "for us alone\n", "nothing else keeps networks apart");
    assert_eq!(stranger.output(PACKET_RECEIVED).await, "1\n");
    for (fixture, others) in [(&elder, [&at_younger, &at_stranger]), (&younger, [&at_elder, &at_stranger])] {
        for (step, other) in (3..).zip(others) {
            assert_eq!(fixture.shell_output(step, &try_to_reach(other)).await, "", "{other} answers");
        }
        assert_eq!(fixture.shell_output(5, &format!("nc -w 5 {machine} 7000 </dev/null")).await, "the machine\n");
    }
    for fixture in [&elder, &younger] {
        assert_eq!(fixture.shell_output(6, PACKET_RECEIVED).await, "0\n", "no datagram arrived");
        assert_eq!(
            fixture.shell_output(7, &format!("{}; {PACKET_RECEIVED}", try_to_reach("127.0.0.1"))).await,
            "for us alone\n1\n"
        );
    }

    cancel.cancel();
    for server in servers {
        server.await.unwrap().unwrap();
    }
    tokio::join!(elder.destroy(), younger.destroy());
}
