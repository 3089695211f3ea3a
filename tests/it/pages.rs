//! Pages as a browser gets them: their headers, and that untrusted text never becomes part of the markup.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use beespace::log::LogError;
use beespace_core::ids::StepId;
use beespace_core::sanitize;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::HttpResponse;
use beespace_tests::gogs::FakeGogs;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const REPO: &str = "ada/hive";
const HOSTILE: &str =
    "steps:\n  - name: build\n    image: busybox\n    env: { OUTPUT: \"<b>bold</b> <script>alert(1)</script>\" }\n";

/// A server with the dummy engine, and an enabled repository.
pub(crate) async fn world() -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    (gogs, beespace)
}

fn must_be_hardened(answer: &HttpResponse) {
    let csp = answer.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(csp.contains(part), "{csp}");
    }
    assert!(!csp.contains("unsafe"), "{csp}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "same-origin");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_has_security_headers() {
    let (gogs, beespace) = world().await;
    gogs.push(REPO, "main", &[(".beespace.yml", HOSTILE)], "Fill cells").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    for path in [
        "/",
        "/ada",
        "/ada/hive",
        "/ada/hive/1",
        "/ada/hive/1/1/1",
        "/-/login",
        "/-/deliveries",
        "/-/notices",
        "/?status=failure",
    ] {
        let answer = session.get(path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        must_be_hardened(&answer);
        let head = session.send(session.request(Method::HEAD, path)).await.unwrap();
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""), "{path}");
        must_be_hardened(&head);
    }
    let asset = session.get("/-/assets/app.000000000000.css").await.unwrap();
    assert_eq!((asset.status, asset.header("cache-control")), (StatusCode::NOT_FOUND, "no-store"));
    assert!(asset.body.contains("No such file: ") && asset.body.contains("reload the page"), "{asset:?}");
    must_be_hardened(&asset);
    for query in ["", "?tail=1", "?download=true"] {
        let log = session.get(&format!("/api/v1/repositories/ada/hive/builds/1/stages/1/steps/1/log{query}")).await.unwrap();
        assert_eq!(log.header("content-security-policy"), "default-src 'none'; sandbox", "{query}");
        assert_eq!((log.header("x-content-type-options"), log.header("x-frame-options")), ("nosniff", "DENY"), "{query}");
    }
    let wrong = session.send(session.request(Method::DELETE, "/ada/hive").header("origin", &beespace.url)).await.unwrap();
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn untrusted_text_is_escaped_on_every_page() {
    let (gogs, beespace) = world().await;
    let branch = "\"><script>alert(1)</script>";
    let message = "<img src=x onerror=alert(1)> \u{1b}[31mred\u{1b}[0m & \"quoted\" 'text' \u{202e}turned\u{200b}";
    let pipeline = format!("{HOSTILE}# run the \u{2067}release\u{2066} only\u{200b}\n");
    gogs.push(REPO, branch, &[(".beespace.yml", &pipeline)], message).await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    for path in ["/", "/ada", "/ada/hive", "/ada/hive/1", "/ada/hive/1/1/1"] {
        let page = beespace.anonymous().get(path).await.unwrap();
        assert_eq!(page.status, StatusCode::OK, "{path}");
        for markup in ["<script>alert", "<img src=x", "<b>bold"] {
            assert!(!page.body.contains(markup), "{path} has {markup}: {}", page.body);
        }
        let hidden: Vec<char> = page.body.chars().filter(|c| sanitize::is_unsafe(*c) && !matches!(c, '\n' | '\t')).collect();
        assert!(hidden.is_empty(), "{path} hides {hidden:?}");
    }
    let build = beespace.anonymous().get("/ada/hive/1").await.unwrap().body;
    assert!(build.contains("run the \u{fffd}release\u{fffd} only\u{fffd}"), "{build}");
    let step = beespace.anonymous().get("/ada/hive/1/1/1").await.unwrap().body;
    assert!(step.contains("&lt;b&gt;bold") || step.contains("&#60;b&#62;bold"), "{step}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_page_shows_its_request_id() {
    let (_gogs, beespace) = world().await;
    for path in ["/ada/none", "/ada/hive/77", "/ada/hive/odd", "/ada/hive/1/2/3", "/ada/hive/1/2/3/4/5"] {
        let answer = beespace.anonymous().get(path).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.body.contains(answer.header("x-request-id")), "{path}: {}", answer.body);
        must_be_hardened(&answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn assets_have_a_type_and_are_cached() {
    let (_gogs, beespace) = world().await;
    let page = beespace.anonymous().get("/").await.unwrap().body;
    let links: Vec<&str> = page.split('"').filter(|text| text.starts_with("/-/assets/")).collect();
    assert!(!links.is_empty(), "{page}");
    for link in links {
        let answer = beespace.anonymous().get(link).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{link}");
        assert!(!answer.header("content-type").is_empty() && answer.header("cache-control") != "no-store", "{link}: {answer:?}");
    }
}

/// The numbers of the log lines on a page.
fn lines_of(page: &str) -> Vec<u64> {
    page.split("id=\"L").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_can_be_searched_and_opens_where_it_has_lines() {
    let (gogs, beespace) = world().await;
    let text: Vec<String> =
        (1..=5_000).map(|line| format!("{} {line}", if line % 1_000 == 0 { "Queen" } else { "bee" })).collect();
    let pipeline =
        format!("steps:\n  - name: long\n    image: busybox\n    env: {{ EXIT_CODE: 1, OUTPUT: \"{}\" }}\n", text.join("\\n"));
    gogs.push(REPO, "main", &[(".beespace.yml", &pipeline)], "Fill cells").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let all = beespace.log(&build, "long").await.unwrap();
    let get = async |query: &str| beespace.anonymous().get(&format!("/ada/hive/1/1/1{query}")).await.unwrap().body;

    let page = get("").await;
    let count = u64::try_from(all.len()).unwrap();
    assert!(page.contains("data-at-end") && lines_of(&page).contains(&count), "a failed step without an error opens at its end");
    assert!(!all.iter().any(|line| line.contains("exited with code")), "the log has the lines of the program: {:?}", all.last());
    assert!(!page.contains("data-do=\"follow\""), "a finished log cannot be followed");
    assert_eq!(lines_of(&get("?from=99999999999").await), lines_of(&page), "a line that the log does not have");

    let found = get("?search=qUEEN").await;
    let matches = |page: &str| page.matches(" match\" id=\"L").count();
    assert!(found.contains("5 lines contain it"), "{found}");
    assert!(
        matches(&found) == 2 && found.contains(">Matches further down<") && !found.contains(">Matches further up<"),
        "{found}"
    );
    let end = get("?search=Queen&from=4500").await;
    assert!(matches(&end) == 1 && end.contains(">Matches further up<"), "{end}");
    let none = get("?search=%3Cb%3E").await;
    assert!(none.contains("0 lines contain it") && !none.contains("<b>"), "{none}");
    assert_eq!(lines_of(&get("?search=").await), lines_of(&page), "an empty search is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_searches_is_refused_and_delays_no_delivery() {
    let (gogs, beespace) = world().await;
    gogs.push(REPO, "main", &[(".beespace.yml", HOSTILE)], "Fill cells").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let (stage, step) = (beespace.stage(&build).unwrap(), beespace.step(&build, "build").unwrap());
    let id = StepId { build: build.id, stage: stage.number, step: step.number, attempt: step.attempt };
    let reader = beespace.app.logs.reader(id);
    // A scan ends when the sender is dropped.
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let mut scans = Vec::new();
    loop {
        let released = Arc::clone(&released);
        let mut scan = Box::pin(reader.scan(1, 1, move |(): &mut (), _| {
            assert!(released.lock().unwrap().recv().is_err());
            ControlFlow::Continue(())
        }));
        match futures::poll!(&mut scan) {
            Poll::Pending => scans.push(scan),
            Poll::Ready(refused) => {
                assert!(matches!(refused, Err(LogError::TooManyScans)), "{refused:?}");
                break;
            }
        }
    }
    let search = async || beespace.anonymous().get("/ada/hive/1/1/1?search=bold").await.unwrap();
    let busy = search().await;
    assert_eq!((busy.status, busy.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"), "{busy:?}");
    assert!(busy.body.contains("Too many logs are searched at the moment."), "{busy:?}");
    assert_eq!(beespace.anonymous().get("/ada/hive/1/1/1").await.unwrap().status, StatusCode::OK, "a page without a search");
    // The signature of such a long delivery is verified on a thread of the pool that also runs the scans.
    let delivery = gogs.deliveries().into_iter().find(|delivery| delivery.event == "push").unwrap();
    let mut payload: Value = serde_json::from_str(&delivery.json).unwrap();
    payload["ref"] = json!("refs/heads/other");
    payload["before"] = json!("0".repeat(40));
    payload["repository"]["description"] = json!("long ".repeat(40_000));
    gogs.send_event(REPO, "push", &payload).unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    drop((release, scans));
    let found = async || Ok(Some(search().await).filter(|found| found.status == StatusCode::OK));
    assert!(beespace.wait_for("a free slot", found).await.unwrap().body.contains("1 line contains it"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_long_log_has_an_address_and_the_first_error_is_in_view() {
    let (gogs, beespace) = world().await;
    let text: Vec<String> = (1..=5_000)
        .map(|line| if matches!(line, 700 | 4_900) { format!("error: in {line}") } else { format!("fine {line}") })
        .collect();
    let pipeline =
        format!("steps:\n  - name: long\n    image: busybox\n    env: {{ EXIT_CODE: 1, OUTPUT: \"{}\" }}\n", text.join("\\n"));
    gogs.push(REPO, "main", &[(".beespace.yml", &pipeline)], "Fill cells").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, beespace_core::status::Status::Failure, "{:?}", build.reason);
    let all = beespace.log(&build, "long").await.unwrap();
    let first = u64::try_from(all.iter().position(|line| line == "error: in 700").unwrap()).unwrap() + 1;
    let count = u64::try_from(all.len()).unwrap();
    let get = async |query: &str| beespace.anonymous().get(&format!("/ada/hive/1/1/1{query}")).await.unwrap().body;

    let page = get("").await;
    assert!(page.contains(&format!("data-failure=\"{first}\"")), "the whole log is looked through");
    assert!(lines_of(&page).contains(&first), "the first error is on the page");
    let mut seen = Vec::new();
    let mut query = "?from=1".to_owned();
    loop {
        let page = get(&query).await;
        seen.extend(lines_of(&page));
        let Some(later) = page.split("<a href=\"").find(|rest| rest.contains(">Later lines<") && rest.starts_with("?from="))
        else {
            break;
        };
        later.split('"').next().unwrap().clone_into(&mut query);
    }
    assert_eq!(seen, (1..=count).collect::<Vec<_>>(), "each line once, to the end");
    for line in [1, first, 2_500, count] {
        let link = get(&format!("?from={line}")).await;
        let link = link.split(&format!("id=\"L{line}\"><a href=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
        let (query, fragment) = link.split_once('#').unwrap();
        assert_eq!(fragment, format!("L{line}"));
        assert!(lines_of(&get(query).await).contains(&line), "{link} leads to its line");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_policy_is_shown_with_the_effect_of_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.wasm");
    std::fs::write(&path, beespace_tests::guest_build::policy_at("broken", "pipeline.admit", "unreachable")).unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let bound = |name: &str| format!("[[policy]]\nname = \"{name}\"\nplugin = \"{}\"\nmode = \"{name}\"\n", path.display());
    let config = format!("[engine]\nkind = \"dummy\"\n{}{}", bound("warn"), bound("shadow"));
    let beespace = Beespace::start(&gogs, &config).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    gogs.push(REPO, "main", &[(".beespace.yml", HOSTILE)], "Fill cells").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, beespace_core::status::Status::Success, "neither mode stops anything");
    let page = beespace.anonymous().get("/ada/hive/1").await.unwrap().body;
    for mode in ["warn", "shadow"] {
        assert!(page.contains("so the failure has no effect") && page.contains(mode), "{page}");
    }
    for untrue in ["until then it denies", "Nothing runs without"] {
        assert!(!page.contains(untrue), "{untrue}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_of_a_step_type_is_shown_on_the_build_page() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let check = "[engine]\nkind = \"dummy\"\n[[step]]\nname = \"check\"\nplugin = \"step-check\"\n";
    let beespace = Beespace::start(&gogs, check).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let file = "steps:\n  - name: files\n    uses: check\n    with: { require: [README.md] }\n";
    gogs.push(REPO, "main", &[(".beespace.yml", file)], "Require a readme").await.unwrap();
    beespace.wait_for_build(REPO, 1, |build| build.number.is_some()).await.unwrap();
    let page = beespace.anonymous().get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("Checks the commit: required files <code>README.md</code>"), "{page}");
}

/// The place of a text on a page; fails if it is not there.
fn place(page: &str, text: &str) -> usize {
    page.find(text).unwrap_or_else(|| panic!("{text:?} is missing: {page}"))
}

async fn push(gogs: &FakeGogs, beespace: &Beespace, number: u64, pipeline: &str, message: &str) -> String {
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], message).await.unwrap();
    beespace.wait_until_finished(REPO, number).await.unwrap().status.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_declined_build_begins_with_the_reason_and_folds_what_did_not_run() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let images = "[engine]\nkind = \"dummy\"\n[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\n\
                  settings = { repositories = [\"docker.io/library/*\"] }\n";
    let beespace = Beespace::start(&gogs, images).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let steps = |image: &str| {
        let step = |name| format!("  - name: {name}\n    image: {image}\n");
        format!("steps:\n{}", ["a", "b", "c"].map(step).concat())
    };
    assert_eq!(
        push(&gogs, &beespace, 1, &steps("ghcr.io/x/y:1"), "Use another image\n\nIt is <b>smaller</b>.").await,
        "declined"
    );
    assert_eq!(push(&gogs, &beespace, 2, &steps("busybox:1"), "Use the old image").await, "success");

    let declined = beespace.anonymous().get("/ada/hive/1").await.unwrap().body;
    let order =
        ["class=\"heading\"", "aria-label=\"Reason\"", "class=\"facts\"", "aria-label=\"Decisions\"", "aria-label=\"Stage"];
    let places = order.map(|text| place(&declined, text));
    assert!(places.is_sorted(), "{order:?} are at {places:?}");
    let folded = place(&declined, " steps, none started");
    assert!(folded < place(&declined, ">a</a>"), "the steps are folded");
    assert_eq!(declined.matches("pill s-declined\"").count(), 2, "the build's status and the denial's, but not the stage's");
    assert!(declined.contains("It is &#60;b&#62;smaller&#60;/b&#62;."), "the whole commit message: {declined}");
    assert!(declined.contains("href=\"/ada/hive/2\" rel=\"next\"") && !declined.contains("rel=\"prev\""), "{declined}");

    let allowed = beespace.anonymous().get("/ada/hive/2").await.unwrap().body;
    assert!(place(&allowed, "aria-label=\"Stage") < place(&allowed, "aria-label=\"Decisions\""));
    let line = place(&allowed, "4 allowed</span>");
    assert!(line < place(&allowed, "The pipeline <span"), "each decision is below the line that counts them");
    assert!(!allowed.contains("none started") && allowed.contains("href=\"/ada/hive/1\" rel=\"prev\""), "{allowed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_failed_includes_every_build_that_went_wrong() {
    let (gogs, beespace) = world().await;
    let green = "steps:\n  - name: build\n    image: busybox\n";
    let red = format!("{green}    env: {{ EXIT_CODE: 1 }}\n");
    assert_eq!(push(&gogs, &beespace, 1, green, "Build one").await, "success");
    assert_eq!(push(&gogs, &beespace, 2, &red, "Build two").await, "failure");
    assert_eq!(push(&gogs, &beespace, 3, "steps: nonsense\n", "Build three").await, "error");
    assert_eq!(push(&gogs, &beespace, 4, green, "Build four").await, "success");
    assert_eq!(push(&gogs, &beespace, 5, &red.replace('1', "2"), "Build five").await, "failure");
    for page in ["/?status=failed", "/ada?status=failed", "/ada/hive?status=failed"] {
        let body = beespace.anonymous().get(page).await.unwrap().body;
        let listed = ["Build five", "Build three", "Build two"].map(|title| place(&body, &format!(">{title}</a>")));
        assert!(listed.is_sorted(), "newest first");
        let chosen = body.split("aria-current=\"true\">").nth(1).unwrap();
        assert!(chosen.starts_with("Failed<"), "{page}: {chosen}");
        assert!(!body.contains(">Build one</a>") && !body.contains(">Build four</a>"), "{page}");
    }
    let mut numbers = Vec::new();
    let mut next = Some("/api/v1/builds?status=failed&limit=1".to_owned());
    while let Some(path) = next {
        let answer = beespace.anonymous().get(&path).await.unwrap();
        numbers.extend(answer.json().unwrap().as_array().unwrap().iter().map(|build| build["number"].as_u64().unwrap()));
        next = answer.header("link").split(['<', '>']).nth(1).map(str::to_owned);
    }
    assert_eq!(numbers, [5, 3, 2], "page by page");
    let unknown = beespace.anonymous().get("/api/v1/builds?status=red").await.unwrap();
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    assert!(unknown.body.contains("failed"), "{}", unknown.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_leads_to_the_new_build() {
    let (gogs, beespace) = world().await;
    push(&gogs, &beespace, 1, HOSTILE, "Fill cells").await;
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let page = session.get("/ada/hive/1").await.unwrap().body;
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let answer = session.form("/ada/hive/1/restart", &[("csrf", csrf)]).await.unwrap();
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    let new = session.get(answer.header("location")).await.unwrap();
    assert_eq!(new.status, StatusCode::OK, "{answer:?}");
    let repeats = place(&new.body, "<dt>Restart of</dt>");
    assert!(new.body[repeats..].contains("ada/hive #1"), "{}", new.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_of_a_repository_is_a_list_of_links_with_names() {
    let (gogs, beespace) = world().await;
    push(&gogs, &beespace, 1, HOSTILE, "Fill cells").await;
    let page = beespace.anonymous().get("/ada/hive").await.unwrap().body;
    let chart = page.split("<ol class=\"history\">").nth(1).unwrap().split("</ol>").next().unwrap();
    assert!(chart.contains("<a href=\"/ada/hive/1\"") && !chart.contains("role=\"img\""), "{chart}");
    let name = chart.split("<span class=\"visually-hidden\">").nth(1).unwrap().split('<').next().unwrap();
    assert!(name.starts_with("ada/hive #1, success, ") && name.ends_with(": Fill cells"), "{name}");
}

/// The README's policy allows Docker's official images with a tag other than `latest`.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_for_an_empty_repository_passes_the_policy_of_the_readme() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let policy = readme.split("```toml\n").find(|block| block.starts_with("[[policy]]")).unwrap().split("```").next().unwrap();
    let beespace = Beespace::start(&gogs, &format!("[engine]\nkind = \"dummy\"\n{policy}")).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let page = beespace.anonymous().get("/ada/hive").await.unwrap().body;
    let example = page.split("<pre><code>").nth(1).unwrap().split("</code>").next().unwrap();
    assert_eq!(push(&gogs, &beespace, 1, &format!("{example}\n"), "Begin").await, "success");
}

/// The rows of a list of records.
fn rows_of(page: &str) -> Vec<&str> {
    page.split("<li class=\"row\"").skip(1).map(|rest| rest.split("</li>").next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_can_be_filtered_and_retried_where_that_can_change_something() {
    let (gogs, beespace) = world().await;
    push(&gogs, &beespace, 1, HOSTILE, "Fill cells").await;
    gogs.send_event(REPO, "push", &serde_json::json!({ "ref": 7 })).unwrap();
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let is_processed =
        async || Ok(session.get("/-/deliveries?status=dead_letter").await?.body.contains("class=\"row\"").then_some(()));
    beespace.wait_for("a dead letter", is_processed).await.unwrap();
    let dead = session.get("/-/deliveries?status=dead_letter").await.unwrap().body;
    assert!(dead.contains("aria-current=\"true\">Dead letter</a>"), "{dead}");
    assert_eq!(rows_of(&dead).len(), 1);
    assert!(rows_of(&dead)[0].contains(">Retry</button>"), "{dead}");

    let ignored = session.get("/-/deliveries?status=ignored").await.unwrap().body;
    let new_branches: Vec<&str> = rows_of(&ignored).into_iter().filter(|row| row.contains(">create</span>")).collect();
    assert!(!new_branches.is_empty(), "{ignored}");
    for row in new_branches {
        assert!(!row.contains("Retry"), "it would be ignored again: {row}");
    }
    let built = session.get("/-/deliveries?status=built").await.unwrap().body;
    assert!(rows_of(&built).iter().all(|row| row.contains("pill s-success")) && !rows_of(&built).is_empty(), "{built}");
    let none = session.get("/-/notices?status=suspended").await.unwrap().body;
    assert!(none.contains("Nothing has this status") && none.contains("aria-current=\"true\">Suspended</a>"), "{none}");

    let admin = beespace.admin().unwrap();
    let listed = admin.get("/api/v1/deliveries?status=dead_letter&limit=100").await.unwrap().json().unwrap();
    let outcomes: Vec<&str> = listed.as_array().unwrap().iter().map(|delivery| delivery["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["dead_letter"]);
    let wrong = admin.get("/api/v1/deliveries?status=odd").await.unwrap();
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{wrong:?}");
}
