//! Secrets in the output of a step are masked: in the writer, the file, the reader and the follower.

use beespace::log::{LogStore, Origin};
use beespace_core::mask::Secrets;
use beespace_core::output::Stream;
use beespace_core::time::Timestamp;

use crate::log::{STEP, text};

const CANARY: &str = "canary-3f9a71c2/secret";

#[tokio::test]
async fn a_secret_printed_in_any_pieces_is_in_no_file_and_no_response() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::new(dir.path());
    let printed = format!("start {CANARY} then {CANARY}{CANARY}\nand alone\n{CANARY}\n");
    for cut in 1..printed.len() {
        let step = beespace_core::ids::StepId { attempt: u16::try_from(cut).unwrap(), ..STEP };
        let writer = store.writer(step, Secrets::new([CANARY]).unwrap(), u64::MAX).await.unwrap();
        writer.write(Stream::Stdout, Timestamp(1), printed[..cut].to_owned()).await.unwrap();
        // Ends a frame in the middle of the secret, as a pause of the program does.
        writer.flush().await.unwrap();
        writer.write(Stream::Stdout, Timestamp(2), printed[cut..].to_owned()).await.unwrap();
        writer.finish(Timestamp(3), None).await.unwrap();
        assert_eq!(text(&store.reader(step)).await, "start ******** then ********\nand alone\n********\n", "cut at {cut}");
    }
}

#[tokio::test]
async fn a_secret_interrupted_by_another_container_is_masked() {
    for cut in 1..CANARY.len() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::new(dir.path());
        let writer = store.writer(STEP, Secrets::new([CANARY]).unwrap(), u64::MAX).await.unwrap();
        let service = Origin::new(0, 1, Stream::Stdout);
        writer.write(Stream::Stdout, Timestamp(1), CANARY[..cut].to_owned()).await.unwrap();
        writer.write(service, Timestamp(1), "accepting connections\n").await.unwrap();
        writer.write(Stream::Stdout, Timestamp(1), format!("{}\n", &CANARY[cut..])).await.unwrap();
        writer.finish(Timestamp(2), None).await.unwrap();
        assert_eq!(text(&store.reader(STEP)).await, "accepting connections\n********\n", "cut at {cut}");
    }
}

#[tokio::test]
async fn a_secret_split_by_a_restart_is_masked() {
    let printed = format!("a {CANARY}{CANARY} b {CANARY}\n");
    let secrets = Secrets::new([CANARY, "secretcanary-3f9a"]).unwrap();
    for cut in 1..printed.len() {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::new(dir.path());
        let first = store.writer(STEP, secrets.clone(), u64::MAX).await.unwrap();
        first.write(Stream::Stdout, Timestamp(1), printed[..cut].to_owned()).await.unwrap();
        first.flush().await.unwrap();
        drop(first);

        let second = crate::log::reopen(&store, &secrets).await;
        let stored = usize::try_from(second.stored(0, 0).stdout).unwrap();
        second.write(Stream::Stdout, Timestamp(2), printed[stored..].to_owned()).await.unwrap();
        second.finish(Timestamp(3), None).await.unwrap();
        let text = text(&store.reader(STEP)).await;
        assert!(text.starts_with("a ********") && text.ends_with(" b ********\n"), "cut at {cut}: {text}");
        for start in 0..CANARY.len() - 3 {
            assert!(!text.contains(&CANARY[start..start + 4]), "cut at {cut}: {text}");
        }
    }
}

#[tokio::test]
async fn a_possible_secret_at_the_end_of_a_container_is_flushed_before_its_exit_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::new(dir.path());
    let secrets = Secrets::new([CANARY]).unwrap();
    let writer = store.writer(STEP, secrets.clone(), u64::MAX).await.unwrap();
    let printed = format!("it ends with {}", &CANARY[..9]);
    writer.write(Stream::Stdout, Timestamp(1), printed.clone()).await.unwrap();
    writer.sync_containers(Timestamp(2)).await.unwrap();
    // The server crashes here: the first writer adds nothing more.
    let after_the_cut = tempfile::tempdir().unwrap();
    let of_step = format!("{}/{}", STEP.build, STEP.stage);
    std::fs::create_dir_all(after_the_cut.path().join(&of_step)).unwrap();
    for file in std::fs::read_dir(dir.path().join(&of_step)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), after_the_cut.path().join(&of_step).join(file.file_name())).unwrap();
    }
    let found = LogStore::new(after_the_cut.path());
    let second = found.writer(STEP, secrets, u64::MAX).await.unwrap();
    assert_eq!(second.stored(0, 0).stdout, printed.len() as u64);
    second.finish(Timestamp(3), None).await.unwrap();
    assert_eq!(text(&found.reader(STEP)).await, printed);
}

#[tokio::test]
async fn lines_of_the_host_are_masked_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::new(dir.path());
    let writer = store.writer(STEP, Secrets::new([CANARY]).unwrap(), u64::MAX).await.unwrap();
    writer.write_host_line(Timestamp(1), &format!("pull of https://user:{CANARY}@registry.example failed")).await.unwrap();
    writer.finish(Timestamp(2), Some(format!("the engine said {CANARY}"))).await.unwrap();
    assert_eq!(
        text(&store.reader(STEP)).await,
        "pull of https://user:********@registry.example failed\nthis log is incomplete: the engine said ********\n"
    );
}
