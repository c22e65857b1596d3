use std::fs;

use half::{bf16, f16};
use safetensors::{Dtype, serialize, tensor::TensorView};

use super::*;

/// A `.npy` file of `rows` x `dim` numbers that are already bytes.
fn npy(descr: &str, rows: usize, dim: usize, payload: &[u8]) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(payload);
    bytes
}

fn le(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Whole numbers, which every type holds exactly.
fn numbers(rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim).map(|i| (i % 251) as f32 - 100.0).collect()
}

/// Rows of width 3 in four files of different lengths and types.
fn written(folder: &Path) -> (Vec<PathBuf>, Vec<f32>) {
    let all = numbers(1000, 3);
    let part = |from: usize, to: usize| &all[from * 3..to * 3];
    let f16s: Vec<u8> = part(1, 700).iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let bf16s: Vec<u8> =
        part(700, 950).iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::BF16, vec![250, 3], &bf16s).unwrap();
    let doubles: Vec<u8> =
        part(950, 1000).iter().flat_map(|&x| f64::from(x).to_be_bytes()).collect();
    let files = [
        ("a.npy", npy("<f4", 1, 3, &le(part(0, 1)))),
        ("b.npy", npy("<f2", 699, 3, &f16s)),
        ("c.safetensors", serialize([("x", view)], None).unwrap()),
        ("d.npy", npy(">f8", 50, 3, &doubles)),
    ];
    let paths = files.map(|(name, bytes)| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    });
    (paths.to_vec(), all)
}

#[test]
fn files_of_all_types_read_as_one_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let (paths, all) = written(folder.path());
    let items = ShardedFeatures::open(&paths).unwrap();
    assert_eq!((items.len(), items.dim(), items.shards()), (1000, 3, 4));
    for (row, place) in [(0, "row 0 of"), (1, "row 0 of"), (699, "row 698 of"), (700, "row 0 of")] {
        assert!(items.place_of(row).starts_with(place), "{}", items.place_of(row));
    }
    let mut rows = vec![f32::NAN; 7];
    for range in [0..1000, 0..0, 0..1, 0..2, 699..701, 300..960, 949..951, 999..1000, 1000..1000] {
        items.read(range.clone(), &mut rows).unwrap();
        assert_eq!(rows, all[range.start * 3..range.end * 3], "{range:?}");
    }
    for range in [0..1001, 1001..1001, Range { start: 5, end: 4 }] {
        assert!(matches!(items.read(range, &mut rows), Err(Error::Features(_))));
    }
    let whole = items.in_memory().unwrap();
    assert_eq!((whole.as_slice(), whole.id(3)), (&all[..], "3"));
    assert_eq!(items.check().unwrap().duplicate_rows, whole.check().unwrap().duplicate_rows);
    assert!(format!("{items:?}").contains("shards: 4"));
}

#[test]
fn faulty_shards_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.npy");
    fs::write(&good, npy("<f4", 2, 2, &le(&[1.0; 4]))).unwrap();
    let fortran = String::from_utf8_lossy(&npy("<f4", 2, 2, &[])).replace("False", "True ");
    let fortran = [&b"\x93NUMPY"[..], &fortran.as_bytes()[8..], &le(&[1.0; 4])].concat();
    for (name, bytes, word) in [
        ("wide.npy", npy("<f4", 2, 3, &le(&[1.0; 6])), "2 numbers in a row"),
        ("short.npy", npy("<f4", 2, 2, &le(&[1.0; 3])), "truncated"),
        ("none.npy", npy("<f4", 0, 2, &[]), "at least one row"),
        ("empty.npy", Vec::new(), "an empty file"),
        ("text.npy", b"hello, this is text".to_vec(), "NUMPY"),
        ("whole.npy", npy("<i4", 2, 2, &[0; 16]), "the type"),
        ("columns.npy", fortran, "column-major"),
        ("packed.npz", b"PK".to_vec(), "range by range"),
        ("table.csv", b"1,2".to_vec(), "extension"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let message = ShardedFeatures::open(&[&good, &path]).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(word), "{message}");
    }
    let missing = ShardedFeatures::open(&[&good, &folder.path().join("no.npy")]).unwrap_err();
    assert!(missing.to_string().contains("no.npy"), "{missing}");
    let twice = ShardedFeatures::open(&[&good, &good]).unwrap_err().to_string();
    assert!(twice.contains("good.npy") && twice.contains("twice"), "{twice}");
    assert!(ShardedFeatures::open::<PathBuf>(&[]).is_err());
}

#[test]
fn numbers_that_are_not_finite_are_named_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.npy"), folder.path().join("bad.npy"));
    fs::write(&good, npy("<f4", 300, 2, &le(&numbers(300, 2)))).unwrap();
    for (value, text) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let mut rows = numbers(600, 2);
        rows[500 * 2 + 1] = value;
        rows[510 * 2] = value;
        fs::write(&bad, npy("<f4", 600, 2, &le(&rows))).unwrap();
        let items = ShardedFeatures::open(&[&good, &bad]).unwrap();
        let message = items.check().unwrap_err().to_string();
        assert!(message.contains("bad.npy"), "{message}");
        assert!(message.contains(&format!("{text} in row 500, column 1")), "{message}");
        items.read(0..800, &mut Vec::new()).unwrap();
    }
    fs::write(&bad, npy("<f8", 1, 2, &[1e300_f64.to_le_bytes(); 2].concat())).unwrap();
    let items = ShardedFeatures::open(&[&good, &bad]).unwrap();
    let message = items.check().unwrap_err().to_string();
    assert!(message.contains("range of f32") && message.contains("row 0, column 0"), "{message}");
    fs::write(&bad, npy("<f4", 1, 2, &le(&[0.0, -0.0]))).unwrap();
    let items = ShardedFeatures::open(&[&good, &bad]).unwrap();
    let message = items.check().unwrap_err().to_string();
    assert!(message.contains("row 0 of") && message.contains("bad.npy"), "{message}");
}

#[test]
fn ids_come_from_one_file_or_from_one_for_each_shard() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let shards = ["a.npy", "b.npy"].map(|name| {
        let path = folder.path().join(name);
        fs::write(&path, npy("<f4", 2, 1, &le(&[1.0, 2.0]))).unwrap();
        path
    });
    let items = ShardedFeatures::open(&shards).unwrap();
    assert!(!items.has_given_ids());
    assert_eq!((items.id(3), items.index_of("2")), ("3", Some(2)));

    let whole = items.clone().with_ids(put("ids.txt", "w\nx\ny\nz\n")).unwrap();
    let (a, b) = (put("a.txt", "w\nx\n"), put("b.txt", "\u{feff}y\r\nz\r\n"));
    let parts = items.clone().with_id_files(&[&a, &b]).unwrap();
    assert_eq!(parts.ids(), whole.ids());
    assert!(parts.has_given_ids() && parts.in_memory().unwrap().has_given_ids());

    let message = |paths: &[PathBuf]| {
        let error = items.clone().with_id_files(paths).unwrap_err();
        assert!(matches!(error, Error::Ids(_)), "{error}");
        error.to_string()
    };
    assert!(message(std::slice::from_ref(&a)).contains("one for each of 2 shards"));
    let text = message(&[a.clone(), put("c.txt", "y\nx\n")]);
    assert!(text.contains("\"x\" in line 2 of"), "{text}");
    assert!(text.contains("a.txt and in line 2 of") && text.contains("c.txt"), "{text}");
    let text = message(&[a.clone(), put("c.txt", "y\n")]);
    assert!(
        text.contains("c.txt") && text.contains("2 rows of") && text.contains("1 ids"),
        "{text}"
    );
    let text = message(&[a, put("c.txt", "y\n\n")]);
    assert!(text.contains("c.txt: line 2"), "{text}");
    assert!(items.clone().with_ids(put("ids.txt", "w\nx\n")).is_err());
}

#[test]
fn folders_and_lists_name_shards() {
    let folder = tempfile::tempdir().unwrap();
    let message = ShardedFeatures::open_folder(folder.path()).unwrap_err().to_string();
    assert!(message.contains("features-00000-of-00008.npy"), "{message}");
    for (name, value) in [("features-1-of-2.npy", 2.0), ("features-0-of-2.npy", 1.0)] {
        fs::write(folder.path().join(name), npy("<f4", 1, 1, &le(&[value]))).unwrap();
    }
    let items = ShardedFeatures::open_folder(folder.path()).unwrap().in_memory().unwrap();
    assert_eq!(items.as_slice(), [1.0, 2.0]);
    let list = folder.path().join("list.txt");
    fs::write(&list, "features-1-of-2.npy\n\nfeatures-0-of-2.npy\r\n").unwrap();
    let items = ShardedFeatures::open_list(&list).unwrap().in_memory().unwrap();
    assert_eq!(items.as_slice(), [2.0, 1.0]);
    fs::write(&list, "\n").unwrap();
    assert!(matches!(ShardedFeatures::open_list(&list), Err(Error::Features(_))));
    fs::write(&list, b"\xff").unwrap();
    assert!(matches!(ShardedFeatures::open_list(&list), Err(Error::Features(_))));
    assert!(matches!(ShardedFeatures::open_list("no/such/list"), Err(Error::Io { .. })));
}
