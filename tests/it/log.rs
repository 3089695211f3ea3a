//! The log of a step: written, truncated, resumed, read and followed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use beespace::log::{LogEnd, LogError, LogEvent, LogFragment, LogLine, LogReader, LogStore, LogWriter, Origin};
use beespace::view::error_line::failure_line;
use beespace_core::ids::{BuildId, StageNumber, StepId, StepNumber};
use beespace_core::mask::Secrets;
use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use futures::{StreamExt as _, TryStreamExt as _};

pub(crate) const STEP: StepId =
    StepId { build: BuildId(uuid::Uuid::from_u128(7)), stage: StageNumber(1), step: StepNumber(2), attempt: 1 };

/// A log in a directory of its own.
struct Case {
    dir: tempfile::TempDir,
    store: LogStore,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::new(dir.path());
        Self { dir, store }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(STEP.build.to_string()).join("1").join("2.1")
    }

    fn index(&self) -> PathBuf {
        self.path().with_file_name("2.1.index")
    }

    async fn writer(&self) -> LogWriter {
        self.store.writer(STEP, Secrets::none(), u64::MAX).await.unwrap()
    }

    fn reader(&self) -> LogReader {
        self.store.reader(STEP)
    }
}

/// The complete plain text.
pub(crate) async fn text(reader: &LogReader) -> String {
    let parts: Vec<_> = reader.text(0, u64::MAX).try_collect().await.unwrap();
    String::from_utf8(parts.concat()).unwrap()
}

/// Opens a log for writing again, once its last writer is gone.
pub(crate) async fn reopen(store: &LogStore, secrets: &Secrets) -> LogWriter {
    loop {
        match store.writer(STEP, secrets.clone(), u64::MAX).await {
            Err(LogError::Busy(_)) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

async fn out(writer: &LogWriter, at: u64, text: &str) {
    writer.write(Stream::Stdout, Timestamp(at), text.to_owned()).await.unwrap();
}

async fn err(writer: &LogWriter, at: u64, text: &str) {
    writer.write(Stream::Stderr, Timestamp(at), text.to_owned()).await.unwrap();
}

async fn pieces(reader: &LogReader, after: u64) -> Vec<LogFragment> {
    let events: Vec<LogEvent> = reader.follow(after).try_collect().await.unwrap();
    events.into_iter().filter_map(|event| if let LogEvent::Fragment(piece) = event { Some(piece) } else { None }).collect()
}

#[tokio::test]
async fn lines_keep_their_stream_and_time() {
    let case = Case::new();
    let writer = case.writer().await;
    writer.write_host_line(Timestamp(5), "pulled alpine").await.unwrap();
    out(&writer, 10, "one\ntwo\n").await;
    err(&writer, 11, "oops\n").await;
    out(&writer, 12, "no newline").await;
    let end = writer.finish(Timestamp(13), None).await.unwrap();
    assert_eq!(end, LogEnd { is_incomplete: false, dropped: 0 });

    let page = case.reader().lines(1, 100).await.unwrap();
    let lines: Vec<_> = page
        .lines
        .iter()
        .map(|line| (line.number, line.stream, line.at.0, String::from_utf8_lossy(&line.text).into_owned()))
        .collect();
    let expected = [
        (1, Stream::Host, 5, "pulled alpine"),
        (2, Stream::Stdout, 10, "one"),
        (3, Stream::Stdout, 10, "two"),
        (4, Stream::Stderr, 11, "oops"),
        (5, Stream::Stdout, 12, "no newline"),
    ];
    assert_eq!(lines, expected.map(|(number, stream, at, text)| (number, stream, at, text.to_owned())));
    assert_eq!(text(&case.reader()).await, "pulled alpine\none\ntwo\noops\nno newline");
    assert_eq!(case.reader().started_at().await.unwrap(), Some(Timestamp(5)));
}

#[tokio::test]
async fn a_partial_line_is_shown_and_continues_without_repetition() {
    let case = Case::new();
    let writer = case.writer().await;
    let mut events = Box::pin(case.reader().follow(0));
    out(&writer, 1, "compiling ... ").await;
    // There is no newline and no flush: the line appears by itself.
    let LogEvent::Fragment(first) = events.next().await.unwrap().unwrap() else { panic!("no piece") };
    assert_eq!((&first.text[..], first.begins, first.ends, first.line), (&b"compiling ... "[..], true, false, 1));
    out(&writer, 2, "done\nnext\n").await;
    let LogEvent::Fragment(second) = events.next().await.unwrap().unwrap() else { panic!("no piece") };
    assert_eq!((&second.text[..], second.begins, second.ends, second.line), (&b"done"[..], false, true, 1));
    writer.finish(Timestamp(3), None).await.unwrap();
    assert_eq!(text(&case.reader()).await, "compiling ... done\nnext\n");
    assert_eq!(case.reader().lines(1, 1).await.unwrap().lines[0].text, b"compiling ... done");
}

#[tokio::test]
async fn a_line_interrupted_by_another_stream_is_marked_as_continued() {
    let case = Case::new();
    let writer = case.writer().await;
    out(&writer, 1, "half").await;
    writer.flush().await.unwrap();
    err(&writer, 2, "warning\n").await;
    writer.flush().await.unwrap();
    out(&writer, 3, " and half\n").await;
    err(&writer, 4, "end").await;
    writer.flush().await.unwrap();
    out(&writer, 5, "x\n").await;
    writer.flush().await.unwrap();
    err(&writer, 6, "\n").await;
    writer.finish(Timestamp(7), None).await.unwrap();
    assert_eq!(text(&case.reader()).await, "half\nwarning\n and half\nend\nx\n");
    let continues: Vec<bool> = case.reader().lines(1, 9).await.unwrap().lines.iter().map(|line| line.continues).collect();
    assert_eq!(continues, [false, false, true, false, false]);
}

/// Writes output of a container of a round to stdout.
async fn write_output(writer: &LogWriter, (round, container): (u16, u16), text: &str) {
    writer.write(Origin::new(round, container, Stream::Stdout), Timestamp(1), text.to_owned()).await.unwrap();
}

#[tokio::test]
async fn concurrent_containers_do_not_split_each_others_lines() {
    let case = Case::new();
    let writer = case.writer().await;
    write_output(&writer, (0, 0), "the service is ").await;
    write_output(&writer, (0, 1), "the tests ").await;
    write_output(&writer, (0, 0), "ready\n").await;
    write_output(&writer, (0, 1), "pass\n").await;
    write_output(&writer, (0, 0), "bye").await;
    write_output(&writer, (1, 0), "the next round\n").await;
    writer.finish(Timestamp(2), None).await.unwrap();
    assert_eq!(text(&case.reader()).await, "the service is ready\nthe tests pass\nbye\nthe next round\n");
}

#[tokio::test]
async fn a_reopened_log_knows_the_position_of_each_container() {
    let case = Case::new();
    let writer = case.writer().await;
    write_output(&writer, (0, 0), "of an earlier round").await;
    write_output(&writer, (1, 0), "one\ntwo").await;
    write_output(&writer, (1, 2), "three\n").await;
    writer.flush().await.unwrap();
    drop(writer);
    let writer = reopen(&case.store, &Secrets::none()).await;
    let stored = [(0, 0), (1, 0), (1, 1), (1, 2)].map(|(round, container)| writer.stored(round, container).stdout);
    assert_eq!(stored, [0, 7, 0, 6]);
    write_output(&writer, (1, 2), "six\n").await;
    write_output(&writer, (1, 0), " and a half\n").await;
    writer.finish(Timestamp(3), None).await.unwrap();
    assert_eq!(text(&case.reader()).await, "of an earlier round\none\nthree\ntwo\nsix\n and a half\n");
    let last = case.reader().lines(6, 1).await.unwrap().lines.remove(0);
    assert!(last.continues, "{last:?}");
}

#[tokio::test]
async fn a_pause_does_not_split_characters() {
    let case = Case::new();
    let writer = case.writer().await;
    let mut rest = "größer 😀\n".as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        writer.write(Stream::Stdout, Timestamp(1), vec![*byte]).await.unwrap();
        writer.flush().await.unwrap();
        rest = tail;
    }
    writer.finish(Timestamp(2), None).await.unwrap();
    for piece in pieces(&case.reader(), 0).await {
        assert!(std::str::from_utf8(&piece.text).is_ok(), "{piece:?}");
    }
    assert_eq!(text(&case.reader()).await, "größer 😀\n");
}

#[tokio::test]
async fn whole_range_and_tail_agree_across_many_frames() {
    let case = Case::new();
    let writer = case.writer().await;
    let whole: String = (1..=20_000).map(|n| format!("line {n} {}\n", "x".repeat(n % 50))).collect();
    for chunk in whole.as_bytes().chunks(7_001) {
        writer.write(Stream::Stdout, Timestamp(1), chunk.to_vec()).await.unwrap();
    }
    writer.finish(Timestamp(2), None).await.unwrap();
    let reader = case.reader();
    assert_eq!(text(&reader).await, whole);
    assert_eq!(reader.text_len().await.unwrap(), whole.len() as u64);
    assert_eq!(reader.line_count().await.unwrap(), 20_000);

    let starts: Vec<usize> = std::iter::once(0).chain(whole.match_indices('\n').map(|(at, _)| at + 1)).collect();
    for line in [1, 2, 999, 7_777, 20_000, 20_001] {
        assert_eq!(reader.text_offset(line).await.unwrap(), starts[usize::try_from(line).unwrap() - 1] as u64, "line {line}");
    }
    for (from, to) in [(0, 1), (65_530, 65_540), (100_000, 400_000), (whole.len() - 5, whole.len() + 5)] {
        let parts: Vec<_> = reader.text(from as u64, to as u64).try_collect().await.unwrap();
        assert_eq!(parts.concat(), whole.as_bytes()[from..to.min(whole.len())], "{from}..{to}");
    }
    let tail = reader.tail(3).await.unwrap();
    assert_eq!(tail.lines.iter().map(|line| line.number).collect::<Vec<_>>(), [19_998, 19_999, 20_000]);
    let middle = reader.lines(9_999, 2).await.unwrap();
    assert_eq!(middle.lines.iter().map(|line| line.number).collect::<Vec<_>>(), [9_999, 10_000]);
    assert_eq!(pieces(&reader, middle.position).await[0].line, 10_001);
    assert!(reader.lines(20_001, 5).await.unwrap().lines.is_empty());
    assert!(reader.lines(1, 0).await.unwrap().lines.is_empty());
}

#[tokio::test]
async fn a_reader_resumes_exactly_at_every_position() {
    let case = Case::new();
    let writer = case.writer().await;
    for n in 0..40 {
        out(&writer, n, &format!("{n} begins, ")).await;
        if n % 3 == 0 {
            writer.flush().await.unwrap();
        }
        out(&writer, n, "ends\n").await;
        if n % 5 == 0 {
            err(&writer, n, "said\n").await;
        }
    }
    writer.finish(Timestamp(99), None).await.unwrap();
    let all = pieces(&case.reader(), 0).await;
    assert!(all.iter().enumerate().all(|(index, piece)| piece.position == index as u64 + 1));
    for after in 0..=all.len() {
        assert_eq!(pieces(&case.reader(), after as u64).await, all[after..], "after {after}");
    }
    for line in 1..=case.reader().line_count().await.unwrap() {
        let position = case.reader().position_before(line).await.unwrap();
        let next = pieces(&case.reader(), position).await.remove(0);
        assert!(next.line == line && next.begins, "{next:?}");
    }
}

#[tokio::test]
async fn a_truncated_file_continues_after_its_last_valid_frame() {
    let case = Case::new();
    let writer = case.writer().await;
    let mut lens = BTreeMap::from([(0, (String::new(), 0))]);
    let mut all = String::new();
    for n in 0..6 {
        let line = format!("line {n}: {}\n", "abc".repeat(n));
        out(&writer, 1, &line).await;
        writer.flush().await.unwrap();
        all.push_str(&line);
        lens.insert(std::fs::metadata(case.path()).unwrap().len(), (all.clone(), all.len() as u64));
    }
    drop(writer);
    drop(reopen(&case.store, &Secrets::none()).await);
    let (log, index) = (std::fs::read(case.path()).unwrap(), std::fs::read(case.index()).unwrap());
    // At every frame boundary, and at some positions within frames.
    let near = |cut: &usize| cut.is_multiple_of(13) || lens.keys().any(|len| len.abs_diff(*cut as u64) <= 2);
    for cut in (0..=log.len()).filter(near) {
        let other = Case::new();
        std::fs::create_dir_all(other.path().parent().unwrap()).unwrap();
        std::fs::write(other.path(), &log[..cut]).unwrap();
        std::fs::write(other.index(), &index[..index.len() * (cut % 5) / 4]).unwrap();
        let (expected, stored) = &lens.range(..=cut as u64).next_back().unwrap().1;
        assert_eq!(&text(&other.reader()).await, expected, "cut at {cut}");
        let writer = other.writer().await;
        assert_eq!(writer.stored(0, 0).stdout, *stored, "cut at {cut}");
        out(&writer, 2, &all[expected.len()..]).await;
        writer.finish(Timestamp(3), None).await.unwrap();
        assert_eq!(text(&other.reader()).await, all, "cut at {cut}");
    }
}

#[tokio::test]
async fn damage_is_reported_and_the_part_before_it_is_read() {
    let case = Case::new();
    let writer = case.writer().await;
    out(&writer, 1, "first\n").await;
    writer.flush().await.unwrap();
    let first = std::fs::metadata(case.path()).unwrap().len();
    out(&writer, 1, "second\n").await;
    writer.finish(Timestamp(2), None).await.unwrap();
    let mut log = std::fs::read(case.path()).unwrap();
    let body = usize::try_from(first).unwrap() * 2 - 10;
    log[body] ^= 1;
    std::fs::write(case.path(), log).unwrap();
    let reader = case.reader();
    assert_eq!(reader.lines(1, 1).await.unwrap().lines[0].text, b"first");
    let error = reader.lines(1, 2).await.unwrap_err();
    assert!(error.to_string().contains("from line 2"), "{error}");
    assert!(!error.public().contains(&case.dir.path().display().to_string()));
}

#[tokio::test]
async fn a_page_is_bounded_by_the_memory_of_its_lines() {
    let case = Case::new();
    let writer = case.writer().await;
    out(&writer, 1, &"\n".repeat(300_000)).await;
    writer.finish(Timestamp(2), None).await.unwrap();
    let page = case.reader().lines(1, usize::MAX).await.unwrap();
    let held = page.lines.len() * size_of::<LogLine>();
    assert!(held > 1024 * 1024 && held < 3 * 1024 * 1024, "{} empty lines", page.lines.len());
    let next = case.reader().lines(page.lines.len() as u64 + 1, 1).await.unwrap().lines;
    assert_eq!(next[0].number, page.lines.len() as u64 + 1, "the next page goes on");
}

#[tokio::test]
async fn a_scan_visits_each_line_once_and_stops_at_its_bound() {
    let case = Case::new();
    let writer = case.writer().await;
    let whole: String = (1..=30_000).map(|n| format!("line {n}\n")).collect();
    out(&writer, 1, &whole).await;
    writer.finish(Timestamp(2), None).await.unwrap();
    let reader = case.reader();
    let scan = async |from, max_bytes, most: usize| {
        let visit = move |seen: &mut Vec<u64>, line: &LogLine| {
            assert_eq!(line.text, format!("line {}", line.number).as_bytes());
            seen.push(line.number);
            if seen.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        reader.scan(from, max_bytes, visit).await.unwrap()
    };
    let all = scan(1, usize::MAX, usize::MAX).await;
    assert_eq!((all.found, all.next), ((1..=30_000).collect(), None));
    let some = scan(7, usize::MAX, 5).await;
    assert_eq!((some.found, some.next), ((7..=11).collect(), Some(12)));
    // In parts of one frame each: every line once.
    let (mut seen, mut next) = (Vec::new(), Some(1));
    while let Some(from) = next {
        let part = scan(from, 1, usize::MAX).await;
        assert!(part.found.len() < 20_000, "a part of {} lines", part.found.len());
        seen.extend(part.found);
        next = part.next;
    }
    assert_eq!(seen, (1..=30_000).collect::<Vec<_>>());
    // The end is what one scan of that size reads.
    let start = reader.start_of_end(200_000).await.unwrap();
    assert!(start > 1, "{start}");
    let end = scan(start, 200_000, usize::MAX).await;
    assert_eq!((end.found, end.next), ((start..=30_000).collect(), None));
}

#[tokio::test]
async fn the_place_of_a_failure_is_the_first_error_of_the_last_command() {
    for (text, place) in [
        ("error: of no command\nfine\nerror: later\n", Some(1)),
        ("+ make\nerror: ignored by the script\n+ make test\nok 1\nFAIL: two\nerror: three\nok 4\n", Some(5)),
        ("+ make\nerror: ignored by the script\n+ exit 3\n", None),
        ("PASS: one\nPASS: two\nsh: syntax problem\n", None),
        ("+ test \x1b[1mx\n\x1b[31merror:\x1b[0m coloured\n", Some(2)),
    ] {
        let case = Case::new();
        let writer = case.writer().await;
        out(&writer, 1, text).await;
        writer.finish(Timestamp(2), None).await.unwrap();
        assert_eq!(failure_line(&case.reader()).await.unwrap(), place, "{text}");
    }
}

#[tokio::test]
async fn the_place_of_a_failure_is_searched_at_the_end_of_a_huge_log_of_empty_lines() {
    let case = Case::new();
    let writer = case.writer().await;
    out(&writer, 1, "error: long ago\n").await;
    for _ in 0..20 {
        out(&writer, 2, &"\n".repeat(100_000)).await;
    }
    out(&writer, 3, "error: now\n\n").await;
    writer.finish(Timestamp(4), None).await.unwrap();
    assert_eq!(failure_line(&case.reader()).await.unwrap(), Some(2_000_002));
}

#[tokio::test]
async fn a_damaged_index_ends_every_reader_with_an_error() {
    let case = Case::new();
    let writer = case.writer().await;
    for n in 1..=3 {
        out(&writer, n, &format!("line {n}\n")).await;
        writer.flush().await.unwrap();
    }
    writer.finish(Timestamp(4), None).await.unwrap();
    let mut index = std::fs::read(case.index()).unwrap();
    let entry = index.len() / 4;
    index[entry + 10] ^= 1;
    std::fs::write(case.index(), index).unwrap();
    let reader = case.reader();
    let followed: Vec<_> = reader.follow(0).collect().await;
    assert!(matches!(&followed[..], [Ok(LogEvent::Fragment(_)), Err(LogError::Damaged { .. })]), "{followed:?}");
    assert_eq!(reader.lines(1, 1).await.unwrap().lines[0].text, b"line 1");
    assert!(matches!(reader.lines(1, 3).await, Err(LogError::Damaged { .. })));
    let text: Vec<_> = reader.text(0, 21).collect().await;
    assert!(matches!(text.last(), Some(Err(LogError::Damaged { .. }))), "{text:?}");
}

#[tokio::test]
async fn bytes_over_the_limit_are_counted_and_reported_once() {
    let case = Case::new();
    let writer = case.store.writer(STEP, Secrets::none(), 10_000).await.unwrap();
    for _ in 0..100 {
        out(&writer, 1, &format!("{}\n", "y".repeat(999))).await;
    }
    writer.write_host_line(Timestamp(2), "the step ended with 0").await.unwrap();
    let end = writer.finish(Timestamp(3), None).await.unwrap();
    assert_eq!(end, LogEnd { is_incomplete: true, dropped: 90_000 });
    let text = text(&case.reader()).await;
    assert_eq!(text.matches("the limit of 10000 bytes for a log is reached").count(), 1);
    assert!(text.ends_with("the step ended with 0\n90000 bytes after the limit were not stored\n"), "{text}");
    assert_eq!(case.reader().end().await.unwrap(), Some(end));
}

#[tokio::test]
async fn a_very_long_line_is_split_and_loses_nothing() {
    let case = Case::new();
    let writer = case.writer().await;
    let line = "ä".repeat(100_000);
    out(&writer, 1, &format!("{line}\nshort\n")).await;
    writer.finish(Timestamp(2), None).await.unwrap();
    let lines = case.reader().lines(1, 10).await.unwrap().lines;
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line.text.len() <= beespace::log::MAX_LINE && std::str::from_utf8(&line.text).is_ok()));
    assert_eq!(lines.iter().map(|line| line.continues).collect::<Vec<_>>(), [false, true, true, true, false]);
    let joined: Vec<u8> = lines[..4].iter().flat_map(|line| line.text.clone()).collect();
    assert_eq!(joined, line.as_bytes());
}

#[tokio::test]
async fn a_slow_reader_delays_no_one_and_misses_nothing() {
    let case = Case::new();
    let writer = case.writer().await;
    out(&writer, 1, "first\n").await;
    let mut slow = Box::pin(case.reader().follow(0));
    slow.next().await.unwrap().unwrap();
    let quick = tokio::spawn({
        let reader = case.reader();
        async move { pieces(&reader, 0).await.len() }
    });
    for n in 0..200 {
        out(&writer, n, &"some line that is printed again and again\n".repeat(100)).await;
    }
    // The slow reader has not moved since the first line; writer and fast reader have finished all the same.
    tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, writer.finish(Timestamp(2), None)).await.unwrap().unwrap();
    assert!(quick.await.unwrap() >= 20_001);
    let rest: Vec<LogEvent> = slow.try_collect().await.unwrap();
    assert!(rest.len() >= 20_001 && matches!(rest.last(), Some(LogEvent::End(_))));
}

#[tokio::test]
async fn a_follower_may_start_before_the_log_and_survives_a_restart() {
    let case = Case::new();
    let follower = tokio::spawn({
        let reader = case.reader();
        async move { pieces(&reader, 0).await.into_iter().map(|piece| piece.text).collect::<Vec<_>>() }
    });
    let writer = case.writer().await;
    out(&writer, 1, "before\n").await;
    drop(writer);
    let writer = reopen(&case.store, &Secrets::none()).await;
    assert_eq!(writer.stored(0, 0).stdout, 7);
    out(&writer, 2, "after\n").await;
    writer.finish(Timestamp(3), None).await.unwrap();
    assert_eq!(follower.await.unwrap(), ["before", "after"]);
}

#[tokio::test]
async fn a_log_has_one_writer_and_one_end() {
    let case = Case::new();
    let writer = case.writer().await;
    assert!(matches!(case.store.writer(STEP, Secrets::none(), 1).await, Err(LogError::Busy(_))));
    writer.finish(Timestamp(1), None).await.unwrap();
    loop {
        match case.store.writer(STEP, Secrets::none(), 1).await {
            Err(LogError::Busy(_)) => tokio::task::yield_now().await,
            other => {
                assert!(matches!(other, Err(LogError::Finished(_))));
                break;
            }
        }
    }
}

#[tokio::test]
async fn log_files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let case = Case::new();
    case.writer().await.finish(Timestamp(1), None).await.unwrap();
    for path in [case.path(), case.index()] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
