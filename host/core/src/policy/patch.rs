//! RFC 6902 patches, restricted to granted paths.
//!
//! Supported operations are `add`, `remove`, `replace` and `test`. `move` and `copy` would need two grants each, and the other
//! operations can express them.

use serde_json::Value;

use super::pointer::{InvalidPointer, PathGrant, Pointer};
use super::{PatchKind, PatchOp};

/// Most operations of one verdict.
pub const MAX_OPS: usize = 1_000;

/// Why a patch was not applied. A patch is applied completely or not at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("the patch has {0} operations; at most {MAX_OPS} are allowed")]
    TooManyOps(usize),
    #[error("the path {0}")]
    InvalidPointer(#[from] InvalidPointer),
    #[error("the policy may not change `{0}`; an administrator can grant the path with `mutate` in its binding")]
    NotGranted(Pointer),
    #[error("the operation at `{0}` needs a value")]
    ValueMissing(Pointer),
    #[error("`{0}` does not exist")]
    NothingThere(Pointer),
    #[error("`{0}` is beyond the end of the list, or is not an index")]
    NoSuchIndex(Pointer),
    #[error("the value at `{0}` is not the one that the patch tests for")]
    TestFailed(Pointer),
}

/// Applies `ops` to a copy of the document, in order, all or none. Every changed path is checked against `grants` before the
/// first operation is applied; `test` changes nothing and needs no grant.
///
/// # Errors
/// [`PatchError`] of the first operation that is not allowed or cannot be applied.
pub fn apply(document: &Value, ops: &[PatchOp], grants: &[PathGrant]) -> Result<Value, PatchError> {
    if ops.len() > MAX_OPS {
        return Err(PatchError::TooManyOps(ops.len()));
    }
    let mut pointers = Vec::with_capacity(ops.len());
    for op in ops {
        let pointer: Pointer = op.path.parse()?;
        if op.op != PatchKind::Test && !grants.iter().any(|grant| grant.covers(&pointer)) {
            return Err(PatchError::NotGranted(pointer));
        }
        pointers.push(pointer);
    }
    let mut patched = document.clone();
    for (op, pointer) in ops.iter().zip(&pointers) {
        apply_one(&mut patched, op, pointer)?;
    }
    Ok(patched)
}

fn apply_one(document: &mut Value, op: &PatchOp, at: &Pointer) -> Result<(), PatchError> {
    let value = || op.value.clone().ok_or_else(|| PatchError::ValueMissing(at.clone()));
    match op.op {
        PatchKind::Add => add(document, at, value()?),
        PatchKind::Remove => remove(document, at),
        PatchKind::Replace => {
            *find(document, at.parts()).ok_or_else(|| PatchError::NothingThere(at.clone()))? = value()?;
            Ok(())
        }
        PatchKind::Test => {
            let expected = value()?;
            let found = find(document, at.parts()).ok_or_else(|| PatchError::NothingThere(at.clone()))?;
            if *found == expected { Ok(()) } else { Err(PatchError::TestFailed(at.clone())) }
        }
    }
}

fn add(document: &mut Value, at: &Pointer, value: Value) -> Result<(), PatchError> {
    let Some((last, parents)) = at.parts().split_last() else {
        *document = value;
        return Ok(());
    };
    match find(document, parents) {
        Some(Value::Object(map)) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let place = if last == "-" { Some(items.len()) } else { index(last) };
            let place = place.filter(|place| *place <= items.len()).ok_or_else(|| PatchError::NoSuchIndex(at.clone()))?;
            items.insert(place, value);
            Ok(())
        }
        _ => Err(PatchError::NothingThere(at.clone())),
    }
}

fn remove(document: &mut Value, at: &Pointer) -> Result<(), PatchError> {
    let nothing = || PatchError::NothingThere(at.clone());
    let (last, parents) = at.parts().split_last().ok_or_else(nothing)?;
    match find(document, parents) {
        Some(Value::Object(map)) => map.shift_remove(last).map(drop).ok_or_else(nothing),
        Some(Value::Array(items)) => {
            let place = index(last).filter(|place| *place < items.len()).ok_or_else(|| PatchError::NoSuchIndex(at.clone()))?;
            items.remove(place);
            Ok(())
        }
        _ => Err(nothing()),
    }
}

fn find<'a>(document: &'a mut Value, parts: &[String]) -> Option<&'a mut Value> {
    parts.iter().try_fold(document, |value, part| match value {
        Value::Object(map) => map.get_mut(part),
        Value::Array(items) => items.get_mut(index(part)?),
        _ => None,
    })
}

/// An array index of RFC 6901: digits without leading zeros.
fn index(part: &str) -> Option<usize> {
    let is_index = part == "0" || (part.bytes().all(|b| b.is_ascii_digit()) && !part.starts_with('0'));
    if is_index { part.parse().ok() } else { None }
}

/// The first path of `patched` that is missing in `understood`, which is `patched` parsed as our own type: a key that this
/// version does not know. Without this check such a patch would seem to work. Empty values are ignored.
#[must_use]
pub fn first_ignored_path(patched: &Value, understood: &Value) -> Option<Pointer> {
    ignored_below(patched, Some(understood), &Pointer::default())
}

fn ignored_below(patched: &Value, understood: Option<&Value>, at: &Pointer) -> Option<Pointer> {
    match (patched, understood) {
        (Value::Object(map), Some(Value::Object(known))) => {
            map.iter().find_map(|(key, value)| ignored_below(value, known.get(key), &at.child(key)))
        }
        (Value::Array(items), Some(Value::Array(known))) => {
            items.iter().enumerate().find_map(|(place, value)| ignored_below(value, known.get(place), &at.child(place)))
        }
        (patched, None) => (!is_empty(patched)).then(|| at.clone()),
        (patched, Some(known)) => (patched != known).then(|| at.clone()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn op(op: PatchKind, path: &str, value: Option<Value>) -> PatchOp {
        PatchOp { op, path: path.to_owned(), value }
    }

    fn all() -> Vec<PathGrant> {
        vec!["/a".parse().unwrap()]
    }

    #[test]
    fn the_examples_of_rfc_6902_hold() {
        use PatchKind::{Add, Remove, Replace, Test};
        let cases = [
            (json!({"a": {}}), op(Add, "/a/b", Some(json!(1))), json!({"a": {"b": 1}})),
            (json!({"a": ["x", "z"]}), op(Add, "/a/1", Some(json!("y"))), json!({"a": ["x", "y", "z"]})),
            (json!({"a": ["x"]}), op(Add, "/a/-", Some(json!(["y"]))), json!({"a": ["x", ["y"]]})),
            (json!({"a": {"b": 1}}), op(Add, "/a/b", Some(json!(null))), json!({"a": {"b": null}})),
            (json!({"a": {"b": 1, "c": 2}}), op(Remove, "/a/b", None), json!({"a": {"c": 2}})),
            (json!({"a": [1, 2, 3]}), op(Remove, "/a/1", None), json!({"a": [1, 3]})),
            (json!({"a": {"b": 1}}), op(Replace, "/a/b", Some(json!(2))), json!({"a": {"b": 2}})),
            (json!({"a": {"/": 9}}), op(Test, "/a/~1", Some(json!(9))), json!({"a": {"/": 9}})),
        ];
        for (before, op, after) in cases {
            assert_eq!(apply(&before, std::slice::from_ref(&op), &all()), Ok(after), "{op:?}");
        }
    }

    #[test]
    fn an_inapplicable_operation_is_an_error_and_changes_nothing() {
        use PatchKind::{Add, Remove, Replace, Test};
        let document = json!({"a": [1], "b": 2});
        for op in [
            op(Add, "/a/2", Some(json!(1))),
            op(Add, "/a/01", Some(json!(1))),
            op(Add, "/a/0/x", Some(json!(1))),
            op(Add, "/a/0", None),
            op(Remove, "/a/-", None),
            op(Remove, "/a/1", None),
            op(Replace, "/a/1", Some(json!(1))),
            op(Test, "/a/0", Some(json!(2))),
            op(Test, "/c", Some(json!(2))),
            op(Remove, "a", None),
        ] {
            assert!(apply(&document, std::slice::from_ref(&op), &all()).is_err(), "{op:?}");
        }
    }

    #[test]
    fn one_path_outside_the_grant_refuses_the_whole_patch() {
        let ops = [op(PatchKind::Add, "/a/0", Some(json!(0))), op(PatchKind::Remove, "/b", None)];
        let result = apply(&json!({"a": [], "b": 1}), &ops, &all());
        assert_eq!(result, Err(PatchError::NotGranted("/b".parse().unwrap())));
    }

    #[test]
    fn an_unknown_key_is_found() {
        let known = json!({"a": [{"x": 1}]});
        assert_eq!(first_ignored_path(&json!({"a": [{"x": 1, "y": {}, "z": null}]}), &known), None);
        let pointer = first_ignored_path(&json!({"a": [{"x": 1, "privileged": true}]}), &known).map(|p| p.to_string());
        assert_eq!(pointer.as_deref(), Some("/a/0/privileged"));
    }
}
