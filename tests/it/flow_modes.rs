//! How the mode and the grants of a policy's binding affect a build.

use beespace_core::build::Build;
use beespace_core::policy::Point;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;

use crate::flow::world;

const REPO: &str = "ada/hive";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n    env: { OUTPUT: \"by the file\" }\n";

/// A build of one step under these policies.
async fn built(policies: &str) -> (Beespace, Build) {
    let (gogs, beespace) = world(policies).await;
    gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    (beespace, build)
}

/// The bundled image policy with a setting that denies the only image.
fn images(mode: &str) -> String {
    format!(
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nmode = \"{mode}\"\n\
         settings = {{ registries = [\"registry.example\"] }}\n"
    )
}

/// A policy that changes the output of the step.
fn setting(folder: &tempfile::TempDir, mode: &str, mutate: &str) -> String {
    let path = folder.path().join("sets.wasm");
    std::fs::write(&path, beespace_tests::guest_build::patching_guest("OUTPUT", "by the policy")).unwrap();
    format!(
        "[[policy]]\nname = \"sets\"\nplugin = \"{}\"\nmode = \"{mode}\"\nmutate = {{ \"step.admit\" = [\"{mutate}\"] }}\n",
        path.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_decides_whether_a_policy_denies_warns_or_only_records() {
    for (mode, status, is_shown) in
        [("enforce", Status::Declined, true), ("warn", Status::Success, true), ("shadow", Status::Success, false)]
    {
        let (beespace, build) = built(&images(mode)).await;
        assert_eq!(build.status, status, "{mode}: {build:#?}");
        let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
        let kept = decisions.iter().flat_map(|decision| &decision.evaluations).find(|one| one.policy == "images");
        let kept = kept.unwrap_or_else(|| panic!("{mode}: no evaluation is kept: {decisions:#?}"));
        assert!(format!("{kept:?}").contains("registry.example"), "{mode}: its findings are kept: {kept:?}");
        let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
        assert!(!is_shown || page.contains("registry.example"), "{mode}: the page shows its findings");
        assert_eq!(beespace.step(&build, "build").unwrap().started_at.is_some(), status == Status::Success, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_changes_what_its_grant_allows() {
    let folder = tempfile::tempdir().unwrap();
    let (beespace, build) = built(&setting(&folder, "enforce", "/containers/*/env/OUTPUT")).await;
    assert_eq!(build.status, Status::Success, "{build:#?}");
    assert_eq!(beespace.log(&build, "build").await.unwrap(), ["by the policy"]);
    let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
    let step = decisions.iter().find(|decision| decision.point == Point::StepAdmit).unwrap();
    assert!(format!("{step:?}").contains("/containers/0/env/OUTPUT"), "the patch is kept: {step:#?}");
    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("/containers/0/env/OUTPUT"), "the page shows the change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_beyond_the_grant_is_a_denial_that_names_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let (beespace, build) = built(&setting(&folder, "enforce", "/containers/*/image")).await;
    assert_eq!(build.status, Status::Declined, "{build:#?}");
    assert!(beespace.step(&build, "build").unwrap().started_at.is_none());
    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("/containers/0/env/OUTPUT") && page.contains("mutate"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_warn_or_shadow_mode_changes_nothing() {
    for mode in ["warn", "shadow"] {
        let folder = tempfile::tempdir().unwrap();
        let (beespace, build) = built(&setting(&folder, mode, "/containers/*/env/OUTPUT")).await;
        assert_eq!(build.status, Status::Success, "{mode}: {build:#?}");
        assert_eq!(beespace.log(&build, "build").await.unwrap(), ["by the file"], "{mode}");
    }
}
