//! Files of every format, sound and broken, through the public door.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Features, ItemIds};
use crate::error::Error;

/// Bytes as numpy writes them.
fn npy(version: u8, descr: &str, fortran: bool, shape: &str, payload: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}");
    let fixed = if version == 1 { 10 } else { 12 };
    let padding = (fixed + text.len() + 1).next_multiple_of(64) - fixed - text.len() - 1;
    let text = format!("{text}{}\n", " ".repeat(padding));
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    if version == 1 {
        bytes.extend((text.len() as u16).to_le_bytes());
    } else {
        bytes.extend((text.len() as u32).to_le_bytes());
    }
    bytes.extend(text.as_bytes());
    bytes.extend(payload);
    bytes
}

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The same for zip: stored or deflated `.npy` files.
fn npz(entries: &[(&str, &[u8])]) -> Vec<u8> {
    archive(entries, zip::CompressionMethod::Deflated)
}

fn archive(entries: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        // NumPy writes every entry in the form of large files.
        writer.start_file(*name, options.large_file(true)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn safetensors(header: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(payload);
    bytes
}

fn put(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn open(name: &str, bytes: &[u8]) -> crate::Result<Features> {
    let folder = tempfile::tempdir().unwrap();
    Features::open(put(&folder, name, bytes))
}

/// Asserts that a file is refused with a message that holds every word.
fn refused(name: &str, bytes: &[u8], words: &[&str]) {
    let error = open(name, bytes).unwrap_err();
    assert!(matches!(error, Error::Features(_)), "{error}");
    let message = error.to_string();
    for word in words.iter().chain(&[name]) {
        assert!(message.contains(word), "{message}\nlacks: {word}");
    }
}

const SIX: [f32; 6] = [1.0, -2.0, 3.5, 0.25, 5.0, 6.0];

#[test]
fn npy_f32_is_mapped_in_every_version() {
    for version in 1..=3 {
        let items = open("a.npy", &npy(version, "'<f4'", false, "(3, 2)", &le(&SIX))).unwrap();
        assert!(items.is_mapped());
        assert_eq!((items.len(), items.dim(), items.as_slice()), (3, 2, &SIX[..]));
        let copy = items.in_memory();
        assert!(!copy.is_mapped());
        assert_eq!(copy.as_slice(), items.as_slice());
    }
}

#[test]
fn npy_of_other_layouts_is_converted() {
    let columns = [1.0f32, 3.5, 5.0, -2.0, 0.25, 6.0];
    let f16s: Vec<u8> = SIX.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let f64s: Vec<u8> = SIX.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    let big: Vec<u8> = SIX.iter().flat_map(|x| x.to_be_bytes()).collect();
    let big_columns: Vec<u8> = columns.iter().flat_map(|&x| f64::from(x).to_be_bytes()).collect();
    for (descr, fortran, payload) in [
        ("'<f2'", false, f16s),
        ("'<f8'", false, f64s),
        ("'>f4'", false, big),
        ("'<f4'", true, le(&columns)),
        ("'>f8'", true, big_columns),
    ] {
        let items = open("a.NPY", &npy(1, descr, fortran, "(3, 2)", &payload)).unwrap();
        assert!(!items.is_mapped());
        assert_eq!((items.len(), items.as_slice()), (3, &SIX[..]), "{descr} {fortran}");
    }
}

#[test]
fn a_payload_off_its_alignment_is_copied() {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)}";
    let text =
        format!("{text}{}\n", if (10 + text.len() + 1).is_multiple_of(4) { " " } else { "" });
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(le(&SIX));
    let items = open("a.npy", &bytes).unwrap();
    assert!(!items.is_mapped());
    assert_eq!(items.as_slice(), SIX);
}

#[test]
fn broken_npy_files_are_refused() {
    let f4 = |shape: &str, payload: &[u8]| npy(1, "'<f4'", false, shape, payload);
    let good = f4("(3, 2)", &le(&SIX));
    refused("a.npy", b"", &["an empty file"]);
    refused("a.npy", b"hello, this is text", &["\\x93NUMPY"]);
    refused("a.npy", &good[..4], &["\\x93NUMPY"]);
    for end in [8, 9, 10, 60, 127] {
        refused("a.npy", &good[..end], &["a complete .npy header", &format!("{end} bytes")]);
    }
    refused(
        "a.npy",
        &good[..good.len() - 1],
        &["24 bytes for shape [3, 2]", "23 bytes", "truncated"],
    );
    refused("a.npy", &[&good[..], b"x"].concat(), &["25 bytes", "more than one array"]);
    refused("a.npy", &npy(4, "'<f4'", false, "(3, 2)", &[]), &["version 4.0"]);
    for (shape, word) in [("(6,)", "[6]"), ("()", "[]"), ("(1, 3, 2)", "[1, 3, 2]")] {
        refused("a.npy", &f4(shape, &le(&SIX)), &["two dimensions", word, "reshape"]);
    }
    refused("a.npy", &f4("(0, 2)", &[]), &["at least one row", "[0, 2]"]);
    refused("a.npy", &f4("(2, 0)", &[]), &["at least one row", "[2, 0]"]);
    for descr in [
        "'<i4'",
        "'|u1'",
        "'|b1'",
        "'<c8'",
        "'|O'",
        "'<U5'",
        "'<q9'",
        "[('a', '<f4'), ('b', '<f4')]",
    ] {
        let name = descr.trim_start_matches("[(").trim_matches('\'').split('\'').next().unwrap();
        refused("a.npy", &npy(1, descr, false, "(3, 2)", &le(&SIX)), &["the type", name, "astype"]);
    }
    for text in [
        "(3, 2",
        "(3, 'a')",
        "(True, 2)",
        "3",
        "(-3, 2)",
        "(0x3, 2)",
        "(1_0, 2)",
        "(3,, 2)",
        "(3, 2.0)",
        "(99999999999999999999, 1)",
    ] {
        let plain = "a header that describes a plain array";
        refused("a.npy", &f4(text, &le(&SIX)), &[plain, "cannot be parsed"]);
    }
    // Brackets in brackets end neither the stack nor the memory.
    for text in ["(".repeat(60_000), format!("{}{}", "(".repeat(30_000), ")".repeat(30_000))] {
        refused("a.npy", &f4(&text, &[]), &["cannot be parsed"]);
    }
    let huge = 1e300f64.to_le_bytes();
    refused("a.npy", &npy(1, "'<f8'", false, "(1, 1)", &huge), &["1e300 in row 0, column 0"]);
    let pair = [1f64.to_le_bytes(), huge].concat();
    refused("a.npy", &npy(1, "'<f8'", true, "(2, 1)", &pair), &["row 1, column 0"]);
}

#[test]
fn headers_that_promise_too_much_allocate_nothing() {
    for shape in ["(4294967295, 4294967295)", "(1000000000, 1000)", "(4, 2305843009213693952)"] {
        let name = shape.trim_matches(['(', ')']);
        for (descr, fortran) in [("'<f4'", false), ("'<f8'", true)] {
            refused("a.npy", &npy(1, descr, fortran, shape, &le(&SIX)), &[name]);
        }
        let file = npy(1, "'<f4'", false, shape, &le(&SIX));
        let error = open("a.npz", &npz(&[("x.npy", &file)])).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let much = npy(1, "'<f4'", false, "(99999999999, 99999999999)", &[]);
    refused("a.npy", &much, &["4294967295 rows"]);
    refused("a.npy", &npy(1, "'<f4'", false, "(4294967296, 1)", &[]), &["4294967295 rows"]);
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    refused("a.npy", &long, &["a header of at most", "4294967295"]);
    let mut long = (u64::MAX / 2).to_le_bytes().to_vec();
    long.extend(b"{}");
    refused("a.safetensors", &long, &["header"]);
    let header = r#"{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,24]}}"#;
    refused("a.safetensors", &safetensors(header, &le(&SIX)), &["faulty header"]);
}

#[test]
fn npz_needs_one_matrix_or_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let matrix = npy(1, "'<f4'", false, "(3, 2)", &le(&SIX));
    let other = npy(2, "'<f8'", true, "(1, 1)", &7f64.to_le_bytes());
    let flat = npy(1, "'<i8'", false, "(1,)", &7i64.to_le_bytes());

    let entries: [(&str, &[u8]); 3] =
        [("flat.npy", &flat), ("image.npy", &matrix), ("readme.txt", b"hi")];
    let path = put(&folder, "one.npz", &npz(&entries));
    let items = Features::open(&path).unwrap();
    assert!(!items.is_mapped());
    assert_eq!((items.dim(), items.as_slice()), (2, &SIX[..]));

    let entries: [(&str, &[u8]); 3] =
        [("b.npy", &matrix), ("a.npy", &other), ("broken.npy", b"broken")];
    let path = put(&folder, "named.npz", &npz(&entries));
    assert_eq!(Features::open_named(&path, "a").unwrap().as_slice(), [7.0]);
    assert_eq!(Features::open_named(&path, "b").unwrap().as_slice(), SIX);
    assert!(Features::open(&path).is_err());

    let two = npz(&[("b.npy", &matrix), ("a.npy", &other)]);
    refused("a.npz", &two, &["\"a\" [1, 1], \"b\" [3, 2]", "open_named"]);
    let path = put(&folder, "two.npz", &two);
    let error = Features::open_named(&path, "c").unwrap_err().to_string();
    assert!(error.contains("an array named \"c\"") && error.contains("\"a\" [1, 1]"), "{error}");
    refused("a.npz", &npz(&[("flat.npy", &flat)]), &["\"flat\" [1]", "one array"]);
    refused("a.npz", &npz(&[]), &["found none"]);
}

#[test]
fn broken_npz_files_are_refused() {
    let matrix = npy(1, "'<f4'", false, "(3, 2)", &le(&SIX));
    refused("a.npz", b"", &["an empty file"]);
    refused("a.npz", &matrix, &["a zip archive"]);
    refused("a.npz", &npz(&[("x.npy", &matrix[..140])]), &["\"x\"", "24 bytes", "12 bytes"]);
    refused("a.npz", &npz(&[("x.npy", &matrix[..50])]), &["a complete .npy header"]);
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        let whole = archive(&[("x.npy", &matrix)], method);
        assert_eq!(open("a.npz", &whole).unwrap().as_slice(), SIX);
        for end in (0..whole.len()).step_by(7) {
            assert!(open("a.npz", &whole[..end]).is_err());
        }
        // Any damage is noticed or harmless: never other numbers.
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            if let Ok(items) = open("a.npz", &bytes) {
                assert_eq!(items.as_slice(), SIX, "byte {place}");
            }
        }
    }
}

#[test]
fn safetensors_is_mapped_where_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let f16s: Vec<u8> = SIX.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let bf16s: Vec<u8> = SIX.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let f64s: Vec<u8> = SIX.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    for (dtype, payload) in [("F32", le(&SIX)), ("F16", f16s), ("BF16", bf16s), ("F64", f64s)] {
        let end = payload.len();
        let header =
            format!(r#"{{"x":{{"dtype":"{dtype}","shape":[3,2],"data_offsets":[0,{end}]}}}}"#);
        let aligned =
            format!("{header}{}", " ".repeat(header.len().next_multiple_of(8) - header.len()));
        let path = put(&folder, "a.safetensors", &safetensors(&aligned, &payload));
        let items = Features::open(&path).unwrap();
        assert_eq!(items.is_mapped(), dtype == "F32");
        assert_eq!((items.dim(), items.as_slice()), (2, &SIX[..]), "{dtype}");
        assert_eq!(Features::open_named(&path, "x").unwrap().as_slice(), SIX);
        assert!(Features::open_named(&path, "y").is_err());

        let askew = safetensors(&format!("{aligned} "), &payload);
        let items = open("a.safetensors", &askew).unwrap();
        assert!(!items.is_mapped());
        assert_eq!(items.as_slice(), SIX);
        let cut = &askew[..askew.len() - 1];
        refused("a.safetensors", cut, &["faulty header", "truncated or damaged"]);
    }
}

#[test]
fn broken_safetensors_files_are_refused() {
    let one = |dtype: &str, shape: &str, bytes: usize| {
        let header =
            format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
        safetensors(&header, &vec![0; bytes])
    };
    refused("a.safetensors", b"", &["an empty file"]);
    refused("a.safetensors", b"abc", &["faulty header"]);
    refused("a.safetensors", &safetensors("not json", &[]), &["faulty header"]);
    refused("a.safetensors", &safetensors("{}", &[]), &["found none"]);
    refused("a.safetensors", &one("I32", "[3,2]", 24), &["the type I32", "astype"]);
    refused("a.safetensors", &one("F32", "[6]", 24), &["two dimensions", "\"x\" [6]"]);
    refused("a.safetensors", &one("F32", "[0,2]", 0), &["at least one row"]);
    refused("a.safetensors", &one("F32", "[3,2]", 20), &["faulty header"]);
}

#[test]
fn other_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused("a.csv", b"1,2", &[".npy, .npz or .safetensors", "the extension .csv"]);
    refused("features", b"1,2", &["no extension"]);
    let missing = Features::open(folder.path().join("a.npy"));
    assert!(matches!(missing, Err(Error::Io { .. })));
    let directory = folder.path().join("d.npy");
    fs::create_dir(&directory).unwrap();
    assert!(matches!(Features::open(&directory), Err(Error::Io { .. })));
    let path = put(&folder, "a.npy", &npy(1, "'<f4'", false, "(3, 2)", &le(&SIX)));
    let error = Features::open_named(&path, "x").unwrap_err().to_string();
    assert!(error.contains("whose arrays have names"), "{error}");
}

#[test]
fn rows_and_ids_go_together() {
    for (data, dim) in [(vec![], 1), (vec![1.0], 0), (vec![1.0, 2.0, 3.0], 2)] {
        assert!(matches!(Features::from_rows(data, dim), Err(Error::Features(_))));
    }
    let folder = tempfile::tempdir().unwrap();
    let items = Features::from_rows(SIX.to_vec(), 2).unwrap();
    assert!(!items.has_given_ids());
    assert_eq!((items.id(2), items.index_of("1"), items.ids().len()), ("2", Some(1), 3));

    let path = put(&folder, "ids.txt", b"a\nb\n");
    let error = items.clone().with_ids(&path).unwrap_err();
    assert!(matches!(error, Error::Ids(_)));
    assert!(error.to_string().contains("each of 3 rows, found 2 ids"), "{error}");
    let items = items.with_ids(put(&folder, "ids.txt", b"a\nb\nc\n")).unwrap();
    assert!(items.has_given_ids());

    let some = items.select(&[2, 0]);
    assert_eq!((some.id(0), some.index_of("a"), some.index_of("b")), ("c", Some(1), None));
    assert_eq!((some.row(0), some.rows(0..2)), (&SIX[4..], &[5.0, 6.0, 1.0, -2.0][..]));
    let unit = items.normalised();
    assert_eq!(unit.id(1), "b");
    assert!((crate::kernels::norm(unit.row(0)) - 1.0).abs() < 1e-6);
    assert!(items.select(&[]).is_empty());
    assert!(format!("{items:?}").contains("len: 3"));
    let none = items.select(&[]);
    assert!(matches!(none.save_npy(folder.path().join("a.npy")), Err(Error::Features(_))));
    assert!(matches!(items.save_npy(folder.path().join("a.bin")), Err(Error::Features(_))));
    assert!(matches!(items.save_npy(folder.path().join("no/a.npy")), Err(Error::Io { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_map_survives_saving_over_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    Features::from_rows(SIX.to_vec(), 2).unwrap().save_npy(&path).unwrap();
    let before = Features::open(&path).unwrap();
    before.select(&[1]).save_npy(&path).unwrap();
    assert!(before.is_mapped());
    assert_eq!(before.as_slice(), SIX);
    assert_eq!(Features::open(&path).unwrap().as_slice(), &SIX[2..4]);
}

/// A row count and a dimension with that many numbers of any bit pattern.
fn any_matrix() -> impl Strategy<Value = (Vec<u32>, usize)> {
    (1usize..30, 1usize..20).prop_flat_map(|(rows, dim)| {
        (proptest::collection::vec(any::<u32>(), rows * dim), Just(dim))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn saving_and_opening_gives_the_same_bits((bits, dim) in any_matrix()) {
        let folder = tempfile::tempdir().unwrap();
        let (npy, ids) = (folder.path().join("a.npy"), folder.path().join("ids.txt"));
        let numbers = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let items = Features::from_rows(numbers, dim).unwrap();
        let names = (0..items.len()).map(|row| format!("item-{}", row * 7)).collect();
        let items = items.with_id_list(names).unwrap();
        items.save_npy(&npy).unwrap();
        items.save_ids(&ids).unwrap();
        let again = Features::open(&npy).unwrap().with_ids(&ids).unwrap();
        prop_assert!(again.is_mapped());
        prop_assert_eq!(again.dim(), dim);
        let found: Vec<u32> = again.as_slice().iter().map(|x| x.to_bits()).collect();
        prop_assert_eq!(found, bits);
        prop_assert_eq!(again.ids(), items.ids());
    }
}

#[test]
fn the_shared_data_sets_are_sound() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let Ok(folders) = fs::read_dir(&data) else {
        eprintln!("skipped: no data sets beside the repository");
        return;
    };
    for folder in folders {
        let folder = folder.unwrap().path();
        let (npy, ids) = (folder.join("features.npy"), folder.join("ids.txt"));
        if !npy.is_file() {
            continue;
        }
        let items = Features::open(&npy).unwrap().with_ids(&ids).unwrap();
        assert!(items.is_mapped());
        let summary = items.check().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        eprintln!("{}\n{summary}", folder.display());
        assert_eq!(items.ids(), &ItemIds::open(&ids).unwrap());
        let middle = items.len() / 2;
        assert_eq!(items.index_of(items.id(middle)), Some(middle));
        assert_eq!(items.in_memory().as_slice(), items.as_slice());
    }
}
