//! What a user can ask for as a device.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// A device, as named on a command line: `default`, `cpu`, `gpu`, `gpu:1`, or just `1`.
///
/// # Example
/// ```
/// use cart_retrieval::backend::DeviceChoice;
/// assert_eq!("gpu:1".parse::<DeviceChoice>()?, DeviceChoice::Gpu(1));
/// assert_eq!("1".parse::<DeviceChoice>()?, DeviceChoice::Gpu(1));
/// assert!("gpu:x".parse::<DeviceChoice>().is_err());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The backend's first GPU if it sees one, else the CPU.
    #[default]
    Default,
    /// The CPU; with wgpu, an adapter that computes on it.
    Cpu,
    /// The GPU with this index, counted from 0 in the backend's order.
    Gpu(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "default" => return Ok(Self::Default),
            "cpu" => return Ok(Self::Cpu),
            "gpu" => return Ok(Self::Gpu(0)),
            _ => {}
        }
        let index = text.strip_prefix("gpu:").unwrap_or(text);
        index.parse().map(Self::Gpu).map_err(|_| {
            Error::device("device")
                .expected("default, cpu, gpu, gpu:N or N")
                .found(format!("{text:?}"))
                .fix("use one of those; N counts the backend's GPUs from 0")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed_back() {
        for choice in [DeviceChoice::Default, DeviceChoice::Cpu, DeviceChoice::Gpu(3)] {
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
        }
        assert_eq!("gpu".parse::<DeviceChoice>().unwrap(), DeviceChoice::Gpu(0));
        for wrong in ["", "gpu:", "gpu:-1", "GPU", "cuda:0", "99999999999999999999"] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("gpu:N"), "{error}");
        }
    }
}
