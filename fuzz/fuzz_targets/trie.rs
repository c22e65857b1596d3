//! The on-disk trie: any byte string is refused with an error, or is a trie that can be walked.
//!
//! `cargo +nightly fuzz run trie corpus/trie seeds/trie -- -rss_limit_mb=2048 -max_len=4096`
#![no_main]

use cart_retrieval::expert::Trie;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fn walk(trie: &Trie) {
    let mut open = vec![trie.root()];
    let mut leaves = 0;
    while let Some(node) = open.pop() {
        assert!(node.count() > 0);
        assert_eq!(trie.items(node).len(), node.count());
        if node.depth() == trie.levels() {
            leaves += 1;
            let identifier = trie.identifier_of(trie.items(node)[0]).expect("an item of the trie");
            assert_eq!(trie.find(identifier.tokens()), Some(node));
        }
        let below: usize = trie.children(node).map(|(_, child)| child.count()).sum();
        assert!(node.depth() == trie.levels() || below == node.count());
        open.extend(trie.children(node).map(|(_, child)| child));
    }
    assert_eq!(leaves, trie.len());
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Trie::from_bytes(bytes).map(|trie| walk(&trie));
    // The checksum stops nearly everything: once more with the right one.
    let mut signed = bytes.to_vec();
    signed.extend(Sha256::digest(bytes));
    if let Ok(trie) = Trie::from_bytes(&signed) {
        walk(&trie);
        assert_eq!(Trie::from_bytes(&trie.to_bytes()).expect("its own bytes"), trie);
    }
});
