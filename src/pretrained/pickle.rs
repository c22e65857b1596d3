//! A guard before the reader of files in the format of PyTorch.
//!
//! The reader of `burn-store` runs no code, but it copies an object for each reference to it: a
//! pickle of a few bytes can make it take forever (tracel-ai/burn#4965, #5074), and a deeply nested
//! one exhausts the stack. Here a pickle is gone through with the sizes of its objects in place of
//! the objects, and refused where reading it would take more than a file of tensors needs.

use std::collections::HashMap;

/// Most bytes of a pickle: a thousand times that of a model of a thousand tensors.
pub(super) const LONGEST: usize = 128 << 20;
/// Most objects that a pickle makes or copies for each of its bytes: a tensor takes about 50, and
/// more than 100 bytes.
const OBJECTS_A_BYTE: u64 = 4;
/// Objects that a short pickle may make all the same: some megabytes.
const FEW_OBJECTS: u64 = 1 << 14;
/// The deepest nesting. A file of tensors has about 8 levels.
const DEEPEST: u32 = 64;
/// Bytes of a text that count as an object.
const TEXT: u64 = 64;

/// An object on the stack: its size and the depth of its nesting.
#[derive(Debug, Clone, Copy)]
struct Object {
    objects: u64,
    depth: u32,
}

const LEAF: Object = Object { objects: 1, depth: 1 };

impl Object {
    fn text(length: usize) -> Self {
        Self { objects: 1 + length as u64 / TEXT, depth: 1 }
    }

    /// An object with this one in it.
    fn and(self, inner: Self) -> Self {
        Self {
            objects: self.objects.saturating_add(inner.objects),
            depth: self.depth.max(inner.depth + 1),
        }
    }
}

/// What was gone through.
struct Pickle<'a> {
    bytes: &'a [u8],
    stack: Vec<Object>,
    /// Where the stack ended at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Object>,
    /// Objects that were made or copied so far, and how many there may be.
    objects: u64,
    most: u64,
}

type Outcome<T> = std::result::Result<T, String>;

/// Goes through a pickle.
///
/// # Errors
/// Why it is not read: it is not a pickle, has an instruction or a class that a file of tensors
/// does not have, or would take too much time, memory or stack.
pub(super) fn check(bytes: &[u8]) -> Outcome<()> {
    if bytes.len() > LONGEST {
        return Err(format!("a list of tensors of {} bytes", bytes.len()));
    }
    let mut pickle = Pickle {
        bytes,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: 0,
        most: FEW_OBJECTS + OBJECTS_A_BYTE * bytes.len() as u64,
    };
    while pickle.step()? {}
    Ok(())
}

impl Pickle<'_> {
    fn take(&mut self, length: usize) -> Outcome<&[u8]> {
        let (taken, rest) =
            self.bytes.split_at_checked(length).ok_or("a pickle that ends early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Outcome<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn line(&mut self) -> Outcome<String> {
        let length = self.bytes.iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or("a pickle that ends early")? + 1)?;
        Ok(String::from_utf8_lossy(line).trim_end().to_string())
    }

    /// Counts objects that are made or copied.
    fn count(&mut self, objects: u64) -> Outcome<()> {
        self.objects = self.objects.saturating_add(objects);
        if self.objects > self.most {
            return Err(format!("a pickle that makes more than {} objects", self.most));
        }
        Ok(())
    }

    fn push(&mut self, object: Object) -> Outcome<()> {
        self.count(1)?;
        if object.depth > DEEPEST {
            return Err(format!("a pickle whose objects are nested more than {DEEPEST} deep"));
        }
        self.stack.push(object);
        Ok(())
    }

    fn pop(&mut self) -> Outcome<Object> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a pickle that takes from an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "a pickle that takes from an empty stack".into())
    }

    fn pop_to_mark(&mut self) -> Outcome<Vec<Object>> {
        let mark = self.marks.pop().ok_or("a pickle without the mark that it asks for")?;
        Ok(self.stack.split_off(mark))
    }

    /// Replaces the topmost objects by one that holds them.
    fn wrap(&mut self, number: usize) -> Outcome<()> {
        let mut whole = LEAF;
        for _ in 0..number {
            whole = whole.and(self.pop()?);
        }
        self.push(whole)
    }

    /// Puts objects into the one below them.
    fn put_into_top(&mut self, inner: &[Object]) -> Outcome<()> {
        let whole = self.pop()?;
        self.push(inner.iter().fold(whole, |whole, inner| whole.and(*inner)))
    }

    fn remember(&mut self, number: u32) -> Outcome<()> {
        let top = self.pop()?;
        self.stack.push(top);
        self.count(top.objects)?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Outcome<()> {
        let object = *self.memo.get(&number).ok_or("a pickle that refers to nothing")?;
        self.count(object.objects)?;
        self.push(object)
    }

    /// Follows one instruction; false at the last one.
    fn step(&mut self) -> Outcome<bool> {
        match self.byte()? {
            // The version.
            0x80 => {
                self.byte()?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                if !is_known(&module, &name) {
                    return Err(format!("an object of class {module}.{name}"));
                }
                self.push(LEAF)?;
            }
            b'N' | b')' | b']' | b'}' | 0x88 | 0x89 => self.push(LEAF)?,
            b'K' => self.leaf(1)?,
            b'M' => self.leaf(2)?,
            b'J' => self.leaf(4)?,
            b'G' => self.leaf(8)?,
            b'I' => {
                self.line()?;
                self.push(LEAF)?;
            }
            0x8a => {
                let length = self.byte()?;
                self.leaf(length.into())?;
            }
            b'U' => {
                let length = self.byte()?;
                self.text(length.into())?;
            }
            b'X' => {
                let length = self.number()?;
                self.text(length as usize)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b't' | b'l' | b'd' => {
                let inner = self.pop_to_mark()?;
                self.push(inner.iter().fold(LEAF, |whole, inner| whole.and(*inner)))?;
            }
            0x85 => self.wrap(1)?,
            0x86 => self.wrap(2)?,
            0x87 => self.wrap(3)?,
            b'a' => {
                let inner = self.pop()?;
                self.put_into_top(&[inner])?;
            }
            b's' => {
                let inner = [self.pop()?, self.pop()?];
                self.put_into_top(&inner)?;
            }
            b'e' | b'u' => {
                let inner = self.pop_to_mark()?;
                // The reader takes them one by one from the front of a list.
                self.count((inner.len() as u64).pow(2) / 64)?;
                self.put_into_top(&inner)?;
            }
            b'q' => {
                let number = self.byte()?;
                self.remember(number.into())?;
            }
            b'r' => {
                let number = self.number()?;
                self.remember(number)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let number = self.byte()?;
                self.recall(number.into())?;
            }
            b'j' => {
                let number = self.number()?;
                self.recall(number)?;
            }
            // A part of the file.
            b'Q' => self.wrap(1)?,
            // A call, an object of a class, its state: the reader copies what they are made from.
            b'R' | 0x81 | b'b' => {
                self.wrap(2)?;
                let whole = self.stack.last().map_or(0, |whole| whole.objects);
                self.count(whole.saturating_mul(2))?;
            }
            b'.' => return Ok(false),
            other => return Err(format!("a pickle with the instruction {other:#04x}")),
        }
        Ok(true)
    }

    fn leaf(&mut self, length: usize) -> Outcome<()> {
        self.take(length)?;
        self.push(LEAF)
    }

    fn text(&mut self, length: usize) -> Outcome<()> {
        self.take(length)?;
        self.push(Object::text(length))
    }
}

/// The classes that PyTorch writes for tensors.
fn is_known(module: &str, name: &str) -> bool {
    match module {
        "collections" => name == "OrderedDict",
        "torch" => name.ends_with("Storage") || ["Size", "device"].contains(&name),
        "torch._utils" => name.starts_with("_rebuild_"),
        "torch._tensor" => name == "_rebuild_from_type_v2",
        "torch.nn.parameter" => ["Parameter", "Buffer"].contains(&name),
        "torch.serialization" => name == "_get_layout",
        "torch.storage" => ["TypedStorage", "UntypedStorage"].contains(&name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tensor "w" of the shape (2,), as PyTorch writes it.
    fn tensor() -> Vec<u8> {
        let mut bytes =
            b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02"
                .to_vec();
        bytes.extend(
            b"((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05",
        );
        bytes.extend(b"X\x03\x00\x00\x00cpuq\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01\x85q\x09\x89");
        bytes.extend(b"ccollections\nOrderedDict\nq\x0a)Rq\x0btq\x0cRq\x0ds.");
        bytes
    }

    /// A tuple of two references to the tuple before, `levels` times.
    fn bomb(levels: u8) -> Vec<u8> {
        let mut bytes = b"\x80\x02)q\x00".to_vec();
        for level in 0..levels {
            bytes.extend([b'h', level, b'h', level, 0x86, b'q', level + 1]);
        }
        bytes.push(b'.');
        bytes
    }

    fn refused(bytes: &[u8], words: &str) {
        let error = check(bytes).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn files_of_tensors_pass() {
        check(&tensor()).unwrap();
        check(&bomb(10)).unwrap();
    }

    #[test]
    fn pickles_that_grow_or_nest_without_end_are_refused() {
        assert_eq!(bomb(20).len(), 146);
        refused(&bomb(20), "more than");
        refused(&bomb(25), "more than");
        refused(&bomb(100), "more than");
        let nested = [&b"\x80\x02)"[..], &[0x85; 100_000], b"."].concat();
        refused(&nested, "nested");
        // A list that holds itself again and again, remembered each time.
        let mut grown = b"\x80\x02]q\x00".to_vec();
        for _ in 0..60 {
            grown.extend(b"h\x00aq\x00");
        }
        refused(&[&grown[..], b"."].concat(), "more than");
        let texts = [&b"\x80\x02X\x00\x00\x10\x00"[..], &vec![b'a'; 1 << 20], b"q\x00"].concat();
        let copies = b"h\x00".repeat(4000);
        refused(&[&texts[..], &copies, b"."].concat(), "more than");
        let pairs = [&b"\x80\x02}("[..], &b"U\x00N".repeat(40_000), b"u."].concat();
        refused(&pairs, "more than");
    }

    #[test]
    fn what_no_file_of_tensors_has_is_refused() {
        refused(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system");
        refused(b"\x80\x04\x8c\x01a.", "0x8c");
        refused(b"\x80\x02X\xff\xff\xff\xffa.", "ends early");
        refused(b"\x80\x02h\x05.", "refers to nothing");
        refused(b"\x80\x02t.", "mark");
        refused(b"\x80\x02)(\x86.", "empty stack");
        let whole = tensor();
        for length in 0..whole.len() {
            assert!(check(&whole[..length]).is_err(), "{length}");
        }
    }
}
