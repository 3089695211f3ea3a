//! The encoding of a row: a version byte, then MessagePack with named fields. A new field with a default therefore needs no
//! migration. An unknown version is an error.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// The version of the encoding that this program writes and reads.
const VERSION: u8 = 1;

pub(super) fn encode<T: Serialize>(table: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    value.serialize(&mut serializer).map_err(|error| StoreError::Row { table, detail: error.to_string() })?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            rmp_serde::from_slice(body).map_err(|error| StoreError::Row { table, detail: error.to_string() })
        }
        Some((version, _)) => Err(StoreError::Row {
            table,
            detail: format!("version {version} is unknown; was the store written by a newer version of Beespace?"),
        }),
        None => Err(StoreError::Row { table, detail: "the row is empty".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_unknown_version_is_refused() {
        let mut bytes = encode("t", &"x").unwrap();
        assert_eq!(decode::<String>("t", &bytes).unwrap(), "x");
        bytes[0] = 9;
        assert!(decode::<String>("t", &bytes).unwrap_err().to_string().contains("version 9"));
    }
}
