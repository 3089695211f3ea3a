//! The input of policies about the previous build, tested with a policy that logs it.

use std::path::Path;

use beespace_core::build::Build;
use beespace_core::policy::Point;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::guest_build;
use wit_parser::{SizeAlign, TypeDefKind};

const REPO: &str = "ada/hive";

/// The offset of `previous_stage` in the request of a policy.
fn previous_pointer() -> usize {
    let (resolve, _) = guest_build::world("policy-plugin", None);
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    let is_asked = |name: &Option<String>| name.as_deref() == Some("request");
    let fields = resolve.types.iter().find_map(|(_, of)| match &of.kind {
        TypeDefKind::Record(record) if is_asked(&of.name) && record.fields.iter().any(|field| field.name == "previous") => {
            Some(&record.fields)
        }
        _ => None,
    });
    let fields = fields.unwrap();
    let place = fields.iter().position(|field| field.name == "previous").unwrap();
    sizes.field_offsets(fields.iter().map(|field| &field.ty))[place].0.size_wasm32()
}

/// A policy that logs the text of `previous_stage`, if there is one.
fn logging_guest(folder: &Path, name: &str, point: Point) -> String {
    let at = previous_pointer();
    let read = |offset: usize| format!("(i32.load (i32.add (local.get 0) (i32.const {})))", at + offset);
    let code = format!(
        "(if (i32.load8_u (i32.add (local.get 0) (i32.const {at}))) (then (i32.store8 (i32.const 256) (i32.const 1)) \
         (i32.store (i32.const 260) {}) (i32.store (i32.const 264) {})))",
        read(12),
        read(16)
    );
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, guest_build::policy_at(name, point.as_str(), &code)).unwrap();
    format!("[[policy]]\nname = \"{name}\"\nplugin = \"{}\"\nmode = \"warn\"\n", path.display())
}

/// The text that the policy `name` reported for a build; `None` if it received no previous build or was not called.
fn logged_lines(beespace: &Beespace, build: &Build, name: &str) -> Option<String> {
    let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
    let one = decisions.iter().flat_map(|decision| &decision.evaluations).find(|one| one.policy == name)?;
    one.result.as_ref().err().map(|error| error.message.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_receive_the_previous_build_of_the_branch_and_never_a_declined_one() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, step) = (
        logging_guest(folder.path(), "pipelines", Point::PipelineAdmit),
        logging_guest(folder.path(), "steps", Point::StepAdmit),
    );
    let images =
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { repositories = [\"docker.io/library/*\"] }\n";
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("[engine]\nkind = \"dummy\"\n{pipeline}{step}{images}")).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let mut builds = Vec::new();
    for (number, branch, pipeline, image, status) in [
        (1, "main", "hive", "busybox:first", Status::Success),
        (2, "main", "hive", "evil/image:second", Status::Declined),
        (3, "main", "hive", "busybox:third", Status::Success),
        (4, "other", "hive", "busybox:fourth", Status::Success),
        (5, "main", "hive", "busybox:fifth", Status::Success),
        (6, "main", "apiary", "busybox:sixth", Status::Success),
    ] {
        let text = format!("name: {pipeline}\nsteps:\n  - name: build\n    image: {image}\n");
        gogs.push(REPO, branch, &[(".beespace.yml", &text)], "Fill cells").await.unwrap();
        let build = beespace.wait_until_finished(REPO, number).await.unwrap();
        assert_eq!(build.status, status, "{build:#?}");
        builds.push(build);
    }
    for name in ["pipelines", "steps"] {
        let logged: Vec<Option<String>> = builds.iter().map(|build| logged_lines(&beespace, build, name)).collect();
        assert_eq!((&logged[0], &logged[3]), (&None, &None), "the first build of a branch has no previous stage");
        assert_eq!(logged[5], None, "a pipeline of another name in the same place has no previous stage");
        for (build, before) in [(2, "busybox:first"), (4, "busybox:third")] {
            assert!(logged[build].as_ref().is_some_and(|text| text.contains(before)), "{name} of {build}: {logged:#?}");
        }
    }
}
