//! The names of the marks in this workspace.

use std::path::Path;

use quorate_marks::sources;

#[test]
fn every_mark_has_a_name_of_its_own_and_every_marked_crate_has_marks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = sources::all(&root).expect("the sources can be read");
    assert_eq!(sources::misnamed(&places), Vec::<String>::new());
    for krate in sources::CRATES {
        let prefix = format!("{krate}.");
        assert!(
            places.iter().any(|place| place.name.starts_with(&prefix)),
            "{krate} has marks"
        );
    }
}
