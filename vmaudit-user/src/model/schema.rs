//! JSON Schemas of the documents: kept in `schema/`, made of the types that are serialised, so that the two cannot differ.

use std::path::Path;

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::{
    difference::Difference, doctor::Doctor, limit::LimitReport, report::Report, scan::Scan,
    vma_layout::Explanation,
};

/// Each document with its schema.
fn schemas() -> [(&'static str, Schema); 6] {
    [
        ("report", written::<Report>()),
        ("scan", written::<Scan>()),
        ("explain", written::<Explanation>()),
        ("limit", written::<LimitReport>()),
        ("doctor", written::<Doctor>()),
        ("diff", written::<Difference>()),
    ]
}

/// Of what is written, not of what may be read: a reader may do without fields that a writer always has.
fn written<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// `VMAUDIT_BLESS=1 cargo test schema` writes them anew.
#[test]
fn the_schemas_in_the_tree_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for (name, schema) in schemas() {
        let path = folder.join(format!("{name}.schema.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("VMAUDIT_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "{} is not what the types say: VMAUDIT_BLESS=1 cargo test schema",
            path.display()
        );
    }
}
