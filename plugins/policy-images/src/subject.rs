//! The images in the subject of the decision.

use serde::Deserialize;

/// An image and its location in the subject.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImageUse {
    pub(crate) image: String,
    /// RFC 6901 pointer into the subject.
    pub(crate) pointer: String,
    /// The location for people: `step "test"`.
    pub(crate) location: String,
}

#[derive(Deserialize)]
struct Pipeline {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    action: Action,
}

#[derive(Deserialize)]
struct Action {
    image: Option<String>,
}

#[derive(Deserialize)]
struct StepPlan {
    step: String,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    id: String,
    image: String,
}

/// Lists all images of a pipeline or a plan. Subjects of other kinds have none.
pub(crate) fn image_uses(schema: &str, json: &str) -> Result<Vec<ImageUse>, String> {
    let unreadable = |error: serde_json::Error| format!("the subject is not a valid {schema} document: {error}");
    match schema {
        "beespace.pipeline/v1" => Ok(of_pipeline(serde_json::from_str(json).map_err(unreadable)?)),
        "beespace.step-plan/v1" => Ok(of_plan(serde_json::from_str(json).map_err(unreadable)?)),
        _ => Ok(Vec::new()),
    }
}

fn of_pipeline(pipeline: Pipeline) -> Vec<ImageUse> {
    let use_of = |(number, step): (usize, Step)| {
        let image = step.action.image?;
        let pointer = format!("/steps/{number}/action/image");
        // The value of `${{ … }}` is known only in the plan, and is checked there.
        (!image.contains("${{")).then(|| ImageUse { image, pointer, location: format!("step {:?}", step.name) })
    };
    pipeline.steps.into_iter().enumerate().filter_map(use_of).collect()
}

fn of_plan(plan: StepPlan) -> Vec<ImageUse> {
    let is_single = plan.containers.len() == 1;
    let use_of = |(number, container): (usize, Container)| {
        let pointer = format!("/containers/{number}/image");
        let location = if is_single {
            format!("step {:?}", plan.step)
        } else {
            format!("container {:?} of step {:?}", container.id, plan.step)
        };
        ImageUse { image: container.image, pointer, location }
    };
    plan.containers.into_iter().enumerate().map(use_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_without_an_image_and_names_with_variables_are_left_to_the_plan() {
        let json = r#"{"name": "p", "steps": [
            {"name": "a", "action": {"kind": "uses", "plugin": "check", "with": {}}, "needs": []},
            {"name": "b", "action": {"kind": "image", "image": "rust:${{ matrix.rust }}"}, "needs": []},
            {"name": "c", "action": {"kind": "image", "image": "rust:1"}, "needs": []}]}"#;
        let uses = image_uses("beespace.pipeline/v1", json).unwrap();
        let expected =
            ImageUse { image: "rust:1".into(), pointer: "/steps/2/action/image".into(), location: "step \"c\"".into() };
        assert_eq!(uses, [expected]);
    }

    #[test]
    fn every_container_of_a_plan_is_listed() {
        let json = r#"{"step": "s", "containers": [{"id": "a", "image": "x"}, {"id": "b", "image": "y"}]}"#;
        let uses = image_uses("beespace.step-plan/v1", json).unwrap();
        assert_eq!(uses[1].pointer, "/containers/1/image");
        assert_eq!(uses[1].location, "container \"b\" of step \"s\"");
        assert!(image_uses("beespace.step-plan/v1", "{}").is_err());
        assert_eq!(image_uses("beespace.deploy/v1", "?"), Ok(Vec::new()));
    }
}
