//! A look at an `.npy` header before it is parsed.
//!
//! `npyz` parses headers that people made; it multiplies the dimensions without a check and
//! follows brackets to any depth. What arrives here may be any bytes, so headers that could not
//! describe a matrix are turned away first.

/// Brackets in each other: a dict, a list of fields, a field, its shape.
const DEPTH: usize = 4;

/// Whether the text is a plain dictionary whose dimensions multiply to less than 2^64; the error
/// says what is there instead.
pub(super) fn screen(text: &[u8]) -> Result<(), String> {
    let mut depth = 0usize;
    let mut quote = None;
    let mut number: Option<u64> = None;
    let mut product = 1u64;
    let overflow = || "dimensions whose product exceeds 64 bits".to_string();

    for &byte in text {
        if let Some(open) = quote {
            match byte {
                _ if byte == open => quote = None,
                b'\\' | b'\n' => return Err("an escape or a line break in a name".to_string()),
                _ => {}
            }
            continue;
        }
        if byte.is_ascii_digit() {
            let digit = u64::from(byte - b'0');
            let longer = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
            number = Some(longer.ok_or_else(overflow)?);
            continue;
        }
        if let Some(number) = number.take() {
            // A zero stays out: the parser multiplies the others all the same.
            product = product.checked_mul(number.max(1)).ok_or_else(overflow)?;
        }
        match byte {
            b'\'' | b'"' => quote = Some(byte),
            b'(' | b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH {
                    return Err(format!("brackets nested more than {DEPTH} deep"));
                }
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b' ' | b',' | b':' | b'\n' => {}
            // True and False, all that a header has besides names and numbers.
            b'T' | b'r' | b'u' | b'e' | b'F' | b'a' | b'l' | b's' => {}
            _ => return Err(format!("the byte 0x{byte:02x}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_what_numpy_writes() {
        for text in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (), }\n",
            "{'descr': [('a b', '<f4', (2, 3)), ('ü', '|O')], 'fortran_order': False, 'shape': (0,), }",
        ] {
            assert_eq!(screen(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_hurt_the_parser() {
        for (text, word) in [
            ("{'shape': (4294967296, 4294967296, 0)}", "64 bits"),
            ("{'shape': (99999999999999999999, 1)}", "64 bits"),
            ("{'shape': (0xffffffffffffffff, 2)}", "0x78"),
            ("{'shape': (1_000, 2)}", "0x5f"),
            ("{'shape': (-1, 2)}", "0x2d"),
            ("((((((1))))))", "nested"),
            ("{'a\\'b': 1}", "escape"),
        ] {
            let found = screen(text.as_bytes()).unwrap_err();
            assert!(found.contains(word), "{text}: {found}");
        }
    }
}
