//! Writers that keep to a size, or find it out.

use std::io::{self, Write};

/// Writes to the end of a buffer that may have so many bytes and no more.
#[derive(Debug)]
pub(super) struct Limited<'a> {
    into: &'a mut Vec<u8>,
    most: usize,
}

impl<'a> Limited<'a> {
    pub(super) fn new(into: &'a mut Vec<u8>, most: usize) -> Self {
        Self { into, most }
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.most.saturating_sub(self.into.len()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.into.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what is written to it.
#[derive(Debug, Default)]
pub(super) struct Counted(usize);

impl Counted {
    pub(super) fn bytes(&self) -> usize {
        self.0
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
