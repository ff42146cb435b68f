//! The forms in which objects are asked for.

use serde_json::{Value, json};

use super::Asked;
use super::kind::{Kind, partial};

/// By the `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    /// With nothing but metadata.
    Partial,
    /// The table that kubectl prints.
    Table,
}

impl Form {
    pub(crate) fn of(asked: &Asked) -> Self {
        let accepted = asked.header("accept").unwrap_or_default();
        let forms = accepted.split(',').map(|accepted| {
            if accepted.contains("as=Table") {
                Self::Table
            } else if accepted.contains("as=PartialObjectMetadata") {
                Self::Partial
            } else {
                Self::Whole
            }
        });
        // The first is the one that is wanted most.
        forms.take(1).next().unwrap_or(Self::Whole)
    }

    pub(crate) fn object(self, kind: &Kind, object: &Value) -> Value {
        match self {
            Self::Whole => with_kind(kind, object),
            Self::Partial => partial(object),
            Self::Table => table(kind, std::iter::once(object), &object["metadata"], true),
        }
    }

    /// The object of an event; only the first one of a watch has the table's head.
    pub(crate) fn event(self, kind: &Kind, object: &Value, first: bool) -> Value {
        match self {
            Self::Table => table(kind, std::iter::once(object), &object["metadata"], first),
            _ => self.object(kind, object),
        }
    }

    /// A list; `metadata` is its own.
    pub(crate) fn list<'a>(self, kind: &Kind, objects: impl Iterator<Item = &'a Value>, metadata: &Value) -> Value {
        match self {
            Self::Whole => {
                let items: Vec<Value> = objects.map(without_kind).collect();
                let name = format!("{}List", kind.name);
                json!({"kind": name, "apiVersion": kind.group_version(), "metadata": metadata, "items": items})
            }
            Self::Partial => {
                let items: Vec<Value> = objects.map(partial).collect();
                let name = "PartialObjectMetadataList";
                json!({"kind": name, "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
            Self::Table => table(kind, objects, metadata, true),
        }
    }
}

fn table<'a>(kind: &Kind, objects: impl Iterator<Item = &'a Value>, of: &Value, head: bool) -> Value {
    let rows: Vec<Value> = objects.map(|object| kind.row(object)).collect();
    let columns = if head { kind.columns() } else { Value::Null };
    let mut metadata = json!({});
    for name in ["resourceVersion", "continue", "remainingItemCount"] {
        if !of[name].is_null() {
            metadata[name] = of[name].clone();
        }
    }
    let api = "meta.k8s.io/v1";
    json!({"kind": "Table", "apiVersion": api, "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

fn with_kind(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    object["kind"] = json!(kind.name);
    object["apiVersion"] = json!(kind.group_version());
    object
}

/// In a list of theirs, objects do not say of what kind they are.
fn without_kind(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}
