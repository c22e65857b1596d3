//! How the devices of a training share its work.

/// Where the optimizer works when several devices train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// On the first device, which also keeps all moments.
    #[default]
    Main,
    /// Each parameter's gradients are added up, its moments kept and it is updated on one of the
    /// devices; less memory on each, more copying between them.
    Sharded,
}

/// How the devices of a training work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceGroup {
    /// Number of devices.
    pub(super) devices: usize,
    pub(super) placement: Placement,
    /// Whether each device has a training loop, an optimizer and a thread of its own.
    pub(super) distributed: bool,
}

impl DeviceGroup {
    /// One device.
    pub(super) fn alone() -> Self {
        Self { devices: 1, placement: Placement::Main, distributed: false }
    }
}
